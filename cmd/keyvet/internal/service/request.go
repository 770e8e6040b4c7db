package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/rotate"
)

const (
	askPoll   = 100 * time.Millisecond // a step of less is shown with the next one
	askListen = 2 * time.Minute        // for the service to take the request; it looks every 30 s
	askBegin  = time.Minute            // to begin, once it took it: before it connects to anything
)

// Asked is a rotation that the service that runs was asked for.
type Asked struct {
	config config.Config
	before *rotate.State // of the journal
}

// Ask asks the service that runs for a rotation.
func Ask(c config.Config) (*Asked, error) {
	before, err := journalOf(c).Load()
	if err == nil {
		err = os.WriteFile(c.RequestPath(), nil, 0o600) // its being there says it all
	}
	return &Asked{c, before}, err
}

// Follow returns once the rotation has ended: with a [*rotate.Error] where it
// failed. Any other error leaves its end open. watch is called with each step; of
// one that was not seen, since it took less than askPoll, a moment later.
func (a *Asked) Follow(ctx context.Context, watch func(step string, back bool)) error {
	c, before, journal := a.config, a.before, journalOf(a.config)
	began, steps := time.Now(), seen{watch: watch}
	var taken time.Time // when the request was seen to be gone
	t := time.NewTicker(askPoll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the service has not ended the rotation: see `keyvet status`: %w", context.Cause(ctx))
		case <-t.C:
		}
		now, err := journal.Load()
		if err != nil {
			return err
		}
		if o := endedSince(before, now); o != nil {
			if o.Status != device.JobSucceeded {
				return &rotate.Error{Reason: o.Reason, Err: errors.New(o.Message)}
			}
			steps.at(rotate.LastStep, false)
			return nil
		}
		if r := now.Rotation; r != nil && r.New.ID != newID(before) {
			steps.at(r.Step, r.Back)
		}
		_, err = os.Stat(c.RequestPath())
		switch {
		case err == nil && time.Since(began) > askListen:
			return errors.Join(errors.New("the service does not take the request: it is offline or busy (`keyvet status`)"), durable.Remove(c.RequestPath()))
		case errors.Is(err, fs.ErrNotExist) && taken.IsZero():
			taken = time.Now()
		case !taken.IsZero() && now.Rotation == nil && time.Since(taken) > askBegin:
			return errors.New("the service took the request and began no rotation: see its log for the reason")
		}
	}
}

// seen are the steps of a rotation that somebody else carries out.
type seen struct {
	watch func(step string, back bool)
	step  string // the last one; "" if there is none
	back  bool
}

// at says which step the rotation is at. On the way forward it was at those before
// it, too.
func (s *seen) at(step string, back bool) {
	if step == s.step && back == s.back {
		return
	}
	if !back && !s.back {
		for _, missed := range rotate.StepsBetween(s.step, step) {
			s.watch(missed, false)
		}
	}
	s.step, s.back = step, back
	s.watch(step, back)
}

// endedSince is the last rotation, if it ended after before was read.
func endedSince(before, now *rotate.State) *rotate.Outcome {
	n := len(now.Ended)
	if n == 0 {
		return nil
	}
	last := &now.Ended[n-1]
	if b := before.Ended; len(b) > 0 && last.Time.Equal(b[len(b)-1].Time) {
		return nil
	}
	return last
}

func newID(s *rotate.State) string {
	if s.Rotation == nil {
		return ""
	}
	return s.Rotation.New.ID
}
