package device

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever a report holds, it can be sent, it says what the whole is, and its
// digest does not depend on the evidence.
func TestEncodeIsBounded(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	roles := []Role{RoleEK, RoleAK, RoleSRK, RoleIDevID, RolePersistent, RoleDevice, RoleClaim, RoleCA, RoleSSH, RoleAnchor, RoleFile, "?"}
	text := func(most int) string {
		return strings.Repeat([]string{"x", "<", "\x00", "\xff", "é", `"`, "\u2028"}[rng.IntN(7)], rng.IntN(most))
	}
	many := func(most int) int { // none, few or many
		return rng.IntN([]int{1, 5, most}[rng.IntN(3)])
	}
	for seed := range 40 {
		large := 1 << rng.IntN(10)
		r := &Report{Schema: Schema, ID: text(large), Time: time.Unix(rng.Int64N(1<<60), 0), ThingName: text(large), Credential: Role(text(large))}
		for i := range many(2500) {
			k := KeyReport{ID: fmt.Sprint(i), Role: roles[rng.IntN(len(roles))], Source: text(40), SPKI: text(large), Status: Status(rng.IntN(6))}
			if rng.IntN(2) == 0 {
				k.Certificate = &Certificate{Subject: text(large), Issuer: text(large), NotAfter: time.Unix(rng.Int64N(1<<60), 0)}
			}
			r.Keys = append(r.Keys, k)
		}
		for range many(2500) {
			f := Finding{Check: text(30), Key: fmt.Sprint(rng.IntN(2600)), Status: Status(rng.IntN(6)), Message: text(large), Proof: map[string]any{"x": text(large)}}
			switch rng.IntN(10) {
			case 0:
				f.Key = TPMKeyID
			case 1:
				f.Proof["nan"] = math.NaN()
			}
			r.Findings = append(r.Findings, f)
		}
		for range many(2500) {
			r.Gaps = append(r.Gaps, Gap{What: text(large), Why: text(large), Minor: rng.IntN(2) == 0})
		}
		for range many(500) {
			r.Accepted = append(r.Accepted, Accepted{Why: text(large)})
			r.Anchors = append(r.Anchors, AnchorSummary{Source: text(large)})
		}
		if rng.IntN(2) == 0 {
			r.NotLookedUp = make(map[string]int)
			for i := range many(500) {
				r.NotLookedUp[fmt.Sprint(i, text(large))] = i
			}
			r.Blocklist = &BlocklistInfo{FalsePositiveRate: math.Inf(1)}
			for range many(500) {
				r.Blocklist.Sets = append(r.Blocklist.Sets, text(large))
			}
			r.TPM = &TPM{Manufacturer: text(large), VendorString: text(large), State: TPMState(text(large))}
		}
		b := r.Encode()
		digest, err := Digest(b)
		if err != nil || len(b) > MaxReportBytes-evidenceReserve || !bytes.Contains(b, []byte(`"verdict":"`+r.Verdict().String()+`"`)) {
			t.Fatalf("%d: %d bytes, verdict %v, %v", seed, len(b), r.Verdict(), err)
		}
		var back Report
		if err := json.Unmarshal(b, &back); err != nil || back.Verdict() != r.Verdict() {
			t.Fatalf("%d: %v", seed, err)
		}
		for name, e := range map[string]*Evidence{
			"small": {Quote: text(100)}, "boot log": {Quote: "q", BootLog: strings.Repeat("A", r.BootLogRoom()/3*4)}, "large": {Quote: strings.Repeat("A", MaxReportBytes)},
		} {
			r.Evidence = e
			with := r.Encode()
			if d, err := Digest(with); err != nil || d != digest || len(with) > MaxReportBytes {
				t.Fatalf("%d, evidence %s: %d bytes, another digest, %v", seed, name, len(with), err)
			}
			if shown := bytes.Contains(with, []byte(`"evidence":{`)); shown != (name != "large") {
				t.Fatalf("%d, evidence %s: shown %v", seed, name, shown)
			}
		}
	}
}

// A report for a slow network is cut as any other, down to a bound, and evidence
// changes its digest no more than that of another.
func TestLimit(t *testing.T) {
	for limit, most := range map[int]int{
		0: MaxReportBytes, -1: MaxReportBytes, 1 << 30: MaxReportBytes, 60 << 10: 60 << 10, 1: leastLimit,
	} {
		r := crowd(2000, RoleFile, Fail)
		whole := r.Verdict()
		r.Limit = limit
		b := r.Encode()
		digest, err := Digest(b)
		if err != nil || len(b) > most-evidenceReserve || len(b) < (most-evidenceReserve)*9/10 {
			t.Errorf("limit %d: %d bytes, %v", limit, len(b), err)
		}
		var back Report
		if err := json.Unmarshal(b, &back); err != nil || back.Verdict() != whole || len(back.Cut) == 0 || !bytes.Contains(b, []byte(`"role":"DEVICE"`)) {
			t.Errorf("limit %d: %v, cut %v", limit, err, back.Cut)
		}
		r.Evidence = &Evidence{Quote: "q"}
		with := r.Encode()
		if d, err := Digest(with); err != nil || d != digest || len(with) > most {
			t.Errorf("limit %d with evidence: %d bytes, %v", limit, len(with), err)
		}
		if room := r.BootLogRoom(); room > 2<<10 {
			t.Errorf("limit %d: room for a boot log of %d bytes, and keys are cut", limit, room)
		}
	}
}

// The boot log is the first to go, and is counted, also beside what is cut besides.
func TestBootLogRoom(t *testing.T) {
	small := crowd(10, RoleFile, Pass)
	room := small.BootLogRoom()
	if room < 70<<10 || room > 84<<10 {
		t.Fatalf("a small report leaves %d bytes", room)
	}
	rest := len(small.Encode())
	small.Evidence = &Evidence{Quote: strings.Repeat("A", evidenceReserve-1000), BootLog: strings.Repeat("A", room/3*4)}
	if b := small.Encode(); len(b) > MaxReportBytes || len(b) < MaxReportBytes-2000 || len(b) < rest+room {
		t.Errorf("with a log of that size: %d bytes", len(b))
	}
	small.Limit = leastLimit
	if less := small.BootLogRoom(); less >= room || less == 0 {
		t.Errorf("on a slow network: %d bytes", less)
	}
	for _, n := range []int{1, 2000} {
		r := crowd(n, RoleFile, Pass)
		whole := r.Verdict()
		r.CutBootLog()
		back := new(Report)
		if err := json.Unmarshal(r.Encode(), back); err != nil || back.Verdict() != whole {
			t.Fatalf("%v %v", back.Verdict(), err)
		}
		counted := slices.Contains(back.Cut, Cut{Check: "boot-log", Status: NotApplicable, N: 1})
		if !counted || (len(back.Cut) > 1) != (n > 1) {
			t.Errorf("%d keys: cut %v", n, back.Cut)
		}
	}
}

// crowd is a report of n keys in that role and of that status, a finding on
// each, and one on the device's key.
func crowd(n int, role Role, status Status) *Report {
	r := &Report{Schema: Schema}
	add := func(id string, role Role, status Status) {
		r.Keys = append(r.Keys, KeyReport{ID: id, Role: role, Source: "file:/etc/keys", SPKI: strings.Repeat("A", 400), Status: status})
		r.Findings = append(r.Findings, Finding{Check: "size", Key: id, Status: status, ReasonCode: "KEYVET_RSA_TOO_SHORT", Message: strings.Repeat("m", 100)})
	}
	for i := range n {
		add(fmt.Sprintf("key-%d", i), role, status)
	}
	add("device", RoleDevice, Warn)
	r.Findings = append(r.Findings, Finding{Check: "firmware", Key: TPMKeyID, Status: Warn, Message: "old"})
	return r
}

// What leaves a report, and what stays.
func TestEncodeCuts(t *testing.T) {
	for _, tt := range []struct {
		name   string
		report *Report
		check  string
		status Status
	}{
		{"keys that passed", crowd(400, RoleFile, Pass), "key", Pass},
		{"of CAs", crowd(400, RoleCA, Pass), "key", Pass},
		{"failing files", crowd(2000, RoleFile, Fail), "size", Fail},
		{"failing CAs", crowd(5000, RoleCA, Fail), "size", Fail},
		{"undecided anchors", crowd(2000, RoleAnchor, Undecided), "size", Undecided},
	} {
		var back Report
		if err := json.Unmarshal(tt.report.Encode(), &back); err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, k := range back.Keys {
			if k.ID != "device" {
				kept++
			}
		}
		if len(back.Cut) != 1 || back.Cut[0] != (Cut{Check: tt.check, Source: "file:/etc/keys", Status: tt.status, N: len(tt.report.Keys) - 1 - kept}) || kept < 50 {
			t.Errorf("%s: %d kept, cut %+v", tt.name, kept, back.Cut)
		}
		for _, id := range []string{"device", TPMKeyID} {
			if !bytes.Contains(tt.report.Encode(), []byte(`"keyId":"`+id+`"`)) {
				t.Errorf("%s: the finding on %s is gone", tt.name, id)
			}
		}
	}
	// Findings of the device's own keys stay whole beside any number of others.
	r := crowd(2000, RoleFile, Fail)
	for i := range 60 {
		id := fmt.Sprint("own-", i)
		r.Keys = append(r.Keys, KeyReport{ID: id, Role: ownRoles[i%len(ownRoles)], Status: Warn})
		r.Findings = append(r.Findings, Finding{Check: "expiry", Key: id, Status: Warn})
	}
	r.Gaps = []Gap{{What: "the device's certificate", Why: "it cannot be read"}, {What: "an EK", Minor: true}}
	b := r.Encode()
	if n := bytes.Count(b, []byte(`"keyId":"own-`)); n != 60 {
		t.Errorf("%d findings of the device's own keys", n)
	}
	if !bytes.Contains(b, []byte("the device's certificate")) || !bytes.Contains(b, []byte(`{"check":"gap","status":"NOT_APPLICABLE","n":1}`)) {
		t.Error("a gap that matters is gone, or a minor one stays")
	}
	if small := sample(); len(small.Encode()) > 2000 || bytes.Contains(small.Encode(), []byte(`"cut"`)) {
		t.Errorf("a small report is cut: %s", small.Encode())
	}
}

// The list of what was cut is bounded, too.
func TestCutsAreBounded(t *testing.T) {
	r := crowd(0, RoleFile, Pass)
	for i := range 3000 {
		id := fmt.Sprint(i)
		r.Keys = append(r.Keys, KeyReport{ID: id, Role: RoleFile, Source: "file:/etc/" + id, SPKI: strings.Repeat("A", 400), Status: Fail})
		r.Findings = append(r.Findings, Finding{Check: "size", Key: id, Status: Fail})
	}
	var back Report
	if err := json.Unmarshal(r.Encode(), &back); err != nil || len(back.Cut) != 1 || back.Cut[0].Check != "size" || back.Cut[0].Source != "" {
		t.Errorf("%+v, %v", back.Cut, err)
	}
}
