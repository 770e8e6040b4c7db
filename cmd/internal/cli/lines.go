package cli

import (
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// textWidth is what every terminal shows.
const textWidth = 80

// IsTerminal reports whether w is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Width returns how many columns a line to w may have; 0: lines are not broken. A
// terminal has its own width. What is no terminal has that of COLUMNS, and lines
// that are not broken without it, which are good for grep.
func Width(w any) int {
	columns, _ := strconv.Atoi(os.Getenv("COLUMNS"))
	width := max(columns, 0)
	if !IsTerminal(w) {
		return width
	}
	if own, _, err := term.GetSize(int(w.(*os.File).Fd())); err == nil && own > 0 {
		return own
	}
	if width == 0 {
		return textWidth
	}
	return width
}

// Printable keeps text from outside, such as a file's name or a certificate's
// subject, from steering the terminal or breaking the line.
func Printable(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '\uFFFD'
	}, text)
}

// Wrap returns text, which is made printable, in lines of a width; 0 is any. The
// first begins in the column at, each further one is indented to that of rest. A
// word that is longer than a line is not broken, so that it can be copied.
func Wrap(text string, width, at, rest int) string {
	words := strings.Fields(Printable(text))
	var b strings.Builder
	column := at
	for i, w := range words {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0 && (column <= rest || width == 0 || column+n <= width):
		case i > 0 && (width == 0 || column+1+n <= width):
			b.WriteByte(' ')
			column++
		default:
			b.WriteString("\n" + strings.Repeat(" ", rest))
			column = rest
		}
		b.WriteString(w)
		column += n
	}
	return b.String()
}
