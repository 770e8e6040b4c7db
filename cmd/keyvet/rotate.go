package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/service"
	"github.com/keyvet/keyvet/device/rotate"
)

// rotateLimit bounds a rotation: an RSA key may take the TPM minutes, and the
// cloud its time.
const rotateLimit = 30 * time.Minute

var rotateCommand = cli.Command{
	Name: "rotate", Short: "a new key and certificate for the device",
	Long: `Makes the device a new key (in the TPM where there is one) and has a certificate
issued for it, as the job keyvet.rotate does: vetted, tried and reported before
it is used, rolled back if anything fails. If the service runs, it is asked to.`,
	Notes: `exit status: 0 rotated, 1 failed and rolled back, 2 wrong usage or configuration,
3 not at its end: it goes on by itself (see keyvet status)`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+"; see [rotate]")
		return func(ctx context.Context, s cli.IO, _ []string) int {
			return screen{s}.rotate(ctx, *configPath, wordsOf(f))
		}
	},
}

// rotate rotates, here or by the service that runs. words are the command line.
func (s screen) rotate(ctx context.Context, configPath string, words []string) int {
	cfg, err := s.ready(configPath, (*config.Config).ReadyToRun, (*config.Config).ReadyToRotate)
	if err == nil {
		err = service.Own(*cfg, s.say, words...)
	}
	if err != nil {
		s.Fail(err)
		return cli.Usage
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
		s.Fail(err)
		return cli.Undecided
	}
	defer device.Close()
	r := device.Rotate(ctx)
	if r.Report != nil {
		for _, g := range r.Report.Missing() {
			s.say(g.What + ": " + g.Why)
		}
		s.outcome(r.Outcome)
	}
	status := s.sayRotated(cfg, r.Err)
	if r.Trouble != nil {
		s.Fail(r.Trouble)
	}
	return status
}

// rotateByService has the service that runs do it, and follows.
func (s screen) rotateByService(ctx context.Context, cfg config.Config) error {
	asked, err := service.Ask(cfg)
	if err != nil {
		return err
	}
	s.say("the service that runs was asked; it looks within half a minute")
	return asked.Follow(ctx, s.sayStep)
}

func (s screen) sayStep(step string, back bool) {
	if back {
		step = "undo " + step
	}
	s.say("rotation: " + step)
}

// sayRotated says how it ended: 0 done, 1 failed and rolled back, 3 not at its end.
func (s screen) sayRotated(cfg *config.Config, err error) int {
	var failed *rotate.Error
	switch {
	case err == nil:
		certificate, _ := cfg.CredentialFiles()
		s.say("rotated: the device's credential is now " + certificate)
		return cli.Pass
	case errors.As(err, &failed) && failed.Reason != rotate.ReasonBusy:
		s.Fail(fmt.Errorf("not rotated: %w", err))
		return cli.Fail
	}
	s.Fail(err)
	return cli.Undecided
}
