package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/service"
	"github.com/keyvet/keyvet/device/rotate"
)

// rotateLimit bounds a rotation: an RSA key may take the TPM minutes, and the
// cloud its time.
const rotateLimit = 30 * time.Minute

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
	cfg, err := s.ready(*configPath, (*config.Config).ReadyToRun, (*config.Config).ReadyToRotate)
	if err == nil {
		err = service.Own(*cfg, s.say, append([]string{"keyvet", "rotate"}, args...)...)
	}
	if err != nil {
		s.fail(err)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, rotateLimit)
	defer cancel()
	o := s.options(*cfg, "keyvet rotate")
	o.Once, o.Watch = true, s.sayStep
	device, err := service.Start(o)
	switch {
	case errors.Is(err, service.ErrLocked):
		return s.sayRotated(cfg, s.rotateByService(ctx, *cfg))
	case err != nil:
		s.fail(err)
		return exitUndecided
	}
	defer device.Close()
	r := device.Rotate(ctx)
	if r.Report != nil {
		s.gaps(r.Report)
		s.outcome(r.Outcome)
	}
	status = s.sayRotated(cfg, r.Err)
	if r.Trouble != nil {
		s.fail(r.Trouble)
	}
	return status
}

// rotateByService has the service that runs do it, and follows.
func (s streams) rotateByService(ctx context.Context, cfg config.Config) error {
	asked, err := service.Ask(cfg)
	if err != nil {
		return err
	}
	s.say("the service that runs was asked; it looks within half a minute")
	return asked.Follow(ctx, s.sayStep)
}

func (s streams) sayStep(step string, back bool) {
	if back {
		step = "undo " + step
	}
	s.say("rotation: " + step)
}

// sayRotated says how it ended: 0 done, 1 failed and undone, 3 not at its end.
func (s streams) sayRotated(cfg *config.Config, err error) int {
	var failed *rotate.Error
	switch {
	case err == nil:
		certificate, _ := cfg.CredentialFiles()
		s.say("rotated: the device's credential is now " + certificate)
		return exitPass
	case errors.As(err, &failed) && failed.Reason != rotate.ReasonBusy:
		s.fail(fmt.Errorf("not rotated: %s: %w", failed.Reason, err))
		return exitFail
	}
	s.fail(err)
	return exitUndecided
}
