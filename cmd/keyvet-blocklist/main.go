// Keyvet-blocklist builds, verifies and inspects the lists of weak keys that
// keyvet looks keys up in. It runs on the build host.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"
)

const usage = `keyvet-blocklist makes the lists of weak keys (.kvf) that keyvet looks keys up in.

Usage:
  keyvet-blocklist generate -set NAME -out DIR [-origins ORIGIN,...]
  keyvet-blocklist build -out FILE [-data DIR] [-sets NAME,...]
                   [-spki-sha256 FILE [-name TEXT] [-reason CODE]] [-openssl-blacklist FILE]
  keyvet-blocklist verify [-data DIR] [-sample N | -all] [-random N] FILE
  keyvet-blocklist inspect [-json] FILE

FILE "embedded" is the list inside this program. Sets of the weak keys that
Debian's OpenSSL made (CVE-2008-0166) are rsa1024, rsa2048, rsa2048-ssh,
rsa3072, rsa4096, p256, p384 and p521.

  generate makes the keys of a set, 32,768 for each origin, and writes their
           fingerprints to DIR; started again after an interruption, it goes on.
           RSA-2048 takes hours, RSA-4096 days of a core, EC minutes.
  build    makes a list
  verify   checks structure and digest of a list, and that keys are found
  inspect  shows what a list covers

Flags of generate:
  -origins ORIGINS  only these, as le32-rnd: an architecture (le32, le64, be32)
                    and a variant (rnd, noreadrnd, nornd)
Flags of build:
  -data DIR         fingerprints as generate writes them; every key is made
                    again and compared. EC sets can do without.
  -sets NAMES       sets that go in (default rsa2048,rsa2048-ssh,rsa4096,p256,
                    p384, or none with a list of your own)
  -spki-sha256 FILE keys that you know to be compromised: SHA-256 in hex of the
                    DER SubjectPublicKeyInfo, one a line, # for comments
  -name TEXT        what they are told as (default "compromised keys")
  -reason CODE      reason code of the finding (default KEYVET_COMPROMISED_KEY)
  -openssl-blacklist FILE
                    a file of Debian's package openssl-blacklist
Flags of verify:
  -data DIR         look up every key of DIR that belongs to the list's sets
  -sample N, -all   make N random weak keys of each set (default 10), or all,
                    from their seeds alone and look them up
  -random N         look up N random keys for each set: none may be found

Exit status: 0 all is well, 1 a list or the data is bad, 2 wrong usage,
3 a file could not be read or written, or the run was interrupted.

Examples:
  keyvet-blocklist build -out weak.kvf -data sets -sets rsa2048,rsa4096
  keyvet-blocklist build -out ours.kvf -spki-sha256 leaked.txt -name "leaked in 2024"
  keyvet-blocklist verify -data sets weak.kvf
  keyvet-blocklist verify -sample 100 embedded
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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	var err error
	switch args[0] {
	case "generate":
		err = generate(ctx, args[1:], stderr)
	case "build":
		err = build(ctx, args[1:], stderr)
	case "verify":
		err = verify(ctx, args[1:], stderr)
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
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "keyvet-blocklist: interrupted")
		return exitUndecided
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
