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
	"syscall"
)

const usage = `keyvet-lab runs keyvet without a board and without an AWS account.

usage:
  keyvet-lab demo [-keyvet PROGRAM]
        a healthy device and three bad ones, each with a TPM of its own, against
        a local AWS IoT endpoint; ends by itself and leaves nothing behind
  keyvet-lab up [-dir DIR] [-thing NAME]
        one healthy device: TPM emulator, endpoint, certificate and keyvet.toml
        in DIR (default: a temporary directory), until Ctrl-C

It needs swtpm (Debian: swtpm, swtpm-tools).
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command carries out one command line and returns its exit status: 0 as
// promised, 1 not as promised, 2 wrong usage.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage) }
	var do func() error
	switch args[0] {
	case "demo":
		program := fs.String("keyvet", "keyvet", "")
		do = func() error { return demo(ctx, *program, stdout) }
	case "up":
		dir := fs.String("dir", "", "")
		thing := fs.String("thing", "lab-device", "")
		do = func() error { return up(ctx, *dir, *thing, stdout) }
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return 0
	default:
		fmt.Fprintf(stderr, "keyvet-lab: unknown command %q\n%s", args[0], usage)
		return 2
	}
	switch err := fs.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "keyvet-lab: %s takes no arguments\n", args[0])
		return 2
	}
	if err := do(); err != nil {
		fmt.Fprintf(stderr, "keyvet-lab: %v\n", err)
		return 1
	}
	return 0
}
