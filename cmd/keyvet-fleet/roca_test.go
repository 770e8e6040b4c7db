package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// Whoever has computed the private half of an EK answers any challenge to it. No
// such EK is challenged, and an answer, however it came about, counts for nothing.
func TestROCAEK(t *testing.T) {
	const dir = "../../tpm/evidence/testdata/security/roca-ek/"
	report, err := os.ReadFile(dir + "report.json")
	if err != nil {
		t.Fatal(err)
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	tests := trustFlags(flags)
	if err := flags.Parse([]string{"-ek-roots", dir + "roots"}); err != nil {
		t.Fatal(err)
	}
	if err := tests.load(flags); err != nil {
		t.Fatal(err)
	}
	var parsed device.Report
	if err := json.Unmarshal(report, &parsed); err != nil {
		t.Fatal(err)
	}
	policy := tests.policy()
	policy.Now = parsed.Time // the certificate has expired since
	r := evidence.Verify(report, policy)
	if err := mayChallenge(r); err != nil {
		t.Errorf("refused for another reason than its EK: %v", err)
	}
	var fails errFail
	if _, _, err := newChallenge(report, r, tests); !errors.As(err, &fails) || !strings.Contains(err.Error(), device.ReasonROCA) {
		t.Errorf("challenged: %v", err)
	}

	der, err := base64.StdEncoding.DecodeString(parsed.Evidence.EKCertificate)
	if err != nil {
		t.Fatal(err)
	}
	cert, _, err := keyfile.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	policy.Activated = evidence.Activated{AKName: r.Statement.AKName, EKSPKISHA256: hex.EncodeToString(sum[:])}
	r = evidence.Verify(report, policy)
	want := map[string]device.Status{
		evidence.LevelSameTPM: device.Pass, evidence.LevelEKCertificate: device.Pass, evidence.LevelFirmware: device.Pass, evidence.LevelKeys: device.Fail,
	}
	for _, l := range r.Levels {
		if status, ok := want[l.Name]; ok && l.Status != status {
			t.Errorf("%+v", l)
		}
	}
	if r.Verdict != device.Fail {
		t.Errorf("the verdict is %v", r.Verdict)
	}
}
