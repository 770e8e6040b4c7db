// Package terminal shows reports to people: the status first, then what it is the
// status of, lines that fit the terminal, and counts last.
package terminal

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
)

// Style is what a text is fitted to.
type Style struct {
	Width int  // columns; 0: lines are not broken
	Color bool // of a status
	Marks bool // ✓ and ✗ beside a status
}

// Of returns the style of a file, or whatever else is written to.
func Of(w any) Style {
	s := Style{Width: cli.Width(w)}
	if cli.IsTerminal(w) {
		dumb := isDumb()
		s.Color = os.Getenv("NO_COLOR") == "" && !dumb
		s.Marks = isUTF8() && !dumb
	}
	return s
}

// isDumb reports whether the terminal shows text alone, or nothing is known of it
// (environ(7)).
func isDumb() bool {
	term := os.Getenv("TERM")
	return term == "" || term == "dumb"
}

// isUTF8 reports whether the locale has UTF-8 for its characters (locale(7)).
func isUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := os.Getenv(name); value != "" {
			return strings.Contains(strings.ReplaceAll(strings.ToUpper(value), "-", ""), "UTF8")
		}
	}
	return false
}

var (
	colors = map[device.Status]int{device.Pass: 32, device.Warn: 33, device.Fail: 31, device.Undecided: 35}
	marks  = map[device.Status]string{device.Pass: "✓", device.Warn: "!", device.Fail: "✗", device.Undecided: "?"}
)

// status is a word for a status, in its colour, with its mark.
func (s Style) status(v device.Status, word string) string {
	if s.Marks {
		word = cmp.Or(marks[v], " ") + " " + word
	}
	if s.Color && colors[v] != 0 {
		word = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colors[v], word)
	}
	return word
}

// wrap is [cli.Wrap] to the width of the style.
func (s Style) wrap(text string, at, rest int) string { return cli.Wrap(text, s.Width, at, rest) }

// pad fills text up with spaces.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}
