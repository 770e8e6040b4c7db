package device

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Acceptance is a finding that an operator knows of and accepts: a line of
// firmware that never got a fix, a certificate that nobody can replace.
type Acceptance struct {
	Code  ReasonCode
	Key   string // [Finding.Key], or the lower-case hex SHA-256 of the key's SPKI or certificate
	Why   string
	Until string // the last day in UTC, "2027-06-30"; "" if there is none
}

// ended reports whether the last day is over. A clock that is behind cannot judge
// it; the certificates are then undecided, and no gate opens.
func (a Acceptance) ended(now time.Time) bool {
	return !ClockBehind(now) && !now.Before(Accepted{Until: a.Until}.End())
}

// Accept returns the findings on these keys with those marked that one of the
// acceptances is for and that may be accepted, and what a report lists of them.
// Their message says so, as does that of a finding whose acceptance has ended or
// does not count. What passed needs none. The marks that findings have already
// are taken off: whose acceptance counts, the caller says.
func Accept(findings []Finding, keys []KeyReport, accept []Acceptance, now time.Time) ([]Finding, []Accepted) {
	byID := make(map[string]KeyReport)
	var device []string // the device's key, under whatever role else it is listed
	for _, k := range keys {
		byID[k.ID] = k
		if k.Role == RoleDevice && k.SPKISHA256 != "" {
			device = append(device, k.SPKISHA256)
		}
	}
	findings = slices.Clone(findings)
	var list []Accepted
	for i := range findings {
		f := &findings[i]
		f.Accepted = false
		if f.Status == Pass || f.Status == NotApplicable {
			continue
		}
		k := byID[f.Key]
		a := acceptanceOf(*f, k, accept, now)
		if a == nil {
			continue
		}
		ofDevice := k.Role == RoleDevice || slices.Contains(device, k.SPKISHA256)
		switch {
		case a.ended(now):
			f.Message += fmt.Sprintf(" (no longer %s)", a.accepts(*f))
		case never(*f, ofDevice) != "":
			f.Message += " (" + never(*f, ofDevice) + ")"
		default:
			f.Accepted = true
			entry := a.accepts(*f)
			f.Message += " (" + entry.String() + ")"
			if !slices.Contains(list, entry) {
				list = append(list, entry)
			}
		}
	}
	return findings, list
}

// Accept marks the findings of the report that the operator accepts, by the time
// of the report. A key counts as its findings do.
func (r *Report) Accept(accept []Acceptance) {
	r.Findings, r.Accepted = Accept(r.Findings, r.Keys, accept, r.Time)
	statuses, accepted := make(map[string][]Status), make(map[string]bool)
	for _, f := range r.Findings {
		statuses[f.Key] = append(statuses[f.Key], f.Counts())
		accepted[f.Key] = accepted[f.Key] || f.Accepted
	}
	for i, k := range r.Keys {
		if accepted[k.ID] {
			r.Keys[i].Status = Worst(statuses[k.ID]...)
		}
	}
}

// acceptanceOf returns the acceptance for a finding; one that has ended only if
// there is no other. nil: none is for it.
func acceptanceOf(f Finding, k KeyReport, accept []Acceptance, now time.Time) (found *Acceptance) {
	for i, a := range accept {
		if a.Code != f.ReasonCode || !a.names(f, k) {
			continue
		}
		if !a.ended(now) {
			return &accept[i]
		}
		found = &accept[i]
	}
	return found
}

func (a Acceptance) accepts(f Finding) Accepted {
	return Accepted{ReasonCode: f.ReasonCode, Key: f.Key, Why: a.Why, Until: a.Until}
}

// names reports whether the acceptance is for findings on that key.
func (a Acceptance) names(f Finding, k KeyReport) bool {
	switch a.Key {
	case "":
		return false
	case f.Key:
		return true
	}
	return strings.EqualFold(a.Key, k.SPKISHA256) || k.Certificate != nil && strings.EqualFold(a.Key, k.Certificate.SHA256)
}

// never is why a finding cannot be accepted; "" if it can.
func never(f Finding, ofDevice bool) string {
	if ofDevice && slices.Contains([]string{"roca", "debian", "compromised"}, f.Check) {
		return "this cannot be accepted on the device's key"
	}
	if ofDevice && (f.ReasonCode == ReasonROCA || f.ReasonCode == ReasonDebian) { // of a CA above it
		return "this cannot be accepted on the device's key"
	}
	if f.Status == Undecided && f.Check != "chain" && f.Check != "firmware" {
		return "what could not be checked cannot be accepted"
	}
	return ""
}
