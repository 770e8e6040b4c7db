package device

import (
	"bytes"
	"encoding/json"
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

func TestReportJSON(t *testing.T) {
	r := sample()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
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
	if again, _ := back.Encode(); !bytes.Equal(again, b) || back.Verdict() != Fail || len(back.Keys) != 2 {
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
	bare, _ := r.Encode()
	want, err := Digest(bare)
	if err != nil {
		t.Fatal(err)
	}
	r.Evidence = &Evidence{AKPublic: "a", Quote: "b", Signature: "c"}
	full, _ := r.Encode()
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

func TestEncodeCuts(t *testing.T) {
	r := sample()
	r.Keys = nil
	for range 200 {
		r.Keys = append(r.Keys, KeyReport{ID: "k", SPKI: strings.Repeat("A", 2000), Status: Pass})
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxReportBytes || !bytes.Contains(b, []byte(ReasonROCA)) || !bytes.Contains(b, []byte(`"cut":"findings that passed, spki"`)) {
		t.Errorf("%d bytes, cut: %.300s", len(b), b[len(b)-300:])
	}
	if !bytes.Contains(b, []byte(`"verdict":"FAIL"`)) {
		t.Error("the verdict changed with the cut")
	}
	for range 3000 {
		r.Findings = append(r.Findings, Finding{Check: "roca", Key: "k", Status: Fail, Message: strings.Repeat("x", 100)})
	}
	if _, err := r.Encode(); err == nil {
		t.Error("failing findings were cut away")
	}
}
