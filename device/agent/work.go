package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	if lost(l.cloud) {
		l.disconnect()
		return false
	}
	if l.stuck() {
		return false
	}
	if err != nil {
		l.pause(ctx, rand.N(redialPause)) // it may well be asked for again at once
	}
	return true
}

// carryOutAlone gives the session up first. If the work left the gate shut, the
// device vets itself again, which may open it.
func (l *loop) carryOutAlone(ctx context.Context, w *Work) {
	l.disconnect()
	err := w.Do(ctx, l)
	if err != nil {
		l.Log.Warn("not done", "operation", w.Operation, "id", w.ID, "error", err)
	}
	l.alive()
	if m := l.takeMoved(); m != nil {
		l.take(m.vetted, m.outcome)
	}
	switch {
	case l.Gate.State() != gate.Open && l.vetted.Report.Verdict().Opens():
		l.vetNow(ctx, device.TriggerJob) // the gate first
	case err != nil:
		l.pause(ctx, rand.N(redialPause)) // it may well be asked for again at once
	}
}

// Rotate implements [Actions].
func (l *loop) Rotate(ctx context.Context, r Rotation) error { return l.Device.Rotate(ctx, r) }

// notAcknowledged answers a check whose report the cloud has not acknowledged.
var notAcknowledged = device.Reason{
	Code:  "KEYVET_REPORT_NOT_ACKNOWLEDGED",
	Means: "AWS IoT has not acknowledged the report of the check in three tries. The job is FAILED; the device keeps trying to deliver the report.",
	Do:    "See that the policy of the device allows the topic of reports, and that the rules behind it work.",
}

// checkTries is how often the report of a check is sent before the job fails,
// and those behind it have their turn. The report itself is tried on.
const checkTries = 3

// lostCheck is the check over whose report sessions were lost, in a row.
type lostCheck struct {
	id    string
	times int
}

// maxLost is how often. A policy that does not allow the report topic has AWS
// IoT cut each session.
const maxLost = 2

// Check implements [Actions]. The job succeeds once the report is acknowledged,
// whatever the report says.
func (l *loop) Check(ctx context.Context, id string, answer Answer) error {
	if l.lost.id == id && l.lost.times >= maxLost {
		return answer(ctx, device.JobFailed, map[string]string{"step": "report", "reasonCode": string(notAcknowledged.Code)})
	}
	if err := answer(ctx, device.JobInProgress, map[string]string{"step": "check"}); err != nil {
		return err
	}
	l.vetNow(ctx, device.TriggerJob)
	for try := 1; !l.deliverNow(ctx) && try < checkTries; try++ {
		if lost(l.cloud) || ctx.Err() != nil || l.stuck() {
			break
		}
		l.pause(ctx, rand.N(redialPause))
	}
	r := l.vetted.Report
	details := map[string]string{"reportId": r.ID, "verdict": r.Verdict().String(), "gate": l.Gate.State().String()}
	if !l.acknowledged {
		if lost(l.cloud) { // the next session is asked for it again
			if l.lost.id != id {
				l.lost = lostCheck{id: id}
			}
			l.lost.times++
			return errors.New("the session was lost over the report")
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
