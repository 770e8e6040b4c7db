package main

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	attestpb "github.com/google/go-tpm-tools/proto/attest"
	tpmpb "github.com/google/go-tpm-tools/proto/tpm"
	"github.com/google/go-tpm-tools/server"
	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func publishedLog(t *testing.T, name string) []byte {
	t.Helper()
	log, err := os.ReadFile(filepath.Join("internal/bootlog/testdata/logs", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func zipped(t *testing.T, log []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(log)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// opinion is what Google's verifier says of the evidence over a report.
func opinion(t *testing.T, r *device.Report, log []byte) error {
	t.Helper()
	decode := func(text string) []byte {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	e := r.Evidence
	certificates := [][]byte{decode(e.EKCertificate)}
	for _, issuer := range e.EKIssuers {
		certificates = append(certificates, decode(issuer))
	}
	digest, err := device.Digest(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	nonce := evidence.QualifyingData(digest, nil, decode(e.BootLog), certificates...)
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](decode(e.AKPublic))
	if err != nil {
		t.Fatal(err)
	}
	ak, err := tpm2.Pub(*area)
	if err != nil {
		t.Fatal(err)
	}
	values, pcrs := decode(e.PCRValues), make(map[uint32][]byte)
	for i := range uint32(8) {
		pcrs[i] = values[32*i : 32*i+32]
	}
	_, err = server.VerifyAttestation(&attestpb.Attestation{
		AkPub: decode(e.AKPublic), EventLog: log,
		Quotes: []*tpmpb.Quote{{Quote: decode(e.Quote), RawSig: decode(e.Signature), Pcrs: &tpmpb.PCRs{Hash: tpmpb.HashAlgo_SHA256, Pcrs: pcrs}}},
	}, server.VerifyOpts{Nonce: nonce[:], TrustedAKs: []crypto.PublicKey{ak}, AllowEFIAppBeforeCallingEvent: true, AllowEmptySBVar: true})
	return err
}

// A TPM that was measured into as that of a real machine was: its boot is shown, and
// the log of another one is refused, by both verifiers.
func TestBootLog(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	c, err := tpm.Open(emulator.Address(), tpm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	log := publishedLog(t, "rhel8-uefi")
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
	info, keys, _ := c.Inventory()
	var findings []device.Finding
	for _, k := range keys {
		findings = append(findings, device.Finding{Check: "size", Key: k.ID, Status: device.Pass})
	}
	r := device.NewReport(device.Inventory{TPM: &info, Keys: keys, ReadAt: time.Now()}, findings)
	r.Trigger = device.TriggerBoot
	digest, err := device.Digest(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	trust := new(trust)
	level := func(log []byte) (evidence.Level, *evidence.Result) {
		if r.Evidence, err = c.Attest(tpm.AttestRequest{Digest: digest, BootLog: log}); err != nil {
			t.Fatal(err)
		}
		policy := trust.policy()
		ak, err := base64.StdEncoding.DecodeString(r.Evidence.AKPublic)
		if err != nil {
			t.Fatal(err)
		}
		sum := crypto.SHA256.New()
		sum.Write(ak)
		policy.AKName = sum.Sum([]byte{0, 0x0b})
		result := evidence.Verify(r.Encode(), policy)
		for _, l := range result.Levels {
			if l.Name == evidence.LevelBootLog {
				return l, result
			}
		}
		t.Fatal("no such level")
		return evidence.Level{}, nil
	}
	const says = "the boot log explains the 8 PCRs of the quote; Secure Boot is on; PK: "
	l, result := level(zipped(t, log))
	if l.Status != device.Pass || len(l.Reason) < len(says) || l.Reason[:len(says)] != says || result.Boot == nil || len(result.Boot.Loaders) != 3 {
		t.Errorf("%+v", l)
	}
	if err := opinion(t, r, log); err != nil {
		t.Errorf("go-tpm-tools does not agree: %v", err)
	}
	tested := false // its keys, by the verifier's own checks
	for _, l := range result.Levels {
		tested = tested || l.Name == evidence.LevelKeys && strings.HasPrefix(l.Reason, fmt.Sprint(len(keys)+1+4, " keys tested again")) // EK certificate; PK, KEK and two of db
	}
	if !tested {
		t.Errorf("the keys of Secure Boot are not tested: %+v", result.Levels)
	}
	for name, tt := range map[string]struct {
		log    []byte
		status device.Status
		theirs []byte // nil: they are not asked
	}{
		"another boot":   {zipped(t, publishedLog(t, "ubuntu-2104-no-secure-boot")), device.Fail, publishedLog(t, "ubuntu-2104-no-secure-boot")},
		"SHA-1 alone":    {zipped(t, publishedLog(t, "debian-10")), device.Warn, publishedLog(t, "debian-10")},
		"half of it":     {zipped(t, log[:len(log)/2]), device.Undecided, log[:len(log)/2]},
		"no gzip":        {log, device.Undecided, nil},
		"something more": {append(zipped(t, log), 0), device.Undecided, nil},
		"a gzip bomb":    {zipped(t, make([]byte, 17<<20)), device.Undecided, nil},
		"none":           {nil, device.NotApplicable, nil},
	} {
		l, result := level(tt.log)
		if l.Status != tt.status {
			t.Errorf("%s: %+v", name, l)
		}
		if tt.theirs != nil && opinion(t, r, tt.theirs) == nil {
			t.Errorf("%s: go-tpm-tools takes it", name)
		}
		if tt.status == device.Fail && result.Verdict != device.Fail {
			t.Errorf("%s: the verdict is %v", name, result.Verdict)
		}
	}
}
