package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device/gate"
)

var waitCommand = cli.Command{
	Name: "wait", Short: "block until the gate is open",
	Long: `Blocks until the gate is open: for scripts, containers and images without
systemd. It may be started before the service. A mark that a killed service left
behind is no open gate.`,
	Notes: `exit status: 0 the gate is open, 2 wrong usage or configuration, 3 it did not
open in time, or it cannot be known how it stands`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+", if it is there")
		timeout := f.Duration("timeout", 0, "wait for this `DURATION` at most, such as 90s; 0 is without end")
		return func(ctx context.Context, s cli.IO, _ []string) int {
			if *timeout < 0 {
				return s.Misused(fmt.Sprintf("wait: -timeout %s: must be zero or more", *timeout))
			}
			cfg, err := config.Load(*configPath)
			if err != nil {
				s.Fail(err)
				return cli.Usage
			}
			if *timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, *timeout)
				defer cancel()
			}
			err = gate.Wait(ctx, cfg.RunDir, byOnce)
			switch {
			case err == nil:
				return cli.Pass
			case errors.Is(err, context.DeadlineExceeded):
				err = fmt.Errorf("the gate is still shut after %s: see `keyvet status`", *timeout)
			case ctx.Err() != nil:
				err = errors.New("the gate is still shut: interrupted")
			}
			screen{s}.Fail(err)
			return cli.Undecided
		}
	},
}
