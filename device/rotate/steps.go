package rotate

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/identity"
)

// Step is one step of a rotation. Do and Undo may be called again after they
// were interrupted anywhere, and Undo also where Do never was.
type Step struct {
	Name     string
	Do, Undo func(context.Context, *State) error
}

const (
	stepReserve = "reserve"
	stepMake    = "make"
	stepVet     = "vet"
	stepEnrol   = "enrol"
	stepCheck   = "check"
	stepTry     = "try"
	stepCommit  = "commit"
	stepProve   = "prove"
	stepRetire  = "retire"
)

var stepNames = []string{stepReserve, stepMake, stepVet, stepEnrol, stepCheck, stepTry, stepCommit, stepProve, stepRetire}

func indexOf(step string) int { return slices.Index(stepNames, step) }

func (w *walk) steps() []Step {
	return []Step{
		{stepReserve, w.reserve, w.release},
		{stepMake, w.make, w.unmake},
		{stepVet, w.vet, nothing},
		{stepEnrol, w.enrol, nothing}, // the certificate goes with its key
		{stepCheck, w.check, nothing},
		{stepTry, w.try, nothing},
		{stepCommit, w.commit, w.uncommit},
		{stepProve, w.prove, nothing},
		{stepRetire, w.retire, nothing},
	}
}

func nothing(context.Context, *State) error { return nil }

// errForward is what undoing a step answers where there is no way back.
var errForward = errors.New("the way back is closed")

// reserve notes the old credential. The new one has its id already.
func (w *walk) reserve(_ context.Context, s *State) error {
	r := s.Rotation
	if r.Old.ID != Claim && r.Old.ID != Configured {
		chain, err := w.Store.Certificate(r.Old.ID)
		if err != nil {
			return ofStore.reason(err)
		}
		if certificates, err := parseChain(chain); err == nil { // one that cannot be read can be replaced
			r.Old.describe(certificates[0])
		}
	}
	return nil
}

// describe notes what a certificate says. AWS IoT's id of a certificate is the
// SHA-256 of its DER.
func (c *Credential) describe(leaf *x509.Certificate) {
	notAfter, id := leaf.NotAfter.UTC(), sha256.Sum256(leaf.Raw)
	c.NotAfter, c.Serial = &notAfter, bounded(leaf.SerialNumber.Text(16), maxNameBytes)
	if c.CertificateID == "" {
		c.CertificateID = hex.EncodeToString(id[:])
	}
	c.SPKISHA256 = digest(leaf.RawSubjectPublicKeyInfo)
}

func digest(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// release tells the job of the failure, by the old credential.
func (w *walk) release(ctx context.Context, s *State) error {
	r := s.Rotation
	if r.Job.ID == "" {
		return nil
	}
	o := w.failure(&Error{r.Reason, errors.New(r.Message)})
	err := w.tellEnd(ctx, r.Old.ID, Failed, o.details())
	if errors.Is(err, ErrKeyGone) {
		w.log().Error("nobody is left to tell the job that the rotation failed", "job", r.Job.ID, "error", err)
		return nil
	}
	return err
}

// tellEnd tells the job its end, until it is told or has ended otherwise.
func (w *walk) tellEnd(ctx context.Context, by string, status Status, details map[string]string) error {
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
	return fmt.Errorf("rotate: %w: the job is not told: %w", ErrWaits, err)
}

// make makes the key, or finds the one that it made before a power cut.
func (w *walk) make(ctx context.Context, s *State) error {
	r := s.Rotation
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
	if got, want := key.Algorithm(), algorithmOf(r.Key).reported; got != want {
		return because(ReasonMakeFailed, "asked for %s, got %s", want, got)
	}
	r.New.SPKISHA256 = key.SPKISHA256()
	return nil
}

// newKey opens the new key.
func (w *walk) newKey(ctx context.Context) (device.Key, crypto.Signer, error) {
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
		Private: &device.PrivateFile{Path: w.Store.KeyPath(r.New.ID), Mode: 0o600, SPKI: spki},
	}
	if r.New.SPKISHA256 != "" && key.SPKISHA256() != r.New.SPKISHA256 {
		return key, nil, because(ReasonKeyGone, "another key is in its place")
	}
	return key, signer, nil
}

func (w *walk) unmake(ctx context.Context, s *State) error {
	r := s.Rotation
	w.hangUp()
	err := w.destroy(ctx, r.New.ID)
	if err != nil && ctx.Err() == nil { // it is tried again, but keeps nothing back
		w.log().Warn("the new key is not removed", "credential", r.New.ID, "error", err)
		w.leave(ctx, Leaving{ID: r.New.ID, At: w.now().UTC().Add(retryPause(1)), Tries: 1, Why: note(err.Error())})
		return nil
	}
	return err
}

// destroy removes a credential and its key.
func (w *walk) destroy(ctx context.Context, id string) error {
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

func (w *walk) vet(ctx context.Context, _ *State) error {
	key, _, err := w.newKey(ctx)
	if err != nil {
		return err
	}
	return w.passes(ctx, key)
}

// passes puts every check to the key. What is undecided does not pass.
func (w *walk) passes(ctx context.Context, key device.Key) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	findings := w.Vetter.Vet(ctx, key)
	statuses := make([]device.Status, len(findings))
	for i, f := range findings {
		statuses[i] = f.Status
	}
	worst := device.Worst(statuses...)
	if worst.Opens() {
		return nil
	}
	for _, f := range findings {
		switch {
		case f.Status != worst:
		case f.ReasonCode == "KEYVET_CLOCK_IMPLAUSIBLE", f.ReasonCode == "KEYVET_CERTIFICATE_NOT_YET_VALID":
			return because(ReasonClockWrong, "%s: %s", f.Check, f.Message)
		case f.ReasonCode != "":
			return because(f.ReasonCode, "%s: %s", f.Check, f.Message)
		}
	}
	return because(ReasonNotVetted, "the checks say %s", worst)
}

// enrol asks for the certificate and has it made usable.
func (w *walk) enrol(ctx context.Context, s *State) error {
	r := s.Rotation
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

// asker is a session by the credential that asks for the new one.
func (w *walk) asker(ctx context.Context) (Session, error) {
	return w.session(ctx, w.state.Rotation.Old.ID)
}

func (w *walk) create(ctx context.Context) error {
	r := w.state.Rotation
	_, signer, err := w.newKey(ctx)
	if err != nil {
		return err
	}
	request, err := certificateRequest(w.CommonName, signer)
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

// tellStep tells the job how far it is. Only that the job has ended matters.
func (w *walk) tellStep(ctx context.Context, session Session) error {
	r := w.state.Rotation
	if r.Job.ID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	err := session.Tell(ctx, r.Job, InProgress, map[string]string{"step": r.Step})
	if errors.Is(err, ErrJobEnded) {
		return err
	}
	if err != nil {
		w.log().Warn("the job does not show the step", "step", r.Step, "error", err)
	}
	return nil
}

// check looks at the certificate as a stranger's.
func (w *walk) check(ctx context.Context, s *State) error {
	r := s.Rotation
	key, _, err := w.newKey(ctx)
	if err != nil {
		return err
	}
	chain, err := w.Store.Certificate(r.New.ID)
	if err != nil {
		return ofStore.reason(err)
	}
	if key.Chain, err = parseChain(chain); err != nil {
		return &Error{ReasonCertificateInvalid, err}
	}
	if err := w.fits(key); err != nil {
		return err
	}
	r.New.describe(key.Leaf())
	return w.passes(ctx, key)
}

// try makes a session by the new credential. Sessions are proven by a round trip.
func (w *walk) try(ctx context.Context, _ *State) error {
	_, err := w.newcomer(ctx)
	return err
}

// newcomer is a session by the new credential. If there is none although the
// old one, or the claim, makes one, it is the credential that is refused.
func (w *walk) newcomer(ctx context.Context) (Session, error) {
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

// commit switches, and has the issuer confirm it.
func (w *walk) commit(ctx context.Context, s *State) error {
	r := s.Rotation
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
func (w *walk) uncommit(ctx context.Context, s *State) error {
	r := s.Rotation
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
			return fmt.Errorf("rotate: %w: neither credential makes a session: %w; %w", ErrWaits, err, newErr)
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

// prove moves the gate and tells the job of the success, by the new credential.
func (w *walk) prove(ctx context.Context, s *State) error {
	r := s.Rotation
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
		return fmt.Errorf("rotate: %w: the gate does not move: %w", ErrWaits, err)
	}
	if !r.Final {
		r.Final = true
		w.freeSpare()
		if err := w.save(); err != nil {
			r.Final = false
			return fmt.Errorf("rotate: %w: %w", ErrWaits, err)
		}
	}
	if r.Job.ID == "" {
		return nil
	}
	return w.tellEnd(ctx, r.New.ID, Succeeded, w.success().details())
}

func refusedAtTry(err error) bool {
	var named *Error
	return errors.As(err, &named) && named.Reason == ReasonTryRefused
}
