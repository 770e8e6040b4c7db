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
	// ReportGate tells the cloud how the gate stands.
	ReportGate(ctx context.Context, open bool) error
	// ReportMetrics tells Device Defender what the report found, or nothing
	// where that is not wanted or too soon.
	ReportMetrics(ctx context.Context, r *device.Report) error
	// Next is what the cloud asks of the device next, nil if nothing. What is
	// malformed has been answered by then, and what is for others left alone.
	Next(ctx context.Context) (*Work, error)
	// Wanted receives when there may be something new for Next.
	Wanted() <-chan struct{}
	// Done is closed when the session is lost.
	Done() <-chan struct{}
	Close()
}

// ErrNotReady is wrapped by the error of a device that cannot even try to
// connect: no credential, no name.
var ErrNotReady = errors.New("not ready to connect")

// Agent vets a device, reports on it and does what the cloud asks for. All of
// it happens in one goroutine, since a TPM serves one caller at a time.
type Agent struct {
	// Vet vets every key now and makes the report, with the TPM's evidence. The
	// device's key is that of the credential given, "" for the one in use.
	Vet func(ctx context.Context, trigger device.Trigger, credential string) *device.Report
	// Connect makes a session, or gives up with an error that a person can act
	// on. It spaces its tries itself, but for [ErrNotReady].
	Connect func(context.Context) (Cloud, error)
	// Prepare comes before each Connect: it goes on with a rotation that was
	// interrupted, and makes the first credential where there is none and one can
	// be had; changed says that the device has another credential now. May be nil.
	Prepare func(context.Context) (changed bool, err error)
	// Rotate replaces the device's credential and answers w itself. The session
	// of before is over by then. nil: this device has no way to do so.
	Rotate func(ctx context.Context, w *Work) error
	// Local gives what there is to do without the cloud's asking, once each
	// time: the operator's word, a certificate close to its end. nil, and a nil
	// answer: nothing.
	Local func() *Work
	// Alive is called whenever the loop has come a step further.
	Alive func()

	Gate     *gate.Gate
	Spool    *durable.Spool
	StateDir string
	Every    time.Duration // between two self-checks; 0 means only once
	Log      *slog.Logger

	moved *moved // since the last look
}

const (
	deliverTimeout = time.Minute // for one report, from publication to acknowledgement
	redialPause    = time.Minute // at most, after ErrNotReady or a report that was not acknowledged
	drainPause     = time.Second // between two reports out of the spool
)

// Once vets the device, tells the cloud and leaves the gate decided. The error
// says why the gate is shut, or why the report could not be delivered.
func (a *Agent) Once(ctx context.Context) (*device.Report, error) {
	r := a.vet(ctx, a.bootTrigger())
	changed, err := a.prepare(ctx)
	if m := a.takeMoved(); m != nil {
		return m.report, m.err
	}
	if changed {
		r = a.vet(ctx, r.Trigger)
	}
	var cloud Cloud
	if err == nil {
		cloud, err = a.Connect(ctx)
	}
	if err != nil {
		return r, a.settle(r, a.Gate.Admit(ctx, offline{err}, r))
	}
	defer cloud.Close()
	return r, a.deliver(ctx, cloud, r)
}

func (a *Agent) prepare(ctx context.Context) (changed bool, err error) {
	if a.Prepare == nil {
		return false, nil
	}
	return a.Prepare(ctx)
}

// vet makes the report and sees to it that a power cut cannot lose the verdict.
// A verdict that does not pass shuts the gate here, whatever comes after.
func (a *Agent) vet(ctx context.Context, trigger device.Trigger) *device.Report {
	r := a.keep(ctx, trigger, "")
	_ = a.settle(r, a.Gate.Admit(ctx, offline{errors.New("not connected yet")}, r)) // delivering tells
	return r
}

// keep makes the report and puts it into the spool.
func (a *Agent) keep(ctx context.Context, trigger device.Trigger, credential string) *device.Report {
	r := a.Vet(ctx, trigger, credential)
	a.Log.Info("vetted", "verdict", r.Verdict(), "report", r.ID, "trigger", trigger, "keys", len(r.Keys), "gaps", len(r.Gaps))
	if err := a.Spool.Put(r.ID, fault(r), r.Encode()); err != nil {
		a.Log.Error("report cannot be kept until it is delivered", "error", err)
	}
	return r
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

// Move vets the device with another credential, which c is for the gate, and
// has the gate move to that on the acknowledged report. The error is that of
// [gate.Gate.Move].
func (a *Agent) Move(ctx context.Context, cloud Cloud, trigger device.Trigger, credential string, c gate.Credential) error {
	r := a.keep(ctx, trigger, credential)
	a.drain(ctx, cloud, r.ID)
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	err := a.Gate.Move(ctx, cloud, r, c)
	if errors.Is(err, gate.ErrNotAcknowledged) {
		return err // the gate stands on the report before
	}
	a.tell(ctx, cloud, r)
	a.moved = &moved{r, a.settle(r, err)}
	if !a.Gate.Open() && err == nil {
		a.moved.err = fmt.Errorf("agent: the verdict is %s: %w", r.Verdict(), gate.ErrShut)
	}
	return err
}

// moved is the report on which the gate moved, and why it is shut all the same.
type moved struct {
	report *device.Report
	err    error
}

func (a *Agent) takeMoved() *moved {
	m := a.moved
	a.moved = nil
	return m
}

// deliver sends what waits, oldest first so that the shadow ends with the
// newest, then r, and moves the gate.
func (a *Agent) deliver(ctx context.Context, cloud Cloud, r *device.Report) error {
	a.drain(ctx, cloud, r.ID)
	admitCtx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	err := a.Gate.Admit(admitCtx, cloud, r)
	acknowledged := !errors.Is(err, gate.ErrNotAcknowledged)
	err = a.settle(r, err)
	if err != nil {
		a.Log.Warn("gate", "open", a.Gate.Open(), "reason", err)
	} else {
		a.Log.Info("gate", "open", true)
	}
	if acknowledged {
		a.tell(admitCtx, cloud, r)
	}
	return err
}

// tell takes an acknowledged report out of the spool and tells the cloud what
// came of it.
func (a *Agent) tell(ctx context.Context, cloud Cloud, r *device.Report) {
	a.forget(r.ID)
	if err := cloud.ReportGate(ctx, a.Gate.Open()); err != nil {
		a.Log.Warn("the shadow does not show the gate", "error", err)
	}
	if err := cloud.ReportMetrics(ctx, r); err != nil {
		a.Log.Warn("Device Defender has not taken the metrics", "error", err)
	}
}

// drain delivers the reports that wait in the spool, apart from the one named.
func (a *Agent) drain(ctx context.Context, cloud Cloud, except string) {
	entries, err := a.Spool.List()
	if err != nil {
		a.Log.Error("spool cannot be read", "error", err)
		return
	}
	for _, e := range entries {
		if e.ID == except {
			continue
		}
		if err := a.drainOne(ctx, cloud, e); err != nil {
			a.Log.Warn("an earlier report waits on", "report", e.ID, "error", err)
			return
		}
		a.Log.Info("earlier report delivered", "report", e.ID)
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
	if err := cloud.Publish(ctx, old); err != nil {
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

// settle keeps the outcome of an admission and gives it back.
func (a *Agent) settle(r *device.Report, admission error) error {
	s := State{Report: r, Acknowledged: !errors.Is(admission, gate.ErrNotAcknowledged), GateOpen: a.Gate.Open()}
	if admission != nil {
		s.Reason = admission.Error()
	}
	if err := s.save(a.StateDir); err != nil {
		a.Log.Error("verdict cannot be kept", "error", err)
		if admission != nil {
			err = fmt.Errorf("%w; %w", admission, err)
		}
		return err
	}
	return admission
}

func (a *Agent) bootTrigger() device.Trigger {
	if _, err := LoadState(a.StateDir); errors.Is(err, ErrNoState) {
		return device.TriggerFirstBoot
	}
	return device.TriggerBoot
}

// offline is the publisher of a device without a connection.
type offline struct{ err error }

func (o offline) Publish(context.Context, *device.Report) error {
	return fmt.Errorf("agent: %w", o.err)
}

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
