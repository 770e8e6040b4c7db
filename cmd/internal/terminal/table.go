package terminal

import (
	"strings"
	"unicode/utf8"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
)

// Line is a line of a table.
type Line struct {
	Status device.Status // of Word
	Word   string        // comes first, in the colour of the status; "" if the table has none
	Cells  []string
}

// lastColumn is the least that is left to a last column which is a text.
const lastColumn = 30

// Table shows lines under a head, if there is one. What does not fit the width stands
// below its line, each cell after the name of its column.
func (s Style) Table(head []string, lines []Line) string {
	word, wide := 0, []int{}
	measure := func(cells []string) {
		for i, c := range cells {
			if i == len(wide) {
				wide = append(wide, 0)
			}
			wide[i] = max(wide[i], utf8.RuneCountInString(c))
		}
	}
	measure(head)
	for _, l := range lines {
		word = max(word, utf8.RuneCountInString(l.Word))
		measure(l.Cells)
	}
	start := 0
	if word > 0 {
		if start = word + 2; s.Marks {
			start += 2
		}
	}
	kept, wraps := s.columns(start, wide)
	var b strings.Builder
	show := func(l Line, named bool) {
		line, at := "", start
		if word > 0 && l.Word != "" {
			line = s.status(l.Status, pad(l.Word, word)) + "  "
		} else {
			line = strings.Repeat(" ", start)
		}
		for i, c := range l.Cells[:min(kept, len(l.Cells))] {
			switch {
			case i == len(wide)-1 && wraps:
				line += s.wrap(c, at, at)
			case i == len(wide)-1:
				line += cli.Printable(c)
			default:
				line += pad(cli.Printable(c), wide[i]) + "  "
				at += wide[i] + 2
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		var below []string
		for i := kept; i < len(l.Cells) && named; i++ {
			if c := l.Cells[i]; c != "" && i < len(head) {
				below = append(below, strings.ToLower(head[i])+" "+c)
			} else if c != "" {
				below = append(below, c)
			}
		}
		if len(below) > 0 {
			b.WriteString(s.Under(strings.Join(below, ", ")))
		}
	}
	if len(head) > 0 {
		show(Line{Cells: head}, false)
	}
	for _, l := range lines {
		show(l, true)
	}
	return b.String()
}

// columns returns how many of the columns fit beside each other, and whether the last
// one of the table is wrapped to do so.
func (s Style) columns(start int, wide []int) (kept int, wraps bool) {
	if s.Width == 0 {
		return len(wide), false
	}
	at := start
	for i, w := range wide {
		if at+w > s.Width {
			if i == len(wide)-1 && s.Width-at >= lastColumn {
				return len(wide), true
			}
			return max(i, 1), false
		}
		at += w + 2
	}
	return len(wide), false
}
