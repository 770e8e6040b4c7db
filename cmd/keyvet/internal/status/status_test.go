package status

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
)

// labDevice is a device of directories alone, with a verdict if there is a state.
func labDevice(t *testing.T, state *agent.State) *config.Config {
	t.Helper()
	c := config.Default()
	c.StateDir, c.RunDir = filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "run")
	for _, dir := range []string{c.StateDir, c.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if state != nil {
		write(t, filepath.Join(c.StateDir, "last.json"), state)
	}
	return c
}

func write(t *testing.T, path string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// report is one with those findings and gaps, of a key for each finding.
func report(gaps []device.Gap, findings ...device.Finding) *device.Report {
	inv := device.Inventory{ReadAt: time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC), Gaps: gaps}
	for _, f := range findings {
		inv.Keys = append(inv.Keys, device.Key{ID: f.Key, Role: device.RoleFile})
	}
	return device.NewReport(inv, findings)
}

func TestRead(t *testing.T) {
	fails := device.Finding{Check: "roca", Key: "a", Status: device.Fail, ReasonCode: device.ReasonROCA, Message: "weak"}
	open := device.Finding{Check: "expiry", Key: "b", Status: device.Undecided, ReasonCode: "KEYVET_CLOCK_WRONG"}
	passes := device.Finding{Check: "size", Key: "c", Status: device.Pass}
	gap := device.Gap{What: "tpm", Why: "denied"}
	for name, tt := range map[string]struct {
		state *agent.State
		mark  *gate.Mark
		line  string
	}{
		"never vetted":    {nil, nil, "shut: no self-check has run yet"},
		"fails":           {&agent.State{Report: report(nil, fails, fails), Gate: "shut", Reason: "the verdict is FAIL"}, nil, "shut: 1 key fails"},
		"undecided":       {&agent.State{Report: report([]device.Gap{gap, {What: "x", Minor: true}}, open), Gate: "shut", Reason: "the verdict is UNDECIDED"}, nil, "shut: 2 things could not be checked"},
		"a reason":        {&agent.State{Report: report(nil, passes), Gate: "shut", Reason: "no evidence"}, nil, "shut: no evidence"},
		"unacknowledged":  {&agent.State{Report: report(nil, passes), Gate: "shut"}, nil, "shut: AWS IoT has not acknowledged the report"},
		"left open":       {&agent.State{Report: report(nil, passes), Gate: "open", Acknowledged: true}, &gate.Mark{ReportID: "r", By: Once}, "open, left so by keyvet run -once"},
		"nobody vouches":  {&agent.State{Report: report(nil, passes), Gate: "open", Acknowledged: true}, &gate.Mark{ReportID: "r", By: "keyvet run"}, "open, but nobody vouches for it: no keyvet runs"},
		"stuck":           {&agent.State{Report: report(nil, passes), Gate: "stuck"}, &gate.Mark{ReportID: "r", By: Once}, "stuck"},
		"a lost verdict":  {nil, &gate.Mark{ReportID: "r", By: Once}, "open, left so by keyvet run -once"},
		"a mark too long": {&agent.State{Report: report(nil, passes), Gate: "open"}, &gate.Mark{ReportID: strings.Repeat("r", 1<<20)}, "stuck"},
	} {
		t.Run(name, func(t *testing.T) {
			c := labDevice(t, tt.state)
			if tt.mark != nil {
				tt.mark.BootID = gate.BootID()
				write(t, gate.Path(c.RunDir), tt.mark)
			}
			st, err := Read(c)
			if err != nil || st.GateLine() != tt.line {
				t.Errorf("%q, %v, want %q: %+v", st.GateLine(), err, tt.line, st)
			}
			if tt.state != nil && (st.Verdict != tt.state.Report.Verdict().String() || st.ReportID != tt.state.Report.ID) {
				t.Errorf("verdict %s of %s", st.Verdict, st.ReportID)
			}
		})
	}
	st, err := Read(labDevice(t, &agent.State{Report: report([]device.Gap{gap}, open, fails)}))
	if err != nil || len(st.Problems) != 2 || st.Problems[0].Key != "a" || st.Problems[1].Key != "b" || len(st.Gaps) != 1 {
		t.Errorf("the failing ones are not first: %+v, %v", st, err)
	}
}

// TestReadWaiting has a spool, a rotation under way and one that has ended.
func TestReadWaiting(t *testing.T) {
	c := labDevice(t, nil)
	if err := (&durable.Spool{Dir: filepath.Join(c.StateDir, "spool")}).Put("r1", "", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	journal := &rotate.State{
		Rotation: &rotate.Rotation{Step: "make", Started: began, Old: rotate.Credential{ID: "given"}, New: rotate.Credential{ID: "c1"}},
		Ended:    []rotate.Outcome{{Status: "FAILED"}, {Status: "SUCCEEDED", Time: began}},
	}
	if err := (rotate.File{Path: rotate.JournalPath(c.StateDir)}).Save(journal); err != nil {
		t.Fatal(err)
	}
	st, err := Read(c)
	if err != nil || st.Spool.Reports != 1 || st.Spool.Bytes != 2 || st.Rotation == nil || st.Rotation.Step != "make" || st.LastRotation == nil || st.LastRotation.Status != "SUCCEEDED" {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestReadCertificate shows the device's certificate.
func TestReadCertificate(t *testing.T) {
	c := labDevice(t, nil)
	c.Identity.Certificate = "../../testdata/good.pem"
	if st, err := Read(c); err != nil || st.Credential == nil || st.Credential.Algorithm != "RSA-2048" || len(st.Credential.CertificateID) != 64 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestUnreadable has each file be none that can be read: that is never "nothing".
func TestUnreadable(t *testing.T) {
	for name, path := range map[string]func(*config.Config) string{
		"last":    func(c *config.Config) string { return filepath.Join(c.StateDir, "last.json") },
		"spool":   func(c *config.Config) string { return filepath.Join(c.StateDir, "spool") },
		"journal": func(c *config.Config) string { return rotate.JournalPath(c.StateDir) },
	} {
		c := labDevice(t, nil)
		write(t, path(c), "neither a report nor a directory")
		if st, err := Read(c); err == nil {
			t.Errorf("%s: %+v", name, st)
		}
	}
}
