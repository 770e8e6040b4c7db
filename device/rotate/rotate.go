// Package rotate replaces the device's key and certificate, or makes the first
// ones, so that whatever happens, power cuts included, one credential is usable.
//
// A rotation is a list of steps, each of which can be done, done again, and
// undone:
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
// step fails, those before it are undone from the last to the first, the job
// is told FAILED with a reason code, and the old credential is in use. Once the
// job is told SUCCEEDED there is no way back.
package rotate

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
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
	Job     Job            // the zero value if no job asked for it
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
	Tell(context.Context, Job, Status, map[string]string) error
}

// Job is one execution of an AWS IoT job; the zero value is none.
type Job struct {
	ID        string `json:"id"`
	Execution int64  `json:"execution,omitempty"`
}

// Status of a job, in AWS IoT's words.
type Status string

// The statuses that a rotation tells.
const (
	InProgress Status = "IN_PROGRESS"
	Succeeded  Status = "SUCCEEDED"
	Failed     Status = "FAILED"
	Rejected   Status = "REJECTED" // never begun, and never will be
)

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
	Job     Job            `json:"job,omitzero"`
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

	CommonName string        // in the certificate request
	Subject    string        // the common name that the certificate has to have; "" is any
	Grace      time.Duration // from success to the removal of the old key

	// What a job may have, but not who has the device: algorithms (none is all),
	// and the least time from one job's success to the next job.
	JobKeys     []string
	MinInterval time.Duration

	// EndOld takes away an old credential, or a key, that is not in the store:
	// Claim, Configured, or identity.First where its key is elsewhere. It may be
	// asked again. nil: they stay.
	EndOld func(ctx context.Context, credential string) error

	Attempts int                                  // of a call that fails, but was not refused; 0 is 5
	Now      func() time.Time                     // nil is time.Now
	Pause    func(context.Context, time.Duration) // between attempts; nil is a timer
	Watch    func(step string, back bool)         // told of each step as it begins; may be nil
	Log      *slog.Logger                         // nil is silence
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

// maxMoves is how often the report on the new key is tried, each time on a good
// session, before the rotation turns back.
const maxMoves = 12

// spare is the file that keeps room on the disk for going back.
const (
	spare      = "rotation.spare"
	spareBytes = maxJournalBytes
)

// Run carries out a rotation and returns once it has failed or succeeded. The
// old key has its grace then, after which [Engine.Clear] removes it. A job that has ended before
// is answered as it was then. The error wraps ErrWaits if the rotation is under
// way still; otherwise it is an [*Error], also where the outcome is Failed.
func (e *Engine) Run(ctx context.Context, req Request) (Outcome, error) {
	s, err := e.load()
	if err != nil {
		return e.refuse(ctx, req, err)
	}
	if o, ok := s.replayed(req.Job); ok {
		e.log().Info("a job that has ended came again", "job", req.Job.ID, "status", o.Status)
		return o, e.tellAlone(ctx, req, o)
	}
	w := &walk{Engine: e, state: s}
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
	w := &walk{Engine: e, state: s}
	defer w.hangUp()
	if s.Rotation == nil {
		w.freeSpare()
		if w.clear(ctx) {
			err = w.save()
		}
		if err != nil {
			return Outcome{}, err
		}
		return Outcome{}, fmt.Errorf("rotate: %w", ErrNothing)
	}
	return w.run(ctx)
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

// Refuse tells the job of a request that no rotation begins, and why.
func (e *Engine) Refuse(ctx context.Context, req Request, why error) error {
	_, err := e.refuse(ctx, req, &Error{ReasonRequestInvalid, why})
	return err
}

// refuse tells the job of a rotation that did not begin.
func (e *Engine) refuse(ctx context.Context, req Request, why error) (Outcome, error) {
	o := e.outcome(req.Job, Failed, why)
	if o.Reason == ReasonRequestInvalid || o.Reason == ReasonKeyNotAllowed {
		o.Status = Rejected // the next execution would be as well
	}
	if err := e.tellAlone(ctx, req, o); err != nil {
		e.log().Warn("the job was not told that no rotation begins", "job", req.Job.ID, "error", err)
	}
	return o, why
}

func (e *Engine) outcome(job Job, status Status, why error) Outcome {
	o := Outcome{Job: job, Status: status, Time: e.now().UTC()}
	var named *Error
	if errors.As(why, &named) {
		o.Reason, o.Message = named.Reason, note(named.Err.Error())
	}
	return o
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
	w := &walk{Engine: e, state: &State{}}
	defer w.hangUp()
	s, err := w.session(ctx, from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.Tell(ctx, req.Job, o.Status, o.details()); err != nil && !errors.Is(err, ErrJobEnded) {
		return fmt.Errorf("rotate: %w: the job was not told: %w", ErrWaits, err)
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

// walk is one go through the steps, as far as it comes.
type walk struct {
	*Engine
	state *State
	open  Session // nil: none
	who   string  // the credential of open
}

// begin takes the room that going back may need, and puts a new rotation into
// the journal.
func (w *walk) begin(req Request) error {
	if req.Key == "" {
		req.Key = "ecdsa-p256"
	}
	if algorithmOf(req.Key).name == "" {
		return because(ReasonRequestInvalid, "unknown algorithm %q", req.Key)
	}
	if len(req.Job.ID) > maxNameBytes {
		return because(ReasonRequestInvalid, "the job's id has %d bytes", len(req.Job.ID))
	}
	if req.Job.ID != "" {
		if err := w.forJob(req); err != nil {
			return err
		}
	}
	current, err := w.Store.Current()
	switch {
	case errors.Is(err, identity.ErrNone) && req.From == "":
		return &Error{ReasonNoCredential, err}
	case err != nil && !errors.Is(err, identity.ErrNone):
		return ofStore.reason(err)
	case current != "" && req.From != "":
		return because(ReasonRequestInvalid, "the credential %s is in use", current)
	case req.From == "":
		req.From = current
	case req.From != Claim && req.From != Configured:
		return because(ReasonRequestInvalid, "unknown credential %q", req.From)
	}
	w.state.Rotation = &Rotation{
		Request: req, Step: stepReserve, Started: w.now().UTC(),
		Old: Credential{ID: req.From}, New: Credential{ID: "r" + strings.ToLower(rand.Text())},
	}
	filling := make([]byte, spareBytes)
	rand.Read(filling) // which no file system makes smaller
	err = w.Store.Disk.WriteFile(w.sparePath(), filling, 0o600)
	if err == nil {
		err = w.Journal.Save(w.state)
	}
	if err != nil {
		w.freeSpare()
		return ofStore.reason(err)
	}
	return nil
}

// forJob says why a job does not get the rotation that it asks for.
func (w *walk) forJob(req Request) error {
	if len(w.JobKeys) > 0 && !slices.Contains(w.JobKeys, req.Key) {
		return because(ReasonKeyNotAllowed, "a job may ask for %s, not for %s (rotate.keys)", strings.Join(w.JobKeys, ", "), req.Key)
	}
	now, s := w.now(), w.state
	// A time in the future is that of a clock that was set back since, which
	// must not keep jobs out.
	if s.ByJob != nil && !now.Before(*s.ByJob) {
		if next := s.ByJob.Add(w.MinInterval); now.Before(next) {
			return because(ReasonTooSoon, "a job rotated at %s, the next may from %s on (rotate.min_interval)", s.ByJob.Format(time.RFC3339), next.Format(time.RFC3339))
		}
	}
	kept := 0
	for _, l := range s.Leaving {
		if l.Tries == 0 {
			kept++
		}
	}
	if kept >= maxLeaving {
		return because(ReasonTooSoon, "%d old keys have their grace, the first until %s (rotate.grace)", kept, s.NextClear().Format(time.RFC3339))
	}
	return nil
}

// run goes on from where the journal is.
func (w *walk) run(ctx context.Context) (Outcome, error) {
	steps := w.steps()
	for w.state.Rotation != nil {
		r := w.state.Rotation
		i := indexOf(r.Step)
		if w.Watch != nil {
			w.Watch(r.Step, r.Back)
		}
		w.log().Info("rotation", "step", r.Step, "back", r.Back, "new", r.New.ID)
		var err error
		if r.Back {
			err = w.undo(ctx, steps, i)
		} else {
			err = w.do(ctx, steps, i)
		}
		if err != nil {
			return Outcome{}, err
		}
	}
	o := w.state.Ended[len(w.state.Ended)-1]
	if o.Status == Failed {
		return o, &Error{o.Reason, errors.New(o.Message)}
	}
	return o, nil
}

// do does step i, and turns back if it fails.
func (w *walk) do(ctx context.Context, steps []Step, i int) error {
	r := w.state.Rotation
	err := steps[i].Do(ctx, w.state)
	if err == nil {
		w.next(steps, i)
		if err = w.save(); err == nil {
			return nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("rotate: %w: %w", ErrWaits, ctx.Err())
	case errors.Is(err, ErrWaits):
		return err
	case r.Final && errors.Is(err, ErrKeyGone):
		return w.end(w.failure(err)) // nothing is left to go back to, nor to go on with
	case r.Final:
		return fmt.Errorf("rotate: %w: %w", ErrWaits, err)
	}
	w.log().Warn("rotation turns back", "step", r.Step, "reason", err)
	o := w.failure(err)
	r.Back, r.Attempts, r.Refused, r.Reason, r.Message, r.Token = true, 0, 0, o.Reason, o.Message, ""
	w.freeSpare()
	if err := w.save(); err != nil {
		return fmt.Errorf("rotate: %w: %w", ErrWaits, err)
	}
	return nil
}

// next goes to the step after i.
func (w *walk) next(steps []Step, i int) {
	r := w.state.Rotation
	if i == len(steps)-1 {
		w.state.Rotation = nil
		return
	}
	r.Step, r.Attempts, r.Refused = steps[i+1].Name, 0, 0
	if r.Step == stepRetire {
		o := w.success()
		w.state.ended(o)
		if r.Job.ID != "" {
			w.state.ByJob = &o.Time
		}
	}
}

// undo undoes step i.
func (w *walk) undo(ctx context.Context, steps []Step, i int) error {
	r := w.state.Rotation
	w.freeSpare()
	err := steps[i].Undo(ctx, w.state)
	switch {
	case errors.Is(err, errForward):
		r.Back, r.Final, r.Step, r.Reason, r.Message = false, true, stepProve, "", ""
		r.Attempts, r.Refused = 0, 0
		w.log().Warn("rotation turns forward: the cloud takes the new credential alone")
	case err != nil && !errors.Is(err, ErrWaits):
		return fmt.Errorf("rotate: %w: undo %s: %w", ErrWaits, r.Step, err)
	case err != nil:
		return err
	case i > 0:
		r.Step, r.Attempts, r.Refused = steps[i-1].Name, 0, 0
	default:
		return w.end(w.failure(&Error{r.Reason, errors.New(r.Message)}))
	}
	if err := w.save(); err != nil {
		return fmt.Errorf("rotate: %w: %w", ErrWaits, err)
	}
	return nil
}

func (w *walk) failure(err error) Outcome {
	r := w.state.Rotation
	o := w.outcome(r.Job, Failed, ofStore.reason(err))
	o.Old, o.New, o.Thing = r.Old.CertificateID, r.New.CertificateID, r.Thing
	return o
}

func (w *walk) success() Outcome {
	r := w.state.Rotation
	o := w.outcome(r.Job, Succeeded, nil)
	o.Old, o.New, o.Thing = r.Old.CertificateID, r.New.CertificateID, r.Thing
	return o
}

// end closes the rotation with an outcome.
func (w *walk) end(o Outcome) error {
	w.state.ended(o)
	w.state.Rotation = nil
	if err := w.save(); err != nil {
		return fmt.Errorf("rotate: %w: %w", ErrWaits, err)
	}
	return nil
}

func (w *walk) save() error { return ofStore.reason(w.Journal.Save(w.state)) }

func (e *Engine) sparePath() string { return filepath.Join(e.Store.Dir, spare) }

// freeSpare makes room for what going back writes. That it cannot is told by
// what does not find the room.
func (w *walk) freeSpare() {
	if err := w.Store.Disk.Remove(w.sparePath()); err != nil {
		w.log().Warn("rotation", "error", err)
	}
}

// session is the open session by a credential, or a new one. The error wraps
// ErrWaits, unless the key is gone.
func (w *walk) session(ctx context.Context, credential string) (Session, error) {
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
	return nil, fmt.Errorf("rotate: %w: no session: %w", ErrWaits, err)
}

func (w *walk) hangUp() {
	if w.open != nil {
		w.open.Close()
	}
	w.open, w.who = nil, ""
}

// ask makes a call on a session, again if it fails without being refused. The
// error wraps ErrWaits if there is no connection.
func (w *walk) ask(ctx context.Context, session func(context.Context) (Session, error), names codes, call func(context.Context, Session) error) error {
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
			return fmt.Errorf("rotate: %w: %w", ErrWaits, ctx.Err())
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
func (w *walk) again(ctx context.Context, count *int) (bool, error) {
	*count++
	if err := w.save(); err != nil {
		return false, err
	}
	if *count >= w.attempts() {
		return false, nil
	}
	d := min(maxPause, time.Second<<min(*count, 10)) // a new certificate takes some seconds to be known everywhere
	d = d/2 + mathrand.N(d/2)
	if w.Pause != nil {
		w.Pause(ctx, d)
		return true, nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	return true, nil
}

func (e *Engine) attempts() int {
	if e.Attempts > 0 {
		return e.Attempts
	}
	return 5
}

func (e *Engine) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

func (e *Engine) log() *slog.Logger {
	if e.Log != nil {
		return e.Log
	}
	return slog.New(slog.DiscardHandler)
}

// note makes a message fit for the journal and for statusDetails, which take
// no control characters.
func note(message string) string {
	line := []rune(message)
	for i, r := range line {
		if !unicode.IsPrint(r) {
			line[i] = ' '
		}
	}
	return bounded(string(line), maxNoteBytes)
}

func bounded(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

var _ Journal = File{Disk: durable.Disk{}}
