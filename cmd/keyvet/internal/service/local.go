package service

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/rotate"
)

// What the service does without the cloud's asking is looked for every 30 s.
const (
	resumeEvery   = 5 * time.Minute // a rotation that waits
	scheduleAgain = 6 * time.Hour   // after a rotation by schedule that failed
)

// Local returns what there is to do without the cloud's asking: the operator's
// word, a rotation that waits, a certificate close to its end; nil if nothing.
func (r *rotator) Local() *agent.Work {
	if r.requested() {
		r.config.Attempts().Order()
		return r.work("by hand", func(ctx context.Context, do agent.Actions) error {
			return do.Rotate(ctx, agent.Rotation{Trigger: device.TriggerManual})
		})
	}
	now := time.Now()
	if s, err := r.engine.Journal.Load(); err == nil {
		if next := s.NextClear(); !next.IsZero() && !now.Before(next) {
			return &agent.Work{Operation: operation, ID: "old credentials", Do: func(ctx context.Context, _ agent.Actions) error { return r.engine.Clear(ctx) }}
		}
		if s.Rotation != nil {
			if now.Before(r.resumed.Add(resumeEvery)) {
				return nil
			}
			r.resumed = now
			return r.work("resumption", func(ctx context.Context, _ agent.Actions) error {
				_, err := r.engine.Resume(ctx)
				r.credentials.Reload()
				return err
			})
		}
	}
	own, _ := r.credentials.Current()
	thing, _ := r.credentials.Thing()
	before := r.config.Rotate.Before.Duration
	if before == 0 || own.Leaf == nil || now.Before(rotate.Due(own.Leaf, before, thing)) || now.Before(r.scheduled) {
		return nil
	}
	r.scheduled = now.Add(scheduleAgain)
	return r.work("certificate ends "+own.Leaf.NotAfter.Format(time.DateOnly), func(ctx context.Context, do agent.Actions) error {
		return do.Rotate(ctx, agent.Rotation{Trigger: device.TriggerSchedule})
	})
}

// operation names rotations in the log, as jobs do.
const operation = "keyvet.rotate"

// work is a rotation, if the configuration says how.
func (r *rotator) work(id string, do func(context.Context, agent.Actions) error) *agent.Work {
	if err := r.config.ReadyToRotate(); err != nil {
		return &agent.Work{Operation: operation, ID: id, Do: func(context.Context, agent.Actions) error {
			r.log.Warn("not rotated", "id", id, "error", err)
			return nil
		}}
	}
	return &agent.Work{Operation: operation, ID: id, EndsSession: true, Do: do}
}

// requested takes the request of `keyvet rotate`, and reports whether there was
// one.
func (r *rotator) requested() bool {
	path := r.config.RequestPath()
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		r.log.Error("request for a rotation", "error", err)
		return false
	}
	if err := durable.Remove(path); err != nil {
		r.log.Error("the request for a rotation cannot be removed, and nothing is rotated for it", "error", err)
		return false
	}
	return true
}
