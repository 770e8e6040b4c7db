package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/service"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
)

// byOnce is what the mark of a gate says that nobody holds: run -once has ended
// by the time that others read it.
const byOnce = "keyvet run -once"

func runCommand(ctx context.Context, s streams, args []string) int {
	fs := flag.NewFlagSet("run", flag.ContinueOnError)
	configPath := fs.String("config", "", "")
	once := fs.Bool("once", false, "")
	rest, status, ok := s.parse(fs, args)
	if !ok {
		return status
	}
	if len(rest) > 0 {
		return s.usageError("run takes no arguments", "run")
	}
	cfg, err := s.ready(*configPath, (*config.Config).ReadyToRun)
	if err == nil {
		err = service.Own(*cfg, s.say, append([]string{"keyvet", "run"}, args...)...)
	}
	if err != nil {
		s.fail(err)
		return exitUsage
	}
	o := s.options(*cfg, "keyvet run")
	if o.Once = *once; o.Once {
		o.By = byOnce
	} else {
		o.Alive = notifySystemd(ctx, o.Log)
	}
	device, err := service.Start(o)
	if err != nil {
		s.fail(err)
		return exitUndecided
	}
	defer device.Close()
	if *once {
		return s.once(ctx, device, cfg.RunDir)
	}
	if err := device.Run(ctx); errors.Is(err, agent.ErrStuck) || ctx.Err() == nil {
		s.fail(err)
		return exitUndecided
	}
	return exitPass
}

// once vets the device one time.
func (s streams) once(ctx context.Context, d *service.Service, runDir string) int {
	r, o := d.Once(ctx)
	if err := s.table(r); err != nil {
		s.fail(fmt.Errorf("write the result: %w", err))
	}
	s.gaps(r)
	s.outcome(o)
	switch {
	case o.State == gate.Open:
		s.say("gate open: " + gate.Path(runDir))
		return exitPass
	case r.Verdict() == device.Fail:
		return exitFail
	}
	return exitUndecided
}

// ready loads the configuration of a command that opens gates: it has to say what
// each of needs asks. The mark that an earlier keyvet left is removed before
// anything can fail, unless another one holds the directory.
func (s streams) ready(path string, needs ...func(*config.Config) error) (*config.Config, error) {
	cfg, err := config.Load(path)
	dir := config.RunDirOf(path)
	if cfg != nil {
		dir = cfg.RunDir
	}
	if err := gate.Clear(dir, durable.Disk{}); err != nil {
		s.fail(err)
	}
	for _, need := range needs {
		if err == nil {
			err = need(cfg)
		}
	}
	return cfg, err
}

// options are those of a service.
func (s streams) options(cfg config.Config, by string) service.Options {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		level = slog.LevelInfo // validate has let the four words through
	}
	log := slog.New(slog.NewTextHandler(s.err, &slog.HandlerOptions{Level: level}))
	return service.Options{Config: cfg, By: by, Agent: device.Agent{Version: version, Commit: commit}, Log: log, Progress: s.progress}
}
