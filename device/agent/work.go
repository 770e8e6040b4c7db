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

// Operation is what is asked of a device.
type Operation string

const (
	OperationCheck  Operation = "keyvet.check"
	OperationRotate Operation = "keyvet.rotate"
	// OperationChallenge proves which TPM it is; only its own Do knows how.
	OperationChallenge Operation = "challenge"
)

// Outcome is how the device stands to what was asked; the names are those of
// AWS IoT Jobs.
type Outcome string

const (
	InProgress Outcome = "IN_PROGRESS"
	Succeeded  Outcome = "SUCCEEDED"
	Failed     Outcome = "FAILED"
	Rejected   Outcome = "REJECTED"
)

// Work is one thing that the cloud asks for.
type Work struct {
	Operation Operation
	ID        string // what names it in the log
	Job       string // the job's id; "" if it is none
	Execution int64  // of the job
	Key       string // OperationRotate: the kind of key; "" for the configured one
	// Answer tells the cloud. Details are few and short (step, reasonCode,
	// reportId). An error says that the cloud does not want it any more, or
	// could not be told.
	Answer func(ctx context.Context, o Outcome, details map[string]string) error
	// Do carries it out, where the agent has no more to do with it.
	Do func(context.Context) error
}

// ReasonNotSupported answers a rotation where the device has no way to one.
const ReasonNotSupported device.ReasonCode = device.ReasonKeyvetPrefix + "NOT_SUPPORTED"

// carryOut does one piece of work. It tells whether the session is still good
// for the next.
func (l *loop) carryOut(ctx context.Context, w *Work) bool {
	l.Log.Info("asked for", "operation", w.Operation, "id", w.ID)
	var err error
	switch {
	case w.Do != nil:
		err = w.Do(ctx)
	case w.Operation == OperationCheck:
		err = l.checkNow(ctx, w)
	case w.Operation == OperationRotate && l.Rotate != nil:
		return l.rotateNow(ctx, w)
	default:
		err = w.Answer(ctx, Rejected, map[string]string{"reasonCode": string(ReasonNotSupported)})
	}
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

// rotateNow gives the session up: there is one at a time, and the new
// credential needs its own. If the rotation left the gate shut, the device
// vets itself anew, which may open it.
func (l *loop) rotateNow(ctx context.Context, w *Work) bool {
	l.disconnect()
	err := l.Rotate(ctx, w)
	if err != nil {
		l.Log.Warn("not rotated", "id", w.ID, "error", err)
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
	return false
}

// ReasonNotAcknowledged answers a check whose report the cloud has not
// acknowledged.
const ReasonNotAcknowledged device.ReasonCode = device.ReasonKeyvetPrefix + "REPORT_NOT_ACKNOWLEDGED"

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

// checkNow vets the device because the cloud says so. The job succeeds once
// the report is acknowledged, whatever the report says.
func (l *loop) checkNow(ctx context.Context, w *Work) error {
	if l.lost.id == w.ID && l.lost.times >= maxLost {
		return w.Answer(ctx, Failed, map[string]string{"step": "report", "reasonCode": string(ReasonNotAcknowledged)})
	}
	if err := w.Answer(ctx, InProgress, map[string]string{"step": "check"}); err != nil {
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
			if l.lost.id != w.ID {
				l.lost = lostCheck{id: w.ID}
			}
			l.lost.times++
			return errors.New("the session was lost over the report")
		}
		details["step"], details["reasonCode"] = "report", string(ReasonNotAcknowledged)
		return w.Answer(ctx, Failed, details)
	}
	details["step"] = "reported"
	if codes := r.ReasonCodes(); len(codes) > 0 {
		details["reasonCode"] = join(codes)
	}
	if err := w.Answer(ctx, Succeeded, details); err != nil {
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
