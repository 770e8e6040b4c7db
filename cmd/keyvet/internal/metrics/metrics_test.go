package metrics

import (
	"bytes"
	"encoding/json"
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

var metric = regexp.MustCompile(`keyvet_[a-z_]+`)

// used returns the metrics, and the labels of keyvet's own, that a text uses.
func used(text string) (names, labels map[string]bool) {
	names, labels = make(map[string]bool), make(map[string]bool)
	for _, name := range metric.FindAllString(text, -1) {
		names[name] = true
	}
	for _, of := range regexp.MustCompile(`(?:by|on) \(([a-z, ]+)\)|[{,]\s*([a-z]+)(?:=~|!=|=)`).FindAllStringSubmatch(text, -1) {
		for label := range strings.SplitSeq(of[1]+of[2], ",") {
			labels[strings.TrimSpace(label)] = true
		}
	}
	return names, labels
}

// TestDashboard holds the dashboard and the alerts to the metrics that there are.
func TestDashboard(t *testing.T) {
	written := string((&Textfile{}).text(sample(), gate.Outcome{}))
	names, labels := used(written)
	labels["instance"] = true // Prometheus' own
	texts := make(map[string]string)
	rules, err := os.ReadFile("../../../../docs/prometheus/keyvet.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	texts["rules"] = strings.Join(regexp.MustCompile(`(?m)^ *expr: (.*)$`).FindAllString(string(rules), -1), "\n")
	dashboard, err := os.ReadFile("../../../../docs/prometheus/keyvet.grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
		Templating struct {
			List []struct {
				Definition string
			}
		}
	}
	if err := json.Unmarshal(dashboard, &d); err != nil {
		t.Fatal(err)
	}
	ids, taken := make(map[int]bool), make(map[[2]int]string)
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: no title, no target, or an id that another has", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%q lies over %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			texts["panel "+p.Title] += target.Expr + "\n"
		}
	}
	for _, v := range d.Templating.List {
		texts["variables"] += v.Definition + "\n"
	}
	shown := make(map[string]bool)
	for where, text := range texts {
		of, with := used(text)
		for name := range of {
			shown[name] = true
			if !names[name] {
				t.Errorf("%s: there is no metric %s", where, name)
			}
		}
		for label := range with {
			if !labels[label] {
				t.Errorf("%s: no metric has the label %q", where, label)
			}
		}
	}
	for name := range names {
		if !shown[name] {
			t.Errorf("neither the dashboard nor an alert uses %s", name)
		}
	}
	if n, l := used(`keyvet_nothing{wrong="x"}`); names["keyvet_nothing"] || !n["keyvet_nothing"] || !l["wrong"] {
		t.Error("the test does not see a metric that is not there")
	}
}
