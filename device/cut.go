package device

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

const (
	// evidenceReserve is kept free for evidence, which without the boot log is
	// about 4 KB with an EK certificate and 2 KB more for each of its issuers.
	evidenceReserve = 16 << 10

	// Bounds of what is in a report, in bytes before they are encoded, which
	// can make six of one.
	maxName    = 256
	maxMessage = 2 << 10

	// Bounds of what is in a report, in bytes of JSON.
	maxSPKI  = 8 << 10 // an RSA-16384 key has 2.8 KB
	maxProof = 4 << 10
	maxList  = 8 << 10 // of a list that holds no keys, findings or gaps
	maxCuts  = 16 << 10
)

// Encode returns the report as it goes over the wire: compact JSON of at most
// [MaxReportBytes], or Limit, whatever is in it. The verdict is that of the whole.
//
// Where evidence is too large the report goes without it: [Report.BootLogRoom] says
// how large its boot log may be. The rest has the same bytes with and without
// evidence, so that a digest taken before there was any stays good. The rest
// loses, as far as is needed, findings that passed; keys of roles other than
// DEVICE, CLAIM, EK and AK that passed; minor gaps; keys of other roles than
// these and CA with their findings, the worst last; gaps; and at the very last,
// which takes hundreds of them, keys of the roles CA, AK, EK, CLAIM and DEVICE
// with their findings. [Report.Cut] counts what is left out.
func (r *Report) Encode() []byte {
	if r.read != nil {
		return bytes.Clone(r.read.bytes)
	}
	most := r.most()
	rest, encoded := r.tidy().cutTo(most - evidenceReserve)
	if r.Evidence == nil {
		return encoded
	}
	e := *r.Evidence
	rest.Evidence = &e
	b := rest.marshal()
	if len(b) > MaxReportBytes { // evidence goes before a limit of our own
		return encoded
	}
	return b
}

// BootLogRoom returns how many bytes of boot log, before they are in base64, the
// report leaves room for: none if anything else has to be cut. It is asked before
// the evidence is made, since that is signed over the log, too.
func (r *Report) BootLogRoom() int {
	most := r.most() - evidenceReserve
	_, rest := r.tidy().cutTo(most)
	return max(0, most-len(rest)) / 4 * 3
}

// CutBootLog counts in Cut, once, that there was a boot log, but no room for it.
func (r *Report) CutBootLog() {
	for _, c := range r.Cut {
		if c.Check == "boot-log" {
			return
		}
	}
	r.Cut = append(r.Cut, Cut{Check: "boot-log", Status: NotApplicable, N: 1})
}

// most is how many bytes the report may have.
func (r *Report) most() int {
	if r.Limit <= 0 {
		return MaxReportBytes
	}
	return min(max(r.Limit, leastLimit), MaxReportBytes)
}

// leastLimit leaves the rest as much as its lists may take.
const leastLimit = 3 * evidenceReserve

// marshal encodes a report that is tidy.
func (r *Report) marshal() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("device: encode report: %v", err)) // tidy leaves nothing that JSON does not have
	}
	return b
}

// tidy returns a copy without evidence, and without what JSON does not have,
// of which each text and each list beside keys, findings and gaps is bounded.
func (r *Report) tidy() *Report {
	t := *r
	t.Evidence, t.Verbose = nil, true
	t.read = &readReport{verdict: r.Verdict()} // what is cut away must not change it
	t.Time = encodable(r.Time)
	shorten(&t.ID, maxName)
	shorten(&t.ThingName, maxName)
	shorten(&t.Trigger, maxName)
	shorten(&t.Agent.Version, maxName)
	shorten(&t.Agent.Commit, maxName)
	shorten(&t.Credential, maxName)
	if r.Blocklist != nil {
		b := *r.Blocklist
		b.Sets = atMost(b.Sets, maxList)
		shorten(&b.SHA256, maxName)
		if math.IsNaN(b.FalsePositiveRate) || math.IsInf(b.FalsePositiveRate, 0) {
			b.FalsePositiveRate = 1
		}
		t.Blocklist = &b
	}
	if r.TPM != nil {
		m := *r.TPM
		for _, text := range []*string{&m.Family, &m.Manufacturer, &m.VendorString, &m.FirmwareVersion, &m.SpecRevision, &m.PlatformCertificate} {
			shorten(text, maxName)
		}
		shorten(&m.State, maxName)
		t.TPM = &m
	}
	t.Keys = slices.Clone(r.Keys)
	for i := range t.Keys {
		t.Keys[i].tidy()
	}
	t.Findings = keep(r.Findings, func(f Finding) bool { return f.Status != NotApplicable && (r.Verbose || f.Status != Pass) })
	for i := range t.Findings {
		t.Findings[i].tidy()
	}
	t.Gaps = slices.Clone(r.Gaps)
	for i := range t.Gaps {
		shorten(&t.Gaps[i].What, maxName)
		shorten(&t.Gaps[i].Why, maxMessage)
	}
	t.Accepted, t.Anchors = atMost(r.Accepted, maxList), atMost(r.Anchors, maxList)
	t.NotLookedUp = nil
	for _, algorithm := range atMost(slices.Sorted(maps.Keys(r.NotLookedUp)), maxList/4) {
		if t.NotLookedUp == nil {
			t.NotLookedUp = make(map[string]int)
		}
		t.NotLookedUp[algorithm] = r.NotLookedUp[algorithm]
	}
	return &t
}

func (k *KeyReport) tidy() {
	shorten(&k.ID, maxName)
	shorten(&k.Role, maxName)
	shorten(&k.Algorithm, maxName)
	shorten(&k.Source, maxName)
	shorten(&k.SPKISHA256, maxName)
	if len(k.SPKI) > maxSPKI {
		k.SPKI = ""
	}
	if k.Certificate != nil {
		c := *k.Certificate
		shorten(&c.Subject, maxName)
		shorten(&c.Issuer, maxName)
		shorten(&c.SHA256, maxName)
		c.NotAfter = encodable(c.NotAfter)
		k.Certificate = &c
	}
}

func (f *Finding) tidy() {
	shorten(&f.Check, maxName)
	shorten(&f.Key, maxName)
	shorten(&f.Severity, maxName)
	shorten(&f.ReasonCode, maxName)
	shorten(&f.Citation, maxName)
	shorten(&f.Message, maxMessage)
	if proof, err := json.Marshal(f.Proof); err != nil || len(proof) > maxProof {
		f.Proof = nil
	}
}

// shorten cuts a text that somebody else may have chosen.
func shorten[S ~string](text *S, most int) {
	if len(*text) > most {
		*text = S(strings.ToValidUTF8(string((*text)[:most]), "")) + "…"
	}
}

// encodable returns t, or what is nearest to it, in the years that RFC 3339 has.
func encodable(t time.Time) time.Time {
	switch year := t.UTC().Year(); {
	case year < 0:
		return time.Time{}
	case year > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t.UTC()
}

// atMost returns as many of the first of a list as take that many bytes.
func atMost[T any](list []T, bytes int) []T {
	for i, v := range list {
		if bytes -= size(v); bytes < 0 {
			return list[:i]
		}
	}
	return list
}

// size is the number of bytes of v and a comma.
func size(v any) int {
	b, err := json.Marshal(v)
	if err != nil {
		return maxList + 1
	}
	return len(b) + 1
}

// cutTo leaves out of a tidy report what must go for it to take at most that
// many bytes.
func (r *Report) cutTo(most int) (*Report, []byte) {
	cut, b := r, r.marshal()
	parts := r.parts()
	for n := 0; len(b) > most && n < len(parts); {
		for over := len(b) - most; over > 0 && n < len(parts); n++ {
			over -= parts[n].size(r)
		}
		cut = r.without(parts[:n])
		b = cut.marshal()
	}
	return cut, b
}

// part is what leaves a report together, by index: a key with its findings, a
// finding, or a gap.
type part struct {
	rank     int // a lower one leaves first
	key, gap int // -1: none
	findings []int
}

func (p part) size(r *Report) (n int) {
	if p.key >= 0 {
		n += size(r.Keys[p.key])
	}
	if p.gap >= 0 {
		n += size(r.Gaps[p.gap])
	}
	for _, i := range p.findings {
		n += size(r.Findings[i])
	}
	return n
}

// ownRoles are those of the device's own keys, and of what these rest on: what
// is found on them leaves last, in this order.
var ownRoles = []Role{RoleCA, RoleAK, RoleEK, RoleClaim, RoleDevice}

// The ranks of parts.
const (
	rankPassed = iota // a finding that passed
	rankPassedKey
	rankMinorGap
	rankOther // and above, by status
	rankGap   = rankOther + 10
	rankOwn   = rankGap + 1 // and above, by role and status
	rankTPM   = rankOwn + 1000
)

// parts returns all that can be left out, what leaves first at the head.
func (r *Report) parts() []part {
	var all []part
	keys := make(map[string]int) // of all, by id
	for i, k := range r.Keys {
		keys[k.ID] = len(all)
		all = append(all, part{key: i, gap: -1})
	}
	for i, f := range r.Findings {
		p := part{key: -1, gap: -1, findings: []int{i}}
		switch at, known := keys[f.Key]; {
		case f.Status == Pass:
			p.rank = rankPassed
		case f.Key == TPMKeyID:
			p.rank = rankTPM + weight(f.Status)
		case known:
			all[at].findings = append(all[at].findings, i)
			continue
		default:
			p.rank = rankOther + weight(f.Status)
		}
		all = append(all, p)
	}
	for i := range r.Keys {
		p := &all[i]
		statuses := []Status{r.Keys[i].Status}
		for _, j := range p.findings {
			statuses = append(statuses, r.Findings[j].Status)
		}
		status := Worst(statuses...)
		switch role := slices.Index(ownRoles, r.Keys[i].Role); {
		case status == Pass && role <= 0: // those of CAs, too
			p.rank = rankPassedKey
		case role < 0:
			p.rank = rankOther + weight(status)
		default:
			p.rank = rankOwn + 10*role + weight(status)
		}
	}
	for i, g := range r.Gaps {
		rank := rankGap
		if g.Minor {
			rank = rankMinorGap
		}
		all = append(all, part{rank: rank, key: -1, gap: i})
	}
	slices.Reverse(all) // of equals, the last leaves first
	slices.SortStableFunc(all, func(a, b part) int { return cmp.Compare(a.rank, b.rank) })
	return all
}

// without returns the report without these parts, which Cut counts.
func (r *Report) without(parts []part) *Report {
	sources := make(map[string]string)
	for _, k := range r.Keys {
		sources[k.ID] = k.Source
	}
	counts := make(map[Cut]int)
	for _, c := range r.Cut { // before
		n := c.N
		c.N = 0
		counts[c] += n
	}
	gone := [3]map[int]bool{{}, {}, {}} // keys, findings, gaps
	for _, p := range parts {
		if p.key >= 0 {
			gone[0][p.key] = true
			if k := r.Keys[p.key]; len(p.findings) == 0 {
				counts[Cut{Check: "key", Source: k.Source, Status: k.Status}]++
			}
		}
		for _, i := range p.findings {
			gone[1][i] = true
			f := r.Findings[i]
			counts[Cut{Check: f.Check, Source: sources[f.Key], Status: f.Status, Accepted: f.Counts() != f.Status}]++
		}
		if p.gap >= 0 {
			gone[2][p.gap] = true
			status := Undecided
			if r.Gaps[p.gap].Minor {
				status = NotApplicable
			}
			counts[Cut{Check: "gap", Status: status}]++
		}
	}
	cut := *r
	cut.Keys, cut.Findings, cut.Gaps = left(r.Keys, gone[0]), left(r.Findings, gone[1]), left(r.Gaps, gone[2])
	cut.Cut = cuts(counts)
	return &cut
}

func left[T any](all []T, gone map[int]bool) []T {
	var kept []T
	for i, v := range all {
		if !gone[i] {
			kept = append(kept, v)
		}
	}
	return kept
}
