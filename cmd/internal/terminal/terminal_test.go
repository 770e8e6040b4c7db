package terminal

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/keyvet/keyvet/device"
)

var update = flag.Bool("update", false, "write the golden files")

func certificate(subject string) *device.Certificate {
	return &device.Certificate{Subject: subject, NotAfter: time.Date(2027, 11, 26, 0, 0, 0, 0, time.UTC)}
}

// a report with one of each thing that can be shown.
func full() *device.Report {
	const roca = "https://crocs.fi.muni.cz/public/papers/rsa_ccs17"
	return &device.Report{
		TPM: &device.TPM{State: device.TPMOK, Manufacturer: "IBM", VendorString: "SW TPM", FirmwareVersion: "8217.4131.22.13878"},
		Keys: []device.KeyReport{
			{ID: "tpm-ek-rsa2048", Role: device.RoleEK, Algorithm: "RSA-2048", Source: "tpm:0x81010001", Status: device.Pass},
			{ID: "tpm-0x81000100", Role: device.RolePersistent, Algorithm: "RSA-2048", Source: "tpm:0x81000100", Status: device.Fail},
			{ID: "device", Role: device.RoleDevice, Algorithm: "ECDSA-P256", Source: "file:/var/lib/keyvet/identity/certificate.pem", Status: device.Pass, Certificate: certificate("CN=gw")},
			{ID: "ca-82377dbbf489a492", Role: device.RoleCA, Algorithm: "ECDSA-P256", Source: "config:identity.ca", Status: device.Warn, Certificate: certificate("CN=fleet CA")},
			{ID: "/etc/bundle.pem#1", Role: device.RoleFile, Algorithm: "RSA-2050", Source: "file:/etc/bundle.pem", Line: 3, Status: device.Fail, Certificate: certificate("CN=weak")},
			{ID: "/etc/bundle.pem#2", Role: device.RoleFile, Algorithm: "ECDSA-explicit-parameters", Source: "file:/etc/bundle.pem", Line: 30, Status: device.Undecided},
			{ID: "-", Role: device.RoleSSH, Algorithm: "Ed25519", Source: "file:-", Status: device.Pass},
			{ID: "tree/a.pem", Role: device.RoleFile, Algorithm: "RSA-2048", Source: "file:tree/a.pem", Status: device.Pass},
			{ID: "tree/b.pem", Role: device.RoleFile, Algorithm: "RSA-2048", Source: "file:tree/b.pem", Status: device.Warn},
		},
		Findings: []device.Finding{
			{Check: "lockout", Key: device.TPMKeyID, Status: device.Warn, Severity: device.Low, ReasonCode: "TEST_LOCKOUT", Message: "anybody can clear the TPM; accepted until 2027-06-30: ticket 4711", Accepted: true},
			{Check: "roca", Key: "tpm-0x81000100", Status: device.Fail, Severity: device.Critical, ReasonCode: "TEST_ROCA", Citation: roca, Message: "ROCA (CVE-2017-15361): the private key can be computed from the public one"},
			{Check: "size", Key: "device", Status: device.Pass, Message: "ECDSA-P256 is taken"},
			{Check: "expiry", Key: "ca-82377dbbf489a492", Status: device.Warn, Severity: device.Medium, ReasonCode: "TEST_EXPIRING", Message: "the certificate expires on 2027-11-26"},
			{Check: "roca", Key: "/etc/bundle.pem#1", Status: device.Fail, Severity: device.Critical, ReasonCode: "TEST_ROCA", Citation: roca, Message: "ROCA (CVE-2017-15361): the private key can be computed from the public one"},
			{Check: "expiry", Key: "/etc/bundle.pem#1", Status: device.Fail, Severity: device.Medium, ReasonCode: "TEST_EXPIRED", Message: "expired on 2018-10-16"},
			{Check: "size", Key: "/etc/bundle.pem#2", Status: device.Undecided, ReasonCode: "TEST_CURVE", Message: "a curve that is not known\x1b[2J"},
			{Check: "permissions", Key: "tree/b.pem", Status: device.Warn, Severity: device.Low, ReasonCode: "TEST_GROUP", Message: "its group can read it"},
			{Check: "claim", Key: "claim", Status: device.Warn, Severity: device.Medium, ReasonCode: "TEST_CLAIM", Message: "the claim cannot be removed"},
		},
		Gaps: []device.Gap{
			{What: "/etc/ssl/none.pem", Why: "no such file or directory"},
			{What: "tpm-ek-p384", Why: "this TPM does not have the curve", Minor: true},
		},
		NotLookedUp: map[string]int{"RSA-3072": 1200, "ECDSA-P521": 1},
		Searched:    []device.Searched{{Dir: "tree", Files: 1203, Keyed: 2, Large: 1, Links: 14, First: 7, Last: 9}},
	}
}

func reports() map[string]*device.Report {
	verbose, one := full(), full()
	verbose.Verbose = true
	one.TPM, one.Gaps, one.Searched, one.NotLookedUp, one.Findings, one.Keys = nil, nil, nil, nil, nil, one.Keys[:1]
	nothing := &device.Report{Searched: []device.Searched{{Dir: "tree", Files: 1}}}
	firmware := &device.Report{
		TPM:      &device.TPM{State: device.TPMDenied},
		Findings: []device.Finding{{Check: "firmware", Key: device.TPMKeyID, Status: device.Fail, Severity: device.High, ReasonCode: "TEST_FIRMWARE", Message: "update it"}},
	}
	return map[string]*device.Report{"full": full(), "verbose": verbose, "one": one, "nothing": nothing, "firmware": firmware}
}

var styles = map[string]Style{
	"pipe": {}, "80": {Width: 80}, "80-utf8": {Width: 80, Marks: true}, "40": {Width: 40}, "40-utf8": {Width: 40, Marks: true}, "80-color": {Width: 80, Color: true, Marks: true},
}

func TestReport(t *testing.T) {
	old := reasonOf
	t.Cleanup(func() { reasonOf = old })
	reasonOf = func(_ string, code device.ReasonCode) (device.Reason, bool) {
		return device.Reason{Do: "Do what " + code + " asks for."}, code != "TEST_CLAIM"
	}
	for report, r := range reports() {
		for style, s := range styles {
			if style == "80-color" && report != "full" {
				continue
			}
			name := report + "." + style
			t.Run(name, func(t *testing.T) {
				got := s.Report(r)
				golden(t, name+".txt", []byte(got))
				fits(t, s, got)
			})
		}
	}
}

// fits holds a text to its width; only a word that is longer than a line is let off.
func fits(t *testing.T, s Style, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if s.Width > 0 && !s.Color && utf8.RuneCountInString(line) > s.Width && len(strings.Fields(line)) > 1 {
			t.Errorf("a line of %d columns: %q", utf8.RuneCountInString(line), line)
		}
		if line != strings.TrimRight(line, " ") || !s.Color && strings.Contains(line, "\x1b") {
			t.Errorf("%q", line)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || !bytes.Equal(want, got) {
		t.Errorf("%s (%v) is not what is written; -update writes it:\n%s", file, err, got)
	}
}

// What is no terminal has neither colours nor marks, and the width of COLUMNS.
func TestOf(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("LC_ALL", "C.UTF-8")
	t.Setenv("COLUMNS", "")
	for _, w := range []any{file, new(bytes.Buffer), nil} {
		if s := Of(w); s != (Style{}) {
			t.Errorf("%T: %+v", w, s)
		}
	}
	t.Setenv("COLUMNS", "40")
	if s := Of(file); s != (Style{Width: 40}) {
		t.Errorf("%+v", s)
	}
	t.Setenv("COLUMNS", "-3")
	if s := Of(file); s != (Style{}) {
		t.Errorf("%+v", s)
	}
}

func TestIsDumb(t *testing.T) {
	for term, want := range map[string]bool{"": true, "dumb": true, "xterm": false, "xterm-256color": false, "linux": false} {
		if t.Setenv("TERM", term); isDumb() != want {
			t.Errorf("%q: %v", term, !want)
		}
	}
}

func TestIsUTF8(t *testing.T) {
	for _, tt := range []struct {
		all, ctype, lang string
		want             bool
	}{
		{"", "", "", false},
		{"", "", "de_DE.UTF-8", true},
		{"", "", "en_US.utf8", true},
		{"C", "", "de_DE.UTF-8", false},
		{"", "POSIX", "de_DE.UTF-8", false},
		{"C.UTF-8", "C", "C", true},
		{"", "", "de_DE.ISO-8859-1", false},
	} {
		t.Setenv("LC_ALL", tt.all)
		t.Setenv("LC_CTYPE", tt.ctype)
		t.Setenv("LANG", tt.lang)
		if got := isUTF8(); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// A report that the user interrupted says so once.
func TestInterrupted(t *testing.T) {
	r := &device.Report{TPM: &device.TPM{State: device.TPMOK, Manufacturer: "IBM"}}
	for _, id := range []string{"a", "b", "c"} {
		r.Keys = append(r.Keys, device.KeyReport{ID: id, Role: device.RoleFile, Algorithm: "RSA-2048", Source: "file:" + id, Status: device.Undecided})
		for range 10 {
			r.Findings = append(r.Findings, device.Finding{Check: "roca", Key: id, Status: device.Undecided, ReasonCode: "KEYVET_NOT_CHECKED", Message: "not checked: context canceled"})
		}
	}
	r.Findings = append(r.Findings, device.Finding{Check: "size", Key: "c", Status: device.Fail, ReasonCode: "TEST_SIZE", Message: "too short"})
	text := Style{}.Report(r)
	if strings.Count(text, "not checked") != 0 || strings.Count(text, "interrupted: 30 checks were not made") != 1 || !strings.Contains(text, "too short") {
		t.Error(text)
	}
	if r.Verbose = true; strings.Count(Style{}.Report(r), "not checked") != 30 {
		t.Error("-v does not show all")
	}
}

// How close the TPM is to its lockout is shown where a failure counts.
func TestLockout(t *testing.T) {
	r := &device.Report{TPM: &device.TPM{State: device.TPMOK, Manufacturer: "IBM"}}
	if text := (Style{}).Report(r); strings.Contains(text, "lockout") {
		t.Error(text)
	}
	r.TPM.Lockout = &device.TPMLockout{Failures: 3, Limit: 32, Recovery: 7200}
	if text := (Style{}).Report(r); !strings.Contains(text, "3 of 32 wrong passwords count towards the TPM's lockout; one is forgiven after 2h0m0s, and") {
		t.Error(text)
	}
	r.TPM.Lockout.Locked, r.TPM.Lockout.Recovery = true, 0
	if text := (Style{}).Report(r); !strings.Contains(text, "in lockout: keys with a password are refused; 3 wrong passwords count, the limit is 32, and none is forgiven") {
		t.Error(text)
	}
}

func TestTable(t *testing.T) {
	head := []string{"JOB", "THING", "STATUS", "CHANGED", "DETAILS"}
	jobs := []Line{
		{Cells: []string{"job-20261127-083000", "lab-device", "QUEUED", "2026-11-27 08:30:00", ""}},
		{Cells: []string{"job-20261127-083001", "lab-device", "FAILED", "2026-11-27 08:30:09", "reason=\"no key was made, since the TPM does not have the algorithm\" step=\"make\""}},
	}
	reports := []Line{
		{Status: device.Pass, Word: "PASS", Cells: []string{"reports/a.json", "gw-1", ""}},
		{Status: device.Fail, Word: "FAIL", Cells: []string{"reports/2026-11-27/b.json", "gateway-0042-of-plant-seven\x1b[2J", "keys: the report says PASS of a key that fails"}},
	}
	for style, s := range styles {
		t.Run(style, func(t *testing.T) {
			got := s.Table(head, jobs) + "\n" + s.Table(nil, reports) + "\n" + s.Table([]string{"SET", "COVERS"}, []Line{{Cells: []string{"a", strings.Repeat("word ", 30)}}}) + s.Table(head, nil)
			golden(t, "table."+style+".txt", []byte(got))
			fits(t, s, got)
		})
	}
}

// What is shown without colours is what is shown with them.
func TestNoColor(t *testing.T) {
	colored, plain := Style{Width: 80, Color: true, Marks: true}, Style{Width: 80, Marks: true}
	if got := regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(colored.Report(full()), ""); got != plain.Report(full()) {
		t.Error(got)
	}
}
