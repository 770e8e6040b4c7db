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

// hard stands for a space between words that a line must not part.
const hard = "\u00a0"

// whole returns a command that [Wrap] keeps on one line.
func whole(command string) string { return strings.ReplaceAll(command, " ", hard) }

// words are what a line can end after. What stands in backquotes is one word: a
// command, which is to be copied.
func words(text string) (all []string) {
	open := false // the last word began a quotation that has not ended
	for field := range strings.FieldsFuncSeq(text, func(c rune) bool { return unicode.IsSpace(c) && string(c) != hard }) {
		field = Printable(strings.ReplaceAll(field, hard, " "))
		if open {
			all[len(all)-1] += " " + field
		} else {
			all = append(all, field)
		}
		open = open != (strings.Count(field, "`")%2 == 1)
	}
	if open {
		last := all[len(all)-1]
		return append(all[:len(all)-1], strings.Fields(last)...)
	}
	return all
}

// Wrap returns text, which is made printable, in lines of a width; 0 is any. The
// first begins in the column at, each further one is indented to that of rest. A
// word that is longer than a line is not broken, so that it can be copied, nor is
// a command in backquotes.
func Wrap(text string, width, at, rest int) string {
	var b strings.Builder
	column := at
	for i, w := range words(text) {
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
