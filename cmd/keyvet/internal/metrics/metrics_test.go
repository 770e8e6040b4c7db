package metrics

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

var update = flag.Bool("update", false, "write testdata")

func sample() *device.Report {
	return &device.Report{
		ID: "r", Time: time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC),
		Keys: []device.KeyReport{
			{ID: "device", Role: device.RoleDevice, Status: device.Pass, Certificate: &device.Certificate{NotAfter: time.Date(2027, 11, 27, 3, 0, 0, 0, time.UTC)}},
			{ID: "tpm-ek-rsa2048", Role: device.RoleEK, Status: device.Fail},
			{ID: "tpm-ek-p256", Role: device.RoleEK, Status: device.Pass},
			{ID: `odd"\key`, Role: device.RoleFile, Status: device.Pass},
		},
		Findings: []device.Finding{
			{Check: "roca", Key: "tpm-ek-rsa2048", Status: device.Fail, ReasonCode: device.ReasonROCA},
			{Check: "expiry", Key: "a", Status: device.Warn, ReasonCode: "KEYVET_CERTIFICATE_EXPIRES"},
			{Check: "expiry", Key: "b", Status: device.Warn, ReasonCode: "KEYVET_CERTIFICATE_EXPIRES"},
			{Check: "size", Key: "b", Status: device.Pass},
		},
		Gaps: []device.Gap{{What: "a"}, {What: "b", Minor: true}},
	}
}

func TestSettled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyvet.prom")
	var log bytes.Buffer
	f := &Textfile{Path: path, Agent: device.Agent{Version: "1.0", Commit: `a"b\c` + "\n"}, Log: slog.New(slog.NewTextHandler(&log, nil))}
	f.Ended(gate.Shut) // before the first report there is nothing to say
	f.Settled(sample(), gate.Outcome{State: gate.Open, Acknowledged: true})
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/keyvet.prom"
	if *update {
		if err := os.WriteFile(golden, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || !bytes.Equal(b, want) {
		t.Errorf("%v\n%s", err, b)
	}
	line := regexp.MustCompile(`^[a-z_]+(\{[a-z]+="([^"\\]|\\["\\n])*"(,[a-z]+="([^"\\]|\\["\\n])*")*\})? \d+$`)
	for text := range strings.Lines(string(b)) {
		if !strings.HasPrefix(text, "# ") && !line.MatchString(strings.TrimSuffix(text, "\n")) {
			t.Errorf("not a sample: %q", text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	f.Ended(gate.Shut)
	if b, err := os.ReadFile(path); err != nil || !strings.Contains(string(b), "\nkeyvet_gate_open 0\n") || log.Len() > 0 {
		t.Errorf("at the end: %v %s\n%s", err, &log, b)
	}
}

func TestNotWritten(t *testing.T) {
	(&Textfile{}).Settled(sample(), gate.Outcome{})
	var log bytes.Buffer
	f := &Textfile{Path: filepath.Join(t.TempDir(), "none", "keyvet.prom"), Log: slog.New(slog.NewTextHandler(&log, nil))}
	f.Settled(sample(), gate.Outcome{})
	if !strings.Contains(log.String(), "metrics.textfile") {
		t.Error(log.String())
	}
}
