package device

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWorst(t *testing.T) {
	for _, tt := range []struct {
		all  []Status
		want Status
	}{
		{nil, Undecided},
		{[]Status{NotApplicable}, Undecided},
		{[]Status{Pass, NotApplicable}, Pass},
		{[]Status{Pass, Warn}, Warn},
		{[]Status{Warn, Undecided, Pass}, Undecided},
		{[]Status{Undecided, Fail, Warn}, Fail},
		{[]Status{Pass, Status(99)}, Undecided},
	} {
		if got := Worst(tt.all...); got != tt.want {
			t.Errorf("Worst(%v) = %v, want %v", tt.all, got, tt.want)
		}
	}
}

func sample() *Report {
	inv := Inventory{
		TPM:    &TPM{Family: "2.0", Manufacturer: "IFX", State: TPMOK},
		Keys:   []Key{{ID: "a", Role: RoleFile, Source: "file:a", SPKI: []byte("spki")}, {ID: "b", Role: RoleEK}},
		ReadAt: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	return NewReport(inv, []Finding{
		{Check: "roca", Key: "a", Status: Pass, Message: "fine"},
		{Check: "roca", Key: "b", Status: Fail, Severity: Critical, ReasonCode: ReasonROCA, Message: "weak"},
		{Check: "expiry", Key: "b", Status: NotApplicable},
	})
}

func TestVerdict(t *testing.T) {
	if v := NewReport(Inventory{}, nil).Verdict(); v != Undecided {
		t.Errorf("an empty report is %v", v)
	}
	pass := NewReport(Inventory{Keys: []Key{{ID: "a"}}}, []Finding{{Key: "a", Status: Pass}})
	if v := pass.Verdict(); v != Pass {
		t.Errorf("one key that passed: %v", v)
	}
	pass.Gaps = []Gap{{What: "x", Minor: true}}
	if v := pass.Verdict(); v != Pass {
		t.Errorf("a minor gap: %v", v)
	}
	pass.Gaps = append(pass.Gaps, Gap{What: "y"})
	if v := pass.Verdict(); v != Undecided {
		t.Errorf("a gap that matters: %v", v)
	}
	forgotten := NewReport(Inventory{Keys: []Key{{ID: "a"}, {ID: "b"}}}, []Finding{{Key: "a", Status: Pass}})
	if v := forgotten.Verdict(); v != Undecided {
		t.Errorf("a key that no check looked at: %v", v)
	}
	if v := sample().Verdict(); v != Fail {
		t.Errorf("a failing key: %v", v)
	}
}

// TestAdd adds keys bit by bit, and what compares them in the end.
func TestAdd(t *testing.T) {
	r := NewReport(Inventory{Keys: []Key{{ID: "a"}}}, []Finding{{Key: "a", Status: Pass}})
	r.Add([]Key{{ID: "b"}}, []Finding{{Key: "b", Status: Pass}, {Key: "b", Status: Warn, ReasonCode: "W"}, {Key: "b", Status: NotApplicable}})
	r.Add([]Key{{ID: "c"}, {ID: "d"}}, []Finding{{Key: "c", Status: Pass}})
	r.AddAcross([]Finding{{Key: "c", Status: Fail, ReasonCode: "F"}, {Key: "a", Status: Pass}})
	for i, want := range []Status{Pass, Warn, Fail, Undecided} {
		if r.Keys[i].Status != want {
			t.Errorf("%s is %v, want %v", r.Keys[i].ID, r.Keys[i].Status, want)
		}
	}
	if len(r.Findings) != 3 || !slices.Equal(r.ReasonCodes(), []ReasonCode{"W", "F"}) {
		t.Errorf("kept: %+v", r.Findings)
	}
	r.Verbose = true
	r.Add([]Key{{ID: "e"}}, []Finding{{Key: "e", Status: Pass}})
	if len(r.Findings) != 4 {
		t.Errorf("kept: %+v", r.Findings)
	}
}

func TestVerdictFrom(t *testing.T) {
	medium := Finding{Key: "a", Status: Fail, Severity: Medium}
	for _, tt := range []struct {
		least Severity
		found []Finding
		want  Status
	}{
		{Low, []Finding{medium}, Fail},
		{Medium, []Finding{medium}, Fail},
		{High, []Finding{medium}, Warn},
		{Critical, []Finding{medium, {Key: "b", Status: Pass}}, Warn},
		{High, []Finding{medium, {Key: "a", Status: Fail, Severity: Critical}}, Fail},
		{High, []Finding{medium, {Key: "a", Status: Undecided}}, Undecided},
		{High, []Finding{medium, {Key: "a", Status: Fail}}, Fail}, // nobody said how severe
	} {
		r := NewReport(Inventory{Keys: []Key{{ID: "a"}}}, tt.found)
		if got := r.VerdictFrom(tt.least); got != tt.want {
			t.Errorf("from %s, %+v: %v, want %v", tt.least, tt.found, got, tt.want)
		}
	}
	forgotten := NewReport(Inventory{Keys: []Key{{ID: "a"}, {ID: "b"}}}, []Finding{medium})
	if got := forgotten.VerdictFrom(High); got != Undecided {
		t.Errorf("with a key that no check looked at: %v", got)
	}
	forgotten.Gaps = []Gap{{What: "x"}}
	if got := NewReport(Inventory{Gaps: forgotten.Gaps}, nil).VerdictFrom(High); got != Undecided {
		t.Errorf("with a gap: %v", got)
	}
}

func TestReportJSON(t *testing.T) {
	r := sample()
	b := r.Encode()
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc["schema"] != Schema || doc["verdict"] != "FAIL" || doc["time"] != "2026-01-02T03:04:05Z" {
		t.Errorf("unexpected head: %s", b)
	}
	if n := len(doc["findings"].([]any)); n != 1 {
		t.Errorf("%d findings, want the failing one", n)
	}
	if gaps, ok := doc["gaps"].([]any); !ok || len(gaps) != 0 {
		t.Errorf("gaps must be an empty list: %s", b)
	}
	r.Verbose = true
	if b, _ := json.Marshal(r); strings.Count(string(b), `"check"`) != 2 {
		t.Errorf("verbose: %s", b)
	}

	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if again := back.Encode(); !bytes.Equal(again, b) || back.Verdict() != Fail || len(back.Keys) != 2 {
		t.Errorf("a report that was read does not encode to the same bytes:\n%s\n%s", b, again)
	}
	for _, bad := range []string{`{}`, `{"schema":"other/1"}`, `{"schema":"keyvet.report/1","verdict":"FINE"}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("read %s without an error", bad)
		}
	}
}

func TestDigestLeavesOutEvidence(t *testing.T) {
	r := sample()
	bare := r.Encode()
	want, err := Digest(bare)
	if err != nil {
		t.Fatal(err)
	}
	r.Evidence = &Evidence{AKPublic: "a", Quote: "b", Signature: "c"}
	full := r.Encode()
	if got, err := Digest(full); err != nil || got != want {
		t.Errorf("digest changed with the evidence: %v", err)
	}
	if bytes.Equal(bare, full) {
		t.Error("evidence was not encoded")
	}
	for i := range bare {
		flipped := bytes.Clone(bare)
		flipped[i] ^= 1
		if got, err := Digest(flipped); err == nil && got == want {
			t.Fatalf("byte %d flipped, digest unchanged", i)
		}
	}
	for _, bad := range []string{``, `[]`, `{`, `{"a":`, `{"a":1`, `{} {}`, `{"evidence":1,"evidence":2}`} {
		if _, err := Digest([]byte(bad)); err == nil {
			t.Errorf("digest of %q", bad)
		}
	}
}

// Reports of the first version are still read.
func TestFirstVersion(t *testing.T) {
	for name, want := range map[string]Status{"tpm": Pass, "no-tpm": Pass, "failing": Fail} {
		b, err := os.ReadFile("../tpm/evidence/testdata/first/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var r Report
		if err := json.Unmarshal(b, &r); err != nil || r.Verdict() != want {
			t.Errorf("%s: %v, %v", name, r.Verdict(), err)
		}
		if again, err := json.Marshal(&r); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: %v, written again:\n%s", name, err, again)
		}
	}
	var r Report
	text := `{"schema":"keyvet.report/1","reportId":"r","time":"2026-01-02T03:04:05Z","trigger":"boot","agent":{"version":"1"},"keys":[],"findings":[],"gaps":[],"verdict":"FAIL","cut":"spki"}`
	if err := json.Unmarshal([]byte(text), &r); err != nil || !r.Cut.Uncounted() {
		t.Fatalf("%+v, %v", r.Cut, err)
	}
	if again, err := json.Marshal(&r); err != nil || string(again) != text {
		t.Errorf("%s, %v", again, err)
	}
}

// Every member of the schema goes through JSON and back.
func TestReportMembers(t *testing.T) {
	r := sample()
	r.Accepted = []Accepted{{ReasonCode: "KEYVET_X", Key: "a", Why: "later", Until: "2027-06-30"}}
	r.NotLookedUp = map[string]int{"RSA-3072": 2}
	r.Anchors = []AnchorSummary{{Source: "apt", Keys: 23, Fail: 1, Gaps: 2}}
	r.Cut = Cuts{{Check: "size", Source: "file:a", Status: Fail, N: 7}}
	r.Findings[1].Accepted, r.Findings[1].Proof, r.Keys[1].Status = true, map[string]any{"pid": 13.0}, Warn
	r.Evidence = &Evidence{BootLog: "AAAA"}
	b := r.Encode()
	for _, member := range []string{
		`"accepted":[{"reasonCode":"KEYVET_X","keyId":"a","why":"later","until":"2027-06-30"}]`, `"notLookedUp":{"RSA-3072":2}`,
		`"anchors":[{"source":"apt","keys":23,"fail":1,"gaps":2}]`, `"cut":[{"check":"size","source":"file:a","status":"FAIL","n":7}]`,
		`"status":"FAIL","severity":"CRITICAL"`, `"accepted":true`, `"proof":{"pid":13}`, `"bootLog":"AAAA"`, `"verdict":"WARN"`,
	} {
		if !bytes.Contains(b, []byte(member)) {
			t.Errorf("no %s in %s", member, b)
		}
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if again, err := json.Marshal(&back); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%v:\n%s\n%s", err, b, again)
	}
}

// A key that no list has is counted by its algorithm, and its status is that of
// the other checks.
func TestNotLookedUp(t *testing.T) {
	key := func(id string, bits uint) Key {
		return Key{ID: id, Role: RoleFile, Public: &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int), int(bits)-1, 1), E: 3}}
	}
	r := NewReport(Inventory{Keys: []Key{key("a", 3072), key("b", 3072), key("c", 4096), key("d", 2048)}}, []Finding{
		{Check: "debian", Key: "a", Status: NotApplicable, NotLookedUp: "RSA-3072"}, {Check: "roca", Key: "a", Status: Pass},
		{Check: "debian", Key: "b", Status: NotApplicable, NotLookedUp: "RSA-3072"}, {Check: "roca", Key: "b", Status: Fail},
		{Check: "debian", Key: "c", Status: NotApplicable, NotLookedUp: "RSA-4096 for be32"}, {Check: "roca", Key: "c", Status: Pass},
		{Check: "debian", Key: "d", Status: Pass}, {Check: "roca", Key: "d", Status: Pass},
	})
	if got := r.NotLookedUp; len(got) != 2 || got["RSA-3072"] != 2 || got["RSA-4096"] != 1 {
		t.Errorf("%v", got)
	}
	for i, want := range []Status{Pass, Fail, Pass, Pass} {
		if r.Keys[i].Status != want {
			t.Errorf("key %s: %v, want %v", r.Keys[i].ID, r.Keys[i].Status, want)
		}
	}
	if b := r.Encode(); bytes.Contains(b, []byte("NOT_APPLICABLE")) || bytes.Contains(b, []byte("le32")) {
		t.Errorf("%s", b)
	}
}

func TestPlaces(t *testing.T) {
	r := &Report{Keys: []KeyReport{
		{ID: "alone.pem", Source: "file:alone.pem", Line: 7, Certificate: &Certificate{Subject: "CN=alone"}},
		{ID: "bundle.pem#1", Source: "file:bundle.pem", Line: 1, Certificate: &Certificate{Subject: "CN=first"}},
		{ID: "bundle.pem#2", Source: "file:bundle.pem", Line: 20, Certificate: new(Certificate)},
		{ID: "bundle.pem#3", Source: "file:bundle.pem", Line: 40},
		{ID: "x.der#1", Source: "file:x.der"},
		{ID: "x.der#2", Source: "file:x.der", Certificate: &Certificate{Subject: "CN=second"}},
	}}
	for id, want := range map[string]string{
		"alone.pem": "", "bundle.pem#1": "line 1, CN=first", "bundle.pem#2": "line 20, no subject", "bundle.pem#3": "line 40", "x.der#1": "", "x.der#2": "CN=second", "none": "",
	} {
		if got := r.Places()[id]; got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}
