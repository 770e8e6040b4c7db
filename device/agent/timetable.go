package agent

import (
	"context"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// timetable is when the device vets itself again.
type timetable struct {
	every     time.Duration      // between two self-checks; 0: only one
	undecided int                // self-checks in a row
	trouble   bool               // that the gate had with its files
	enough    context.CancelFunc // ends the period that the last self-check is good for
	due       time.Time          // its end by the wall clock; zero: none
}

// undecidedAgain is when the device vets itself again where something could not
// be checked: a TPM that comes late, a clock that is not set yet; or where the
// gate had trouble with its files. It doubles.
const undecidedAgain = 10 * time.Minute

// length is how long a self-check is good for.
func (t *timetable) length(verdict device.Status) time.Duration {
	if t.every == 0 || verdict != device.Undecided && !t.trouble {
		t.undecided = 0
		return t.every
	}
	t.undecided++
	return min(t.every, undecidedAgain<<min(t.undecided-1, 10))
}

// period begins what a self-check is good for: a time that neither a suspend
// nor a clock that is set back makes longer.
func (t *timetable) period(ctx context.Context, now time.Time, verdict device.Status) context.Context {
	length := t.length(verdict)
	if length == 0 {
		ctx, t.enough = context.WithCancel(ctx)
		t.due = time.Time{}
		return ctx
	}
	length = jittered(length)
	ctx, t.enough = context.WithTimeout(ctx, length)
	t.due = now.Add(length)
	return ctx
}

// heed has the device vetted again soon where the gate had trouble.
func (t *timetable) heed(o gate.Outcome, now time.Time) {
	t.trouble = o.Trouble != nil
	if soon := now.Add(undecidedAgain); t.trouble && soon.Before(t.due) {
		t.due = soon
	}
}

// deadline is when, by the wall clock, the device vets itself again: by
// schedule, or because what the gate handed out, or a certificate in the report,
// has expired. Zero: never.
func (t *timetable) deadline(gated time.Time, r *device.Report) time.Time {
	deadline := t.due
	earlier := func(t time.Time) {
		if !t.IsZero() && (deadline.IsZero() || t.Before(deadline)) {
			deadline = t
		}
	}
	earlier(gated)
	for _, k := range r.Keys {
		// One that had expired when it was looked at was reported as such.
		if k.Role == device.RoleDevice && k.Certificate != nil && k.Certificate.NotAfter.After(r.Time) {
			earlier(k.Certificate.NotAfter)
		}
	}
	return deadline
}
