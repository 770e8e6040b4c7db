package device

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAccept(t *testing.T) {
	now := time.Date(2027, 6, 30, 23, 59, 59, 0, time.UTC)
	const spki, cert, file = "aa00", "bb11", "cc22"
	keys := []KeyReport{
		{ID: "device", Role: RoleDevice, SPKISHA256: spki, Certificate: &Certificate{SHA256: cert}},
		{ID: "tpm-0x81000100", Role: RolePersistent, SPKISHA256: spki},
		{ID: "old.pem", Role: RoleFile, SPKISHA256: file},
		{ID: "no digest", Role: RoleFile},
	}
	for name, tt := range map[string]struct {
		finding Finding
		accept  []Acceptance
		now     time.Time
		want    Status
		says    string // in the message
	}{
		"none":                  {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, nil, now, Fail, ""},
		"by id":                 {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "why"}}, now, Warn, " (accepted: why)"},
		"by id of the TPM":      {Finding{Check: "firmware", Key: TPMKeyID, Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: TPMKeyID, Why: "why", Until: "2027-06-30"}}, now, Warn, " (accepted until 2027-06-30: why)"},
		"by SPKI":               {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: file, Why: "why"}}, now, Warn, " (accepted: why)"},
		"by certificate":        {Finding{Check: "expiry", Key: "device", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: strings.ToUpper(cert), Why: "why"}}, now, Warn, " (accepted: why)"},
		"another code":          {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "Y", Key: "old.pem", Why: "why"}}, now, Fail, ""},
		"another key":           {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "device", Why: "why"}}, now, Fail, ""},
		"no key":                {Finding{Check: "size", Key: "no digest", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Why: "why"}}, now, Fail, ""},
		"a key not listed":      {Finding{Check: "size", Key: "gone", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "gone", Why: "why"}}, now, Warn, " (accepted: why)"},
		"passed":                {Finding{Check: "size", Key: "old.pem", Status: Pass, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "why"}}, now, Pass, ""},
		"a warning":             {Finding{Check: "size", Key: "old.pem", Status: Warn, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "why"}}, now, Warn, " (accepted: why)"},
		"over":                  {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "why", Until: "2027-06-30"}}, now.Add(time.Second), Fail, " (no longer accepted until 2027-06-30: why)"},
		"over, but once more":   {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "old", Until: "2027-01-01"}, {Code: "X", Key: file, Why: "new", Until: "2028-01-01"}}, now, Warn, " (accepted until 2028-01-01: new)"},
		"once more, and over":   {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: file, Why: "new", Until: "2028-01-01"}, {Code: "X", Key: "old.pem", Why: "old", Until: "2027-01-01"}}, now, Warn, " (accepted until 2028-01-01: new)"},
		"no date":               {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "why", Until: "soon"}}, now, Fail, " (no longer"},
		"the clock is behind":   {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "why", Until: "1960-01-01"}}, time.Unix(0, 0), Warn, " (accepted until 1960-01-01: why)"},
		"ROCA of the device":    {Finding{Check: "roca", Key: "device", Status: Fail, ReasonCode: ReasonROCA}, []Acceptance{{Code: ReasonROCA, Key: "device", Why: "why"}}, now, Fail, "cannot be accepted on the device's key"},
		"Debian of the device":  {Finding{Check: "debian", Key: "device", Status: Fail, ReasonCode: ReasonDebian}, []Acceptance{{Code: ReasonDebian, Key: spki, Why: "why"}}, now, Fail, "cannot be accepted on the device's key"},
		"leaked, of the device": {Finding{Check: "compromised", Key: "device", Status: Fail, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: cert, Why: "why"}}, now, Fail, "cannot be accepted on the device's key"},
		"ROCA at its handle":    {Finding{Check: "roca", Key: "tpm-0x81000100", Status: Fail, ReasonCode: ReasonROCA}, []Acceptance{{Code: ReasonROCA, Key: "tpm-0x81000100", Why: "why"}}, now, Fail, "cannot be accepted on the device's key"},
		"ROCA of its CA":        {Finding{Check: "chain", Key: "device", Status: Fail, ReasonCode: ReasonROCA}, []Acceptance{{Code: ReasonROCA, Key: "device", Why: "why"}}, now, Fail, "cannot be accepted on the device's key"},
		"ROCA of a file":        {Finding{Check: "roca", Key: "old.pem", Status: Fail, ReasonCode: ReasonROCA}, []Acceptance{{Code: ReasonROCA, Key: "old.pem", Why: "why"}}, now, Warn, " (accepted: why)"},
		"ROCA of the firmware":  {Finding{Check: "firmware", Key: TPMKeyID, Status: Fail, ReasonCode: ReasonROCA}, []Acceptance{{Code: ReasonROCA, Key: TPMKeyID, Why: "why"}}, now, Warn, " (accepted: why)"},
		"expired device":        {Finding{Check: "expiry", Key: "device", Status: Fail, ReasonCode: ReasonExpired}, []Acceptance{{Code: ReasonExpired, Key: "device", Why: "why"}}, now, Warn, " (accepted: why)"},
		"undecided chain":       {Finding{Check: "chain", Key: "device", Status: Undecided, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "device", Why: "why"}}, now, Warn, " (accepted: why)"},
		"undecided firmware":    {Finding{Check: "firmware", Key: TPMKeyID, Status: Undecided, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: TPMKeyID, Why: "why"}}, now, Warn, " (accepted: why)"},
		"undecided expiry":      {Finding{Check: "expiry", Key: "old.pem", Status: Undecided, ReasonCode: "X"}, []Acceptance{{Code: "X", Key: "old.pem", Why: "why"}}, now, Undecided, "what could not be checked cannot be accepted"},
		"called so by another":  {Finding{Check: "size", Key: "old.pem", Status: Fail, ReasonCode: "X", Accepted: true}, nil, now, Fail, ""},
	} {
		tt.finding.Message = "bad"
		findings := []Finding{tt.finding}
		got, list := Accept(findings, keys, tt.accept, tt.now)
		f := got[0]
		if f.Counts() != tt.want || f.Status != tt.finding.Status || f.Message != "bad"+tt.says && !(tt.says != "" && strings.Contains(f.Message, tt.says)) {
			t.Errorf("%s: counts as %v, %q", name, f.Counts(), f.Message)
		}
		if (len(list) == 1) != f.Accepted || f.Accepted && (list[0].ReasonCode != f.ReasonCode || list[0].Key != f.Key) {
			t.Errorf("%s: %v but lists %+v", name, f.Accepted, list)
		}
		if findings[0].Message != "bad" {
			t.Errorf("%s: changed what it was given", name)
		}
	}
	twice := []Finding{{Check: "chain", Key: "device", Status: Fail, ReasonCode: "X", Message: "leaf"}, {Check: "chain", Key: "device", Status: Fail, ReasonCode: "X", Message: "CA"}}
	if _, list := Accept(twice, keys, []Acceptance{{Code: "X", Key: "device", Why: "why"}}, now); len(list) != 1 {
		t.Errorf("one acceptance of two findings is listed as %+v", list)
	}
}

// TestAcceptedVerdict has the verdict of a report, of its keys and of what is cut
// out of it come to the same.
func TestAcceptedVerdict(t *testing.T) {
	const n = 2000
	inv := Inventory{ReadAt: time.Now()}
	var findings []Finding
	for i := range n {
		id := strings.Repeat("k", 1+i%250) + string(rune('a'+i/250))
		inv.Keys = append(inv.Keys, Key{ID: id, Role: RoleFile, Source: "file:/etc/keys"})
		findings = append(findings, Finding{Check: "size", Key: id, Status: Fail, Severity: High, ReasonCode: "X", Message: strings.Repeat("m", 200)})
	}
	var accept []Acceptance
	for _, k := range inv.Keys {
		accept = append(accept, Acceptance{Code: "X", Key: k.ID, Why: "why"})
	}
	r := NewReport(inv, findings)
	if r.Verdict() != Fail {
		t.Fatalf("nothing is accepted, and the verdict is %v", r.Verdict())
	}
	r.Accept(accept)
	if len(r.Accepted) != n {
		t.Errorf("%d are listed", len(r.Accepted))
	}
	if r.Verdict() != Warn || slices.ContainsFunc(r.Keys, func(k KeyReport) bool { return k.Status != Warn }) {
		t.Errorf("the verdict is %v", r.Verdict())
	}
	var back Report
	if err := json.Unmarshal(r.Encode(), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Cut) != 1 || back.Cut[0].Status != Fail || !back.Cut[0].Accepted || back.Cut[0].Counts() != Warn || back.Verdict() != Warn {
		t.Errorf("%v, cut %+v", back.Verdict(), back.Cut)
	}
	if (Cut{Status: Fail}).Counts() != Fail {
		t.Error("what was cut counts as accepted")
	}
}

// TestAcceptOne has one of two findings on a key accepted.
func TestAcceptOne(t *testing.T) {
	inv := Inventory{Keys: []Key{{ID: "a"}, {ID: "b"}}, ReadAt: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	both := []Finding{
		{Check: "size", Key: "a", Status: Fail, ReasonCode: "X"}, {Check: "expiry", Key: "a", Status: Fail, ReasonCode: "Y"}, {Check: "roca", Key: "a", Status: Pass},
		{Check: "size", Key: "b", Status: Fail, ReasonCode: "X"}, {Check: "roca", Key: "b", Status: Pass},
	}
	r := NewReport(inv, both)
	r.Accept([]Acceptance{{Code: "X", Key: "a", Why: "w"}, {Code: "X", Key: "b", Why: "w"}})
	if r.Keys[0].Status != Fail || r.Keys[1].Status != Warn || r.Verdict() != Fail {
		t.Errorf("%+v %v", r.Keys, r.Verdict())
	}
	r.Accept([]Acceptance{{Code: "X", Key: "a", Why: "w"}, {Code: "Y", Key: "a", Why: "w"}, {Code: "X", Key: "b", Why: "w"}})
	if r.Keys[0].Status != Warn || r.Verdict() != Warn {
		t.Errorf("%+v %v", r.Keys, r.Verdict())
	}
}
