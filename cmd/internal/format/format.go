// Package format writes reports in the forms that programs of others read: one
// line a finding, SARIF and JUnit.
package format

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
)

// item is a finding and the key that it is on, which is empty for one on the TPM.
type item struct {
	device.Finding
	key device.KeyReport
}

// items are the findings of a report that apply, in the order of its keys. Where
// nothing was found out about a key, so that it is undecided, the answer that it
// could not be looked up is one of them, and is undecided as the key is.
func items(r *device.Report) []item {
	order, keys := make(map[string]int), make(map[string]device.KeyReport)
	for i, k := range r.Keys {
		order[k.ID], keys[k.ID] = i+1, k
	}
	var all []item
	places := r.Places()
	for _, f := range r.Findings {
		if f.NotLookedUp != "" && keys[f.Key].Unanswered {
			f.Status = device.Undecided
		}
		if f.Status == device.NotApplicable || f.Status == device.Pass && !r.Verbose {
			continue
		}
		if place := places[f.Key]; place != "" {
			f.Message += " (" + place + ")"
		}
		all = append(all, item{f, keys[f.Key]})
	}
	slices.SortStableFunc(all, func(a, b item) int { return order[a.Key] - order[b.Key] })
	return all
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

// inFile parts what a gap is about into a file and the place in it; ok is false if
// no place is named.
func inFile(what string) (file, place string, ok bool) {
	for at := strings.LastIndex(what, ": "); at > 0; at = strings.LastIndex(what[:at], ": ") {
		place = what[at+2:]
		for _, begins := range []string{"line ", "from line ", "object ", "PEM block "} {
			if rest, cut := strings.CutPrefix(place, begins); cut && leadingDigits(rest) != "" {
				return what[:at], place, true
			}
		}
	}
	return "", "", false
}

// lineOf returns the number of the line that a place names, or "".
func lineOf(place string) string {
	for rest := " " + place; ; {
		_, after, found := strings.Cut(rest, "line ")
		if !found {
			return ""
		}
		before := rest[len(rest)-len(after)-len("line ")-1]
		if n := leadingDigits(after); n != "" && (before == ' ' || before == '(') {
			return n
		}
		rest = " " + after
	}
}

func leadingDigits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

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
		if file, place, ok := inFile(what); ok {
			what = file
			n := lineOf(place)
			if n != "" {
				what += ":" + n
			}
			if place != "line "+n {
				message = place + ": " + message
			}
		}
		fmt.Fprintf(&b, "%s: GAP read %s %s\n", cli.Printable(what), device.CouldNotLook.Code, cli.Printable(message))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
