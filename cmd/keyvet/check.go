package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
)

func checkCommand(ctx context.Context, s streams, args []string) int {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	configPath := fs.String("config", "", "")
	address := fs.String("tpm", "", "")
	list := fs.String("blocklist", "", "")
	asJSON := fs.Bool("json", false, "")
	verbose := fs.Bool("v", false, "")
	files, status, ok := s.parse(fs, args)
	if !ok {
		return status
	}
	cfg, err := config.Load(*configPath)
	if err != nil {
		s.fail(err)
		return exitUsage
	}
	tpmGiven := false
	fs.Visit(func(f *flag.Flag) { tpmGiven = tpmGiven || f.Name == "tpm" })
	if *address != "" {
		if err := tpm.CheckAddress(*address); err != nil {
			return s.usageError(fmt.Sprintf("check: -tpm %q: %v", *address, err), "check")
		}
	}
	if tpmGiven || len(files) > 0 {
		cfg.TPM.Address = *address
	}

	c := &vet.Check{
		Config: *cfg, Agent: device.Agent{Version: version, Commit: commit}, Progress: s.progress,
		Blocklist: *list, Files: files, Stdin: s.in, Typed: isTerminal(s.in),
	}
	r := c.Report(ctx, device.TriggerManual)
	r.Verbose = *verbose
	s.gaps(r)
	if *asJSON {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		err = enc.Encode(r)
	} else {
		err = s.table(r)
	}
	if err != nil {
		s.fail(fmt.Errorf("write the result: %w", err))
		return exitUndecided
	}
	return exitStatus(r.Verdict())
}
