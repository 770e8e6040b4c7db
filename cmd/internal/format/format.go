// Package format writes reports in the forms that programs of others read: one
// line a finding, SARIF and JUnit.
package format

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
)

// item is a finding and the key that it is on, which is empty for one on the TPM.
type item struct {
	device.Finding
	key      device.KeyReport
	accepted string // until when and why; "" if it is not accepted
}

// items are the findings of a report that apply, in the order of its keys.
func items(r *device.Report) []item {
	order, keys := make(map[string]int), make(map[string]device.KeyReport)
	for i, k := range r.Keys {
		order[k.ID], keys[k.ID] = i+1, k
	}
	var all []item
	for _, f := range r.Findings {
		if f.Status == device.NotApplicable || f.Status == device.Pass && !r.Verbose {
			continue
		}
		all = append(all, item{f, keys[f.Key], acceptance(r, f)})
	}
	slices.SortStableFunc(all, func(a, b item) int { return order[a.Key] - order[b.Key] })
	return all
}

// acceptance says until when and why a finding is accepted.
func acceptance(r *device.Report, f device.Finding) string {
	a, ok := r.AcceptedAs(f)
	if !ok {
		return ""
	}
	return a.String()
}

// place is where an item is: a file and a line of it, or "" and what else there
// is.
func (i item) place() (file string, line int, other string) {
	if file, ok := strings.CutPrefix(i.key.Source, "file:"); ok && file != "-" {
		return file, i.key.Line, ""
	}
	switch {
	case i.key.Source == "file:-":
		return "", 0, "standard input"
	case i.key.Source != "":
		return "", 0, i.key.Source
	}
	return "", 0, i.Key
}

// gaps are those that a report shows.
func gaps(r *device.Report) []device.Gap {
	return slices.DeleteFunc(slices.Clone(r.Gaps), func(g device.Gap) bool { return g.Minor && !r.Verbose })
}

// inFile parts a gap in a file from the file's name.
var (
	inFile   = regexp.MustCompile(`^(.+): ((?:(?:from )?line|object|PEM block) [0-9].*)$`)
	numbered = regexp.MustCompile(`\bline ([0-9]+)`)
)

// Line writes a finding or a gap a line:
//
//	FILE:LINE: STATUS CHECK REASON_CODE MESSAGE
//
// LINE is left out where there is none, and FILE is "tpm", or what the report has
// as the key's source, for a key in no file. STATUS is what the finding counts as.
// Of what passed the reason code is "-". A gap has the status GAP, the check
// "read" and the code [device.CouldNotLook]; where it lies in the file begins its message.
func Line(w io.Writer, r *device.Report) error {
	var b strings.Builder
	for _, i := range items(r) {
		where, line, other := i.place()
		if where == "" {
			where = strings.ReplaceAll(other, " ", "-")
		}
		if line > 0 {
			where = fmt.Sprintf("%s:%d", where, line)
		}
		code, message := i.ReasonCode, i.Message
		if code == "" {
			code = "-"
		}
		fmt.Fprintf(&b, "%s: %s %s %s %s\n", cli.Printable(where), i.Counts(), i.Check, cli.Printable(code), cli.Printable(message))
	}
	for _, g := range gaps(r) {
		what, message := g.What, g.Why
		if m := inFile.FindStringSubmatch(what); m != nil {
			what = m[1]
			n := numbered.FindStringSubmatch(m[2])
			if n != nil {
				what += ":" + n[1]
			}
			if n == nil || n[0] != m[2] {
				message = m[2] + ": " + message
			}
		}
		fmt.Fprintf(&b, "%s: GAP read %s %s\n", cli.Printable(what), device.CouldNotLook.Code, cli.Printable(message))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
