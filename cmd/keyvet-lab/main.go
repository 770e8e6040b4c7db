// Command keyvet-lab is the desk: a TPM emulator and a local AWS IoT endpoint,
// so that all of keyvet runs without a board and without an account.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// Set by the linker: -X main.version=… -X main.commit=….
var (
	version = "0.1.0-dev"
	commit  = ""
)

var program = &cli.Program{
	Name:    "keyvet-lab",
	About:   "keyvet-lab runs keyvet without a board and without an AWS account.",
	Version: version, Commit: commit,
	Notes: `The commands after "up" are for another terminal while it is up, with
KEYVET_LAB=DIR or -dir DIR. The lab needs swtpm (Debian: swtpm, swtpm-tools).

exit status: 0 as expected, 1 not as expected, 2 wrong usage`,
	Examples: []string{
		"keyvet-lab up -bad roca                  a device that fails",
		"keyvet-lab job create -operation keyvet.rotate lab-device",
		"keyvet-lab fault set -times 2 throttle",
		"keyvet-lab fault set slow=2s drop-accepted",
		`keyvet-lab shadow -update '{"state":{"desired":{"check":"7"}}}' lab-device`,
	},
	Commands: slices.Concat([]cli.Command{
		{
			Name: "demo", Short: "good and bad devices, two rotations and a first contact",
			Long: `Runs a healthy device, three bad ones and a new one, each with a TPM of its own,
against a local AWS IoT endpoint. A job replaces a weak key; another fails and
is rolled back. It ends by itself and leaves nothing behind.`,
			New: func(f *flag.FlagSet) cli.Action {
				keyvet := f.String("keyvet", "keyvet", "run this `PROGRAM` (default: keyvet of PATH, or beside this program)")
				return action(func(ctx context.Context, s cli.IO, _ []string) error { return demo(ctx, *keyvet, printerOn(s.Out)) })
			},
		},
		{
			Name: "up", Short: "one device, its TPM and an AWS IoT endpoint, until Ctrl-C",
			Long: `One device, healthy or bad: TPM emulator, endpoint, certificate and keyvet.toml
in DIR (default: a temporary directory), until Ctrl-C.`,
			New: func(f *flag.FlagSet) cli.Action {
				var opts upOptions
				f.StringVar(&opts.dir, "dir", "", "keep everything in `DIR`; up again there is the same device")
				f.StringVar(&opts.thing, "thing", "lab-device", "`NAME` of the thing (default lab-device)")
				f.StringVar(&opts.addr, "addr", "", "listen on `HOST:PORT`, for a board on the desk (default: on loopback)")
				f.StringVar(&opts.bad, "bad", "", "a device that fails: `KIND` is roca (a key in the TPM), debian (the key of its certificate) or firmware (the TPM's)")
				f.BoolVar(&opts.claim, "claim", false, "the device has no certificate, but a claim to provision itself by")
				f.BoolVar(&opts.quotas, "quotas", false, "one CONNECT a second per client id, 100 messages a second")
				f.BoolVar(&opts.jitr, "jitr", false, "register unknown certificates of the CA as they first connect")
				return action(func(ctx context.Context, s cli.IO, _ []string) error { return up(ctx, opts, s.Out) })
			},
		},
	}, remote),
	Values: map[string][]string{"operation": {"keyvet.check", "keyvet.rotate"}, "bad": {"roca", "debian", "firmware"}},
}

// faults is what help says of the faults that there are, in 80 columns.
func faults() string {
	const wide, indent = 80, 22
	var b strings.Builder
	for line := range strings.Lines(localiot.DescribeFaults()) {
		words := strings.Fields(line)
		row := fmt.Sprintf("  %-*s", indent-3, words[0])
		for _, word := range words[1:] {
			if len(row)+1+len(word) > wide {
				b.WriteString(row + "\n")
				row = strings.Repeat(" ", indent-1)
			}
			row += " " + word
		}
		b.WriteString(row + "\n")
	}
	return b.String()
}

func main() { cli.Main(program) }

// action has the exit status say whether all went as promised.
func action(do func(ctx context.Context, s cli.IO, args []string) error) cli.Action {
	return func(ctx context.Context, s cli.IO, args []string) int {
		err := do(ctx, s, args)
		switch {
		case err == nil:
			return cli.Pass
		case ctx.Err() != nil:
			err = errors.New("interrupted")
		}
		if !errors.Is(err, errUnexpected) {
			s.Fail(err)
		}
		return cli.Fail
	}
}

// command carries out one command line and returns its exit status.
func command(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return program.Run(ctx, cli.IO{In: stdin, Out: stdout, Err: stderr}, args)
}
