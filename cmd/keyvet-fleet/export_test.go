package main

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	attestpb "github.com/google/go-tpm-tools/proto/attest"
	"github.com/google/go-tpm-tools/server"
	legacy "github.com/google/go-tpm/legacy/tpm2"
	"github.com/google/go-tpm/tpm2"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// bootSample is the report of a boot, by an ECC key over PCRs 0 to 7 and a log.
const bootSample = sampleDir + "/rhel8-uefi-ecc-boot.json"

// extend measures into PCRs 0 to 7 of a TPM what was measured before a log of a
// real machine.
func extend(t testing.TB, c *tpm.TPM, log []byte) {
	t.Helper()
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range parsed.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction || e.Index > 7 {
			continue
		}
		if _, err := (tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.Index), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: e.Digest}}},
		}).Execute(c); err != nil {
			t.Fatal(err)
		}
	}
}

// exported is what export makes of a report.
func exported(t testing.TB, report []byte) (*attestpb.Attestation, []byte) {
	t.Helper()
	m, nonce, err := message(report)
	if err != nil {
		t.Fatal(err)
	}
	return m, nonce
}

// opinion is what "gotpm verify debug" says of a message: the very call of
// cmd/verify.go of go-tpm-tools, which has no module of its own to build it from.
// An end of the program is an error, too.
func opinion(m *attestpb.Attestation, nonce []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errPanic, r)
		}
	}()
	public, err := legacy.DecodePublic(m.GetAkPub())
	if err != nil {
		return err
	}
	ak, err := public.Key()
	if err != nil {
		return err
	}
	_, err = server.VerifyAttestation(m, server.VerifyOpts{Nonce: nonce, TrustedAKs: []crypto.PublicKey{ak}})
	return err
}

// What export writes is read and taken by go-tpm-tools, and holds what the TPM signed.
func TestExport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "message")
	for _, format := range []string{"binarypb", "textproto"} {
		for _, named := range []bool{true, false} {
			args := []string{"export", "-format", format, bootSample}
			if named {
				args = append(args, "-out", file)
			}
			var out, said bytes.Buffer
			if status := program.Run(t.Context(), cli.IO{Out: &out, Err: &said}, args); status != cli.Pass {
				t.Fatalf("%s: %d %s", format, status, &said)
			}
			b, input := out.Bytes(), ""
			if named {
				if out.Len() > 0 {
					t.Error("the message is on standard output, too")
				}
				var err error
				if b, err = os.ReadFile(file); err != nil {
					t.Fatal(err)
				}
				input = " --input " + file
			}
			m := new(attestpb.Attestation)
			decode := proto.Unmarshal
			if format == "textproto" {
				decode = prototext.Unmarshal
			}
			if err := decode(b, m); err != nil {
				t.Fatalf("%s: %v", format, err)
			}
			var nonce []byte
			var rest string
			if _, err := fmt.Sscanf(said.String(), "gotpm verify debug --nonce %x --format %s", &nonce, &rest); err != nil || rest != format || !strings.HasSuffix(said.String(), format+input+"\n") {
				t.Errorf("%s: %v: %s", format, err, &said)
			}
			if err := opinion(m, nonce); err != nil {
				t.Errorf("%s: %v", format, err)
			}
			nonce[0] ^= 1
			if opinion(m, nonce) == nil {
				t.Errorf("%s: taken with another nonce", format)
			}
		}
	}
}

func TestNoExport(t *testing.T) {
	report, err := os.ReadFile(bootSample)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(*device.Evidence)) []byte {
		r := new(device.Report)
		if err := json.Unmarshal(report, r); err != nil {
			t.Fatal(err)
		}
		change(r.Evidence)
		b, err := evidence.Replace(report, r.Evidence)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	attest := func(change func(*tpm2.TPMSAttest, *tpm2.TPMSQuoteInfo)) func(*device.Evidence) {
		return func(e *device.Evidence) {
			b, err := base64.StdEncoding.DecodeString(e.Quote)
			if err != nil {
				t.Fatal(err)
			}
			a, err := tpm2.Unmarshal[tpm2.TPMSAttest](b)
			if err != nil {
				t.Fatal(err)
			}
			quote, err := a.Attested.Quote()
			if err != nil {
				t.Fatal(err)
			}
			change(a, quote)
			e.Quote = base64.StdEncoding.EncodeToString(tpm2.Marshal(*a))
		}
	}
	none, _, _ := bytes.Cut(report, []byte(`,"evidence"`))
	for name, tt := range map[string]struct {
		report []byte
		reason string
	}{
		"no JSON":   {[]byte("nothing"), "not a JSON object"},
		"too large": {make([]byte, device.MaxReportBytes+1), "the report has more than"},
		"no report": {[]byte(`{"keys":1}`), "cannot unmarshal"},
		"another statement": {changed(attest(func(a *tpm2.TPMSAttest, _ *tpm2.TPMSQuoteInfo) {
			a.Type = tpm2.TPMSTAttestTime
			a.Attested = tpm2.NewTPMUAttest(a.Type, &tpm2.TPMSTimeAttestInfo{})
		})), "is no quote"},
		"no PCR": {changed(func(e *device.Evidence) {
			e.PCRValues = ""
			attest(func(_ *tpm2.TPMSAttest, quote *tpm2.TPMSQuoteInfo) { quote.PCRSelect.PCRSelections = nil })(e)
		}), "no PCR is quoted"},
		"two banks": {changed(func(e *device.Evidence) {
			values, err := base64.StdEncoding.DecodeString(e.PCRValues)
			if err != nil {
				t.Fatal(err)
			}
			e.PCRValues = base64.StdEncoding.EncodeToString(append(values, make([]byte, 20)...))
			attest(func(_ *tpm2.TPMSAttest, quote *tpm2.TPMSQuoteInfo) {
				quote.PCRSelect.PCRSelections = append(quote.PCRSelect.PCRSelections, tpm2.TPMSPCRSelection{Hash: tpm2.TPMAlgSHA1, PCRSelect: []byte{1, 0, 0}})
			})(e)
		}), "several banks"},
		"no evidence":     {[]byte(string(none) + "}"), "no TPM signed it"},
		"other spelling":  {append(bytes.Clone(report), ' '), "byte for byte"},
		"no base64":       {changed(func(e *device.Evidence) { e.Quote = "!" }), "quote: illegal base64"},
		"no quote":        {changed(func(e *device.Evidence) { e.Quote = e.Signature }), "not made by a TPM"},
		"a value missing": {changed(func(e *device.Evidence) { e.PCRValues = e.PCRValues[:len(e.PCRValues)-4] }), "fewer values than PCRs"},
		"no gzip":         {changed(func(e *device.Evidence) { e.BootLog = e.Quote }), "boot log cannot be read"},
	} {
		if _, _, err := message(tt.report); err == nil || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, args := range [][]string{{"export", "-format", "json", "x"}, {"export"}} {
		var said bytes.Buffer
		if status := program.Run(t.Context(), cli.IO{Out: &said, Err: &said}, args); status != cli.Usage {
			t.Errorf("%q: %d %s", args, status, &said)
		}
	}
}
