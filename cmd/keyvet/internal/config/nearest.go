package config

import (
	"strings"

	"github.com/agnivade/levenshtein"
)

// nearest returns the name that takes the fewest changes. Where the last part is
// as near, the table before it does not count: a key may stand in the wrong one.
func nearest(key string, names []string) string {
	last := func(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }
	best, least := "", 1<<30
	for _, name := range names {
		d := min(2*levenshtein.ComputeDistance(key, name), 2*levenshtein.ComputeDistance(last(key), last(name))+1)
		if d < least {
			best, least = name, d
		}
	}
	return best
}
