package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/keyvet/keyvet/mqtt"
)

const maxCuts = 3 // sessions in a row that end upon something that the policy may not allow

// optional is something that a session can do without, and that the policy may not
// allow.
type optional struct {
	what        string        // for a person
	first, most time.Duration // how long it is left out, which doubles
}

var (
	notices    = optional{"notices of jobs", time.Hour, 24 * time.Hour} // jobs are asked for every hour besides
	desired    = optional{"checks that the shadow asks for", time.Hour, 24 * time.Hour}
	challenges = optional{"challenges to the TPM", 24 * time.Hour, 24 * time.Hour}
	shadow     = optional{"the shadow, by which reports are acknowledged", time.Hour, 4 * time.Hour}
)

// permission is what is known of whether the policy allows it. AWS IoT may end the
// session of who tries what is not allowed, which must not keep back what is; but
// whoever can cut a connection must not end it for good.
type permission struct {
	optional

	cuts  int
	times int       // in a row that it was left out
	off   time.Time // it is left out until then
	pause time.Duration
	why   error
}

// trial is what came of trying.
type trial int

const (
	failed  trial = iota // for a reason that says nothing of the policy
	cut                  // the session was there, and ended upon it
	denied               // by the broker's own word
	allowed              // and done
)

// wait returns how long it is left out.
func (p *permission) wait(now time.Time) time.Duration {
	off := p.off.Sub(now)
	if off > p.pause { // the clock was set back
		p.off = now
	}
	return max(0, min(off, p.off.Sub(now)))
}

// learn takes what came of a trial, and reports whether it is left out from now on.
func (p *permission) learn(now time.Time, came trial) bool {
	switch came {
	case allowed:
		p.cuts, p.times = 0, 0
	case cut:
		p.cuts++
	}
	if came != denied && p.cuts < maxCuts {
		return false
	}
	p.pause = min(p.first<<min(p.times, 10), p.most)
	p.times++
	p.cuts, p.off = maxCuts-1, now.Add(p.pause) // the next cut counts as that of three
	return true
}

// permissions outlive sessions. The zero value knows nothing.
type permissions struct{ known map[string]*permission }

func (ps *permissions) of(o optional) *permission {
	p := ps.known[o.what]
	if p == nil {
		p = &permission{optional: o}
		if ps.known == nil {
			ps.known = make(map[string]*permission)
		}
		ps.known[o.what] = p
	}
	return p
}

// try does what the policy may not allow. While that is left out, the error is
// [errLeftOut] and names what the policy did not allow.
func (ps *permissions) try(ctx context.Context, log *slog.Logger, o optional, do func(context.Context) error) error {
	p := ps.of(o)
	if p.wait(time.Now()) > 0 {
		return fmt.Errorf("%s: %w: %v", p.what, errLeftOut, p.why)
	}
	err := do(ctx)
	if p.learn(time.Now(), trialOf(err)) {
		p.why = err
		log.Warn("does the policy allow it? keyvet goes on without", "what", p.what, "for", p.pause, "error", err)
	}
	return err
}

// errLeftOut is of what the policy does not seem to allow.
var errLeftOut = errors.New("left out for now, as by the policy")

// trialOf sorts the error of a trial.
func trialOf(err error) trial {
	switch {
	case err == nil:
		return allowed
	case errors.Is(err, mqtt.ErrDenied):
		return denied
	case errors.Is(err, mqtt.ErrCut):
		return cut
	}
	return failed
}
