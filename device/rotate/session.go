package rotate

import (
	"context"
	"errors"
	mathrand "math/rand/v2"
	"time"

	"github.com/keyvet/keyvet/device"
)

// session is the open session by a credential, or a new one. The error wraps
// ErrWaits, unless the key is gone.
func (w *worker) session(ctx context.Context, credential string) (Session, error) {
	if w.open != nil && w.who == credential {
		return w.open, nil
	}
	w.hangUp()
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	s, err := w.Cloud.Dial(dialCtx, credential)
	switch {
	case err == nil:
		w.open, w.who = s, credential
		return s, nil
	case ctx.Err() == nil && errors.Is(err, ErrKeyGone):
		reason := ReasonKeyGone
		if r := w.state.Rotation; r != nil && credential == r.Old.ID {
			reason = ReasonOldKeyGone
		}
		return nil, &Error{reason, err}
	}
	return nil, waiting("no session: %w", err)
}

func (w *worker) hangUp() {
	if w.open != nil {
		w.open.Close()
	}
	w.open, w.who = nil, ""
}

// asker is a session by the credential that asks for the new one.
func (w *worker) asker(ctx context.Context) (Session, error) {
	return w.session(ctx, w.state.Rotation.Old.ID)
}

// newcomer is a session by the new credential. If there is none although the
// old one, or the claim, makes one, it is the credential that is refused.
func (w *worker) newcomer(ctx context.Context) (Session, error) {
	r := w.state.Rotation
	for {
		session, err := w.session(ctx, r.New.ID)
		if err == nil {
			r.Refused = 0
		}
		if err == nil || r.Final || !errors.Is(err, ErrWaits) || ctx.Err() != nil {
			return session, err
		}
		if _, lineErr := w.asker(ctx); lineErr != nil {
			return nil, err
		}
		w.hangUp()
		if again, saveErr := w.again(ctx, &r.Refused); saveErr != nil {
			return nil, saveErr
		} else if !again {
			return nil, because(ReasonTryRefused, "no session by the new credential, although by the old one: %s", err)
		}
	}
}

// ask makes a call on a session, again if it fails without being refused. The
// error wraps ErrWaits if there is no connection.
func (w *worker) ask(ctx context.Context, session func(context.Context) (Session, error), names codes, call func(context.Context, Session) error) error {
	for {
		s, err := session(ctx)
		if err != nil {
			return err
		}
		callCtx, cancel := context.WithTimeout(ctx, names.within)
		err = call(callCtx, s)
		cancel()
		var named *Error
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return waiting("%w", ctx.Err())
		case errors.Is(err, ErrRejected), errors.Is(err, ErrJobEnded), errors.Is(err, ErrKeyGone), errors.As(err, &named):
			return names.reason(err)
		}
		w.hangUp()
		if again, saveErr := w.again(ctx, &w.state.Rotation.Attempts); saveErr != nil {
			return saveErr
		} else if !again {
			return names.reason(err)
		}
	}
}

// again counts what failed, and pauses if it is to be tried again. The count
// is in the journal: a device that is cut off each time comes to an end, too.
func (w *worker) again(ctx context.Context, count *int) (bool, error) {
	*count++
	if err := w.save(); err != nil {
		return false, err
	}
	if *count >= w.attempts() {
		return false, nil
	}
	d := min(maxPause, time.Second<<min(*count, 10)) // a new certificate takes some seconds to be known everywhere
	w.Clock.pause(ctx, d/2+mathrand.N(d/2))
	return true, nil
}

// tellStep tells the job how far it is. Only that the job has ended matters.
func (w *worker) tellStep(ctx context.Context, session Session) error {
	r := w.state.Rotation
	if r.Job.ID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	err := session.Tell(ctx, r.Job, device.JobInProgress, map[string]string{"step": r.Step})
	if errors.Is(err, ErrJobEnded) {
		return err
	}
	if err != nil {
		w.log().Warn("the job does not show the step", "step", r.Step, "error", err)
	}
	return nil
}

// tellEnd tells the job its end, until it is told or has ended otherwise.
func (w *worker) tellEnd(ctx context.Context, by string, status device.JobState, details map[string]string) error {
	r := w.state.Rotation
	err := w.ask(ctx, func(ctx context.Context) (Session, error) { return w.session(ctx, by) }, ofStore, func(ctx context.Context, session Session) error {
		return session.Tell(ctx, r.Job, status, details)
	})
	switch {
	case err == nil, errors.Is(err, ErrKeyGone), errors.Is(err, ErrWaits):
		return err
	case errors.Is(err, ErrJobEnded):
		w.log().Warn("the job had ended already", "job", r.Job.ID, "status", status)
		return nil
	case errors.Is(err, ErrRejected): // and will be again
		w.log().Error("the job does not take its end", "job", r.Job.ID, "status", status, "error", err)
		return nil
	}
	return waiting("the job is not told: %w", err)
}

// tellAlone tells the job of an outcome outside of any rotation.
func (e *Engine) tellAlone(ctx context.Context, req Request, o Outcome) error {
	if req.Job.ID == "" {
		return nil
	}
	from := req.From
	if from == "" {
		var err error
		if from, err = e.Store.Current(); err != nil {
			return err
		}
	}
	w := &worker{Engine: e, state: &State{}}
	defer w.hangUp()
	s, err := w.session(ctx, from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.Tell(ctx, req.Job, o.Status, o.details()); err != nil && !errors.Is(err, ErrJobEnded) {
		return waiting("the job was not told: %w", err)
	}
	return nil
}

// details are what the job shows (statusDetails).
func (o Outcome) details() map[string]string {
	d := map[string]string{}
	for name, value := range map[string]string{
		"reasonCode": o.Reason, "message": o.Message, "oldCertificateId": o.Old, "newCertificateId": o.New,
	} {
		if value != "" {
			d[name] = value
		}
	}
	return d
}
