package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
)

var checkCommand = cli.Command{
	Name: "check", Args: "[FILE ...]", Most: -1,
	Short: "test keys here and now; changes nothing, needs no network",
	Long: `Tests keys here and now. It changes nothing, not even in the TPM, and needs no
network. With FILEs it tests only those, and the TPM if -tpm is given; without,
all that the configuration names: the TPM, the device's certificate and key, its
CA certificates and further files.

FILE is a certificate, chain, CSR, public or private key in PEM or DER (PKCS#1,
PKCS#8, SEC 1, SPKI), an OpenSSH key, a TPM2B_PUBLIC or TPMT_PUBLIC, or a TSS2
PRIVATE KEY; "-" is standard input. Every object in a file is tested.`,
	Notes: `exit status: 0 pass (warnings included), 1 a key or the firmware fails,
2 wrong usage or configuration, 3 undecided: something could not be checked`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+", if it is there")
		address := f.String("tpm", "", "`ADDR` of the TPM: /dev/tpmrm0, unix:PATH or tcp:HOST:PORT (raw TPM commands, as swtpm), spi:/dev/spidevB.C[?speed=10MHz], i2c:/dev/i2c-N[?addr=0x2e]")
		list := f.String("blocklist", "", "look keys up in the list `F`, too")
		asJSON := f.Bool("json", false, "one JSON document on standard output")
		verbose := f.Bool("v", false, "show what passed, too")
		return func(ctx context.Context, s cli.IO, files []string) int {
			cfg, err := config.Load(*configPath)
			if err != nil {
				s.Fail(err)
				return cli.Usage
			}
			if *address != "" {
				if err := tpm.CheckAddress(*address); err != nil {
					return s.Misused(fmt.Sprintf("check: -tpm %q: %v", *address, err))
				}
			}
			if given(f, "tpm") || len(files) > 0 {
				cfg.TPM.Address = *address
			}
			c := &vet.Check{
				Config: *cfg, Agent: maker(), Progress: screen{s}.progress,
				Blocklist: *list, Files: files, Stdin: s.In, Typed: isTerminal(s.In),
			}
			r := c.Report(ctx, device.TriggerManual)
			r.Verbose = *verbose
			return screen{s}.report(r, *asJSON)
		}
	},
}

// configUsage begins the text of the flag -config.
const configUsage = "configuration `F` (default /etc/keyvet/keyvet.toml)"

// given reports whether a flag is on the command line.
func given(f *flag.FlagSet, name string) (yes bool) {
	f.Visit(func(f *flag.Flag) { yes = yes || f.Name == name })
	return yes
}

// report shows a report, and returns the exit status that it asks for.
func (s screen) report(r *device.Report, asJSON bool) int {
	s.gaps(r)
	show := s.table
	if asJSON {
		show = func(r *device.Report) error { return s.json(r) }
	}
	if err := show(r); err != nil {
		s.Fail(fmt.Errorf("write the result: %w", err))
		return cli.Undecided
	}
	return exitStatus(r.Verdict())
}
