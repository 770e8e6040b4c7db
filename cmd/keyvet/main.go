// Command keyvet lets a device check its own keys before it trusts them.
package main

import (
	"context"
	"io"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/advisory"
)

// Set by the linker: -X main.version=… -X main.commit=….
var (
	version = "0.1.0-dev"
	commit  = ""
)

var program = &cli.Program{
	Name:    "keyvet",
	About:   "keyvet vets a device's own keys before the device trusts them.",
	Version: version, Commit: commit,
	Commands: []cli.Command{checkCommand, runCommand, statusCommand, rotateCommand, waitCommand, debugBundleCommand},
	Notes: `exit status of check, run -once and status -q:
  0 pass (warnings included)   1 a key or the firmware fails
  2 wrong usage or configuration   3 undecided: something could not be checked`,
	Examples: []string{
		"keyvet check server.pem                  a certificate, chain, CSR or key",
		"keyvet check -tpm /dev/tpmrm0            this device, its TPM included",
		"keyvet check -format line rootfs/etc     every key in a directory",
		"ssh-keyscan host | keyvet check -        standard input",
	},
	Details: details,
	Values: map[string][]string{
		"tpm": {"/dev/tpmrm0", "unix:", "tcp:", "spi:", "i2c:"}, "format": formNames(), "fail-on": {"low", "medium", "high", "critical"},
	},
}

func main() { cli.Main(program) }

func details() [][2]string {
	return [][2]string{
		{"clock floor", device.ClockFloor().Format(time.RFC3339)}, // a clock before that is wrong
		{"advisories", "reviewed " + advisory.Reviewed()},         // held against their sources; once a year at least
	}
}

// command carries out one command line and returns its exit status.
func command(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return program.Run(ctx, cli.IO{In: stdin, Out: stdout, Err: stderr}, args)
}

// maker is this program, as the reports that it makes name it.
func maker() device.Agent { return device.Agent{Version: version, Commit: commit} }

// exitStatus is the exit status that a verdict asks for.
func exitStatus(v device.Status) int {
	switch v {
	case device.Pass, device.Warn:
		return cli.Pass
	case device.Fail:
		return cli.Fail
	}
	return cli.Undecided
}
