// Command keyvet-lab is the desk: a TPM emulator and a local AWS IoT endpoint,
// so that all of keyvet runs without a board and without an account.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/keyvet/keyvet/mqtt/localiot"
)

const usage = `keyvet-lab runs keyvet without a board and without an AWS account.

usage:
  keyvet-lab demo [-keyvet PROGRAM]
        a healthy device, three bad ones and a new one, each with a TPM of its
        own, against a local AWS IoT endpoint; a job replaces a weak key, another
        fails and is undone; ends by itself and leaves nothing behind
  keyvet-lab up [-dir DIR] [-thing NAME] [-claim] [-addr HOST:PORT] [-quotas] [-jitr]
        one healthy device: TPM emulator, endpoint, certificate and keyvet.toml
        in DIR (default: a temporary directory), until Ctrl-C
          -claim   the device has no certificate, but a claim to provision by
          -addr    listen there, for a board on the desk (default: on loopback)
          -quotas  one CONNECT a second per client id, 100 messages a second
          -jitr    register unknown certificates of the CA as they first connect

while it is up, in another terminal with KEYVET_LAB=DIR or -dir DIR:
  keyvet-lab things
        the things, and their certificates
  keyvet-lab job create [-id ID] [-operation NAME] [-document FILE] [-string] [-retries N] THING ...
        queue a job: keyvet.check, keyvet.rotate, or the document in FILE ("-" is standard input)
  keyvet-lab job list
  keyvet-lab job cancel [-force] ID
        -force: in progress, too
  keyvet-lab fault set [-times N] FAULT ...
        misbehave in these ways and no other, until they have struck N times
  keyvet-lab fault list
  keyvet-lab fault clear
  keyvet-lab shadow [-name NAME] [-update JSON] THING
        print a shadow, of the name keyvet, or update it first
  keyvet-lab check THING
        ask for a check by the shadow

faults:
%s
examples:
  keyvet-lab job create -operation keyvet.rotate lab-device
  keyvet-lab fault set -times 2 throttle
  keyvet-lab fault set slow=2s drop-accepted
  keyvet-lab shadow -update '{"state":{"desired":{"check":"7"}}}' lab-device

It needs swtpm (Debian: swtpm, swtpm-tools).
`

// usageText is usage with the faults that there are.
func usageText() string {
	var faults strings.Builder
	for line := range strings.Lines(localiot.DescribeFaults()) {
		faults.WriteString("  " + line)
	}
	return fmt.Sprintf(usage, &faults)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// action is one command: what it does with its arguments, and how many there
// may be; most < 0 is any number.
type action struct {
	least, most int
	do          func(args []string) error
}

// command carries out one command line and returns its exit status: 0 as
// promised, 1 not as promised, 2 wrong usage.
func command(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usageText())
		return 2
	}
	name, rest := args[0], args[1:]
	if (name == "job" || name == "fault") && len(rest) > 0 {
		name, rest = name+" "+rest[0], rest[1:]
	}
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usageText()) }
	var a action
	switch name {
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usageText())
		return 0
	case "demo":
		program := fs.String("keyvet", "keyvet", "")
		a.do = func([]string) error { return demo(ctx, *program, stdout) }
	case "up":
		var opts upOptions
		fs.StringVar(&opts.dir, "dir", "", "")
		fs.StringVar(&opts.thing, "thing", "lab-device", "")
		fs.StringVar(&opts.addr, "addr", "", "")
		fs.BoolVar(&opts.claim, "claim", false, "")
		fs.BoolVar(&opts.quotas, "quotas", false, "")
		fs.BoolVar(&opts.jitr, "jitr", false, "")
		a.do = func([]string) error { return up(ctx, opts, stdout) }
	default:
		var known bool
		if a, known = remote(name, fs, stdin, stdout); !known {
			fmt.Fprintf(stderr, "keyvet-lab: unknown command %q\n%s", name, usageText())
			return 2
		}
	}
	switch err := fs.Parse(rest); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case fs.NArg() < a.least:
		fmt.Fprintf(stderr, "keyvet-lab: %s takes an argument; see keyvet-lab help\n", name)
		return 2
	case a.most >= 0 && fs.NArg() > a.most:
		fmt.Fprintf(stderr, "keyvet-lab: %s takes no argument %q\n", name, fs.Arg(a.most))
		return 2
	}
	if err := a.do(fs.Args()); err != nil {
		fmt.Fprintf(stderr, "keyvet-lab: %v\n", err)
		return 1
	}
	return 0
}
