package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/logs"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/quiet"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/service"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/status"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/systemd"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
)

const byOnce = status.Once

var runCommand = cli.Command{
	Name: "run", Short: "the service: check, report, open the gate, wait for jobs",
	Long: `Vets every key of the device, reports to AWS IoT over MQTT with mutual TLS, and
opens the gate (the file "trusted" in run_dir) once the report is acknowledged;
then waits for jobs and repeats it on schedule. What cannot be delivered is
spooled and sent later. A device that has only a claim is provisioned first.`,
	Notes: `exit status of -once: 0 the gate is open, 1 a key or the firmware fails,
2 wrong usage or configuration, 3 undecided, or not acknowledged`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+"; it must name thing.name and mqtt.endpoints")
		once := f.Bool("once", false, "end when the gate is decided")
		return func(ctx context.Context, s cli.IO, _ []string) int {
			return screen{s}.run(ctx, *configPath, *once, wordsOf(f))
		}
	},
}

// wordsOf is the command line of a command.
func wordsOf(f *flag.FlagSet) []string {
	words := []string{"keyvet", f.Name()}
	f.Visit(func(f *flag.Flag) {
		words = append(words, "-"+f.Name)
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); !ok || !b.IsBoolFlag() {
			words = append(words, f.Value.String())
		}
	})
	return words
}

// run looks after the device. words are the command line.
func (s screen) run(ctx context.Context, configPath string, once bool, words []string) int {
	cfg, err := s.ready(configPath, (*config.Config).ReadyToRun)
	if err == nil {
		err = service.Own(*cfg, s.Say, words...)
	}
	if err != nil {
		s.Fail(err)
		return cli.Usage
	}
	o := s.options(*cfg, "keyvet run")
	told := systemd.New(o.Log)
	o.BootLog = systemd.File("bootlog")
	if o.Once = once; o.Once {
		o.By = byOnce
		if cli.IsTerminal(s.Err) {
			o.Log = slog.New(logs.Person(s.Err, "keyvet", cfg.Log.Level == "debug"))
		}
	} else {
		o.Alive = told.Alive
	}
	device, err := service.Start(o)
	if err != nil {
		s.Fail(err)
		return cli.Undecided
	}
	defer device.Close()
	if once {
		return s.once(ctx, device, cfg.RunDir)
	}
	told.Ready(ctx, cfg.TPM.Wait.Duration)
	if err := device.Run(ctx); errors.Is(err, agent.ErrStuck) || ctx.Err() == nil {
		s.Fail(err)
		return cli.Undecided
	}
	return cli.Pass
}

// once vets the device one time.
func (s screen) once(ctx context.Context, d *service.Service, runDir string) int {
	r, o := d.Once(ctx)
	if err := s.table(r); err != nil {
		s.Fail(fmt.Errorf("write the result: %w", err))
	}
	s.outcome(o)
	switch {
	case o.State == gate.Open:
		s.Say("gate open: " + gate.Path(runDir))
		return cli.Pass
	case r.Verdict() == device.Fail:
		return cli.Fail
	}
	return cli.Undecided
}

// ready loads the configuration of a command that opens gates: it has to say what
// each of needs asks. The mark that an earlier keyvet left is removed before
// anything can fail, unless another one holds the directory.
func (s screen) ready(path string, needs ...func(*config.Config) error) (*config.Config, error) {
	cfg, err := config.Load(path)
	dir := config.RunDirOf(path)
	if cfg != nil {
		dir = cfg.RunDir
	}
	if err := gate.Clear(dir, durable.Disk{}); err != nil {
		s.Fail(err)
	}
	if err == nil {
		err = config.None(path)
	}
	for _, need := range needs {
		if err == nil {
			err = need(cfg)
		}
	}
	return cfg, err
}

// options are those of a service.
func (s screen) options(cfg config.Config, by string) service.Options {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		level = slog.LevelInfo // validate has let the four words through
	}
	return service.Options{Config: cfg, By: by, Agent: maker(), Log: slog.New(quiet.New(logs.New(s.Err, level), "connected")), Progress: s.progress}
}
