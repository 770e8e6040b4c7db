package terminal

import (
	"strings"
	"unicode/utf8"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
)

// Row is a line of what has a name and a value.
type Row struct {
	Name   string // "" continues the row above
	Status device.Status
	Word   string   // the status in words; "" if the row has none
	Values []string // the columns of rows of one name are under each other
}

// Rows shows rows.
func (s Style) Rows(rows []Row) string {
	names, word := 0, 0
	for _, r := range rows {
		names, word = max(names, utf8.RuneCountInString(r.Name)), max(word, utf8.RuneCountInString(r.Word))
	}
	names += 2
	var b strings.Builder
	var wide []int // of the columns of the row's group
	for i, r := range rows {
		if r.Name != "" {
			wide = columns(rows[i:])
		}
		b.WriteString(pad(r.Name, names))
		at := names
		if r.Word != "" {
			b.WriteString(s.status(r.Status, pad(r.Word, word)) + "  ")
			at += word + 2
			if s.Marks {
				at += 2
			}
		}
		text := ""
		for j, v := range r.Values {
			if j < len(r.Values)-1 {
				v = pad(cli.Printable(v), wide[j]) + "  "
			}
			text += cli.Printable(v)
		}
		if s.Width > 0 && at+utf8.RuneCountInString(text) > s.Width {
			text = s.wrap(text, at, min(at, names))
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return b.String()
}

// columns are the widths of the columns of the first row and of those that
// continue it.
func columns(rows []Row) []int {
	var wide []int
	for i, r := range rows {
		if i > 0 && r.Name != "" {
			break
		}
		for j, v := range r.Values {
			if j == len(wide) {
				wide = append(wide, 0)
			}
			wide[j] = max(wide[j], utf8.RuneCountInString(v))
		}
	}
	return wide
}

// Item is something that has a status and, in words, why.
type Item struct {
	Status    device.Status
	Name, Why string
}

// Items shows items, the status first.
func (s Style) Items(all []Item) string {
	p, wide := newPage(s, false), 0
	word := func(v device.Status) string {
		if v == device.NotApplicable {
			return "n/a"
		}
		return v.String()
	}
	for _, i := range all {
		wide, p.word = max(wide, utf8.RuneCountInString(i.Name)), max(p.word, len(word(i.Status)))
	}
	for _, i := range all {
		p.line(i.Status, word(i.Status), pad(cli.Printable(i.Name), wide), i.Why)
	}
	return p.String()
}

// Verdict shows a verdict and counts.
func (s Style) Verdict(v device.Status, counts string) string {
	p := newPage(s, false)
	p.end(v, counts)
	return p.String()
}

// Under shows a line of text under a status.
func (s Style) Under(text string) string {
	return strings.Repeat(" ", indent) + s.wrap(text, indent, indent) + "\n"
}

// Text shows a line of text.
func (s Style) Text(text string) string { return s.wrap(text, 0, indent) + "\n" }

// Device shows how a device is, and what was found.
func (s Style) Device(v device.Status, name, text string, found []device.Finding) string {
	p := newPage(s, false)
	p.line(v, v.String(), cli.Printable(name), text)
	for _, f := range found {
		p.findings([]device.Finding{f}, f.Key)
	}
	return p.String()
}
