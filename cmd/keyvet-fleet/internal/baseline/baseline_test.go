package baseline

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

var now = time.Date(2026, 11, 27, 6, 0, 0, 0, time.UTC)

// result is what verify says of a report of the thing gw, with these changes.
func result(changes ...func(*evidence.Result)) *evidence.Result {
	r := &evidence.Result{
		Verdict: device.Warn, Evidence: device.Warn,
		Levels: []evidence.Level{{Name: evidence.LevelPCRs, Status: device.Pass, Reason: "the values of 2 PCRs are those quoted"}},
		Report: &evidence.Summary{ThingName: "gw"},
		Statement: &evidence.Statement{AKName: evidence.Hex{0, 0x0b, 1}, PCRs: []evidence.PCR{
			{Bank: "sha256", Index: 4, Value: evidence.Hex{4}}, {Bank: "sha256", Index: 7, Value: evidence.Hex{7}},
		}},
		Boot: &evidence.Boot{
			Firmware: "1.0", SecureBoot: "on", CommandLine: "root=/dev/sda", Loaders: []evidence.Loader{{Digest: evidence.Hex{0xaa}, Path: `\EFI\boot`}},
			Keys: []evidence.Anchor{{Variable: "db", SHA256: "ab", Subject: "CN=a"}}, Hashes: evidence.Hashes{Forbidden: 3},
		},
	}
	for _, change := range changes {
		change(r)
	}
	return r
}

func moved(r *evidence.Result)  { r.Statement.PCRs[1].Value = evidence.Hex{8} }
func noLog(r *evidence.Result)  { r.Boot = nil }
func one(r *evidence.Result)    { r.Statement.PCRs = r.Statement.PCRs[:1] }
func failed(r *evidence.Result) { r.Evidence, r.Verdict = device.Fail, device.Fail }

func TestHold(t *testing.T) {
	name := filepath.Join(t.TempDir(), "baseline.json")
	for _, tt := range []struct {
		name    string
		changes []func(*evidence.Result)
		renew   bool
		want    []string // what changed
	}{
		{"one that fails is not kept", []func(*evidence.Result){failed, moved}, false, nil},
		{"one that is undecided is not kept", []func(*evidence.Result){moved, func(r *evidence.Result) { r.Evidence = device.Undecided }}, false, nil},
		{"the first, without a log and one PCR", []func(*evidence.Result){noLog, one}, false, nil},
		{"with more", nil, false, nil},
		{"the same", nil, false, nil},
		{"without a log", []func(*evidence.Result){noLog}, false, nil},
		{"another thing", []func(*evidence.Result){moved, func(r *evidence.Result) { r.Report.ThingName = "other" }}, false, nil},
		{"no thing", []func(*evidence.Result){moved, func(r *evidence.Result) { r.Report.ThingName = "" }}, false, nil},
		{"no thing, another key", []func(*evidence.Result){func(r *evidence.Result) { r.Report.ThingName, r.Statement.AKName = "", evidence.Hex{0, 0x0b, 2} }}, false, nil},
		{"a PCR", []func(*evidence.Result){moved}, false, []string{"other values: sha256:7"}},
		{"a PCR, no log", []func(*evidence.Result){moved, noLog}, false, []string{"other values: sha256:7", "what that means only boot logs would show"}},
		{"a PCR that is not quoted", []func(*evidence.Result){one}, false, []string{"no longer quoted: sha256:7"}},
		{"all", []func(*evidence.Result){moved, func(r *evidence.Result) {
			r.Statement.AKName = evidence.Hex{0, 0x0b, 2}
			r.Boot = &evidence.Boot{Firmware: "2.0", CommandLine: "init=/bin/sh", Loaders: []evidence.Loader{{Digest: evidence.Hex{0xbb}}}, Keys: []evidence.Anchor{{Variable: "db", SHA256: "cd", Subject: "CN=b"}}}
		}}, false, []string{
			"the attestation key was 000b01 and is 000b02", "other values: sha256:7", `the firmware was "1.0" and is "2.0"`, "Secure Boot was on and is not shown", "db ab CN=a is gone", "db cd CN=b is new",
			"the count of digests in dbx was 3 and is 0", `the program aa \EFI\boot is gone`, "the program bb is new", `the kernel command line was "root=/dev/sda" and is "init=/bin/sh"`,
		}},
		{"renewed", []func(*evidence.Result){moved}, true, nil},
		{"as renewed", []func(*evidence.Result){moved}, false, nil},
		{"as it was before", nil, false, []string{"other values: sha256:7"}},
	} {
		f, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r := result(tt.changes...)
		before := r.Verdict
		f.Hold(r, now, tt.renew)
		if err := f.Save(); err != nil {
			t.Fatal(err)
		}
		verdict := before
		if tt.want != nil {
			verdict = device.Fail
		}
		if !slices.Equal(r.Changes, tt.want) || r.Verdict != verdict || (r.Levels[0].Status == device.Fail) != (tt.want != nil) {
			t.Errorf("%s: %q, %v, %+v", tt.name, r.Changes, r.Verdict, r.Levels)
		}
		if tt.want != nil && !strings.Contains(r.Levels[0].Reason, "changed since 2026-11-27: "+tt.want[0]) {
			t.Errorf("%s: %+v", tt.name, r.Levels)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestOpen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "baseline.json")
	for text, reason := range map[string]string{
		"": "not a baseline: ", "[]": "not a baseline: ", "{}": "not a baseline of schema", `{"schema":"keyvet.baseline/2"}`: "not a baseline of schema",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(name); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Open(t.TempDir()); err == nil || strings.Contains(err.Error(), "not a baseline") {
		t.Errorf("a directory: %v", err)
	}
	f, err := Open(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(f.name); err == nil {
		t.Error("a file of nothing was written")
	}
}
