package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/logs"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/service"
	"github.com/keyvet/keyvet/device"
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
	Notes: `exit status: 0 rotated, 1 failed and rolled back, 2 wrong usage or
configuration, 3 not at its end: it goes on by itself (see keyvet status)`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+"; see [rotate]")
		return func(ctx context.Context, s cli.IO, _ []string) int {
			return screen{s}.rotate(ctx, *configPath, wordsOf(f))
		}
	},
}

// rotationSteps are what the steps of a rotation are for, and rotationBack is what
// undoes them.
var (
	rotationSteps = map[string]string{
		"reserve": "room for the new key, in the journal", "make": "the new key", "vet": "every check on the new key",
		"enrol": "a certificate for it", "check": "the certificate: its key, chain, name and dates", "try": "a connection with it",
		"commit": "the switch to it", "prove": "a report on it, which AWS IoT has acknowledged", "retire": "the old key, to be removed after rotate.grace",
	}
	rotationBack = map[string]string{"make": "the new key is removed", "commit": "the old key and certificate are in use again"}
)

// rotation shows a rotation.
type rotation struct {
	screen
	steps terminal.Steps
	start time.Time
	done  func() // ends the line that shows how long the step takes; nil: no step is under way
}

func (s screen) rotation() *rotation {
	return &rotation{screen: s, start: time.Now(), steps: terminal.Steps{Out: s.Out, Style: terminal.Of(s.Out), For: rotationSteps, Back: rotationBack}}
}

func (v *rotation) watch(step string, back bool) {
	if v.done == nil && step == rotate.LastStep {
		return // of the rotation before this one
	}
	v.stop()
	v.steps.Begin(step, back)
	v.done = v.screen.progress("rotation: " + rotationSteps[step])
}

func (v *rotation) stop() {
	if v.done != nil {
		v.done()
	}
}

// progress is of what takes long besides the steps.
func (v *rotation) progress(what string) (done func()) {
	if v.done != nil {
		return func() {}
	}
	return v.screen.progress(what)
}

// rotate rotates, here or by the service that runs. words are the command line.
func (s screen) rotate(ctx context.Context, configPath string, words []string) int {
	cfg, err := s.ready(configPath, (*config.Config).ReadyToRun, (*config.Config).ReadyToRotate)
	if err == nil {
		err = service.Own(*cfg, s.Say, words...)
	}
	if err != nil {
		s.Fail(err)
		return cli.Usage
	}
	ctx, cancel := context.WithTimeout(ctx, rotateLimit)
	defer cancel()
	v := s.rotation()
	o := s.options(*cfg, "keyvet rotate")
	o.Log = slog.New(logs.Person(s.Err, "keyvet", cfg.Log.Level == "debug"))
	o.Once, o.Watch, o.Progress = true, v.watch, v.progress
	d, err := service.Start(o)
	switch {
	case errors.Is(err, service.ErrLocked):
		return v.end(cfg, v.byService(ctx, *cfg))
	case err != nil:
		s.Fail(err)
		return cli.Undecided
	}
	defer d.Close()
	r := d.Rotate(ctx)
	status := v.end(cfg, r.Err)
	if r.Report != nil {
		for _, g := range r.Report.Missing() {
			s.Say(g.What + ": " + g.Why)
		}
		s.outcome(r.Outcome)
	}
	if r.Trouble != nil {
		s.Fail(r.Trouble)
	}
	return status
}

// byService has the service that runs do it, and follows.
func (v *rotation) byService(ctx context.Context, cfg config.Config) error {
	asked, err := service.Ask(cfg)
	if err != nil {
		return err
	}
	v.Say("the service that runs was asked; it looks within half a minute")
	v.steps.Sampled = true
	return asked.Follow(ctx, v.watch)
}

// end says how it ended: 0 done, 1 failed and rolled back, 3 not at its end.
func (v *rotation) end(cfg *config.Config, err error) int {
	v.stop()
	style := v.steps.Style
	show := func(how device.Status, text string, under ...string) {
		v.steps.End(how)
		if how != device.Undecided {
			fmt.Fprintln(v.Out)
		}
		io.WriteString(v.Out, style.Verdict(how, text))
		for _, line := range under {
			io.WriteString(v.Out, style.Under(line))
		}
	}
	failed := new(rotate.Error)
	switch {
	case err == nil:
		certificate, _ := cfg.CredentialFiles()
		show(device.Pass, fmt.Sprintf("rotated in %.1f s: the device's credential is now %s", time.Since(v.start).Seconds(), certificate))
		return cli.Pass
	case errors.As(err, &failed) && failed.Reason != rotate.ReasonBusy:
		show(device.Fail, "not rotated: the old key and certificate stay in use", failed.Err.Error(), string(failed.Reason))
		return cli.Fail
	}
	show(device.Undecided, "not rotated yet: `keyvet status` shows how far it is", err.Error())
	return cli.Undecided
}
