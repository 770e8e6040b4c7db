package device

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// countNotLookedUp counts a key of which lacking says what no list has; "" is
// nothing.
func (r *Report) countNotLookedUp(k Key, lacking string) {
	if lacking == "" {
		return
	}
	if r.NotLookedUp == nil {
		r.NotLookedUp, r.Lacking = make(map[string]int), make(map[string]int)
	}
	r.NotLookedUp[k.Algorithm()]++
	r.Lacking[lacking]++
}

// LookedUp takes a key out of what could not be looked up: it was searched for.
// Lacking is what [Finding.NotLookedUp] said of it.
func (r *Report) LookedUp(algorithm, lacking string) {
	for of, key := range map[*map[string]int]string{&r.NotLookedUp: algorithm, &r.Lacking: lacking} {
		if (*of)[key]--; (*of)[key] <= 0 {
			delete(*of, key)
		}
	}
}

// NotLookedUpLine is the line for people on the keys that no loaded list of
// Debian's weak keys covers, wholly or in part; "" if there are none.
func (r *Report) NotLookedUpLine() string {
	count := r.Lacking
	if count == nil { // a report that was read has no more
		count = r.NotLookedUp
	}
	var words []string
	for _, what := range slices.Sorted(maps.Keys(count)) {
		words = append(words, fmt.Sprintf("%d %s", count[what], what))
	}
	if words == nil {
		return ""
	}
	return "could not be looked up in the Debian weak-key list: " + strings.Join(words, "; ")
}
