// Keyvet-fleet verifies, on the fleet's side and without a TPM, reports and the
// evidence in them. What it does is in package tpm/evidence, for other programs.
package main

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

const usage = `keyvet-fleet shows what of the evidence in a keyvet report holds.

Usage:
  keyvet-fleet verify [-json] [-ek-roots DIR] [-nonce HEX] REPORT
  keyvet-fleet challenge [-ek-roots DIR] -keep FILE REPORT
  keyvet-fleet answer [-json] [-ek-roots DIR] -kept FILE REPORT ANSWER

REPORT is a file with the report, byte for byte as the device sent it, or "-"
for standard input. One line break after it does not count.

Flags:
  -ek-roots DIR  the EK certificate has to lead to a certificate in DIR, of its
                 files *.pem, *.crt and *.cer, all in PEM
  -nonce HEX     the report has to carry this nonce, which you gave the device
  -json          one JSON document on standard output

A report alone never shows that the attestation key is in the TPM of the EK
certificate. That takes a challenge: publish what "challenge" prints to the
device's topic keyvet/THING/challenge, and give what comes back on
keyvet/THING/challenge/answer to "answer". FILE keeps the secret in between.

Exit status: 0 the evidence holds and the report passes, warnings included,
1 either fails, 2 wrong usage, 3 something that was asked for could not be
looked at.

Examples:
  keyvet-fleet verify report.json
  keyvet-fleet verify -ek-roots /etc/keyvet/ek-roots -nonce 5ca1ab1e5ca1ab1e report.json
`

// The exit statuses of all keyvet commands.
const (
	exitPass      = 0
	exitFail      = 1
	exitUsage     = 2
	exitUndecided = 3
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &commandLine{in: stdin, out: stdout}
	status, err := c.command(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitPass
	}
	if err == nil {
		return status
	}
	fmt.Fprintf(stderr, "keyvet-fleet: %s\n", printable(err.Error()))
	switch status {
	case exitUsage:
		fmt.Fprintln(stderr, "Try 'keyvet-fleet -help'.")
	case exitPass:
		status = exitUndecided
	}
	return status
}

// commandLine is one being carried out.
type commandLine struct {
	in     io.Reader
	out    io.Writer
	asJSON bool
	roots  []*x509.Certificate
}

// command carries out the subcommand that args start with.
func (c *commandLine) command(args []string) (status int, err error) {
	if len(args) == 0 {
		return exitUsage, errors.New("no command: verify, challenge or answer")
	}
	switch name, rest := args[0], args[1:]; name {
	case "verify":
		return c.verify(rest)
	case "challenge":
		return c.challenge(rest)
	case "answer":
		return c.answer(rest)
	case "help", "-h", "-help", "--help":
		return exitPass, flag.ErrHelp
	default:
		return exitUsage, fmt.Errorf("unknown command %q: verify, challenge or answer", name)
	}
}

// parse reads the flags that all commands have, and those of flags.
func (c *commandLine) parse(flags *flag.FlagSet, args []string, files int) (err error) {
	flags.SetOutput(io.Discard)
	flags.BoolVar(&c.asJSON, "json", false, "")
	ekRoots := flags.String("ek-roots", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if n := flags.NArg(); n != files {
		return fmt.Errorf("%d files are named, want %d; flags go before them", n, files)
	}
	if isSet(flags, "ek-roots") {
		c.roots, err = readRoots(*ekRoots)
	}
	return err
}

// isSet tells whether a flag was given, even if empty, as an unset variable of
// a script is.
func isSet(flags *flag.FlagSet, name string) (set bool) {
	flags.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// verify verifies a report.
func (c *commandLine) verify(args []string) (status int, err error) {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	nonce := flags.String("nonce", "", "")
	if err := c.parse(flags, args, 1); err != nil {
		return exitUsage, err
	}
	policy := evidence.Policy{Now: time.Now(), EKRoots: c.roots}
	if isSet(flags, "nonce") {
		if policy.Nonce, err = parseNonce(*nonce); err != nil {
			return exitUsage, err
		}
	}
	report, err := readReport(flags.Arg(0), c.in)
	if err == nil {
		status, err = show(c.out, evidence.Verify(report, policy), c.asJSON)
	}
	if err != nil {
		return exitUndecided, err
	}
	return status, nil
}

func parseNonce(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("-nonce: %w", err)
	case len(b) == 0 || len(b) > evidence.MaxNonce:
		return nil, fmt.Errorf("-nonce: %d bytes, want 1 to %d", len(b), evidence.MaxNonce)
	}
	return b, nil
}

// readReport reads a report, and little more where there is more.
func readReport(name string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, device.MaxReportBytes+3)) // a line break and one byte too many
	if err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")), nil
}

// show shows a result and gives the exit status that it asks for.
func show(out io.Writer, r *evidence.Result, asJSON bool) (int, error) {
	var b bytes.Buffer
	if asJSON {
		enc := json.NewEncoder(&b)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return 0, err
		}
	} else {
		writeText(&b, r)
	}
	if _, err := out.Write(b.Bytes()); err != nil {
		return 0, err
	}
	switch r.Verdict {
	case device.Pass, device.Warn:
		return exitPass, nil
	case device.Fail:
		return exitFail, nil
	}
	return exitUndecided, nil
}

// writeText shows a result to a person; the last line is the verdict.
func writeText(b *bytes.Buffer, r *evidence.Result) {
	for _, l := range r.Levels {
		fmt.Fprintf(b, "%-16s %-15s %s\n", l.Name, l.Status, printable(l.Reason))
	}
	if s := r.Report; s != nil {
		fmt.Fprintf(b, "\nreport %s", printable(s.ID))
		if s.ThingName != "" {
			fmt.Fprintf(b, " of %s", printable(s.ThingName))
		}
		fmt.Fprintf(b, ": %s", s.Verdict)
		for _, code := range s.ReasonCodes {
			fmt.Fprintf(b, " %s", printable(code))
		}
		fmt.Fprintf(b, "\nevidence: %s\n", r.Evidence)
	}
	fmt.Fprintf(b, "\n%s\n", r.Verdict)
}

// printable keeps text by strangers to one line that can be shown.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
