package rotate

import (
	"context"
	"errors"

	"github.com/keyvet/keyvet/device"
)

// maxMoves is how often the report on the new key is tried, each time on a good
// session, before the rotation turns back.
const maxMoves = 12

// prove moves the gate and tells the job of the success, by the new credential.
func (w *worker) prove(ctx context.Context) error {
	r := w.state.Rotation
	err := w.ask(ctx, w.newcomer, ofGate, func(ctx context.Context, session Session) error {
		return session.MoveGate(ctx, r.order(), r.New.ID)
	})
	switch {
	case err == nil:
	case r.Final && errors.Is(err, ErrRejected): // the next self-check decides on the gate
		w.log().Error("the report on the new key does not pass", "error", err)
	case errors.Is(err, ErrRejected), refusedAtTry(err), errors.Is(err, ErrWaits), errors.Is(err, ErrKeyGone):
		return err
	case !r.Final && r.Attempts >= maxMoves: // a session each time, and never an acknowledgement
		return because(ReasonNotAcknowledged, "the report on the new key is not acknowledged: %s", err)
	default:
		return waiting("the gate does not move: %w", err)
	}
	if !r.Final {
		r.Final = true
		w.freeSpare()
		if err := w.save(); err != nil {
			r.Final = false
			return waiting("%w", err)
		}
	}
	if r.Job.ID == "" {
		return nil
	}
	return w.tellEnd(ctx, r.New.ID, device.JobSucceeded, w.success().details())
}

func refusedAtTry(err error) bool {
	var named *Error
	return errors.As(err, &named) && named.Reason == ReasonTryRefused
}
