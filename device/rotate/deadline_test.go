package rotate_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
)

// hanging is what is around the engine, where one call comes back only when
// its context ends.
type hanging struct {
	rotate.Keys
	rotate.Vetter
	rotate.Cloud
	call string
}

func (h hanging) hang(ctx context.Context, call string) error {
	if call != h.call {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func (h hanging) Make(ctx context.Context, algorithm string) ([]byte, error) {
	if err := h.hang(ctx, "make"); err != nil {
		return nil, err
	}
	return h.Keys.Make(ctx, algorithm)
}

func (h hanging) Vet(ctx context.Context, key device.Key) []device.Finding {
	if h.hang(ctx, "vet") != nil {
		return []device.Finding{{Check: "debian", Status: device.Undecided, ReasonCode: "KEYVET_NOT_CHECKED"}}
	}
	return h.Vetter.Vet(ctx, key)
}

func (h hanging) Dial(ctx context.Context, id string) (rotate.Session, error) {
	if err := h.hang(ctx, "dial"); err != nil {
		return nil, err
	}
	s, err := h.Cloud.Dial(ctx, id)
	return hangingSession{s, h}, err
}

type hangingSession struct {
	rotate.Session
	h hanging
}

func (s hangingSession) Create(ctx context.Context, o rotate.Order, request []byte) (rotate.Certificate, error) {
	if err := s.h.hang(ctx, "create"); err != nil {
		return rotate.Certificate{}, err
	}
	return s.Session.Create(ctx, o, request)
}

func (s hangingSession) Activate(ctx context.Context, c rotate.Certificate) (string, error) {
	if err := s.h.hang(ctx, "activate"); err != nil {
		return "", err
	}
	return s.Session.Activate(ctx, c)
}

func (s hangingSession) Confirm(ctx context.Context, o rotate.Order, c rotate.Certificate) error {
	if err := s.h.hang(ctx, "confirm"); err != nil {
		return err
	}
	return s.Session.Confirm(ctx, o, c)
}

func (s hangingSession) MoveGate(ctx context.Context, o rotate.Order, credential string) error {
	if err := s.h.hang(ctx, "move"); err != nil {
		return err
	}
	return s.Session.MoveGate(ctx, o, credential)
}

func (s hangingSession) Tell(ctx context.Context, job device.Job, status device.JobState, details map[string]string) error {
	if err := s.h.hang(ctx, "tell "+string(status)); err != nil {
		return err
	}
	return s.Session.Tell(ctx, job, status, details)
}

// TestDeadlines has each call hang in turn: the engine comes back within the
// hour, having failed, or waiting for better times.
func TestDeadlines(t *testing.T) {
	for call, want := range map[string]device.ReasonCode{
		"make": rotate.ReasonMakeTimeout, "vet": "KEYVET_NOT_CHECKED", "create": rotate.ReasonCreateTimeout, "activate": rotate.ReasonNotActivated,
		"confirm": rotate.ReasonCommitTimeout, "dial": "", "move": "", "tell IN_PROGRESS": "", "tell SUCCEEDED": "",
	} {
		t.Run(call, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				h := hanging{b.engine.Keys, b.engine.Vetter, b.engine.Cloud, call}
				b.engine.Keys, b.engine.Vetter, b.engine.Cloud = h, h, h
				b.engine.Clock.Pause = nil
				begun := time.Now()
				_, err := b.engine.Run(t.Context(), byJob)
				if took := time.Since(begun); took == 0 || took > time.Hour {
					t.Errorf("it took %s", took)
				}
				if call == "tell IN_PROGRESS" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if want == "" {
					if !errors.Is(err, rotate.ErrWaits) {
						t.Errorf("%v, want that it waits", err)
					}
					return
				}
				b.expect(err, want)
				b.expectOld()
			})
		})
	}
}
