package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
)

// onceAttempts is how often run -once tries every endpoint. The first refusal
// is normal under just-in-time registration.
const onceAttempts = 3

// stepTimeout bounds one step of a connection: reaching the endpoint, the TLS
// handshake, each answer.
const stepTimeout = 10 * time.Second

func runCommand(ctx context.Context, s streams, args []string) int {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	configPath := fs.String("config", "", "")
	once := fs.Bool("once", false, "")
	rest, status, ok := s.parse(fs, args)
	if !ok {
		return status
	}
	if len(rest) > 0 {
		return s.usageError("run takes no arguments", "run")
	}
	cfg, err := config.Load(*configPath)
	s.clear(cfg, *configPath)
	if err == nil {
		err = cfg.ReadyToRun()
	}
	if err != nil {
		s.fail(err)
		return exitUsage
	}
	if err := s.owned(cfg, append([]string{"keyvet", "run"}, args...)...); err != nil {
		s.fail(err)
		return exitUsage
	}
	unlock, err := lock(cfg.StateDir)
	if err != nil {
		s.fail(err)
		return exitUndecided
	}
	defer unlock()

	by := "keyvet run"
	if *once {
		by = byOnce
	}
	g, release, err := newGate(cfg, by)
	if err != nil {
		s.fail(err)
		return exitUndecided
	}
	defer release()

	d := &deviceRun{streams: s, cfg: cfg, log: newLog(s, cfg), once: *once, attempts: 1}
	if *once {
		d.attempts = onceAttempts
	}
	if err := d.start(g); err != nil {
		s.fail(err)
		return exitUndecided
	}
	if !*once {
		d.agent.Alive = notifySystemd(ctx, d.log)
		if err := d.agent.Run(ctx); errors.Is(err, agent.ErrStuck) || ctx.Err() == nil {
			s.fail(err)
			return exitUndecided
		}
		return exitPass
	}
	r, o := d.agent.Once(ctx)
	if err := s.table(r); err != nil {
		s.fail(fmt.Errorf("write the result: %w", err))
	}
	s.gaps(r)
	s.outcome(o)
	switch {
	case o.State == gate.Open:
		fmt.Fprintf(s.err, "keyvet: gate open: %s\n", gate.Path(cfg.RunDir))
		return exitPass
	case r.Verdict() == device.Fail:
		return exitFail
	}
	return exitUndecided
}

// byOnce is what the mark of a gate says that nobody holds: run -once has ended
// by the time that others read it.
const byOnce = "keyvet run -once"

// outcome says why the gate is not open, and what was not delivered: a line each.
func (s streams) outcome(o gate.Outcome) {
	if o.State != gate.Open {
		line := "gate is " + o.State.String()
		if o.Refusal != "" {
			line += ": " + o.Refusal
		}
		s.fail(errors.New(line))
	}
	if o.Undelivered != nil {
		s.fail(fmt.Errorf("the report is not acknowledged: %w", o.Undelivered))
	}
	if o.Trouble != nil {
		s.fail(o.Trouble)
	}
}

// clear removes the mark that an earlier keyvet left, before anything can fail,
// unless another one holds the directory. cfg may be that of an error.
func (s streams) clear(cfg *config.Config, configPath string) {
	dir := config.RunDirOf(configPath)
	if cfg != nil {
		dir = cfg.RunDir
	}
	if err := gate.Clear(dir, durable.Disk{}); err != nil {
		s.fail(err)
	}
}

// newGate holds the run directory, if nobody else does, and makes the shut gate.
// A directory that cannot be held lets no gate open until it can; but the device
// is vetted, and its report goes out.
func newGate(cfg *config.Config, by string) (g *gate.Gate, release func(), err error) {
	var letGo func() // nil: not held yet
	hold := func() (err error) {
		if letGo == nil {
			letGo, err = gate.Hold(cfg.RunDir)
		}
		return err
	}
	if err := hold(); errors.Is(err, gate.ErrHeld) {
		return nil, nil, err
	}
	g, _ = gate.New(cfg.RunDir, durable.Disk{}) // the gate's own state says what could not be removed
	g.Policy, g.By, g.BootID, g.Ready = cfg.Gate.Open, by, gate.BootID(), hold
	return g, func() {
		if letGo != nil {
			letGo()
		}
	}, nil
}

// errLocked says that the service runs.
var errLocked = errors.New("another keyvet runs")

// lock keeps a second keyvet off the state directory.
func lock(dir string) (unlock func(), err error) {
	if err := durable.Dir(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w on %s: %w", errLocked, dir, err)
	}
	return func() { f.Close() }, nil
}

func newLog(s streams, c *config.Config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
		level = slog.LevelInfo // validate has let the four words through
	}
	return slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: level}))
}

// deviceRun is one run of the agent on this device.
type deviceRun struct {
	streams
	cfg      *config.Config
	log      *slog.Logger
	attempts int
	once     bool

	store  *identity.Store
	engine *rotate.Engine
	agent  *agent.Agent

	credential    credential
	credentialErr error  // why there is none
	thing         string // "" until a vet has found it out
	thingErr      error

	resumed   time.Time // when a rotation that waits was last gone on with
	scheduled time.Time // before then no rotation by schedule

	dialer      *mqtt.Dialer // nil before the first connection
	claimDialer *mqtt.Dialer // the same
	dialled     time.Time    // when a session as the thing was last asked for
	pace        awsiot.Pace
	aside       map[string]time.Time // ids of jobs that are not to be looked at again before

	provisioning trouble   // of the claim's
	listening    listening // to challenges
	desired      time.Time // when the last check that the shadow desired began
	signed       signed    // the last report with evidence
}

// start loads the credential in use and makes the agent with its shut gate.
func (d *deviceRun) start(g *gate.Gate) error {
	if d.cfg.TPM.Address != "" {
		tpm.AssumeLeftovers(d.cfg.TPM.Address)
	}
	d.store = &identity.Store{Dir: d.cfg.StateDir}
	if err := d.store.Recover(); err != nil {
		return err
	}
	d.credential, d.credentialErr = d.readCredential()
	d.agent = &agent.Agent{
		Device: runDevice{d}, Gate: g, StateDir: d.cfg.StateDir,
		Every: d.cfg.Schedule.Every.Duration, Log: d.log, Spool: &durable.Spool{Dir: filepath.Join(d.cfg.StateDir, "spool")},
	}
	d.engine = d.newEngine()
	return nil
}

// runDevice is what the agent looks after.
type runDevice struct{ d *deviceRun }

func (r runDevice) Vet(ctx context.Context, trigger device.Trigger, id string) gate.Vetted {
	return r.d.vet(ctx, trigger, id)
}
func (r runDevice) Connect(ctx context.Context) (agent.Cloud, error)   { return r.d.connect(ctx) }
func (r runDevice) Prepare(ctx context.Context) (bool, error)          { return r.d.prepare(ctx) }
func (r runDevice) Rotate(ctx context.Context, w agent.Rotation) error { return r.d.rotate(ctx, w) }
func (r runDevice) Local() *agent.Work                                 { return r.d.localWork() }

func (d *deviceRun) readCredential() (credential, error) {
	certificate, key := d.cfg.CredentialFiles()
	return readCredential(d.cfg, certificate, key)
}

// load takes up the credential in use if it is another one by now. Nothing opens
// before that until it was vetted.
func (d *deviceRun) load() {
	read, err := d.readCredential()
	if !read.same(&d.credential) || (err == nil) != (d.credentialErr == nil) {
		d.credential, d.credentialErr = read, err
	}
}

// vet makes the report, with the thing's name and the TPM's evidence, on the
// credential of an id; "" is the one in use.
func (d *deviceRun) vet(ctx context.Context, trigger device.Trigger, id string) gate.Vetted {
	if id != "" {
		d.credential, d.credentialErr = d.credentialOf(id)
	} else {
		d.credential, d.credentialErr = d.readCredential()
	}
	v := &vetter{cfg: d.cfg, stdin: strings.NewReader(""), tell: d.progress, prepare: d.prepareTPM, credential: &d.credential}
	defer debug.FreeOSMemory() // the next vet is a day away
	r, inv, t := v.vet(ctx, trigger)
	if t != nil {
		defer t.Close()
	}
	d.thing, d.thingErr = d.thingName(inv)
	r.ThingName = d.thing
	if d.credentialErr == nil {
		r.Credential = device.RoleDevice
	}
	if _, err := d.engine.Journal.Load(); err != nil { // nothing is rotated until somebody has looked
		d.log.Error("journal of rotations", "error", err)
		r.Gaps = append(r.Gaps, device.Gap{What: "rotation journal", Why: err.Error(), Minor: true})
	}
	if device.ClockBehind(r.Time) {
		d.log.Warn("the clock is behind: it shows a time before this program was made; certificates cannot be judged until it is set", "time", r.Time)
	}
	if t != nil && inv.TPM.State == device.TPMOK {
		d.attest(t, r)
	}
	return gate.Vetted{Report: r, Credential: d.credential.guarded()}
}

// thingName is the thing's name, as the configuration says to find it.
func (d *deviceRun) thingName(inv device.Inventory) (string, error) {
	name := d.cfg.Thing.Name
	switch {
	case name == "cert:CN":
		if d.credential.Leaf == nil {
			return "", fmt.Errorf("thing.name = %q: %w", name, d.credentialErr)
		}
		name = d.credential.Leaf.Subject.CommonName
	case name == "ek:sha256":
		name = ""
		for _, k := range inv.Keys {
			if k.Role == device.RoleEK && name == "" {
				name = k.SPKISHA256()
			}
		}
		if name == "" {
			return "", errors.New(`thing.name = "ek:sha256": no endorsement key was read`)
		}
	case strings.HasPrefix(name, "file:"):
		b, err := durable.ReadBounded(strings.TrimPrefix(name, "file:"), 1<<10)
		if err != nil {
			return "", fmt.Errorf("thing.name: %w", err)
		}
		name = strings.TrimSpace(string(b))
	}
	return name, awsiot.CheckThingName(name)
}

// connect makes a session with AWS IoT by the credential in use.
func (d *deviceRun) connect(ctx context.Context) (agent.Cloud, error) {
	if err := errors.Join(d.credentialErr, d.thingErr); err != nil {
		return nil, notReady{err}
	}
	pair, err := d.credential.tested(d.cfg)
	if err == nil && d.dialer == nil {
		d.dialer, err = d.newDialer(pair, d.clientID(), !d.once)
	}
	if err != nil {
		return nil, notReady{err}
	}
	d.dialer.SetCertificate(pair)
	client, session, err := d.dial(ctx, d.dialer)
	if err != nil {
		return nil, err
	}
	return newCloud(d, client, session), nil
}

// dial makes a session with AWS IoT as the thing, and proves it.
func (d *deviceRun) dial(ctx context.Context, dialer *mqtt.Dialer) (*awsiot.Client, *mqtt.Session, error) {
	if err := d.space(ctx); err != nil {
		return nil, nil, err
	}
	var client *awsiot.Client
	session, err := dialer.Dial(ctx, func(ctx context.Context, s *mqtt.Session) (err error) {
		client, err = awsiot.New(s, d.thing, d.cfg.MQTT.ReportTopic)
		if err != nil {
			return err
		}
		return client.Probe(ctx)
	})
	d.dialled = time.Now()
	return client, session, err
}

// space keeps the spacing where another dialer made the last connection.
func (d *deviceRun) space(ctx context.Context) error {
	t := time.NewTimer(mqtt.ConnectSpacing - time.Since(d.dialled))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newDialer is a dialer that connects with pair.
func (d *deviceRun) newDialer(pair tls.Certificate, clientID string, persistent bool) (*mqtt.Dialer, error) {
	c := d.cfg.MQTT
	roots, err := mqttRoots(c.CAFile)
	if err != nil {
		return nil, err
	}
	return awsiot.NewDialer(mqtt.Config{
		Endpoints: c.Endpoints, ClientID: clientID, Certificate: pair, Roots: roots, Persistent: persistent,
		KeepAlive: c.KeepAlive.Duration, Timeout: stepTimeout, Attempts: d.attempts, Log: d.log,
	}, c.Pins)
}

// clientID is that of the thing.
func (d *deviceRun) clientID() string { return cmp.Or(d.cfg.MQTT.ClientID, d.thing) }

// notReady is why the device cannot even try to connect.
type notReady struct{ error }

func (e notReady) Is(target error) bool { return target == agent.ErrNotReady }
func (e notReady) Unwrap() error        { return e.error }

const maxCAFileBytes = 1 << 20

// mqttRoots are the certificates of the file; "" means the system's.
func mqttRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := durable.ReadBounded(file, maxCAFileBytes)
	if err != nil {
		return nil, fmt.Errorf("mqtt.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("mqtt.ca_file: %s holds no certificate in PEM", file)
	}
	return pool, nil
}

// certificateID is what AWS IoT calls a certificate: the lower-case hex
// SHA-256 of its DER.
func certificateID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}
