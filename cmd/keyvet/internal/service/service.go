// Package service is `keyvet run` and `keyvet rotate`: it puts the agent, the
// vetter, the cloud and the rotations together, and decides nothing besides.
package service

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/cloud"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/machine"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/metrics"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/tpm"
)

// onceAttempts is how often a run that ends by itself tries every endpoint. The
// first refusal is normal under just-in-time registration.
const onceAttempts = 3

// Options are what the command line and the program say.
type Options struct {
	Config   config.Config
	Once     bool         // it ends by itself
	By       string       // what vouches for an open gate: "keyvet run"
	Agent    device.Agent // what makes the reports
	Log      *slog.Logger
	Progress func(what string) (done func()) // of what takes long; may be nil
	Alive    func()                          // called whenever it has come a step further; may be nil
	Watch    func(step string, back bool)    // called with each step of a rotation; may be nil
	Changes  *machine.Changes                // of clock and network; nil: the machine's own
	BootLog  *os.File                        // what the firmware measured, where the service manager has opened it
	// Network connects to an endpoint; nil: by TCP.
	Network func(ctx context.Context, network, address string) (net.Conn, error)
}

// Service is a device that is looked after.
type Service struct {
	agent       *agent.Agent
	credentials *credential.Store
	rotator     *rotator
	cloud       *cloud.Cloud
	metrics     *metrics.Textfile
	release     []func()
}

// ward is what the agent looks after, by its parts.
type ward struct {
	*vet.Vetter
	*cloud.Cloud
	*rotator
	*metrics.Textfile
}

var _ agent.Device = ward{}

// Start takes the state directory and the run directory for this process, with a
// shut gate. The error wraps [ErrLocked] or [gate.ErrHeld] where another keyvet
// has them.
func Start(o Options) (_ *Service, err error) {
	s := new(Service)
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	unlock, err := lock(o.Config.StateDir)
	if err != nil {
		return nil, err
	}
	s.release = append(s.release, unlock)
	g, release, err := newGate(o.Config, o.By)
	if err != nil {
		return nil, err
	}
	s.release = append(s.release, release)
	if err := s.compose(o, g); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Service) compose(o Options, g *gate.Gate) (err error) {
	c := o.Config
	if c.TPM.Address != "" {
		tpm.AssumeLeftovers(c.TPM.Address)
	}
	if s.credentials, err = credential.Open(c); err != nil {
		return err
	}
	s.agent = &agent.Agent{
		Alive: o.Alive, Gate: g, StateDir: c.StateDir, Every: c.Schedule.Every.Duration, Log: o.Log,
		Spool: &durable.Spool{Dir: filepath.Join(c.StateDir, "spool")},
	}
	check := vet.Check{Config: c, Agent: o.Agent, Progress: o.Progress}
	vetter := &vet.Vetter{Check: check, Credentials: s.credentials, Journal: journalOf(c), Log: o.Log, BootLog: o.BootLog}
	aws := &cloud.Cloud{
		Config: c, Credentials: s.credentials, Answerer: vetter, Gate: g, Mover: s.agent, Log: o.Log,
		Attempts: 1, Persistent: !o.Once, Network: o.Network,
	}
	s.metrics = &metrics.Textfile{Path: c.Metrics.Textfile, Agent: o.Agent, Log: o.Log}
	told := &machine.Told{Path: machine.ToldPath(c.StateDir)}
	if err := told.Load(); err != nil {
		o.Log.Warn("clock", "error", err)
	}
	aws.Answered = func(at time.Time) {
		if err := told.Take(at); err != nil {
			o.Log.Warn("clock", "error", err)
		}
	}
	s.watch(o, aws)
	engine := newEngine(c, s.credentials, vet.Key{Check: check}, o.Log)
	if o.Once {
		aws.Attempts, engine.Attempts = onceAttempts, onceAttempts-1
	}
	s.rotator = &rotator{config: c, credentials: s.credentials, gate: g, engine: engine, jobs: aws, log: o.Log}
	engine.Cloud, engine.Gate, engine.Watch = aws, s.rotator, o.Watch
	aws.Misnamed, vetter.Limit = s.rotator.misname, aws.ReportBytes
	s.cloud, s.agent.Device = aws, ward{vetter, aws, s.rotator, s.metrics}
	return nil
}

// watch hears of a clock that is set and of another address.
func (s *Service) watch(o Options, aws *cloud.Cloud) {
	if o.Changes == nil && !o.Once {
		s.agent.Elapsed = machine.Elapsed
		ctx, stop := context.WithCancel(context.Background())
		s.release = append(s.release, stop)
		changes, err := machine.Watch(ctx)
		if err != nil {
			o.Log.Warn("the service notices changes of the machine later", "error", err)
		}
		o.Changes = changes
	}
	if o.Changes != nil {
		s.agent.Set, aws.Changed = o.Changes.Clock, o.Changes.Dial
	}
}

// Run looks after the device until ctx ends, and returns with the gate shut; or
// with [agent.ErrStuck].
func (s *Service) Run(ctx context.Context) error {
	defer func() { s.metrics.Ended(s.agent.Gate.State()) }()
	cloud.Ahead(ctx, s.cloud)
	return s.agent.Run(ctx)
}

// Once vets the device, reports, and leaves the gate decided.
func (s *Service) Once(ctx context.Context) (*device.Report, gate.Outcome) {
	cloud.Ahead(ctx, s.cloud)
	return s.agent.Once(ctx)
}

// Rotated is what came of a rotation at the operator's word.
type Rotated struct {
	Err error // why the device is not rotated; nil: it is
	// What a self-check found that the gate needed after the rotation, and what
	// came of it; nil if it needed none.
	Report  *device.Report
	Outcome gate.Outcome
	// Trouble is why the gate, which nothing vouches for from here on, could not
	// be shut.
	Trouble error
}

// Rotate vets the device and, once its report is delivered, rotates.
func (s *Service) Rotate(ctx context.Context) (r Rotated) {
	defer func() { r.Trouble = s.agent.Gate.Shut() }()
	_, o := s.agent.Once(ctx)
	if _, err := s.credentials.Current(); err != nil || errors.Is(o.Undelivered, agent.ErrNotReady) {
		return Rotated{Err: cmp.Or(err, o.Undelivered)}
	}
	r.Err = s.rotator.Rotate(ctx, agent.Rotation{Trigger: device.TriggerManual})
	if s.agent.Gate.State() != gate.Open && ctx.Err() == nil {
		r.Report, r.Outcome = s.agent.Once(ctx)
	}
	return r
}

// Close lets others have the directories. It leaves the gate as it is.
func (s *Service) Close() {
	for i := len(s.release) - 1; i >= 0; i-- {
		s.release[i]()
	}
	s.release = nil
}
