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
	// PublishEarlier sends a report that is not the newest: the shadow, and what
	// else shows the device's state, stays with that.
	PublishEarlier(ctx context.Context, r *device.Report) error
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
	Every    time.Duration    // between two self-checks; 0 means only once
	Now      func() time.Time // the wall clock, which goes on while the machine sleeps; nil is time.Now
	Log      *slog.Logger

	moved *moved         // since the last look
	tried map[string]int // reports of the spool: how often they could not be delivered
}

const (
	deliverTimeout = time.Minute // for one report, from publication to acknowledgement
	tellTimeout    = 30 * time.Second
	redialPause    = time.Minute // at most, after ErrNotReady or a session that was lost over a report
	drainPause     = time.Second // between two reports out of the spool
	drainTries     = 3           // reports of the spool that may fail before the others wait, too
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
	return v.Report, a.deliver(ctx, cloud, v)
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
	return v
}

// maxProblems bounds the lines of the log for what did not pass.
const maxProblems = 100

// logProblems gives each finding that did not pass, and each gap that matters, a
// line of the log, the failing ones first.
func (a *Agent) logProblems(r *device.Report) {
	lines := 0
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
				log(level, "finding", "status", f.Status, "key", f.Key, "check", f.Check, "reason", f.ReasonCode, "why", f.Message)
			}
		}
	}
	for _, g := range r.Gaps {
		if !g.Minor {
			log(slog.LevelWarn, "could not be checked", "what", g.What, "why", g.Why)
		}
	}
	if lines > maxProblems {
		a.Log.Warn("there are more findings than the log shows: keyvet status has all of them", "more", lines-maxProblems)
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
	a.tell(ctx, cloud, v, o)
	a.drain(ctx, cloud, o)
	return o
}

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

// deliver sends v's report and moves the gate, and then sends what waits: a
// device that is well again opens its gate before it delivers its past.
func (a *Agent) deliver(ctx context.Context, cloud Cloud, v gate.Vetted) gate.Outcome {
	admitCtx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	o := a.admit(admitCtx, cloud, v)
	a.log(o)
	a.tell(ctx, cloud, v, o)
	a.drain(ctx, cloud, o)
	return o
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

// tell takes an acknowledged report out of the spool and tells the cloud what
// came of it. That the gate is shut, or stuck, counts as well where the report
// itself was refused.
func (a *Agent) tell(ctx context.Context, cloud Cloud, v gate.Vetted, o gate.Outcome) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	if o.Acknowledged {
		a.forget(v.Report.ID)
	}
	if lost(cloud) {
		return
	}
	if err := cloud.ReportGate(ctx, o.State); err != nil {
		a.Log.Warn("the shadow does not show the gate", "error", err)
	}
	if !o.Acknowledged {
		return
	}
	if err := cloud.ReportMetrics(ctx, v.Report); err != nil {
		a.Log.Warn("Device Defender has not taken the metrics", "error", err)
	}
}

func lost(cloud Cloud) bool {
	select {
	case <-cloud.Done():
		return true
	default:
		return false
	}
}

// drain delivers the reports that wait in the spool, oldest first, once the cloud
// has acknowledged the newest. One that is refused keeps no other back.
func (a *Agent) drain(ctx context.Context, cloud Cloud, newest gate.Outcome) {
	if !newest.Acknowledged || lost(cloud) {
		return
	}
	entries, err := a.Spool.List()
	if err != nil {
		a.Log.Error("spool cannot be read", "error", err)
		return
	}
	slices.SortStableFunc(entries, func(x, y durable.Entry) int { return a.tried[x.ID] - a.tried[y.ID] })
	failed := 0
	for _, e := range entries {
		if err := a.drainOne(ctx, cloud, e); err != nil {
			a.Log.Warn("an earlier report still waits", "report", e.ID, "error", err)
			if a.tried == nil {
				a.tried = make(map[string]int)
			}
			a.tried[e.ID]++
			if failed++; failed == drainTries || lost(cloud) || ctx.Err() != nil {
				return
			}
		} else {
			a.Log.Info("earlier report delivered", "report", e.ID)
			delete(a.tried, e.ID)
		}
		a.alive()
		pause(ctx, drainPause)
	}
}

func (a *Agent) drainOne(ctx context.Context, cloud Cloud, e durable.Entry) error {
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	b, err := a.Spool.Read(e)
	if err != nil {
		return err
	}
	old := new(device.Report)
	if err := old.UnmarshalJSON(b); err != nil {
		a.Log.Error("a report in the spool is damaged and is dropped", "report", e.ID, "error", err)
		return a.Spool.Remove(e)
	}
	if err := cloud.PublishEarlier(ctx, old); err != nil {
		return err
	}
	return a.Spool.Remove(e)
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
}

func (a *Agent) bootTrigger() device.Trigger {
	if _, err := LoadState(a.StateDir); errors.Is(err, ErrNoState) {
		return device.TriggerFirstBoot
	}
	return device.TriggerBoot
}

// now is the wall clock's time. Unlike a timer's, it goes on in suspend.
func (a *Agent) now() time.Time {
	if a.Now == nil {
		return time.Now().Round(0)
	}
	return a.Now().Round(0)
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
