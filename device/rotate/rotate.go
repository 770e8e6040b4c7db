// Package rotate replaces the device's key and certificate, or makes the first
// ones, so that whatever happens, power cuts included, one credential is usable.
//
// A rotation is a list of steps, each of which can be done, done again, and
// rolled back:
//
//	reserve  the new key's place is in the journal before there is a key
//	make     a key, in the TPM where there is one; never in its NV memory
//	vet      every check on the new public key
//	enrol    a certificate, by the old credential or by the claim
//	check    the certificate: our key, chain, validity, subject
//	try      a session by the new credential, with a round trip
//	commit   one atomic switch, then the cloud's confirmation
//	prove    the gate moves on an acknowledged report, the job is told SUCCEEDED
//	retire   the old key is to go, after a grace
//
// The journal holds the next step and the direction, forward or back. After a
// step fails, those before it are rolled back, the last first, the job
// is told FAILED with a reason code, and the old credential is in use. Once the
// job is told SUCCEEDED there is no way back.
package rotate

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/identity"
)

// Keys makes keys in the TPM or, where there is none, in software.
type Keys interface {
	// Make makes a key of an algorithm of contract.md ("ecdsa-p256") and gives
	// the file that holds it: a TSS2 PRIVATE KEY, or PKCS#8 in PEM. Nothing may
	// stay in the TPM, so that a key whose file was lost is no orphan.
	Make(ctx context.Context, algorithm string) (file []byte, err error)
	// Open is the key of such a file; ErrKeyGone if this TPM does not have it.
	Open(ctx context.Context, file []byte) (crypto.Signer, error)
	// Destroy takes out of the TPM what removing the file would leave there.
	Destroy(ctx context.Context, file []byte) error
}

// Vetter puts every check to a key.
type Vetter interface {
	Vet(context.Context, device.Key) []device.Finding
}

// Cloud makes sessions. The engine has one at a time open, so that one client
// id does for all.
type Cloud interface {
	// Dial makes a session by a credential of the store, [Claim] or
	// [Configured], proven by a round trip. The context is for dialling alone.
	Dial(ctx context.Context, credential string) (Session, error)
}

// Session is a session by one credential.
type Session interface {
	Issuer
	Jobs
	// MoveGate publishes a report on the key of a credential and, once that is
	// acknowledged, moves the gate to it; ErrRejected if the report is bad.
	MoveGate(ctx context.Context, o Order, credential string) error
	Close()
}

// Order is what the rotation was asked for by, as far as those around the
// engine need to know it.
type Order struct {
	Job     device.Job     // the zero value if no job asked for it
	From    string         // the credential that asks for the new one: an id of the store, [Claim] or [Configured]
	Trigger device.Trigger // what the report on the new key says
}

// Issuer gives certificates: AWS IoT's fleet provisioning, or one behind topics.
type Issuer interface {
	// Create asks for a certificate on a request in PEM.
	Create(ctx context.Context, o Order, request []byte) (Certificate, error)
	// Activate makes it usable, if Create did not, and may give the thing's name.
	Activate(context.Context, Certificate) (thing string, err error)
	// Confirm tells the issuer, by the new credential, that it is in use.
	Confirm(context.Context, Order, Certificate) error
}

// Certificate is what an issuer gave.
type Certificate struct {
	ID    string // in the cloud
	PEM   []byte // the chain, leaf first
	Token string // that proves to the issuer whose it is; "" if it needs none
}

// Jobs tells the job how it goes. The error wraps ErrJobEnded where the job
// takes no more news.
type Jobs interface {
	Tell(context.Context, device.Job, device.JobState, map[string]string) error
}

// Gate is the gate before the device's key.
type Gate interface {
	// Back puts the gate, shut, before the key of a credential it had before.
	Back(credential string) error
}

// Credentials that are not in the store; no id of one has a dot.
const (
	Claim      = ".claim"      // the fleet's, for first provisioning
	Configured = ".configured" // files or a handle that the configuration names
)

// Request asks for a rotation.
type Request struct {
	Trigger device.Trigger `json:"trigger,omitempty"`
	Job     device.Job     `json:"job,omitzero"`
	Key     string         `json:"key"` // algorithm; "" is ecdsa-p256
	// From is the credential that asks for the new one: "" for the one in use
	// in the store; Claim or Configured only as long as there is none.
	From string `json:"-"` // Rotation.Old.ID has it
}

// Engine carries out rotations, one at a time.
type Engine struct {
	Journal Journal
	Store   *identity.Store
	Keys    Keys
	Vetter  Vetter
	Cloud   Cloud
	Gate    Gate

	// Name returns what the device is called, which may be known only later; nil
	// is no name.
	Name  func() Name
	Grace time.Duration // from success to the removal of the old key
	Jobs  JobLimits

	// EndOld takes away an old credential, or a key, that is not in the store:
	// Claim, Configured, or identity.First where its key is elsewhere. It may be
	// asked again. nil: they stay.
	EndOld func(ctx context.Context, credential string) error

	Attempts int                          // of a call that fails, but was not refused; 0 is 5
	Clock    Clock                        // the zero value is the device's
	Watch    func(step string, back bool) // called as each step begins; may be nil
	Log      *slog.Logger                 // nil is silence

	logged string // the step that the log has: one that waits is resumed often
}

// Name is the common name that a certificate is requested for.
type Name struct {
	Common string
	Strict bool // a certificate for another name is refused
}

// JobLimits bound what jobs may ask for; the operator and the schedule are free
// of them.
type JobLimits struct {
	Keys        []string      // algorithms; none is all
	MinInterval time.Duration // from one job's success to the next
}

// Deadlines of single calls. A TPM may take minutes to make an RSA key.
const (
	makeTimeout = 10 * time.Minute
	moveTimeout = 10 * time.Minute // every key is vetted for the report
	dialTimeout = 2 * time.Minute
	callTimeout = time.Minute
	tellTimeout = 15 * time.Second // of a step, which is a courtesy
	maxPause    = 30 * time.Second
)

// Run carries out a rotation and returns once it has failed or succeeded. The
// old key has its grace then, after which [Engine.Clear] removes it. A job that
// has ended before is answered as it was then. The error wraps ErrWaits if the
// rotation is under way still; otherwise it is an [*Error], also where the
// outcome is a failure.
func (e *Engine) Run(ctx context.Context, req Request) (Outcome, error) {
	s, err := e.load()
	if err != nil {
		return e.refuse(ctx, req, err)
	}
	if o, ok := s.replayed(req.Job); ok {
		e.log().Info("a job that has ended came again", "job", req.Job.ID, "status", o.Status)
		return o, e.tellAlone(ctx, req, o)
	}
	w := &worker{Engine: e, state: s}
	defer w.hangUp()
	switch r := s.Rotation; {
	case r == nil:
	case r.Step == stepRetire: // the cloud has confirmed
		if _, err := w.run(ctx); err != nil {
			return Outcome{}, err
		}
	case req.Job.ID != "" && r.Job.ID == req.Job.ID:
		r.Job = req.Job
		return w.run(ctx)
	default:
		return Outcome{}, because(ReasonBusy, "the rotation %s is under way, at %s", r.New.ID, r.Step)
	}
	if err := w.begin(req); err != nil {
		return e.refuse(ctx, req, err)
	}
	return w.run(ctx)
}

// Resume goes on with the rotation that is under way: at boot, before anything
// else uses a credential, and whenever there may be a connection again. The
// error wraps ErrNothing if there is none, or ErrWaits if it is under way still.
func (e *Engine) Resume(ctx context.Context) (Outcome, error) {
	s, err := e.load()
	if err != nil {
		return Outcome{}, err
	}
	w := &worker{Engine: e, state: s}
	defer w.hangUp()
	if s.Rotation == nil {
		w.freeSpare()
		if w.clear(ctx) {
			err = w.save()
		}
		if err != nil {
			return Outcome{}, err
		}
		return Outcome{}, ErrNothing
	}
	return w.run(ctx)
}

// Clear removes the old credentials whose grace is over. One that cannot be
// removed stays in [State.Leaving] with the reason and is no error here.
func (e *Engine) Clear(ctx context.Context) error {
	s, err := e.load()
	if err != nil {
		return err
	}
	w := &worker{Engine: e, state: s}
	if !w.clear(ctx) {
		return nil
	}
	return w.save()
}

// Refuse tells the job of a request that no rotation begins, and why.
func (e *Engine) Refuse(ctx context.Context, req Request, why error) error {
	_, err := e.refuse(ctx, req, &Error{ReasonRequestInvalid, why})
	return err
}

// load reads the journal. One that cannot be read stops everything: what it
// held is not guessed.
func (e *Engine) load() (*State, error) {
	s, err := e.Journal.Load()
	if err != nil {
		return nil, &Error{ReasonJournalUnreadable, err}
	}
	if err := e.Store.Recover(); err != nil {
		return nil, ofStore.reason(err)
	}
	return s, nil
}

// refuse tells the job of a rotation that did not begin.
func (e *Engine) refuse(ctx context.Context, req Request, why error) (Outcome, error) {
	o := e.outcome(req.Job, device.JobFailed, why)
	if o.Reason == ReasonRequestInvalid || o.Reason == ReasonKeyNotAllowed {
		o.Status = device.JobRejected // the next execution would be as well
	}
	if err := e.tellAlone(ctx, req, o); err != nil {
		e.log().Warn("the job was not told that no rotation begins", "job", req.Job.ID, "error", err)
	}
	return o, why
}

func (e *Engine) outcome(job device.Job, status device.JobState, why error) Outcome {
	o := Outcome{Job: job, Status: status, Time: e.Clock.now().UTC()}
	var named *Error
	if errors.As(why, &named) {
		o.Reason, o.Message = named.Reason, note(named.Err.Error())
	}
	return o
}
