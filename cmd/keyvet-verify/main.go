// Keyvet-verify verifies, on the fleet's side and without a TPM, the evidence
// in a report. What it does is in package tpm/evidence, for other programs.
package main

import (
	"bytes"
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

const usage = `keyvet-verify tells what of the evidence in a keyvet report holds.

Usage:
  keyvet-verify [-json] [-ek-roots DIR] [-nonce HEX] REPORT

REPORT is a file with the report, byte for byte as the device sent it, or "-"
for standard input. One line break after it does not count.

Flags:
  -ek-roots DIR  the EK certificate has to lead to a certificate in DIR, of its
                 files *.pem, *.crt and *.cer, all in PEM
  -nonce HEX     the report has to carry this nonce, which you gave the device
  -json          one JSON document on standard output

A report alone never shows that the attestation key is in the TPM of the EK
certificate: that takes a challenge to the device, see keyvet-verify(1).

Exit status: 0 the evidence holds and the report passes, warnings included,
1 either fails, 2 wrong usage, 3 something that was asked for could not be
looked at.

Examples:
  keyvet-verify report.json
  keyvet-verify -ek-roots /etc/keyvet/ek-roots -nonce 5ca1ab1e5ca1ab1e report.json
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
	flags := flag.NewFlagSet("keyvet-verify", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	asJSON := flags.Bool("json", false, "")
	ekRoots := flags.String("ek-roots", "", "")
	nonce := flags.String("nonce", "", "")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		return exitPass
	}
	wrong := func(err error) int {
		fmt.Fprintf(stderr, "keyvet-verify: %s\nTry 'keyvet-verify -help'.\n", printable(err.Error()))
		return exitUsage
	}
	if err != nil {
		return wrong(err)
	}
	if flags.NArg() != 1 {
		return wrong(fmt.Errorf("%d reports are named, want one; flags go before it", flags.NArg()))
	}
	policy := evidence.Policy{Now: time.Now()}
	given := make(map[string]bool) // even if empty, as an unset variable of a script is
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if given["nonce"] {
		if policy.Nonce, err = parseNonce(*nonce); err != nil {
			return wrong(err)
		}
	}
	if given["ek-roots"] {
		if policy.EKRoots, err = readRoots(*ekRoots); err != nil {
			return wrong(err)
		}
	}
	report, err := readReport(flags.Arg(0), stdin)
	if err == nil {
		var status int
		if status, err = show(stdout, evidence.Verify(report, policy), *asJSON); err == nil {
			return status
		}
	}
	fmt.Fprintf(stderr, "keyvet-verify: %s\n", printable(err.Error()))
	return exitUndecided
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
