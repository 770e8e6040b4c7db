package cloud

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// Next returns the next thing that the cloud asks for: a challenge first, since
// somebody waits for its answer, then jobs, then a check that the shadow desires.
func (s *Session) Next(ctx context.Context, waits func(id string) bool) (*agent.Work, error) {
	listenErr := s.listen(ctx)
	if work := s.nextChallenge(); work != nil {
		return work, listenErr
	}
	work, err := s.jobs.next(ctx, waits)
	if work == nil {
		work = s.nextCheck(waits)
	}
	return work, errors.Join(listenErr, err)
}

// source is something to listen to.
type source struct {
	optional
	listen func(context.Context) error
}

// listen subscribes to what may be asked, until that was done once in the session.
func (s *Session) listen(ctx context.Context) error {
	var errs []error
	s.unheard = slices.DeleteFunc(s.unheard, func(from source) bool {
		if wait := s.cloud.policy.of(from.optional).wait(time.Now()); wait > 0 {
			s.alarm.set(time.Now().Add(wait))
			return false
		}
		if s.Lost() != nil {
			return false // which says nothing of this
		}
		err := s.cloud.policy.try(ctx, s.cloud.Log, from.optional, from.listen)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", from.what, err))
		}
		return err == nil
	})
	return errors.Join(errs...)
}

// alarm wakes the loop.
type alarm struct {
	rung  chan struct{} // capacity 1
	timer *time.Timer
	at    time.Time // when timer rings
}

func newAlarm() *alarm { return &alarm{rung: make(chan struct{}, 1)} }

// ring has the loop look for work.
func (a *alarm) ring() {
	select {
	case a.rung <- struct{}{}:
	default: // rung already
	}
}

// set rings at a time, or before. It is for the loop alone.
func (a *alarm) set(at time.Time) {
	if a.timer == nil || at.Before(a.at) || !time.Now().Before(a.at) {
		a.at = at
		if a.timer != nil {
			a.timer.Stop()
		}
		a.timer = time.AfterFunc(time.Until(at), a.ring)
	}
}

// maxTokens bounds the desired checks that wait; one check answers all.
const maxTokens = 8

// checks are the tokens of desired checks that are not carried out yet.
type checks struct {
	mu     sync.Mutex
	tokens []string
}

func (c *checks) add(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.tokens, token) {
		c.tokens = append(c.tokens, token)
	}
	if len(c.tokens) > maxTokens {
		c.tokens = c.tokens[1:]
	}
}

// newest is the token that is to be answered; ok is false if there is none.
func (c *checks) newest() (token string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) == 0 {
		return "", false
	}
	return c.tokens[len(c.tokens)-1], true
}

// done drops a token that was carried out, and those before it.
func (c *checks) done(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.tokens, token); i >= 0 {
		c.tokens = c.tokens[i+1:]
	}
}

// desire takes a check that the shadow desires.
func (s *Session) desire(token string) {
	s.checks.add(token)
	s.alarm.ring()
}

// begun is the last check that the shadow desired.
type begun struct {
	token string // "" once it has ended
	at    time.Time
}

// nextCheck is a check for the newest token, once shadow.min_interval has passed
// since the last one began. One that has begun and failed does not wait for that.
func (s *Session) nextCheck(waits func(id string) bool) *agent.Work {
	token, ok := s.checks.newest()
	if !ok || waits(token) {
		return nil
	}
	last := &s.cloud.desired
	least := s.cloud.Config.Shadow.MinInterval.Duration
	if next := last.at.Add(least); last.token != token && !last.at.IsZero() && time.Now().Before(next) {
		s.alarm.set(next)
		return nil
	}
	answer := func(ctx context.Context, state device.JobState, _ map[string]string) error {
		if state == device.JobInProgress {
			*last = begun{token, time.Now()} // in a process, whose clock nobody sets back
			return nil
		}
		last.token = ""
		s.checks.done(token)
		if state != device.JobSucceeded {
			return nil // it stays desired, and the next session asks for it again
		}
		return s.AcknowledgeCheck(ctx, token)
	}
	return &agent.Work{Operation: awsiot.OperationCheck, ID: token, Do: func(ctx context.Context, do agent.Actions) error {
		return do.Check(ctx, token, answer)
	}}
}
