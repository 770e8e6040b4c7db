// Keyvet-fleet verifies, on the fleet's side and without a TPM, reports and the
// evidence in them. What decides is in package tpm/evidence, for other programs.
//
// Serial numbers below 0, as certificates in the firmware of some laptops have them,
// are read.
//
//go:debug x509negativeserial=1
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

var program = &cli.Program{
	Name:    "keyvet-fleet",
	About:   "keyvet-fleet verifies the reports of keyvet and the evidence in them.",
	Version: version, Commit: commit,
	Notes: `REPORT is a file with the report, byte for byte as the device sent it, or "-"
for standard input. One line break after it does not count.

A report alone never shows that its attestation key is in the TPM of the EK
certificate, so what it says of that TPM is a warning at best. That takes a
challenge: publish what "challenge" prints to the device's topic
keyvet/THING/challenge, and give what comes back on
keyvet/THING/challenge/answer to "answer".

exit status: 0 all that was asked for holds, warnings included, 1 a key, the
firmware or the evidence fails, 2 wrong usage, 3 something that was asked for
is not shown or could not be checked`,
	Examples: []string{
		"keyvet-fleet verify report.json",
		"keyvet-fleet verify -ek-roots /etc/keyvet/ek-roots -require device-key -ak-name 000b… report.json",
		"keyvet-fleet verify -csv -max-age 25h reports/",
		"keyvet-fleet challenge -ek-roots /etc/keyvet/ek-roots -keep gw.secret report.json > challenge.json",
		"keyvet-fleet answer -ek-roots /etc/keyvet/ek-roots -kept gw.secret report.json answer.json",
		"keyvet-fleet export -out message report.json",
	},
	Commands: []cli.Command{
		{Name: "verify", Args: "REPORT|DIR ...", Short: "verify reports, and the evidence in them", Least: 1, Most: -1, New: verifyCommand,
			Long: "Verifies reports; of a DIR, its files *.json and those of its folders."},
		{Name: "challenge", Args: "REPORT", Short: "make a challenge to the TPM that signed a report", Least: 1, Most: 1, New: challengeCommand},
		{Name: "answer", Args: "REPORT ANSWER", Short: "verify a report with the device's answer to a challenge", Least: 2, Most: 2, New: answerCommand},
		{Name: "export", Args: "REPORT", Short: "write what Google's gotpm verifies", Least: 1, Most: 1, New: exportCommand,
			Long: `Writes quote, PCR values and boot log of a report as the attestation message
of go-tpm-tools, and prints on standard error the command that verifies it, with
the nonce: what the quote must carry, computed from the report.`},
	},
}

// Set by the linker: -X main.version=… -X main.commit=….
var (
	version = "0.1.0-dev"
	commit  = ""
)

func main() { cli.Main(program) }

// errUsage marks an error in the command line.
type errUsage struct{ error }

// errFail marks an error that says that something fails, not that it could not
// be looked at.
type errFail struct{ error }

// action has the exit status say what an error means, or else what the status does.
func action(do func(s cli.IO, args []string) (device.Status, error)) cli.Action {
	return func(_ context.Context, s cli.IO, args []string) int {
		status, err := do(s, args)
		if err != nil {
			if usage, ok := errors.AsType[errUsage](err); ok {
				return s.Misused(usage.Error())
			}
			s.Fail(err)
			if _, ok := errors.AsType[errFail](err); ok {
				return cli.Fail
			}
			return cli.Undecided
		}
		switch status {
		case device.Pass, device.Warn:
			return cli.Pass
		case device.Fail:
			return cli.Fail
		}
		return cli.Undecided
	}
}

// hexFlag is bytes in hex.
type hexFlag struct {
	least, most int
	bytes       []byte
}

func (h *hexFlag) String() string { return hex.EncodeToString(h.bytes) }

func (h *hexFlag) Set(text string) error {
	b, err := hex.DecodeString(text)
	if err == nil && (len(b) < h.least || len(b) > h.most) {
		err = fmt.Errorf("%d bytes, want %d to %d", len(b), h.least, h.most)
	}
	h.bytes = b
	return err
}

func nonceFlag() *hexFlag { return &hexFlag{least: 1, most: evidence.MaxNonce} }
func nameFlag() *hexFlag  { return &hexFlag{least: 34, most: 34} }
