package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// Answer tells the cloud how the device stands to what was asked. Details are few
// and short (step, reasonCode, reportId). An error says that the cloud does not
// want it any more, or could not be told.
type Answer func(ctx context.Context, state device.JobState, details map[string]string) error

// Work is one thing that is asked of the device.
type Work struct {
	Operation, ID string // what name it in the log
	// EndsSession says that the session is to be over before Do begins: there is
	// one at a time, and Do needs its own.
	EndsSession bool
	// Do carries it out, and answers whoever asked.
	Do func(context.Context, Actions) error
}

// Actions are what work can have the agent and its device do.
type Actions interface {
	// Check vets the device and reports on it; id is the work's.
	Check(ctx context.Context, id string, answer Answer) error
	// Rotate is the [Device]'s: for work that ends the session.
	Rotate(context.Context, Rotation) error
}

// Rotation is a rotation that is asked for.
type Rotation struct {
	Trigger device.Trigger
	Job     device.Job // the zero value if no job asks
	Key     string     // the algorithm; "" for the configured one
}

// carryOut does one piece of work. It reports whether the session is still good
// for the next.
func (l *loop) carryOut(ctx context.Context, w *Work) bool {
	l.Log.Info("asked for", "operation", w.Operation, "id", w.ID)
	if w.EndsSession {
		l.carryOutAlone(ctx, w)
		return false
	}
	err := w.Do(ctx, l)
	l.alive()
	if err != nil {
		l.Log.Warn("not done", "operation", w.Operation, "id", w.ID, "error", err)
	}
	if lost(l.cloud) { // the next one may be asked for it at once
		l.connectionLost()
		return false
	}
	l.finish(w, err)
	return !l.stuck()
}

// carryOutAlone gives the session up first. If the work left the gate shut, the
// device vets itself again, which may open it.
func (l *loop) carryOutAlone(ctx context.Context, w *Work) {
	l.disconnect()
	err := w.Do(ctx, l)
	if err != nil {
		l.Log.Warn("not done", "operation", w.Operation, "id", w.ID, "error", err)
	}
	l.finish(w, err)
	l.alive()
	if m := l.takeMoved(); m != nil {
		l.take(m.vetted, m.outcome)
	}
	if l.Gate.State() != gate.Open && l.newest.vetted.Report.Verdict().Opens() {
		l.vetNow(ctx, device.TriggerJob)
	}
}

// finish forgets work that is done, and lets wait what is not.
func (l *loop) finish(w *Work, err error) {
	if err == nil {
		delete(l.open, w.ID)
		return
	}
	l.open.failed(w.ID)
}

// Rotate implements [Actions].
func (l *loop) Rotate(ctx context.Context, r Rotation) error { return l.Device.Rotate(ctx, r) }

// notAcknowledged answers a check whose report the cloud has not acknowledged.
var notAcknowledged = device.Reason{
	Code:  "KEYVET_REPORT_NOT_ACKNOWLEDGED",
	Means: "AWS IoT has not acknowledged the report of the check in three tries. The job is FAILED; the device keeps trying to deliver the report.",
	Do:    "See that the policy of the device allows the topic of reports, and that the rules behind it work.",
}

// checkTries is how often the report of a check is sent before the job fails.
// The report itself is tried on.
const checkTries = 3

// maxLost is how many sessions in a row may be lost over the report of a check.
// A policy that does not allow the report topic has AWS IoT cut each session.
const maxLost = 2

// Check implements [Actions]. The job succeeds once the report is acknowledged,
// whatever the report says. It is asked for again until then: the loop does what
// else is asked for between two tries.
func (l *loop) Check(ctx context.Context, id string, answer Answer) error {
	a := l.open.of(id)
	if a.lost >= maxLost {
		return answer(ctx, device.JobFailed, map[string]string{"step": "report", "reasonCode": string(notAcknowledged.Code)})
	}
	if a.reports == 0 {
		if err := answer(ctx, device.JobInProgress, map[string]string{"step": "check"}); err != nil {
			return err
		}
		l.vetNow(ctx, device.TriggerJob)
	}
	if !l.newest.acknowledged {
		a.reports++
		l.deliverNow(ctx)
	}
	r := l.newest.vetted.Report
	details := map[string]string{"reportId": r.ID, "verdict": r.Verdict().String(), "gate": l.Gate.State().String()}
	if !l.newest.acknowledged {
		if lost(l.cloud) { // the next session is asked for it again
			a.reports = 0
			a.lost++
			return errors.New("the session was lost over the report")
		}
		if a.reports < checkTries && ctx.Err() == nil && !l.stuck() {
			return errors.New("the report is not acknowledged yet")
		}
		details["step"], details["reasonCode"] = "report", string(notAcknowledged.Code)
		return answer(ctx, device.JobFailed, details)
	}
	details["step"] = "reported"
	if codes := r.ReasonCodes(); len(codes) > 0 {
		details["reasonCode"] = join(codes)
	}
	if err := answer(ctx, device.JobSucceeded, details); err != nil {
		return fmt.Errorf("checked, but the job is not answered: %w", err)
	}
	return nil
}

// join gives as many codes as a job's status detail takes (1,024 bytes).
func join(codes []device.ReasonCode) string {
	var b strings.Builder
	for i, c := range codes {
		if b.Len()+len(c)+1 > 1000 {
			b.WriteString(",…")
			break
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(c))
	}
	return b.String()
}
