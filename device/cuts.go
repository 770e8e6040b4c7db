package device

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
)

// Cut counts findings, keys without a finding, or gaps that were left out of a
// report.
type Cut struct {
	Check  string `json:"check,omitempty"`  // "key", "gap" and "boot-log" for what is no finding; "" for several checks
	Source string `json:"source,omitempty"` // that of the keys; "" for several
	Status Status `json:"status"`
	N      int    `json:"n"`

	// Accepted says that these findings count as warnings, see [Finding.Accepted].
	Accepted bool `json:"accepted,omitempty"`

	first string // what a report of the first version says, in one text
}

// Counts is what these count as in a verdict, as [Finding.Counts] does.
func (c Cut) Counts() Status { return Finding{Status: c.Status, Accepted: c.Accepted}.Counts() }

// Cuts is what was left out of a report. The first version wrote a text.
type Cuts []Cut

// MarshalJSON implements [json.Marshaler].
func (c Cuts) MarshalJSON() ([]byte, error) {
	if c.Uncounted() {
		return json.Marshal(c[0].first)
	}
	return json.Marshal([]Cut(c))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (c *Cuts) UnmarshalJSON(b []byte) error {
	if bytes.HasPrefix(b, []byte(`"`)) {
		*c = Cuts{{}}
		return json.Unmarshal(b, &(*c)[0].first)
	}
	return json.Unmarshal(b, (*[]Cut)(c))
}

// Uncounted reports whether something was left out without being counted, as
// the first version did.
func (c Cuts) Uncounted() bool { return len(c) == 1 && c[0].first != "" }

// cuts returns these counts as a list of bounded size: if it is larger, by
// check and status, and if it is still larger, by status.
func cuts(counts map[Cut]int) Cuts {
	for _, blur := range []func(*Cut){func(*Cut) {}, func(c *Cut) { c.Source = "" }, func(c *Cut) { c.Check, c.Source = "", "" }} {
		sum := make(map[Cut]int)
		for c, n := range counts {
			blur(&c)
			sum[c] += n
		}
		list := make(Cuts, 0, len(sum))
		for c, n := range sum {
			c.N = n
			list = append(list, c)
		}
		slices.SortFunc(list, func(a, b Cut) int {
			return cmp.Or(cmp.Compare(weight(b.Status), weight(a.Status)), cmp.Compare(b.N, a.N), cmp.Compare(a.Check, b.Check), cmp.Compare(a.Source, b.Source),
				cmp.Compare(b.Counts(), a.Counts()))
		})
		if counts = sum; size(list) <= maxCuts {
			return list
		}
	}
	return nil // there are five statuses
}
