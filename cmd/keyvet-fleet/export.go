package main

import (
	"errors"
	"flag"
	"fmt"

	attestpb "github.com/google/go-tpm-tools/proto/attest"
	tpmpb "github.com/google/go-tpm-tools/proto/tpm"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet-fleet/internal/bootlog"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// The formats of the message, by the names that gotpm has for them.
const (
	binary = "binarypb"
	text   = "textproto"
)

// exportCommand writes what a TPM signed over a report as the message that the
// verifier of go-tpm-tools reads, and on standard error the nonce to verify it by.
func exportCommand(f *flag.FlagSet) cli.Action {
	format := f.String("format", binary, "`FORMAT` of the message: binarypb (the default) or textproto")
	out := f.String("out", "", "write it to `FILE` instead of standard output")
	return action(func(s cli.IO, args []string) (device.Status, error) {
		if *format != binary && *format != text {
			return 0, errUsage{fmt.Errorf("export: no format %q: give binarypb or textproto", *format)}
		}
		report, _, err := readReport(args[0], s.In)
		if err != nil {
			return 0, err
		}
		m, nonce, err := message(report)
		if err != nil {
			return 0, fmt.Errorf("export: %w", err)
		}
		encode := proto.Marshal
		if *format == text {
			encode = prototext.MarshalOptions{Multiline: true}.Marshal
		}
		b, err := encode(m)
		if err != nil {
			return 0, fmt.Errorf("export: %w", err)
		}
		if *out == "" {
			_, err = s.Out.Write(b)
		} else {
			err = durable.WriteFile(*out, b, 0o644)
		}
		if err != nil {
			return 0, err
		}
		input := ""
		if *out != "" {
			input = " --input " + *out
		}
		fmt.Fprintf(s.Err, "gotpm verify debug --nonce %x --format %s%s\n", nonce, *format, input)
		return device.Pass, nil
	})
}

// message returns what go-tpm-tools verifies of a report, and the nonce that the
// quote in it has to carry. Nothing of it is verified.
func message(report []byte) (*attestpb.Attestation, []byte, error) {
	signed, err := evidence.SignedOver(report)
	if err != nil {
		return nil, nil, err
	}
	if len(signed.PCRs) == 0 {
		return nil, nil, errors.New("no PCR is quoted: go-tpm-tools verifies no such quote")
	}
	pcrs := &tpmpb.PCRs{Hash: hashes[signed.PCRs[0].Bank], Pcrs: make(map[uint32][]byte)}
	for _, p := range signed.PCRs {
		if hashes[p.Bank] == tpmpb.HashAlgo_HASH_INVALID || hashes[p.Bank] != pcrs.Hash {
			return nil, nil, errors.New("the quote is over several banks of PCRs, or one that go-tpm-tools does not know")
		}
		pcrs.Pcrs[uint32(p.Index)] = p.Value
	}
	m := &attestpb.Attestation{
		AkPub: signed.AKPublic, Quotes: []*tpmpb.Quote{{Quote: signed.Quote, RawSig: signed.Signature, Pcrs: pcrs}},
	}
	if signed.BootLog != nil {
		if m.EventLog, err = bootlog.Unpack(signed.BootLog); err != nil {
			return nil, nil, fmt.Errorf("the boot log cannot be read: %w", err)
		}
	}
	return m, signed.Nonce[:], nil
}

var hashes = map[string]tpmpb.HashAlgo{
	"sha1": tpmpb.HashAlgo_SHA1, "sha256": tpmpb.HashAlgo_SHA256, "sha384": tpmpb.HashAlgo_SHA384, "sha512": tpmpb.HashAlgo_SHA512,
}
