package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/keyvet/keyvet/device"
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
	select {
	case <-l.cloud.Done():
		l.disconnect()
		return false
	default:
	}
	if !l.delivered {
		return false // deliver first, over this session or the next
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
		l.report, l.delivered = m.report, true
	}
	switch {
	case !l.Gate.Open() && l.report.Verdict().Opens():
		l.vetNow(ctx, device.TriggerJob) // the gate first
	case err != nil:
		l.pause(ctx, rand.N(redialPause)) // it may well be asked for again at once
	}
	return false
}

// checkNow vets the device because the cloud says so. The job succeeds once
// the report is acknowledged, whatever the report says.
func (l *loop) checkNow(ctx context.Context, w *Work) error {
	if err := w.Answer(ctx, InProgress, map[string]string{"step": "check"}); err != nil {
		return err
	}
	l.vetNow(ctx, device.TriggerJob)
	if !l.deliverNow(ctx) {
		return errors.New("the report is not acknowledged")
	}
	details := map[string]string{
		"step": "reported", "reportId": l.report.ID, "verdict": l.report.Verdict().String(), "gate": "shut",
	}
	if l.Gate.Open() {
		details["gate"] = "open"
	}
	if codes := l.report.ReasonCodes(); len(codes) > 0 {
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
