package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// A report leads to a challenge if what it says of keys and certificates holds.
func TestMayChallenge(t *testing.T) {
	good := func() *evidence.Result {
		r := new(evidence.Result)
		for _, name := range evidence.Levels() {
			r.Levels = append(r.Levels, evidence.Level{Name: name, Status: device.Pass})
		}
		return r
	}
	if err := mayChallenge(good()); err != nil {
		t.Error(err)
	}
	needed := []string{evidence.LevelSchema, evidence.LevelSignature, evidence.LevelReport}
	for i, name := range evidence.Levels() {
		for _, status := range []device.Status{device.Undecided, device.NotApplicable, device.Warn, device.Fail} {
			refused := status == device.Fail && name != evidence.LevelKeys || slices.Contains(needed, name) ||
				name == evidence.LevelEKCertificate && status == device.Undecided
			r := good()
			r.Levels[i].Status = status
			if err := mayChallenge(r); (err != nil) != refused {
				t.Errorf("%s %v: %v", name, status, err)
			}
		}
	}
}

// The file of a challenge says all that its answer is held against.
func TestReadKept(t *testing.T) {
	dir := t.TempDir()
	whole := `{"id":"I","nonce":"AAAA","reportId":"R","secret":"AAAA","akName":"00","ekSpkiSha256":"00"}`
	for name, tt := range map[string]struct{ content, reason string }{
		"whole":            {whole, ""},
		"no JSON":          {`{"id":"I"`, "not the file of a challenge: unexpected end"},
		"another type":     {strings.Replace(whole, `"I"`, `1`, 1), "not the file of a challenge: json: "},
		"no member":        {`{}`, "not the file of a challenge"},
		"the EK is absent": {strings.Replace(whole, `,"ekSpkiSha256":"00"`, ``, 1), "which EK was challenged: make the challenge again"},
		"no id":            {strings.Replace(whole, `"I"`, `""`, 1), "not the file of a challenge"},
		"no report":        {strings.Replace(whole, `"R"`, `""`, 1), "not the file of a challenge"},
		"no AK":            {strings.Replace(whole, `"akName":"00"`, `"akName":""`, 1), "not the file of a challenge"},
		"no EK":            {strings.Replace(whole, `"ekSpkiSha256":"00"`, `"ekSpkiSha256":""`, 1), "not the file of a challenge"},
		"no nonce":         {strings.Replace(whole, `"nonce":"AAAA"`, `"nonce":""`, 1), "not the file of a challenge"},
		"no secret":        {strings.Replace(whole, `"secret":"AAAA"`, `"secret":""`, 1), "not the file of a challenge"},
		"too large":        {whole + strings.Repeat(" ", maxFileBytes), "has more than"},
	} {
		file := filepath.Join(dir, "kept.json")
		if err := os.WriteFile(file, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readKept(file); (err == nil) != (tt.reason == "") || err != nil && !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := readKept(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// An answer counts for one challenge, one report, and with the secret only.
func TestAnswered(t *testing.T) {
	report, err := os.ReadFile("../../tpm/evidence/testdata/report.json")
	if err != nil {
		t.Fatal(err)
	}
	var parsed device.Report
	if err := json.Unmarshal(report, &parsed); err != nil {
		t.Fatal(err)
	}
	secret := []byte("a secret of some 32 bytes or so.")
	pair := evidence.Activated{AKName: []byte{0, 0x0b}, EKSPKISHA256: "00"}
	k := kept{ID: "I", Nonce: []byte("nonce"), ReportID: parsed.ID, Expected: evidence.Expected{Secret: secret, Activated: pair}}
	good := awsiot.ChallengeAnswer{ID: "I", Secret: secret, ReportID: parsed.ID, Evidence: parsed.Evidence}
	for name, tt := range map[string]struct {
		change func(*awsiot.ChallengeAnswer, *kept)
		report []byte
		reason string
	}{
		"the answer":         {func(*awsiot.ChallengeAnswer, *kept) {}, report, ""},
		"to another":         {func(a *awsiot.ChallengeAnswer, _ *kept) { a.ID = "J" }, report, "to another challenge"},
		"a refusal":          {func(a *awsiot.ChallengeAnswer, _ *kept) { *a = awsiot.ChallengeAnswer{ID: "I", Error: "no TPM"} }, report, "the device says: no TPM"},
		"another secret":     {func(a *awsiot.ChallengeAnswer, _ *kept) { a.Secret = make([]byte, 32) }, report, "not the secret"},
		"no report":          {func(*awsiot.ChallengeAnswer, *kept) {}, []byte("[]"), "read report"},
		"another report":     {func(a *awsiot.ChallengeAnswer, k *kept) { a.ReportID, k.ReportID = "another", "another" }, report, "the challenge was made for report another: give that one"},
		"evidence elsewhere": {func(a *awsiot.ChallengeAnswer, _ *kept) { a.ReportID = "another" }, report, "its evidence is over report another"},
	} {
		a, k := good, k
		tt.change(&a, &k)
		b, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		got, shown, err := answered(tt.report, b, k)
		if (err == nil) != (tt.reason == "") || err != nil && !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (got != nil || shown.AKName != nil) {
			t.Errorf("%s: %s, %v", name, got, shown)
		}
	}
	if _, _, err := answered(report, []byte("{"), k); err == nil || strings.Contains(err.Error(), "another challenge") {
		t.Errorf("half an answer: %v", err)
	}
}

// An endorsement key that fails, or that could not be tested, is not challenged.
func TestVet(t *testing.T) {
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	tests := trustFlags(flags)
	if err := tests.load(flags); err != nil {
		t.Fatal(err)
	}
	good, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if err := tests.vet(&good.PublicKey); err != nil {
		t.Error(err)
	}
	for name, key := range map[string]*rsa.PublicKey{
		"ROCA":      &tpmtest.ROCAKey("challenged").PublicKey,
		"too small": {N: new(big.Int).Rsh(good.N, 1100), E: 65537},
	} {
		var fails errFail
		if err := tests.vet(key); !errors.As(err, &fails) {
			t.Errorf("%s: %v", name, err)
		}
	}
	tests.env.Blocklist = silent{}
	var fails errFail
	if err := tests.vet(&good.PublicKey); err == nil || errors.As(err, &fails) {
		t.Errorf("a list that does not answer: %v", err)
	}
}

// silent is a list that cannot answer.
type silent struct{}

func (silent) Lookup(context.Context, crypto.PublicKey) (device.Listing, error) {
	return device.Listing{}, errors.New("it cannot be read")
}

func (silent) Compromised(device.Key) ([]device.Compromised, bool, error) {
	return nil, false, errors.New("it cannot be read")
}

func TestLevelNames(t *testing.T) {
	for list, want := range map[string][]string{"": nil, "same-tpm": {"same-tpm"}, "keys,firmware": {"keys", "firmware"}} {
		if names, err := levelNames(list); err != nil || !slices.Equal(names, want) {
			t.Errorf("%q: %v, %v", list, names, err)
		}
	}
	for _, list := range []string{",", "same-TPM", "keys,", "keys, firmware", "all"} {
		if names, err := levelNames(list); err == nil || !strings.Contains(err.Error(), "the levels are ") {
			t.Errorf("%q: %v, %v", list, names, err)
		}
	}
}
