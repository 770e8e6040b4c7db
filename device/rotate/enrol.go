package rotate

import (
	"context"
	"errors"
)

// enrol asks for the certificate and has it made usable.
func (w *worker) enrol(ctx context.Context) error {
	r := w.state.Rotation
	if r.New.CertificateID == "" {
		if err := w.create(ctx); err != nil {
			return err
		}
	}
	chain, err := w.Store.Certificate(r.New.ID)
	if err != nil {
		return ofStore.reason(err)
	}
	asked := r.Activating
	if !asked {
		r.Activating = true
		if err := w.save(); err != nil {
			return err
		}
	}
	err = w.ask(ctx, w.asker, ofActivate, func(ctx context.Context, session Session) error {
		thing, err := session.Activate(ctx, Certificate{r.New.CertificateID, chain, r.Token})
		if err == nil {
			r.Thing = bounded(thing, maxNameBytes)
		}
		asked = asked || err != nil && !errors.Is(err, ErrRejected)
		return err
	})
	if asked && errors.Is(err, ErrRejected) {
		// It may have been done the first time, and the token is good for one:
		// whether the certificate is usable is seen when it is tried.
		w.log().Warn("the certificate is perhaps activated already", "error", err)
		err = nil
	}
	if err == nil {
		r.Token = ""
	}
	return err
}

func (w *worker) create(ctx context.Context) error {
	r := w.state.Rotation
	_, signer, err := w.newKey(ctx)
	if err != nil {
		return err
	}
	request, err := certificateRequest(w.name().Common, signer)
	if err != nil {
		return ofMake.reason(err)
	}
	var given Certificate
	err = w.ask(ctx, w.asker, ofCreate, func(ctx context.Context, session Session) (err error) {
		if err = w.tellStep(ctx, session); err == nil {
			given, err = session.Create(ctx, r.order(), request)
		}
		return err
	})
	if err != nil {
		return err
	}
	if given.ID == "" || len(given.ID) > maxNameBytes || len(given.Token) > maxTokenBytes || len(given.PEM) == 0 || len(given.PEM) > maxChainBytes {
		return because(ReasonCertificateInvalid, "the issuer gave an id of %d bytes, a certificate of %d and a token of %d", len(given.ID), len(given.PEM), len(given.Token))
	}
	if err := w.Store.PutCertificate(r.New.ID, given.PEM); err != nil {
		return ofStore.reason(err)
	}
	r.New.CertificateID, r.Token = given.ID, given.Token
	return w.save()
}
