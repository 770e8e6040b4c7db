package rotate

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device/identity"
)

// Leaving is an old credential, or the claim, that is to be removed. One that
// cannot be removed stays here and is tried again; it never keeps a rotation back.
type Leaving struct {
	ID    string    `json:"id"`              // in the store, or [Claim] or [Configured]
	At    time.Time `json:"at"`              // not before: the end of its grace, or the next try
	Tries int       `json:"tries,omitempty"` // that failed
	Why   string    `json:"why,omitempty"`   // the last one failed
}

// maxLeaving bounds the old credentials that are kept at once.
const maxLeaving = 8

// retryPause is how long after the nth failure a removal is tried again.
func retryPause(n int) time.Duration { return min(time.Hour<<min(n-1, 5), 24*time.Hour) }

// retire lets the old credential leave, once its grace is over.
func (w *worker) retire(ctx context.Context) error {
	r, at := w.state.Rotation, w.Clock.now().UTC().Add(w.Grace)
	if r.RetireAt != nil { // in the journals of earlier versions
		at = *r.RetireAt
	}
	w.leave(ctx, Leaving{ID: r.Old.ID, At: at})
	w.clear(ctx)
	return ctx.Err()
}

// leave adds to the credentials that are to be removed. If there are too many,
// the grace of the oldest ends.
func (w *worker) leave(ctx context.Context, l Leaving) {
	s := w.state
	s.Leaving = slices.DeleteFunc(s.Leaving, func(other Leaving) bool { return other.ID == l.ID })
	if len(s.Leaving) >= maxLeaving {
		oldest := slices.IndexFunc(s.Leaving, func(other Leaving) bool { return other.ID != Claim && other.Tries > 0 })
		if oldest < 0 {
			oldest = slices.IndexFunc(s.Leaving, func(other Leaving) bool { return other.ID != Claim })
		}
		id := s.Leaving[oldest].ID
		if err := w.remove(ctx, id); err != nil {
			w.log().Error("an old credential is not removed and will not be tried again", "credential", id, "error", err)
		}
		s.Leaving = slices.Delete(s.Leaving, oldest, oldest+1)
	}
	s.Leaving = append(s.Leaving, l)
}

// clear does what Clear does, but for the journal; it reports whether the state
// has changed.
func (w *worker) clear(ctx context.Context) (changed bool) {
	var left []Leaving
	now := w.Clock.now().UTC()
	for _, l := range w.state.Leaving {
		pause := w.Grace
		if l.Tries > 0 {
			pause = retryPause(l.Tries)
		}
		if l.At.Sub(now) > pause { // the clock was set back, which makes no grace longer
			l.At, changed = now.Add(pause), true
		}
		if ctx.Err() != nil || now.Before(l.At) {
			left = append(left, l)
			continue
		}
		changed = true
		if w.inUse(l.ID) {
			continue
		}
		if err := w.remove(ctx, l.ID); err != nil {
			l.Tries++
			l.Why, l.At = note(err.Error()), now.Add(retryPause(l.Tries))
			w.log().Warn("an old credential is not removed", "credential", l.ID, "again", l.At, "error", err)
			left = append(left, l)
		}
	}
	w.state.Leaving = left
	return changed
}

// inUse reports whether a credential is one that is used again by now, such as
// the claim.
func (w *worker) inUse(id string) bool {
	r := w.state.Rotation
	current, _ := w.Store.Current()
	return id == current || r != nil && r.Step != stepRetire && (id == r.Old.ID || id == r.New.ID)
}

// remove removes an old credential.
func (w *worker) remove(ctx context.Context, id string) error {
	stored := id != Claim && id != Configured
	elsewhere := !stored
	if id == identity.First { // there, and without its key
		_, noKey := w.Store.Key(id)
		_, noChain := w.Store.Certificate(id)
		elsewhere = noChain == nil && errors.Is(noKey, fs.ErrNotExist)
	}
	if elsewhere && w.EndOld != nil {
		if err := w.EndOld(ctx, id); err != nil && !errors.Is(err, ErrKeyGone) {
			return err
		}
	}
	if !stored {
		return nil
	}
	return w.destroy(ctx, id)
}

// NextClear returns when [Engine.Clear] has something to do next; the zero time
// if never.
func (s *State) NextClear() (next time.Time) {
	for _, l := range s.Leaving {
		if next.IsZero() || l.At.Before(next) {
			next = l.At
		}
	}
	return next
}
