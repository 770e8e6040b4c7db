// Package agent is the loop of the device: vet every key, keep the verdict,
// tell the cloud, move the gate; at first boot, at every boot and on schedule.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
)

// Cloud is one session with AWS IoT, already proven by a round trip.
type Cloud interface {
	gate.Publisher
	// PublishEarlier sends a report that is not the newest, with its findings: the
	// shadow, and what else shows the device's state, stays with that.
	PublishEarlier(ctx context.Context, r *device.Report) error
	// PublishFindings sends the findings of the report for the account's rules.
	PublishFindings(ctx context.Context, r *device.Report) error
	// ReportGate tells the cloud how the gate stands.
	ReportGate(context.Context, gate.State) error
	// ReportMetrics tells Device Defender what the report found, or nothing
	// where that is not wanted or too soon.
	ReportMetrics(ctx context.Context, r *device.Report) error
	// Next is what the cloud asks of the device next, nil if nothing. What is
	// malformed has been answered by then, and what is for others left alone; work
	// whose id waits is passed over, and holds nothing back.
	Next(ctx context.Context, waits func(id string) bool) (*Work, error)
	// Wanted receives when there may be something new for Next.
	Wanted() <-chan struct{}
	// Done is closed when the session is lost.
	Done() <-chan struct{}
	// Lost is why, once it is.
	Lost() error
	Close()
}

// ErrNotReady is wrapped by the error of a device that cannot even try to
// connect: no credential, no name.
var ErrNotReady = errors.New("not ready to connect")

// NotReady is an error, in its own words, that wraps [ErrNotReady].
type NotReady struct{ Err error }

func (e NotReady) Error() string { return e.Err.Error() }

// Is implements the interface of [errors.Is].
func (e NotReady) Is(target error) bool { return target == ErrNotReady }

// Unwrap gives the cause.
func (e NotReady) Unwrap() error { return e.Err }

// ErrStuck ends an agent whose gate must be shut and cannot be. What supervises
// it has to remove the run directory.
var ErrStuck = errors.New("the gate must be shut and cannot be")

// Device is what an agent does all this to.
type Device interface {
	// Vet vets every key now and makes the report, with the TPM's evidence. The
	// device's key is that of the credential given, "" for the one in use.
	Vet(ctx context.Context, trigger device.Trigger, credential string) gate.Vetted
	// Connect makes a session, or gives up with an error that a person can act
	// on. It spaces its tries itself, but for [ErrNotReady].
	Connect(context.Context) (Cloud, error)
	// Prepare comes before each Connect: it resumes a rotation that was
	// interrupted, and makes the first credential where there is none and one can
	// be had; changed says that the device has another credential now.
	Prepare(context.Context) (changed bool, err error)
	// Rotate replaces the device's credential and answers the job itself. The
	// session of before is over by then.
	Rotate(context.Context, Rotation) error
	// Local gives what there is to do without the cloud's asking, once each
	// time: the operator's word, a certificate close to its end. nil: nothing.
	Local() *Work
	// Settled hears what came of a report, at once and as it changes.
	Settled(*device.Report, gate.Outcome)
	// Late returns a channel that is closed once something answers that the last
	// Vet missed: a TPM that comes late. nil: nothing of the kind is missing. It
	// looks until ctx ends.
	Late(ctx context.Context) <-chan struct{}
}

// Agent vets a device, reports on it and does what the cloud asks for. All of
// it happens in one goroutine, since a TPM serves one caller at a time.
type Agent struct {
	Device Device
	// Alive is called whenever the loop has come a step further; may be nil.
	Alive func()

	Gate     *gate.Gate
	Spool    *durable.Spool
	StateDir string
	Every    time.Duration // between two self-checks; 0 means only once
	Log      *slog.Logger
	Clock

	moved   *moved // since the last look
	backlog backlog
}

const (
	// Each step of a session has a limit of its own, by how slow the network is:
	// these bound what hangs.
	deliverTimeout = 10 * time.Minute // for one report, from publication to acknowledgement
	tellTimeout    = 5 * time.Minute

	redialPause = time.Minute // at most, after ErrNotReady or a session that was lost over a report
)

// Once vets the device, tells the cloud and leaves the gate decided.
func (a *Agent) Once(ctx context.Context) (*device.Report, gate.Outcome) {
	v, _ := a.vet(ctx, a.bootTrigger())
	changed, err := a.Device.Prepare(ctx)
	if m := a.takeMoved(); m != nil {
		return m.vetted.Report, m.outcome
	}
	if changed {
		v, _ = a.vet(ctx, v.Report.Trigger)
	}
	var cloud Cloud
	if err == nil {
		cloud, err = a.Device.Connect(ctx)
	}
	if err != nil {
		return v.Report, a.admit(ctx, offline{err}, v)
	}
	defer cloud.Close()
	o := a.deliver(ctx, cloud, v)
	(&words{}).owe(v, o).tell(ctx, a, cloud)
	if o.Acknowledged {
		a.backlog.failed, a.backlog.again = 0, time.Time{}
		for a.backlog.next(ctx, a, cloud) {
		}
	}
	return v.Report, o
}

var errNotYet = errors.New("not connected yet")

// vet makes the report and sees to it that a power cut cannot lose the verdict.
// A verdict that does not pass shuts the gate here, whatever comes after.
func (a *Agent) vet(ctx context.Context, trigger device.Trigger) (gate.Vetted, gate.Outcome) {
	v := a.keep(ctx, trigger, "")
	return v, a.admit(ctx, offline{errNotYet}, v)
}

// keep makes the report and puts it into the spool.
func (a *Agent) keep(ctx context.Context, trigger device.Trigger, credential string) gate.Vetted {
	v := a.Device.Vet(ctx, trigger, credential)
	r := v.Report
	a.Log.Info("vetted", "verdict", r.Verdict(), "report", r.ID, "trigger", trigger, "keys", len(r.Keys), "gaps", len(r.Gaps))
	a.logProblems(r)
	if err := a.Spool.Put(r.ID, fault(r), r.Encode()); err != nil {
		a.Log.Error("report cannot be kept until it is delivered", "error", err)
	}
	r.Folded = a.folded(r.ID)
	return v
}

// folded is how many reports on the same fault one of the spool stands for besides.
func (a *Agent) folded(id string) int {
	entries, err := a.Spool.List()
	if err != nil {
		return 0 // which Put has told of
	}
	for _, e := range entries {
		if e.ID == id {
			return e.Folded
		}
	}
	return 0
}

// maxProblems bounds the lines of the log for what did not pass.
const maxProblems = 100

// logProblems gives each finding that did not pass, and each gap that matters, a
// line of the log, the failing ones first.
func (a *Agent) logProblems(r *device.Report) {
	lines, places := 0, r.Places()
	log := func(level slog.Level, message string, attrs ...any) {
		if lines++; lines <= maxProblems {
			a.Log.Log(context.Background(), level, message, attrs...)
		}
	}
	for _, status := range []device.Status{device.Fail, device.Undecided, device.Warn} {
		level := slog.LevelWarn
		if status == device.Fail {
			level = slog.LevelError
		}
		for _, f := range r.Findings {
			if f.Counts() == status {
				var place slog.Attr // which is left out
				if places[f.Key] != "" {
					place = slog.String("place", places[f.Key])
				}
				log(level, "finding", "status", f.Status, "key", f.Key, "check", f.Check, "reason", f.ReasonCode, "why", f.Message, place)
			}
		}
	}
	for _, g := range r.Gaps {
		if !g.Minor {
			log(slog.LevelWarn, "could not be checked", "what", g.What, "why", g.Why)
		}
	}
	if lines > maxProblems {
		a.Log.Warn("there are more findings than the log shows: `keyvet status` has all of them", "more", lines-maxProblems)
	}
}

// fault is what r fails for, in the words of its reason codes; "" if it does not fail.
func fault(r *device.Report) string {
	if r.Verdict() != device.Fail {
		return ""
	}
	codes := r.ReasonCodes()
	slices.Sort(codes)
	return fmt.Sprint(device.Fail, codes)
}

// Move vets the device with another credential and has the gate move to that on
// the acknowledged report.
func (a *Agent) Move(ctx context.Context, cloud Cloud, trigger device.Trigger, credential string) gate.Outcome {
	v := a.keep(ctx, trigger, credential)
	moveCtx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	o := a.Gate.Move(moveCtx, cloud, v)
	a.log(o)
	if o.Moved { // else it stands on the report before
		a.settle(v, o)
		a.moved = &moved{v, o}
	}
	a.forgetDelivered(v, o)
	(&words{}).owe(v, o).tell(ctx, a, cloud)
	for n := 0; n < movePast && o.Acknowledged && a.backlog.next(ctx, a, cloud); n++ {
	}
	return o
}

// movePast bounds the earlier reports that are sent in the session of a rotation:
// a run that ends with it has no other.
const movePast = 8

// moved is the report on which the gate moved, and what came of it.
type moved struct {
	vetted  gate.Vetted
	outcome gate.Outcome
}

func (a *Agent) takeMoved() *moved {
	m := a.moved
	a.moved = nil
	return m
}

// deliver sends v's report and moves the gate: a device that is well again opens
// its gate before it delivers its past.
func (a *Agent) deliver(ctx context.Context, cloud Cloud, v gate.Vetted) gate.Outcome {
	admitCtx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	o := a.admit(admitCtx, cloud, v)
	a.log(o)
	a.forgetDelivered(v, o)
	return o
}

// forgetDelivered takes an acknowledged report out of the spool.
func (a *Agent) forgetDelivered(v gate.Vetted, o gate.Outcome) {
	if o.Acknowledged {
		a.forget(v.Report.ID)
	}
}

// log says how the gate stands, and each reason that there is.
func (a *Agent) log(o gate.Outcome) {
	attrs := []any{"state", o.State, "acknowledged", o.Acknowledged}
	if o.Refusal != "" {
		attrs = append(attrs, "reason", o.Refusal)
	}
	if o.Undelivered != nil {
		attrs = append(attrs, "undelivered", o.Undelivered)
	}
	level := slog.LevelInfo
	if o.State != gate.Open || !o.Acknowledged {
		level = slog.LevelWarn
	}
	if o.Trouble != nil {
		level, attrs = slog.LevelError, append(attrs, "trouble", o.Trouble)
	}
	a.Log.Log(context.Background(), level, "gate", attrs...)
}

func lost(cloud Cloud) bool {
	select {
	case <-cloud.Done():
		return true
	default:
		return false
	}
}

// forget takes the report out of the spool.
func (a *Agent) forget(id string) {
	entries, err := a.Spool.List()
	for _, e := range entries {
		if e.ID == id {
			err = errors.Join(err, a.Spool.Remove(e))
		}
	}
	if err != nil {
		a.Log.Error("an acknowledged report stays in the spool", "error", err)
	}
}

// admit has the gate admit a report, and keeps what came of it.
func (a *Agent) admit(ctx context.Context, p gate.Publisher, v gate.Vetted) gate.Outcome {
	o := a.Gate.Admit(ctx, p, v)
	a.settle(v, o)
	return o
}

// settle keeps what came of a report.
func (a *Agent) settle(v gate.Vetted, o gate.Outcome) {
	runDir, disk := a.Gate.Dir()
	if err := stateOf(v.Report, o).keep(a.StateDir, disk, runDir); err != nil {
		a.Log.Error("verdict cannot be kept", "error", err)
	}
	a.Device.Settled(v.Report, o)
}

func (a *Agent) bootTrigger() device.Trigger {
	if _, err := LoadState(a.StateDir); errors.Is(err, ErrNoState) {
		return device.TriggerFirstBoot
	}
	return device.TriggerBoot
}

// offline is the publisher of a device without a connection.
type offline struct{ err error }

func (o offline) Publish(context.Context, *device.Report) error { return o.err }

func (a *Agent) alive() {
	if a.Alive != nil {
		a.Alive()
	}
}

// jittered spreads a fleet that booted together: d, give or take a tenth.
func jittered(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
