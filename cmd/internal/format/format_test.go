package format

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
)

var update = flag.Bool("update", false, "write the golden files")

// sample has one of each thing that a report can have, some of it by strangers.
func sample() *device.Report {
	return &device.Report{
		Schema: device.Schema, ID: "0a1b", Time: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), Agent: device.Agent{Version: "0.2.0"}, Verbose: true,
		TPM: &device.TPM{State: device.TPMOK, Manufacturer: "IFX", FirmwareVersion: "7.62.3126.0"},
		Keys: []device.KeyReport{
			{ID: "tpm-ek-rsa2048", Role: device.RoleEK, Algorithm: "RSA-2048", Source: "tpm:0x81010001", SPKISHA256: "aa", Status: device.Pass},
			{ID: "etc/a key.pem#1", Role: device.RoleFile, Algorithm: "ECDSA-P256", Source: "file:etc/a key.pem", Line: 1, SPKISHA256: "cc", Status: device.Pass},
			{ID: "etc/a key.pem#2", Role: device.RoleFile, Algorithm: "RSA-1024", Source: "file:etc/a key.pem", Line: 21, SPKISHA256: "bb", Status: device.Fail, Certificate: &device.Certificate{Subject: "CN=<b>\x1b[2J"}},
			{ID: "/srv/<ä>&.der", Role: device.RoleFile, Algorithm: "Ed25519", Source: "file:/srv/<ä>&.der", Status: device.Warn},
			{ID: "-", Role: device.RoleFile, Algorithm: "RSA-3072", Source: "file:-", Status: device.Undecided},
		},
		Findings: []device.Finding{
			{Check: "firmware", Key: device.TPMKeyID, Status: device.Fail, Severity: device.High, ReasonCode: "KEYVET_FIRMWARE_CVE-2025-2884", Message: "update it (accepted until 2027-06-30: ticket 4711)", Citation: "https://example.com/advisory", Accepted: true},
			{Check: "roca", Key: "etc/a key.pem#2", Status: device.Fail, Severity: device.Critical, ReasonCode: device.ReasonROCA, Message: "weak\x1b[2J", Citation: "https://crocs.fi.muni.cz/public/papers/rsa_ccs17"},
			{Check: "size", Key: "etc/a key.pem#2", Status: device.Fail, Severity: device.Medium, ReasonCode: "KEYVET_RSA_TOO_SHORT", Message: "RSA-1024 is too short"},
			{Check: "size", Key: "tpm-ek-rsa2048", Status: device.Pass, Message: "RSA-2048"},
			{Check: "size", Key: "/srv/<ä>&.der", Status: device.Warn, Severity: device.Low, ReasonCode: "KEYVET_ED25519_NOT_ACCEPTED", Message: `not "taken"`},
			{Check: "chain", Key: "-", Status: device.Undecided, ReasonCode: "KEYVET_SIGNATURE_UNKNOWN", Message: "an algorithm that cannot be checked"},
			{Check: "debian", Key: "-", Status: device.NotApplicable, Message: "not asked"},
		},
		Gaps: []device.Gap{
			{What: "etc/cut.pem: PEM block 3 (CERTIFICATE)", Why: "truncated PEM: no END line"},
			{What: "etc/known_hosts: line 7", Why: "damaged"},
			{What: "etc/none.pem", Why: "no such file or directory"},
			{What: "tpm-ek-p384", Why: "this TPM has no such curve", Minor: true},
		},
		Accepted: []device.Accepted{{ReasonCode: "KEYVET_FIRMWARE_CVE-2025-2884", Key: "tpm", Why: "ticket 4711", Until: "2027-06-30"}},
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

func write(t *testing.T, form func(io.Writer, *device.Report) error, r *device.Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := form(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// reports are shown in every form.
func reports() map[string]*device.Report {
	quiet := sample()
	quiet.Verbose = false
	return map[string]*device.Report{"all": sample(), "quiet": quiet, "none": {Schema: device.Schema, Time: sample().Time}}
}

func TestLine(t *testing.T) {
	shape := regexp.MustCompile(`^\S.*: (PASS|WARN|FAIL|UNDECIDED|GAP) [a-z]+ (-|[A-Z][A-Z_]+[-A-Z0-9_]*) .+$`)
	for name, r := range reports() {
		got := write(t, Line, r)
		golden(t, name+".line", got)
		for line := range strings.Lines(string(got)) {
			if !shape.MatchString(strings.TrimSuffix(line, "\n")) || strings.Contains(line, "\x1b") {
				t.Errorf("%q", line)
			}
		}
	}
}

func init() {
	reasonOf = func(id string, code device.ReasonCode) (device.Reason, bool) {
		return device.Reason{Means: "What " + code + " of " + id + " means.", Do: "What to do."}, code != id
	}
}

// TestSARIF holds the logs to golden files and to OASIS's schema.
func TestSARIF(t *testing.T) {
	modules := filepath.Join(installed(t), "node_modules")
	valid := func(log []byte) (string, error) {
		cmd := exec.CommandContext(t.Context(), "node", "testdata/sarif/validate.js", modules)
		cmd.Stdin = bytes.NewReader(log)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for name, r := range reports() {
		got := write(t, SARIF, r)
		golden(t, name+".sarif", got)
		if out, err := valid(got); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if bad := bytes.ReplaceAll(got, []byte(`"executionSuccessful"`), []byte(`"executionSucceeded"`)); name == "all" {
			if _, err := valid(bad); err == nil {
				t.Error("the validator takes a log without a member that the schema requires")
			}
		}
	}
}

// installed installs what package-lock.json pins, once, into a folder of the
// user's cache, and returns it.
func installed(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("testdata/sarif/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "keyvet", "sarif-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "installing-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	if err := os.CopyFS(temp, os.DirFS("testdata/sarif")); err != nil {
		t.Fatal(err)
	}
	npm := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = temp
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci (Debian packages nodejs, npm): %v\n%s", err, out)
	}
	if err := os.Rename(temp, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // another test run was faster
			t.Fatal(err)
		}
	}
	return dir
}

// TestJUnit holds the documents to golden files and to what Windy Road's schema
// (JUnit.xsd) requires: these attributes, and these elements in this order.
func TestJUnit(t *testing.T) {
	for name, r := range reports() {
		got := write(t, JUnit, r)
		golden(t, name+".junit.xml", got)
		junitShape(t, got)
	}
}

func junitShape(t *testing.T, doc []byte) {
	t.Helper()
	required := map[string]string{
		"testsuites": "", "properties": "", "system-out": "", "system-err": "", "failure": "type", "error": "type", "testcase": "classname name time",
		"testsuite": "id package name timestamp hostname tests failures errors time",
	}
	children := map[string]*regexp.Regexp{
		"testsuites": regexp.MustCompile(`^(testsuite )*$`),
		"testsuite":  regexp.MustCompile(`^properties (testcase )*system-out system-err $`),
		"testcase":   regexp.MustCompile(`^(failure |error )?$`),
	}
	var open []string
	inside := []string{""}
	dec := xml.NewDecoder(bytes.NewReader(doc))
	for {
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			name := token.Name.Local
			want, known := required[name]
			if !known {
				t.Errorf("an element %s", name)
			}
			has := make(map[string]string)
			for _, a := range token.Attr {
				has[a.Name.Local] = a.Value
			}
			for _, a := range strings.Fields(want) {
				if has[a] == "" {
					t.Errorf("%s without %s", name, a)
				}
			}
			inside[len(inside)-1] += name + " "
			open, inside = append(open, name), append(inside, "")
		case xml.EndElement:
			name := open[len(open)-1]
			if shape := children[name]; shape != nil && !shape.MatchString(inside[len(inside)-1]) {
				t.Errorf("%s has %s", name, inside[len(inside)-1])
			}
			open, inside = open[:len(open)-1], inside[:len(inside)-1]
		}
	}
}

// TestNotLookedUp has a key that is undecided because no list could be asked, which
// every form must say, and one that other checks decided on.
func TestNotLookedUp(t *testing.T) {
	r := &device.Report{
		Schema: device.Schema, Time: sample().Time,
		Keys: []device.KeyReport{
			{ID: "open.pem", Source: "file:open.pem", Line: 1, Status: device.Undecided, Unanswered: true},
			{ID: "passed.pem", Source: "file:passed.pem", Line: 1, Status: device.Pass},
			{ID: "other.pem", Source: "file:other.pem", Line: 1, Status: device.Undecided},
		},
		Findings: []device.Finding{
			{Check: "debian", Key: "open.pem", Status: device.NotApplicable, NotLookedUp: "RSA-3072", Message: "no list has RSA-3072"},
			{Check: "debian", Key: "passed.pem", Status: device.NotApplicable, NotLookedUp: "RSA-3072", Message: "no list has RSA-3072"},
			{Check: "size", Key: "passed.pem", Status: device.Pass},
			{Check: "debian", Key: "other.pem", Status: device.NotApplicable, NotLookedUp: "RSA-3072", Message: "no list has RSA-3072"},
			{Check: "expiry", Key: "other.pem", Status: device.Undecided, ReasonCode: "KEYVET_CLOCK_IMPLAUSIBLE", Message: "the clock is wrong"},
		},
	}
	want := "open.pem:1: UNDECIDED debian - no list has RSA-3072\nother.pem:1: UNDECIDED expiry KEYVET_CLOCK_IMPLAUSIBLE the clock is wrong\n"
	if got := string(write(t, Line, r)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for name, form := range map[string]func(io.Writer, *device.Report) error{"SARIF": SARIF, "JUnit": JUnit} {
		if got := strings.Count(string(write(t, form, r)), "no list has RSA-3072"); got == 0 || name == "SARIF" && got != 1 {
			t.Errorf("%s says it %d times", name, got)
		}
	}
	junit := string(write(t, JUnit, r))
	if !strings.Contains(junit, `<error type="debian" message="no list has RSA-3072">`) {
		t.Errorf("JUnit has no error of it:\n%s", junit)
	}
}
