// Keyvet-blocklist builds, verifies and inspects the lists of weak keys that
// keyvet looks keys up in. It runs on the build host.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
)

const usage = `keyvet-blocklist makes the lists of weak keys (.kvf) that keyvet looks keys up in.

Usage:
  keyvet-blocklist build -out FILE -data DIR [-sets NAME,...] [-fpr RATE]
  keyvet-blocklist verify [-data DIR] FILE
  keyvet-blocklist inspect [-json] FILE

FILE "embedded" is the list inside this program.

  build    makes a list of the sets in DIR, which holds SHA256SUMS and
           NAME-ARCH-VARIANT.bin files of 32,768 keys each
  verify   checks structure and digest of a list, and with -data that it has
           every key of DIR that belongs to its sets
  inspect  shows what a list covers

Flags:
  -out FILE    where the list is written; a list there is replaced at once
  -data DIR    the sets' fingerprints
  -sets NAMES  the sets that go in: rsa1024, rsa2048, rsa2048-ssh, rsa3072,
               rsa4096, p256, p384, p521 (default rsa2048,p256)
  -fpr RATE    highest false-positive rate of a set (default 1e-9)
  -json        one JSON document on standard output

Exit status: 0 all is well, 1 a list or the data is bad, 2 wrong usage,
3 a file could not be read or written.

Examples:
  keyvet-blocklist build -out weak.kvf -data sets -sets rsa2048,rsa4096
  keyvet-blocklist verify -data sets weak.kvf
  keyvet-blocklist inspect -json embedded
`

// The exit statuses of all keyvet commands.
const (
	exitOK        = 0
	exitBad       = 1
	exitUsage     = 2
	exitUndecided = 3
)

// errUsage marks an error in the command line.
type errUsage struct{ error }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	var err error
	switch args[0] {
	case "build":
		err = build(args[1:], stderr)
	case "verify":
		err = verify(args[1:], stderr)
	case "inspect":
		err = inspect(args[1:], stdout)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
	default:
		err = errUsage{fmt.Errorf("unknown command %q", args[0])}
	}
	var wrong errUsage
	var path *fs.PathError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "keyvet-blocklist: %v\nTry 'keyvet-blocklist help'.\n", err)
		return exitUsage
	case errors.As(err, &path):
		fmt.Fprintf(stderr, "keyvet-blocklist: %v\n", err)
		return exitUndecided
	}
	fmt.Fprintf(stderr, "keyvet-blocklist: %v\n", err)
	return exitBad
}

// parseFlags leaves the reporting of mistakes to run, and wants exactly want
// arguments after the flags.
func parseFlags(flags *flag.FlagSet, args []string, want int) error {
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return errUsage{fmt.Errorf("%s: %w", flags.Name(), err)}
	}
	if flags.NArg() != want {
		return errUsage{fmt.Errorf("%s: %d file arguments, want %d; flags go before them", flags.Name(), flags.NArg(), want)}
	}
	return nil
}
