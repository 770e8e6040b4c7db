package check

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"fmt"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	debianWeak = device.Reason{
		Code: device.ReasonDebian, Status: device.Fail, Severity: device.Critical,
		Means: "The key is one of those that Debian's broken OpenSSL could make; everybody can have its private key.",
		Do:    "Replace the key and everything that relied on it.",
	}
	blocklistUnavailable = device.Reason{
		Code: "KEYVET_BLOCKLIST_UNAVAILABLE", Status: device.Undecided,
		Means: "The key could not be looked up: no blocklist could be loaded, or it could not be read.",
		Do:    "Install a blocklist, or use a keyvet with the built-in one. The message says which file failed.",
	}
	debianNotCovered = device.Reason{
		Code: "KEYVET_DEBIAN_SIZE_NOT_COVERED", Status: device.Warn, Severity: device.Low,
		Means: "No loaded blocklist covers keys of this size.",
		Do:    "Load a list that does (check.blocklists), or use a key of a size that is covered.",
	}
)

var debian = Check{
	ID:   "debian",
	Cite: "https://www.debian.org/security/2008/dsa-1571",
	Asks: "Is the key one that Debian's broken OpenSSL could make, or on another loaded list?",
	Applies: func(k device.Key) bool {
		_, ec := k.Public.(*ecdsa.PublicKey)
		return ec || isRSA(k)
	},
	Reasons: []device.Reason{debianWeak, blocklistUnavailable, debianNotCovered},
	Run:     runDebian,
}

func runDebian(ctx context.Context, k device.Key, env *Env) []device.Finding {
	if env.Blocklist == nil {
		return give(blocklistUnavailable, "not looked up: %s", cmp.Or(env.BlocklistProblem, "no blocklist is loaded"))
	}
	l, err := env.Blocklist.Lookup(ctx, k.Public)
	switch {
	case err != nil:
		return give(blocklistUnavailable, "not looked up: %v", err)
	case l.Listed:
		reason, why := cmp.Or(l.Reason, device.ReasonDebian), "its private half is public knowledge"
		if reason != device.ReasonDebian {
			why = "replace it"
		}
		found := give(debianWeak, "the key is on the list %q (set %s): %s", l.Name, l.Set, why)
		found[0].ReasonCode = reason
		if !l.Exact {
			found[0].Message += "; the list is a filter, so a good key can hit it by rare chance"
		}
		if pid, ok := l.Proof["pid"]; ok {
			found[0].Message += fmt.Sprintf("; process id %v, architecture %v, variant %v makes it", pid, l.Proof["architecture"], l.Proof["variant"])
		}
		found[0].Proof = l.Proof
		return found
	case !l.Covered && (k.TPM.MadeInTPM() || k.Role == device.RoleEK):
		// It comes from the TPM's own generator, never from OpenSSL.
		return notApplicable("a key that a TPM made; no loaded blocklist covers %s", k.Algorithm())
	case !l.Covered:
		return give(debianNotCovered, "no loaded blocklist covers %s: nothing is known of this key", k.Algorithm())
	}
	return passed("not among the weak keys of set %s", l.Set)
}
