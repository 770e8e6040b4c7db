package device

import (
	"strings"
	"unicode"
)

// OneLine returns text of another's making fit to be shown, logged or sent: what
// is not printable becomes a space, and at most max bytes are left.
func OneLine(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "")
	}
	return s
}
