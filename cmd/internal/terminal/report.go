package terminal

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
)

// indent is that of what stands under a status.
const indent = 6

var reasonOf = check.ReasonOf // tests have reasons of their own

// page is a text in the making.
type page struct {
	strings.Builder
	Style
	word    int             // columns of the longest status
	said    map[string]bool // advice and sources, which are given once
	told    map[string]bool // messages of findings: a gap that says the same is not shown again
	verbose bool
}

func newPage(s Style, verbose bool) *page {
	return &page{Style: s, word: len("PASS"), said: make(map[string]bool), told: make(map[string]bool), verbose: verbose}
}

// line writes a status, or another word in its colour, and what it is of. What
// comes last goes into lines of its own where there is little room for it.
func (p *page) line(v device.Status, word string, columns ...string) {
	head, last := pad(word, p.word)+"  ", len(columns)-1
	for _, c := range columns[:last] {
		head += c + "  "
	}
	at := utf8.RuneCountInString(head)
	if p.Marks {
		at += 2
	}
	rest := at
	if p.Width > 0 && p.Width-at < 30 {
		rest = indent
	}
	p.WriteString(p.status(v, word))
	for line := range strings.SplitSeq(head[len(word):]+p.wrap(columns[last], at, rest), "\n") {
		p.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

// Report shows a report. Of keys in directories only those are listed that have a
// finding, unless the report is verbose.
func (s Style) Report(r *device.Report) string {
	p := newPage(s, r.Verbose)
	byKey := make(map[string][]device.Finding)
	for _, f := range r.Findings {
		byKey[f.Key] = append(byKey[f.Key], f)
	}
	role, algorithm := 0, 0
	unlisted := unlisted(r)
	for i, k := range r.Keys {
		if unlisted(i) {
			continue
		}
		role = max(role, len(roleName(k.Role)))
		if n := utf8.RuneCountInString(k.Algorithm); n <= 12 {
			algorithm = max(algorithm, n)
		}
		if k.Status == device.Undecided {
			p.word = len("UNDECIDED")
		}
	}
	if r.TPM != nil {
		role = max(role, len("TPM"))
		status, word := device.NotApplicable, "-" // nothing was asked of it
		if found := counted(byKey[device.TPMKeyID]); len(found) > 0 {
			status = device.Worst(found...)
			word = status.String()
		}
		p.word = max(p.word, len(word))
		p.line(status, word, pad("TPM", role), describeTPM(r.TPM))
		if l := r.TPM.Lockout; l != nil {
			p.WriteString(strings.Repeat(" ", indent) + p.wrap(l.String(), indent, indent) + "\n")
		}
		p.findings(byKey[device.TPMKeyID], "")
	}
	delete(byKey, device.TPMKeyID)
	places := r.Places()
	for i, k := range r.Keys {
		if !unlisted(i) {
			columns := []string{pad(roleName(k.Role), role), pad(cli.Printable(k.Algorithm), algorithm), where(k, places[k.ID])}
			if len(columns[1]) > algorithm { // it would push the others to the right
				columns = []string{columns[0], columns[1] + " " + columns[2]}
			}
			p.line(k.Status, k.Status.String(), columns...)
			p.findings(byKey[k.ID], unshownID(k))
		}
		delete(byKey, k.ID)
	}
	for _, f := range r.Findings { // on what is no key of the report
		if found := byKey[f.Key]; len(found) > 0 {
			status := device.Worst(counted(found)...)
			if p.listed(f) {
				p.line(status, status.String(), f.Key)
				p.findings(found, "")
			}
			delete(byKey, f.Key)
		}
	}
	p.gaps(r.Gaps)
	p.interruptions(r.Findings)
	p.searched(r.Searched)
	p.notLookedUp(r.NotLookedUpLine())
	if p.Len() > 0 {
		p.WriteByte('\n')
	}
	p.verdict(r)
	return p.String()
}

// unlisted reports whether the key of an index is left out, since it is one of a
// directory's and passed.
func unlisted(r *device.Report) func(int) bool {
	return func(i int) bool {
		inDir := slices.ContainsFunc(r.Searched, func(d device.Searched) bool { return d.First <= i && i < d.Last })
		return inDir && !r.Verbose && r.Keys[i].Status == device.Pass
	}
}

func counted(found []device.Finding) []device.Status {
	var all []device.Status
	for _, f := range found {
		all = append(all, f.Counts())
	}
	return all
}

var roleNames = map[device.Role]string{
	device.RoleEK: "EK", device.RoleAK: "AK", device.RoleSRK: "SRK", device.RoleIDevID: "IDevID", device.RolePersistent: "TPM key",
	device.RoleCA: "CA", device.RoleSSH: "SSH",
}

func roleName(r device.Role) string {
	return cmp.Or(roleNames[r], strings.ToLower(cli.Printable(string(r))))
}

// describeTPM is a TPM in a line.
func describeTPM(t *device.TPM) string {
	if t.State != device.TPMOK {
		return string(t.State)
	}
	text := strings.TrimSpace(t.Manufacturer + " " + t.VendorString)
	if t.FirmwareVersion != "" {
		text = strings.TrimPrefix(text+", firmware "+t.FirmwareVersion, ", ")
	}
	return text
}

// where says where a key is and, by its place, which it is of several in one file.
func where(k device.KeyReport, place string) string {
	kind, rest, _ := strings.Cut(k.Source, ":")
	text := k.Source
	switch {
	case k.Source == "file:-":
		text = "standard input"
	case kind == "file":
		text = rest
	case strings.HasPrefix(rest, "0x"):
		text = "TPM handle " + rest
	case k.Source == "tpm:blob":
		text = "in the TPM, by a file"
	case strings.HasPrefix(rest, "nv:"):
		text = "TPM index " + rest[len("nv:"):]
	case kind == "config":
		text = rest
	}
	if _, number, several := cutLast(k.ID, "#"); several && kind == "file" {
		text += "#" + number
	}
	if place != "" {
		text += ", " + place
	}
	if c := k.Certificate; c != nil {
		if place == "" && kind == "config" {
			text += ", " + cmp.Or(c.Subject, "no subject")
		}
		text += ", until " + c.NotAfter.UTC().Format(time.DateOnly)
	}
	return text
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// unshownID is the id of a key that does not follow from where it is.
func unshownID(k device.KeyReport) string {
	if file, _, _ := cutLast(k.ID, "#"); k.Source == "file:"+file {
		return ""
	}
	return k.ID
}

// Findings shows findings, those on one key together.
func (s Style) Findings(all []device.Finding) string {
	p := newPage(s, false)
	for i, f := range all {
		if slices.ContainsFunc(all[:i], func(g device.Finding) bool { return g.Key == f.Key }) {
			continue
		}
		var found []device.Finding
		for _, g := range all {
			if g.Key == f.Key {
				found = append(found, g)
			}
		}
		status := device.Worst(counted(found)...)
		p.line(status, status.String(), cmp.Or(f.Key, "report"))
		p.findings(found, "")
	}
	return p.String()
}

func (p *page) listed(f device.Finding) bool {
	if interrupted(f) && !p.verbose {
		return false // they are counted in a line
	}
	return p.verbose || f.Status != device.Pass && f.Status != device.NotApplicable
}

// label is the word before a finding.
func label(f device.Finding) string {
	switch {
	case f.Status == device.Pass:
		return "pass"
	case f.Status == device.NotApplicable:
		return "n/a"
	case f.Accepted:
		return "accepted"
	case f.Status == device.Warn:
		return "warning"
	case f.Status == device.Undecided:
		return "undecided"
	}
	return cmp.Or(strings.ToLower(string(f.Severity)), "fail")
}

// findings shows those on one key. What to do and where it is written is said the
// first time.
func (p *page) findings(all []device.Finding, id string) {
	all = slices.DeleteFunc(slices.Clone(all), func(f device.Finding) bool { return !p.listed(f) })
	wide := 0
	for _, f := range all {
		wide = max(wide, len(label(f)))
	}
	at := indent + wide + 2
	for _, f := range all {
		p.WriteString(strings.Repeat(" ", indent) + pad(label(f), wide) + "  ")
		under := func(text string) { p.WriteString(strings.Repeat(" ", at) + p.wrap(text, at, at) + "\n") }
		if f.Status == device.Pass || f.Status == device.NotApplicable {
			p.WriteString(p.wrap(f.Check+": "+f.Message, at, at) + "\n")
			continue
		}
		text := f.Message
		p.told[f.Message] = true
		if reason, ok := reasonOf(f.Check, f.ReasonCode); ok && !f.Accepted && !p.said[reason.Do] {
			p.said[reason.Do] = true
			text = strings.TrimSuffix(text, ".") + ". " + reason.Do
		}
		p.WriteString(p.wrap(text, at, at) + "\n")
		code := cmp.Or(f.ReasonCode, f.Check)
		if id != "" {
			code += " (key " + id + ")"
		}
		under(code)
		if f.Citation != "" && !p.said[f.Citation] {
			p.said[f.Citation] = true
			under(f.Citation)
		}
	}
}

// gaps shows what could not be checked; minor ones if everything is shown.
func (p *page) gaps(all []device.Gap) {
	for _, g := range all {
		switch {
		case !g.Minor && p.told[g.Why]:
		case !g.Minor:
			p.line(device.Undecided, "GAP", g.What+": "+g.Why)
		case p.verbose:
			p.line(device.NotApplicable, "note", g.What+": "+g.Why)
		}
	}
}

// interrupted reports whether a check was not made since the user ended it all.
func interrupted(f device.Finding) bool {
	return f.ReasonCode == "KEYVET_NOT_CHECKED" && strings.HasSuffix(f.Message, context.Canceled.Error())
}

// interruptions counts what was not done.
func (p *page) interruptions(all []device.Finding) {
	n := 0
	for _, f := range all {
		if interrupted(f) {
			n++
		}
	}
	if n > 0 {
		p.line(device.Undecided, "GAP", fmt.Sprintf("interrupted: %s not made", are(n, "check", "was", "were")))
	}
}

// searched counts what was found in directories.
func (p *page) searched(all []device.Searched) {
	for _, d := range all {
		text := fmt.Sprintf("%s: %s, %s with keys", d.Dir, count(d.Files, "file"), thousands(d.Keyed))
		if d.Links > 0 {
			text += fmt.Sprintf("; %s not followed", are(d.Links, "link", "was", "were"))
		}
		if d.Large > 0 {
			text += fmt.Sprintf("; of %s only the beginning was searched", count(d.Large, "large file"))
		}
		p.WriteString(p.wrap(text, 0, indent) + "\n")
	}
}

// notLookedUp says which keys no list of Debian's weak keys has, or not wholly.
func (p *page) notLookedUp(line string) {
	if line != "" {
		p.WriteString(p.wrap(cli.Printable(line), 0, indent) + "\n")
	}
}
