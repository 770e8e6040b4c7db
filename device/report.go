package device

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Schema is the schema of the reports of this version.
const Schema = "keyvet.report/1"

// MaxReportBytes bounds a report on the wire: AWS IoT Core takes payloads of 128 KB.
const MaxReportBytes = 128 << 10

// Trigger is what made the device check itself.
type Trigger string

const (
	TriggerFirstBoot Trigger = "first-boot"
	TriggerBoot      Trigger = "boot"
	TriggerJob       Trigger = "job"
	TriggerSchedule  Trigger = "schedule"
	TriggerManual    Trigger = "manual"
)

// Agent is the program that made a report.
type Agent struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
}

// BlocklistInfo names the weak keys that were looked for.
type BlocklistInfo struct {
	Sets              []string `json:"sets"`
	SHA256            string   `json:"sha256,omitempty"` // lower-case hex, of the first list where there are several
	FalsePositiveRate float64  `json:"falsePositiveRate"`
}

// Certificate is what a report says of a key's certificate.
type Certificate struct {
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"notAfter"`
	SHA256   string    `json:"sha256"` // lower-case hex, of the DER
}

// KeyReport is what a report says of one key.
type KeyReport struct {
	ID          string       `json:"id"`
	Role        Role         `json:"role"`
	Algorithm   string       `json:"algorithm"`
	Source      string       `json:"source"`
	Line        int          `json:"line,omitempty"` // of a text file where the key begins, counted from 1
	SPKISHA256  string       `json:"spkiSha256,omitempty"`
	SPKI        string       `json:"spki,omitempty"` // base64 DER
	Certificate *Certificate `json:"certificate,omitempty"`
	Status      Status       `json:"status"`

	// PrivateSHA256 is [PrivateFile.SHA256]. It stays on the device.
	PrivateSHA256 string `json:"-"`

	// Unanswered says that the key is undecided since no check applied to it, and not
	// since an answer could not be had.
	Unanswered bool `json:"-"`
}

// Accepted is a finding that the operator accepts: it counts as a warning.
type Accepted struct {
	ReasonCode ReasonCode `json:"reasonCode"`
	Key        string     `json:"keyId"`
	Why        string     `json:"why"`
	Until      string     `json:"until,omitempty"` // a date, "2027-06-30"
}

// String is what people read of it: "accepted until 2027-06-30: ticket 4711".
func (a Accepted) String() string {
	if a.Until == "" {
		return "accepted: " + a.Why
	}
	return "accepted until " + a.Until + ": " + a.Why
}

// End is when it is no longer accepted: the end of the last day in UTC, or a time
// that never comes.
func (a Accepted) End() time.Time {
	if a.Until == "" {
		return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	last, err := time.Parse(time.DateOnly, a.Until)
	if err != nil {
		return time.Time{}
	}
	return last.AddDate(0, 0, 1)
}

// AnchorSummary counts the keys of one source of trust anchors.
type AnchorSummary struct {
	Source string `json:"source"` // "apt", "uefi:db"
	Keys   int    `json:"keys"`
	Fail   int    `json:"fail"`
	Gaps   int    `json:"gaps"`
}

// Searched counts what was found in a directory and those below it.
type Searched struct {
	Dir   string
	Files int // regular ones
	Keyed int // of them with a key, or with one that could not be read
	Large int // of them too large to be searched to their end
	Links int // symbolic links, which were not followed

	First, Last int // its keys are Keys[First:Last] of the report
}

// Report is the outcome of one self-check.
type Report struct {
	Schema    string         `json:"schema"`
	ID        string         `json:"reportId"`
	Time      time.Time      `json:"time"`
	ThingName string         `json:"thingName,omitempty"`
	Trigger   Trigger        `json:"trigger"`
	Agent     Agent          `json:"agent"`
	Blocklist *BlocklistInfo `json:"blocklist,omitempty"`
	TPM       *TPM           `json:"tpm,omitempty"`
	Keys      []KeyReport    `json:"keys"`
	Findings  []Finding      `json:"findings"`
	Gaps      []Gap          `json:"gaps"`
	// Credential is the role of the key that carries the report to the cloud:
	// DEVICE means the key under test, which until the report is acknowledged
	// is good for reporting alone.
	Credential Role `json:"credential,omitempty"`
	// Accepted are the findings that the operator accepts for now.
	Accepted []Accepted `json:"accepted,omitempty"`
	// NotLookedUp counts the keys, by algorithm, that no loaded list of Debian's
	// weak keys covers, wholly or in part.
	NotLookedUp map[string]int `json:"notLookedUp,omitempty"`
	// Anchors sum up the keys that firmware and image trust, by source.
	Anchors []AnchorSummary `json:"anchors,omitempty"`
	// Cut counts what was left out to keep within [MaxReportBytes].
	Cut      Cuts      `json:"cut,omitempty"`
	Evidence *Evidence `json:"evidence,omitempty"` // last, so that a digest of the rest is a cut away

	// Searched are the directories that were searched for keys. They stay on the
	// device.
	Searched []Searched `json:"-"`

	// Lacking counts the keys of NotLookedUp by [Finding.NotLookedUp]. It stays on
	// the device.
	Lacking map[string]int `json:"-"`

	// Verbose keeps the findings that passed when the report is marshalled.
	Verbose bool `json:"-"`

	// Folded is how many reports on the same faults, which were not delivered, this one
	// stands for besides itself. It is told with the findings, since the evidence is
	// made before.
	Folded int `json:"-"`

	// Limit is how many bytes a slow network should have to carry; 0: MaxReportBytes.
	// It stays as it is once the evidence is made.
	Limit int `json:"-"`

	read *readReport // set if the report was read from JSON
}

type readReport struct {
	verdict Status
	bytes   []byte
}

// NewReport makes the report of the findings on an inventory. A key on which
// no check found anything to say is Undecided.
func NewReport(inv Inventory, findings []Finding) *Report {
	r := &Report{
		Schema: Schema, ID: newID(), Time: inv.ReadAt.UTC().Truncate(time.Second),
		TPM: inv.TPM, Findings: findings, Gaps: inv.Gaps,
	}
	r.addKeys(inv.Keys, findings)
	return r
}

// Add adds keys and the findings on them, of which those that passed are kept
// only if Verbose: of many keys little is to be remembered.
func (r *Report) Add(keys []Key, findings []Finding) {
	r.addKeys(keys, findings)
	r.Findings = append(r.Findings, keep(findings, func(f Finding) bool {
		return r.Verbose || f.NotLookedUp != "" || f.Status != Pass && f.Status != NotApplicable
	})...)
}

func (r *Report) addKeys(keys []Key, findings []Finding) {
	byKey := make(map[string][]Status)
	notLookedUp := make(map[string]string)
	for _, f := range findings {
		if status := f.Counts(); status != NotApplicable {
			byKey[f.Key] = append(byKey[f.Key], status)
		}
		notLookedUp[f.Key] = cmp.Or(notLookedUp[f.Key], f.NotLookedUp)
	}
	for _, k := range keys {
		kr := reportKey(k, Worst(byKey[k.ID]...))
		kr.Unanswered = len(byKey[k.ID]) == 0
		r.Keys = append(r.Keys, kr)
		r.countNotLookedUp(k, notLookedUp[k.ID])
	}
}

// AddAcross adds findings on keys that were added before.
func (r *Report) AddAcross(findings []Finding) {
	byKey := make(map[string]int)
	for i, k := range r.Keys {
		byKey[k.ID] = i
	}
	for _, f := range findings {
		if i, known := byKey[f.Key]; known {
			k := &r.Keys[i]
			if k.Unanswered {
				k.Status, k.Unanswered = NotApplicable, false
			}
			k.Status = Worst(k.Status, f.Counts())
		}
	}
	r.Add(nil, findings)
}

func reportKey(k Key, status Status) KeyReport {
	kr := KeyReport{
		ID: k.ID, Role: k.Role, Algorithm: k.Algorithm(), Source: k.Source, Line: k.Line, Status: status,
		SPKISHA256: k.SPKISHA256(), SPKI: base64.StdEncoding.EncodeToString(k.SPKI),
	}
	if k.Private != nil {
		kr.PrivateSHA256 = k.Private.SHA256
	}
	if leaf := k.Leaf(); leaf != nil {
		kr.Certificate = &Certificate{
			Subject: bounded(leaf.Subject.String()), Issuer: bounded(leaf.Issuer.String()),
			NotAfter: leaf.NotAfter.UTC(), SHA256: CertificateID(leaf),
		}
	}
	return kr
}

// bounded cuts a name that somebody else chose to 256 bytes.
func bounded(name string) string {
	if len(name) > 256 {
		name = strings.ToValidUTF8(name[:256], "") + "…"
	}
	return name
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Verdict is the status of the whole: Fail > Undecided > Warn > Pass. A gap
// that is not minor, or nothing looked at, is Undecided.
func (r *Report) Verdict() Status { return r.VerdictFrom(Low) }

// VerdictFrom is [Report.Verdict] with the failing findings that are less severe
// than that counted as warnings.
func (r *Report) VerdictFrom(least Severity) Status {
	if r.read != nil {
		return r.read.verdict
	}
	var all []Status
	mild := make(map[string]bool) // keys that fail by such findings
	for _, f := range r.Findings {
		status := f.Counts()
		if status == Fail && f.Severity.below(least) {
			status, mild[f.Key] = Warn, true
		}
		all = append(all, status)
	}
	for _, k := range r.Keys {
		if k.Status != Fail || !mild[k.ID] {
			all = append(all, k.Status)
		}
	}
	for _, g := range r.Gaps {
		if !g.Minor {
			all = append(all, Undecided)
		}
	}
	return Worst(all...)
}

// AcceptedAs returns what the operator says of a finding that he accepts.
func (r *Report) AcceptedAs(f Finding) (a Accepted, ok bool) {
	if !f.Accepted {
		return a, false
	}
	for _, a := range r.Accepted {
		if a.ReasonCode == f.ReasonCode && a.Key == f.Key {
			return a, true
		}
	}
	return a, true
}

// Places says, by its id, of each key that stands in one file with others which it
// is: the line that it begins in, and the subject of its certificate.
func (r *Report) Places() map[string]string {
	places := make(map[string]string)
	for i := range r.Keys { // those of a file follow each other
		k := &r.Keys[i]
		if (i == 0 || r.Keys[i-1].Source != k.Source) && (i+1 == len(r.Keys) || r.Keys[i+1].Source != k.Source) {
			continue
		}
		line, subject := "", ""
		if k.Line > 0 {
			line = "line " + strconv.Itoa(k.Line)
		}
		if k.Certificate != nil {
			subject = cmp.Or(k.Certificate.Subject, "no subject")
		}
		places[k.ID] = strings.Trim(line+", "+subject, ", ")
	}
	return places
}

// Missing returns the gaps that leave the verdict open.
func (r *Report) Missing() []Gap {
	return slices.DeleteFunc(slices.Clone(r.Gaps), func(g Gap) bool { return g.Minor })
}

// ReasonCodes lists the distinct reason codes of findings that failed, were
// undecided or warned, in the order of the findings.
func (r *Report) ReasonCodes() []ReasonCode {
	codes := []ReasonCode{}
	seen := make(map[ReasonCode]bool)
	for _, f := range r.Findings {
		if f.ReasonCode != "" && f.Status != Pass && f.Status != NotApplicable && !seen[f.ReasonCode] {
			seen[f.ReasonCode] = true
			codes = append(codes, f.ReasonCode)
		}
	}
	return codes
}
