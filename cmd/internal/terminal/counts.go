package terminal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// verdict shows the verdict and counts.
func (p *page) verdict(r *device.Report) {
	statuses, severities, warnings, accepted := make(map[device.Status]int), make(map[device.Severity]int), 0, 0
	for _, k := range r.Keys {
		statuses[k.Status]++
	}
	for _, f := range r.Findings {
		switch {
		case f.Accepted:
			accepted++
		case f.Status == device.Fail:
			severities[f.Severity]++
		case f.Status == device.Warn:
			warnings++
		}
	}
	var of []string
	for _, s := range slices.Backward(device.Severities) {
		if severities[s] > 0 {
			of = append(of, fmt.Sprintf("%s %s", thousands(severities[s]), strings.ToLower(string(s))))
		}
	}
	failing := ""
	if len(of) > 0 {
		failing = " (" + strings.Join(of, ", ") + ")"
	}
	var parts []string
	switch n := len(r.Keys); {
	case statuses[device.Fail] > 0:
		parts = append(parts, fmt.Sprintf("%s of %s %s%s", thousands(statuses[device.Fail]), count(n, "key"), form(statuses[device.Fail], "fails", "fail"), failing))
	case failing != "":
		parts = append(parts, "the TPM fails"+failing)
	case n == 0:
		parts = append(parts, "no key was tested")
	default:
		parts = append(parts, count(n, "key"))
	}
	if n := statuses[device.Undecided]; n > 0 {
		parts = append(parts, fmt.Sprintf("%s undecided", are(n, "key", "is", "are")))
	}
	if warnings > 0 {
		parts = append(parts, count(warnings, "warning"))
	}
	if accepted > 0 {
		parts = append(parts, count(accepted, "finding")+" accepted")
	}
	gaps := 0
	for _, g := range r.Gaps {
		if !g.Minor {
			gaps++
		}
	}
	if gaps > 0 {
		parts = append(parts, count(gaps, "thing")+" could not be checked")
	}
	p.end(r.Verdict(), strings.Join(parts, "; "))
}

// end is the last line.
func (p *page) end(v device.Status, counts string) {
	word := v.String() + ":"
	at := len(word) + 1
	if p.Marks {
		at += 2
	}
	p.WriteString(p.status(v, word) + " " + p.wrap(counts, at, indent) + "\n")
}

func form(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// Count is a number of things: "1 key", "1,203 keys".
func Count(n int, one, many string) string { return thousands(n) + " " + form(n, one, many) }

func count(n int, thing string) string { return Count(n, thing, thing+"s") }

// are is a number of things that are something.
func are(n int, thing, is, are string) string { return count(n, thing) + " " + form(n, is, are) }

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}
