package rotate

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io/fs"

	"github.com/keyvet/keyvet/device"
)

// make makes the key, or finds the one that it made before a power cut.
func (w *worker) make(ctx context.Context) error {
	r := w.state.Rotation
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	_, err := w.Store.Key(r.New.ID)
	if errors.Is(err, fs.ErrNotExist) {
		file, makeErr := w.Keys.Make(ctx, r.Key)
		if makeErr != nil {
			return ofMake.reason(makeErr)
		}
		err = w.Store.PutKey(r.New.ID, file)
	}
	if err != nil {
		return ofStore.reason(err)
	}
	key, _, err := w.newKey(ctx)
	if err != nil {
		return err
	}
	if got, want := key.Algorithm(), device.AlgorithmNamed(r.Key).Reported; got != want {
		return because(ReasonMakeFailed, "asked for %s, got %s", want, got)
	}
	r.New.SPKISHA256 = key.SPKISHA256()
	return nil
}

// newKey opens the new key.
func (w *worker) newKey(ctx context.Context) (device.Key, crypto.Signer, error) {
	r := w.state.Rotation
	var key device.Key
	file, err := w.Store.Key(r.New.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return key, nil, &Error{ReasonKeyGone, err}
	}
	if err != nil {
		return key, nil, ofStore.reason(err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	signer, err := w.Keys.Open(ctx, file)
	if err != nil {
		return key, nil, ofMake.reason(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return key, nil, &Error{ReasonMakeFailed, err}
	}
	key = device.Key{
		ID: "new-device-key", Role: device.RoleDevice, Source: "file:" + w.Store.KeyPath(r.New.ID), Public: signer.Public(), SPKI: spki,
		Private: &device.PrivateFile{Path: w.Store.KeyPath(r.New.ID), Mode: 0o600, SPKI: spki,
			Numbers: device.Answer{Status: device.Pass, Why: "it was opened, and is the key of this device"},
			Partner: device.Answer{Status: device.NotApplicable, Why: "it has no certificate yet"},
		},
	}
	if r.New.SPKISHA256 != "" && key.SPKISHA256() != r.New.SPKISHA256 {
		return key, nil, because(ReasonKeyGone, "another key is in its place")
	}
	return key, signer, nil
}

func (w *worker) unmake(ctx context.Context) error {
	r := w.state.Rotation
	w.hangUp()
	err := w.destroy(ctx, r.New.ID)
	if err != nil && ctx.Err() == nil { // it is tried again, but keeps nothing back
		w.log().Warn("the new key is not removed", "credential", r.New.ID, "error", err)
		w.leave(ctx, Leaving{ID: r.New.ID, At: w.Clock.now().UTC().Add(retryPause(1)), Tries: 1, Why: note(err.Error())})
		return nil
	}
	return err
}

// destroy removes a credential and its key.
func (w *worker) destroy(ctx context.Context, id string) error {
	file, err := w.Store.Key(id)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err = w.Keys.Destroy(ctx, file)
	}
	if err != nil && !errors.Is(err, ErrKeyGone) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return w.Store.Remove(id)
}
