package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/bundle"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

var debugBundleCommand = cli.Command{
	Name: "debug bundle", Short: "write what somebody who helps needs to know",
	Long: `Writes version, settings, status, last report, a list of keyvet's files and the
system into one text. There is no private key or password in it; read it before
you send it. The log is not in it either: journalctl -u keyvet -b`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+", if it is there")
		out := f.String("out", "", "write it to `FILE` (default: keyvet-bundle-TIME.txt), \"-\" is standard output")
		return func(_ context.Context, s cli.IO, _ []string) int {
			cfg, wrong := config.Load(*configPath)
			text := fmt.Sprintf("keyvet %s %s %s %s/%s\n", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			for _, d := range details() {
				text += d[0] + ": " + d[1] + "\n"
			}
			if *out == "-" {
				return finished(s, bundle.Write(s.Out, cfg, wrong, text))
			}
			path := *out
			if path == "" {
				path = "keyvet-bundle-" + time.Now().UTC().Format("20060102-150405") + ".txt"
			}
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return finished(s, err)
			}
			defer file.Close()
			if err = bundle.Write(file, cfg, wrong, text); err == nil {
				fmt.Fprintln(s.Out, path)
			}
			return finished(s, err)
		}
	},
}

func finished(s cli.IO, err error) int {
	if err != nil {
		s.Fail(err)
		return cli.Undecided
	}
	return cli.Pass
}
