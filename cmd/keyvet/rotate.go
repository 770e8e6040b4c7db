package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

const (
	byHand       = "by hand"
	rotatePoll   = 250 * time.Millisecond
	rotateLimit  = 30 * time.Minute // an RSA key may take the TPM minutes, and the cloud its time
	rotateListen = 2 * time.Minute  // for the service to take the request; it looks every 30 s
	rotateBegin  = time.Minute      // to begin, once it took it: before it connects to anything
)

func rotateCommand(ctx context.Context, s streams, args []string) int {
	fs := flag.NewFlagSet("rotate", flag.ContinueOnError)
	configPath := fs.String("config", "", "")
	rest, status, ok := s.parse(fs, args)
	if !ok {
		return status
	}
	if len(rest) > 0 {
		return s.usageError("rotate takes no arguments", "rotate")
	}
	cfg, err := config.Load(*configPath)
	s.clear(cfg, *configPath)
	if err == nil {
		err = cfg.ReadyToRun()
	}
	if err == nil {
		err = cfg.ReadyToRotate()
	}
	if err != nil {
		s.fail(err)
		return exitUsage
	}
	if err := s.owned(cfg, append([]string{"keyvet", "rotate"}, args...)...); err != nil {
		s.fail(err)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, rotateLimit)
	defer cancel()
	unlock, err := lock(cfg.StateDir)
	switch {
	case errors.Is(err, errLocked):
		return s.rotateByService(ctx, cfg)
	case err != nil:
		s.fail(err)
		return exitUndecided
	}
	defer unlock()
	g, release, err := newGate(cfg, "keyvet rotate")
	if err != nil {
		s.fail(err)
		return exitUndecided
	}
	defer release()
	return s.rotateHere(ctx, cfg, g)
}

// rotateHere vets the device and, once its report is delivered, rotates.
func (s streams) rotateHere(ctx context.Context, cfg *config.Config, g *gate.Gate) int {
	d := &deviceRun{streams: s, cfg: cfg, log: newLog(s, cfg), once: true, attempts: onceAttempts}
	if err := d.start(g); err != nil {
		s.fail(err)
		return exitUndecided
	}
	d.engine.Watch = s.tellStep
	defer func() { // nobody vouches for it from here on
		if err := d.agent.Gate.Shut(); err != nil {
			s.fail(err)
		}
	}()
	if _, o := d.agent.Once(ctx); errors.Is(o.Undelivered, agent.ErrNotReady) || d.credentialErr != nil {
		s.fail(cmp.Or(d.credentialErr, o.Undelivered))
		return exitUndecided
	}
	err := d.rotate(ctx, agent.Rotation{Trigger: device.TriggerManual})
	if d.agent.Gate.State() != gate.Open && ctx.Err() == nil {
		r, o := d.agent.Once(ctx)
		s.gaps(r)
		s.outcome(o)
	}
	return s.tellRotated(cfg, err)
}

// rotateByService has the service that runs do it, and follows.
func (s streams) rotateByService(ctx context.Context, cfg *config.Config) int {
	journal := rotate.File{Path: rotate.JournalPath(cfg.StateDir)}
	before, err := journal.Load()
	if err == nil {
		err = os.WriteFile(cfg.RequestPath(), nil, 0o600) // its being there says it all
	}
	if err != nil {
		s.fail(err)
		return exitUndecided
	}
	fmt.Fprintln(s.err, "keyvet: the service that runs was asked; it looks within half a minute")
	began, step := time.Now(), ""
	var taken time.Time // when the request was seen to be gone
	t := time.NewTicker(rotatePoll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			s.fail(fmt.Errorf("the service has not ended the rotation: see keyvet status: %w", context.Cause(ctx)))
			return exitUndecided
		case <-t.C:
		}
		now, err := journal.Load()
		if err != nil {
			s.fail(err)
			return exitUndecided
		}
		if n := len(now.Ended); n > 0 && (len(before.Ended) == 0 || !now.Ended[n-1].Time.Equal(before.Ended[len(before.Ended)-1].Time)) {
			o := now.Ended[n-1]
			if o.Status != rotate.Succeeded {
				return s.tellRotated(cfg, &rotate.Error{Reason: o.Reason, Err: errors.New(o.Message)})
			}
			return s.tellRotated(cfg, nil)
		}
		if r := now.Rotation; r != nil && r.Step != step && r.New.ID != newID(before) {
			step = r.Step
			s.tellStep(step, r.Back)
		}
		_, err = os.Stat(cfg.RequestPath())
		switch {
		case err == nil && time.Since(began) > rotateListen:
			s.fail(errors.Join(errors.New("the service does not take the request: it is offline or busy (keyvet status)"), durable.Remove(cfg.RequestPath())))
			return exitUndecided
		case errors.Is(err, fs.ErrNotExist) && taken.IsZero():
			taken = time.Now()
		case !taken.IsZero() && now.Rotation == nil && time.Since(taken) > rotateBegin:
			s.fail(errors.New("the service took the request and began no rotation: see its log for the reason"))
			return exitUndecided
		}
	}
}

func newID(s *rotate.State) string {
	if s.Rotation == nil {
		return ""
	}
	return s.Rotation.New.ID
}

func (s streams) tellStep(step string, back bool) {
	direction := ""
	if back {
		direction = "undo "
	}
	fmt.Fprintf(s.err, "keyvet: rotation: %s%s\n", direction, step)
}

// tellRotated tells how it ended: 0 done, 1 failed and undone, 3 not at its end.
func (s streams) tellRotated(cfg *config.Config, err error) int {
	var failed *rotate.Error
	switch {
	case err == nil:
		certificate, _ := cfg.CredentialFiles()
		fmt.Fprintf(s.err, "keyvet: rotated: the device's credential is now %s\n", certificate)
		return exitPass
	case errors.As(err, &failed) && failed.Reason != rotate.ReasonBusy:
		s.fail(fmt.Errorf("not rotated: %s: %w", failed.Reason, err))
		return exitFail
	}
	s.fail(err)
	return exitUndecided
}

// What the service does without the cloud's asking is looked for every 30 s.
const (
	resumeEvery   = 5 * time.Minute // a rotation that waits
	scheduleAgain = 6 * time.Hour   // after a rotation by schedule that failed
)

// localWork is what there is to do without the cloud's asking: the operator's
// word, a rotation that waits, a certificate close to its end.
func (d *deviceRun) localWork() *agent.Work {
	rotation := func(id string, trigger device.Trigger) *agent.Work {
		w := &agent.Work{Operation: awsiot.OperationRotate, ID: id, EndsSession: true}
		w.Do = func(ctx context.Context, do agent.Actions) error {
			return do.Rotate(ctx, agent.Rotation{Trigger: trigger})
		}
		if err := d.cfg.ReadyToRotate(); err != nil {
			w.EndsSession = false
			w.Do = func(context.Context, agent.Actions) error {
				d.log.Warn("not rotated", "id", id, "error", err)
				return nil
			}
		}
		return w
	}
	if _, err := os.Lstat(d.cfg.RequestPath()); err == nil {
		if err = durable.Remove(d.cfg.RequestPath()); err == nil {
			return rotation(byHand, device.TriggerManual)
		}
		d.log.Error("the request for a rotation cannot be removed, and nothing is rotated for it", "error", err)
	} else if !errors.Is(err, fs.ErrNotExist) {
		d.log.Error("request for a rotation", "error", err)
	}
	now := time.Now()
	if s, err := d.engine.Journal.Load(); err == nil {
		if next := s.NextClear(); !next.IsZero() && !now.Before(next) {
			return &agent.Work{Operation: awsiot.OperationRotate, ID: "old credentials", Do: func(ctx context.Context, _ agent.Actions) error { return d.engine.Clear(ctx) }}
		}
		if s.Rotation != nil {
			if now.Before(d.resumed.Add(resumeEvery)) {
				return nil
			}
			d.resumed = now
			return &agent.Work{Operation: awsiot.OperationRotate, ID: "resumption", EndsSession: true, Do: d.resume}
		}
	}
	before := d.cfg.Rotate.Before.Duration
	if before == 0 || d.credential.Leaf == nil || now.Before(rotate.Due(d.credential.Leaf, before, d.thing)) || now.Before(d.scheduled) {
		return nil
	}
	d.scheduled = now.Add(scheduleAgain)
	return rotation("certificate ends "+d.credential.Leaf.NotAfter.Format(time.DateOnly), device.TriggerSchedule)
}
