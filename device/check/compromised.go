package check

import (
	"cmp"
	"context"
	"fmt"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing. A list can have a reason code of its
// own for its keys.
var compromisedKey = device.Reason{
	Code: device.ReasonCompromised, Status: device.Fail, Severity: device.Critical,
	Means: "The private half of the key is public: the key is on a list of such keys, which the message names. A list can have a code of its own for this.",
	Do:    "Replace the key and everything that relied on it.",
}

var compromised = Check{
	ID:      "compromised",
	Cite:    "https://doi.org/10.6028/NIST.SP.800-57pt1r5", // section 7, the compromised state of a key
	Asks:    "Is the private half of the key public, by a list of such keys?",
	Applies: func(device.Key) bool { return true },
	Reasons: []device.Reason{compromisedKey, blocklistUnavailable},
	Run:     runCompromised,
}

func runCompromised(_ context.Context, k device.Key, env *Env) []device.Finding {
	if env.Blocklist == nil {
		return notApplicable("no list of compromised keys is loaded") // if one could not be, check debian and a gap say so
	}
	entries, asked, err := env.Blocklist.Compromised(k)
	switch {
	case err != nil:
		return give(blocklistUnavailable, "not looked up: %v", err)
	case !asked:
		return notApplicable("no list of compromised keys is loaded")
	}
	var found []device.Finding
	for _, e := range entries {
		key := "the key"
		if e.Name != "" {
			key = fmt.Sprintf("the key, %q,", e.Name)
		}
		one := give(compromisedKey, "%s is on the list %q of keys whose private half is public", key, e.List)
		one[0].ReasonCode = cmp.Or(e.Reason, compromisedKey.Code)
		one[0].Citation = e.Cite
		one[0].Proof = map[string]any{"list": e.List}
		if e.Name != "" {
			one[0].Proof["entry"] = e.Name
		}
		found = append(found, one...)
	}
	if found == nil {
		return passed("on none of the loaded lists of compromised keys")
	}
	return found
}
