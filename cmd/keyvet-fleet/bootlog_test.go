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

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func publishedLog(t testing.TB, name string) []byte {
	t.Helper()
	log, err := os.ReadFile(filepath.Join("internal/bootlog/testdata/logs", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return log
}

func zipped(t testing.TB, log []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(log)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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
	extend(t, c, log)
	r := reportOf(t, c)
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
	if err := opinion(exported(t, r.Encode())); err != nil {
		t.Errorf("go-tpm-tools does not agree: %v", err)
	}
	tested := false // its keys, by the verifier's own checks
	for _, l := range result.Levels {
		tested = tested || l.Name == evidence.LevelKeys && strings.HasPrefix(l.Reason, fmt.Sprint(len(r.Keys)+1+5, " keys tested again")) // EK certificate; PK, KEK, two of db, Red Hat's of shim
	}
	if !tested {
		t.Errorf("the keys of Secure Boot are not tested: %+v", result.Levels)
	}
	for name, tt := range map[string]struct {
		log    []byte
		status device.Status
		theirs bool // they are asked, too, and refuse it
	}{
		"another boot":   {zipped(t, publishedLog(t, "ubuntu-2104-no-secure-boot")), device.Fail, true},
		"SHA-1 alone":    {zipped(t, publishedLog(t, "debian-10")), device.Warn, true},
		"half of it":     {zipped(t, log[:len(log)/2]), device.Undecided, true},
		"no gzip":        {log, device.Undecided, false},
		"something more": {append(zipped(t, log), 0), device.Undecided, false},
		"a gzip bomb":    {zipped(t, make([]byte, 17<<20)), device.Undecided, false},
		"none":           {nil, device.NotApplicable, false},
	} {
		l, result := level(tt.log)
		if l.Status != tt.status {
			t.Errorf("%s: %+v", name, l)
		}
		if tt.theirs && opinion(exported(t, r.Encode())) == nil {
			t.Errorf("%s: go-tpm-tools takes it", name)
		}
		if tt.status == device.Fail && result.Verdict != device.Fail {
			t.Errorf("%s: the verdict is %v", name, result.Verdict)
		}
	}
}
