package rotate

import (
	"context"
	"errors"

	"github.com/keyvet/keyvet/device/identity"
)

// try makes a session by the new credential. Sessions are proven by a round trip.
func (w *worker) try(ctx context.Context) error {
	_, err := w.newcomer(ctx)
	return err
}

// commit switches, and has the issuer confirm it.
func (w *worker) commit(ctx context.Context) error {
	r := w.state.Rotation
	session, err := w.newcomer(ctx)
	if err != nil {
		return err
	}
	if err := w.tellStep(ctx, session); err != nil {
		return ofConfirm.reason(err)
	}
	if err := w.Store.Use(r.New.ID); err != nil {
		return ofStore.reason(err)
	}
	return w.ask(ctx, w.newcomer, ofConfirm, func(ctx context.Context, session Session) error {
		return session.Confirm(ctx, r.order(), Certificate{ID: r.New.CertificateID})
	})
}

// uncommit goes back to the old credential if that is good still. The issuer
// may have confirmed the new one without our hearing of it, and then the old
// one is not: where the cloud takes the new one alone, the way is forward.
func (w *worker) uncommit(ctx context.Context) error {
	r := w.state.Rotation
	switch current, err := w.Store.Current(); {
	case err != nil && !errors.Is(err, identity.ErrNone):
		return err
	case current != r.New.ID:
		return nil
	}
	w.hangUp() // a session that was made before proves nothing
	for {
		_, err := w.asker(ctx)
		if err == nil {
			break
		}
		_, newErr := w.session(ctx, r.New.ID)
		w.hangUp()
		if errors.Is(err, ErrKeyGone) && errors.Is(newErr, ErrKeyGone) {
			break // there is nothing to lose
		}
		if newErr != nil {
			return waiting("neither credential makes a session: %w; %w", err, newErr)
		}
		if again, err := w.again(ctx, &r.Refused); err != nil {
			return err
		} else if !again {
			return errForward
		}
	}
	back := func() error { return w.Store.Use(r.Old.ID) }
	if r.Old.ID == Claim || r.Old.ID == Configured {
		back = w.Store.UseNone
	}
	if err := back(); err != nil {
		return err
	}
	return w.Gate.Back(r.Old.ID)
}
