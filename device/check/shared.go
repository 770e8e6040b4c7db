package check

import (
	"bytes"
	"context"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var keyShared = device.Reason{
	Code: "KEYVET_KEY_SHARED", Status: device.Fail, Severity: device.High,
	Means: "The device's key also has another role.",
	Do:    "Make a key of its own for each role: `keyvet rotate` makes one for the device.",
}

var shared = Check{
	ID:      "shared",
	Cite:    "https://doi.org/10.6028/NIST.SP.800-57pt1r5", // section 5.2: one key, one purpose
	Asks:    "Is the key of the device used in another role?",
	Reasons: []device.Reason{keyShared},
	RunAll:  runShared,
}

// runShared compares with the roles that are purposes. FILE and PERSISTENT
// are only ways in which the same key may be found a second time.
func runShared(_ context.Context, keys []device.Key, _ *Env) []device.Finding {
	var all []device.Finding
	for _, k := range keys {
		if k.Role != device.RoleDevice || len(k.SPKI) == 0 {
			continue
		}
		found := passed("no other role uses this key")
		for _, other := range keys {
			switch other.Role {
			case device.RoleDevice, device.RoleFile, device.RolePersistent, "": // "" is a CA above a key
				continue
			}
			if bytes.Equal(other.SPKI, k.SPKI) {
				if found[0].Status == device.Pass {
					found = nil
				}
				found = append(found, give(keyShared, "the device's key is also its %s key (%s)", other.Role, other.ID)...)
			}
		}
		for i := range found {
			found[i].Key = k.ID
		}
		all = append(all, found...)
	}
	return all
}
