package rotate

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/identity"
)

// worker carries out one call of the engine: it has the journal's state in
// hand, and one session at a time open.
type worker struct {
	*Engine
	state *State
	open  Session // nil: none
	who   string  // the credential of open
}

// begin takes the room that going back may need, and puts a new rotation into
// the journal.
func (w *worker) begin(req Request) error {
	if req.Key == "" {
		req.Key = device.ECDSAP256
	}
	if device.AlgorithmNamed(req.Key).Name == "" {
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
		Request: req, Step: stepReserve, Started: w.Clock.now().UTC(),
		Old: Credential{ID: req.From}, New: Credential{ID: "r" + strings.ToLower(rand.Text())},
	}
	err = spareOf(w.Store).take()
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
func (w *worker) forJob(req Request) error {
	if len(w.Jobs.Keys) > 0 && !slices.Contains(w.Jobs.Keys, req.Key) {
		return because(ReasonKeyNotAllowed, "a job may ask for %s, not for %s (rotate.keys)", strings.Join(w.Jobs.Keys, ", "), req.Key)
	}
	now, s := w.Clock.now(), w.state
	// A time in the future is that of a clock that was set back since, which
	// must not keep jobs out.
	if s.ByJob != nil && !now.Before(*s.ByJob) {
		if next := s.ByJob.Add(w.Jobs.MinInterval); now.Before(next) {
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
func (w *worker) run(ctx context.Context) (Outcome, error) {
	for w.state.Rotation != nil {
		r := w.state.Rotation
		i := indexOf(r.Step)
		if w.Watch != nil {
			w.Watch(r.Step, r.Back)
		}
		at := r.New.ID + r.Step
		if r.Back {
			at += "<"
		}
		if w.logged != at {
			w.log().Info("rotation", "step", r.Step, "back", r.Back, "new", r.New.ID)
			w.logged = at
		}
		var err error
		if r.Back {
			err = w.undo(ctx, i)
		} else {
			err = w.do(ctx, i)
		}
		if err != nil {
			return Outcome{}, err
		}
	}
	o := w.state.Ended[len(w.state.Ended)-1]
	if o.Status == device.JobFailed {
		return o, &Error{o.Reason, errors.New(o.Message)}
	}
	return o, nil
}

// do does step i, and turns back if it fails.
func (w *worker) do(ctx context.Context, i int) error {
	r := w.state.Rotation
	err := steps()[i].do(w, ctx)
	if err == nil {
		w.next(i)
		if err = w.save(); err == nil {
			return nil
		}
	}
	switch {
	case ctx.Err() != nil:
		return waiting("%w", ctx.Err())
	case errors.Is(err, ErrWaits):
		return err
	case r.Final && errors.Is(err, ErrKeyGone):
		return w.end(w.failure(err)) // nothing is left to go back to, nor to go on with
	case r.Final:
		return waiting("%w", err)
	}
	w.log().Warn("rotation turns back", "step", r.Step, "reason", err)
	o := w.failure(err)
	r.Back, r.Attempts, r.Refused, r.Reason, r.Message, r.Token = true, 0, 0, o.Reason, o.Message, ""
	w.freeSpare()
	if err := w.save(); err != nil {
		return waiting("%w", err)
	}
	return nil
}

// next goes to the step after i.
func (w *worker) next(i int) {
	all := steps()
	r := w.state.Rotation
	if i == len(all)-1 {
		w.state.Rotation = nil
		return
	}
	r.Step, r.Attempts, r.Refused = all[i+1].name, 0, 0
	if r.Step == stepRetire {
		o := w.success()
		w.state.ended(o)
		if r.Job.ID != "" {
			w.state.ByJob = &o.Time
		}
	}
}

// undo undoes step i.
func (w *worker) undo(ctx context.Context, i int) error {
	r := w.state.Rotation
	w.freeSpare()
	err := steps()[i].undo(w, ctx)
	switch {
	case errors.Is(err, errForward):
		r.Back, r.Final, r.Step, r.Reason, r.Message = false, true, stepProve, "", ""
		r.Attempts, r.Refused = 0, 0
		w.log().Warn("rotation turns forward: the cloud takes the new credential alone")
	case err != nil && !errors.Is(err, ErrWaits):
		return waiting("undo of %s: %w", r.Step, err)
	case err != nil:
		return err
	case i > 0:
		r.Step, r.Attempts, r.Refused = steps()[i-1].name, 0, 0
	default:
		return w.end(w.failure(&Error{r.Reason, errors.New(r.Message)}))
	}
	if err := w.save(); err != nil {
		return waiting("%w", err)
	}
	return nil
}

func (w *worker) failure(err error) Outcome {
	r := w.state.Rotation
	o := w.outcome(r.Job, device.JobFailed, ofStore.reason(err))
	o.Old, o.New, o.Thing = r.Old.CertificateID, r.New.CertificateID, r.Thing
	return o
}

func (w *worker) success() Outcome {
	r := w.state.Rotation
	o := w.outcome(r.Job, device.JobSucceeded, nil)
	o.Old, o.New, o.Thing = r.Old.CertificateID, r.New.CertificateID, r.Thing
	return o
}

// end closes the rotation with an outcome.
func (w *worker) end(o Outcome) error {
	w.state.ended(o)
	w.state.Rotation = nil
	if err := w.save(); err != nil {
		return waiting("%w", err)
	}
	return nil
}

func (w *worker) save() error { return ofStore.reason(w.Journal.Save(w.state)) }

// freeSpare makes room for what going back writes. What does not find the room
// says so itself.
func (w *worker) freeSpare() {
	if err := spareOf(w.Store).free(); err != nil {
		w.log().Warn("rotation", "error", err)
	}
}

func (e *Engine) attempts() int {
	if e.Attempts > 0 {
		return e.Attempts
	}
	return 5
}

func (e *Engine) log() *slog.Logger {
	if e.Log != nil {
		return e.Log
	}
	return slog.New(slog.DiscardHandler)
}

// note makes a message fit for the journal and for statusDetails, which take
// no control characters.
func note(message string) string { return device.OneLine(message, maxNoteBytes) }

func bounded(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "")
}

var _ Journal = File{Disk: durable.Disk{}}
