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
	Means: "The private half of the key is public, or its maker labels it as a test key: the key is on a list of such keys, which the message names. A list can have a code of its own for this.",
	Do:    "Replace the key and everything that relied on it; `keyvet rotate` replaces the device's.",
}

var compromised = Check{
	ID:      "compromised",
	Cite:    "https://doi.org/10.6028/NIST.SP.800-57pt1r5", // section 7, the compromised state of a key
	Asks:    "Is the private half of the key public, by a list of such keys, or is the key named as a test key?",
	Applies: func(device.Key) bool { return true },
	Reasons: []device.Reason{compromisedKey, labelled, namedTest, blocklistUnavailable},
	Run:     runCompromised,
}

func runCompromised(_ context.Context, k device.Key, env *Env) []device.Finding {
	found := label(k)
	if env.Blocklist == nil {
		if found == nil {
			return notApplicable("no list of compromised keys could be asked") // if one could not be, check debian and a gap say so
		}
		return found
	}
	entries, asked, err := env.Blocklist.Compromised(k)
	for _, e := range entries {
		found = append(found, onList(e)...)
	}
	switch {
	case err != nil:
		return append(found, give(blocklistUnavailable, "not looked up: %v", err)...)
	case found != nil:
		return found
	case !asked:
		return notApplicable("no list of compromised keys could be asked")
	}
	return passed("on none of the loaded lists of compromised keys")
}

// onList is about a key on a list, with what the list says of it.
func onList(e device.Compromised) []device.Finding {
	key, why := "the key", "whose private half is public"
	if e.Name != "" {
		key = fmt.Sprintf("the key, %q", e.Name)
		if e.Source != "" {
			key += fmt.Sprintf(" of %s (%s)", e.Source, e.Class)
		}
		key += ","
	}
	if says(e.Name, never) { // of three of AMI's test keys no more is known
		why = "that are public or, as this one, labelled by their maker as not to be trusted"
	}
	found := give(compromisedKey, "%s is on the list %q of keys %s", key, e.List, why)
	f := &found[0]
	f.ReasonCode = cmp.Or(e.Reason, compromisedKey.Code)
	f.Citation = e.Cite
	f.Proof = map[string]any{"list": e.List}
	for name, value := range map[string]string{"entry": e.Name, "class": e.Class, "source": e.Source} {
		if value != "" {
			f.Proof[name] = value
		}
	}
	return found
}
