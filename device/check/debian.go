package check

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"fmt"

	"github.com/keyvet/keyvet/device"
)

var debian = Check{
	ID:   "debian",
	Cite: "https://www.debian.org/security/2008/dsa-1571",
	Applies: func(k device.Key) bool {
		_, ec := k.Public.(*ecdsa.PublicKey)
		return ec || isRSA(k)
	},
	Run: runDebian,
}

func runDebian(ctx context.Context, k device.Key, env *Env) []device.Finding {
	if env.Blocklist == nil {
		return undecided("KEYVET_BLOCKLIST_UNAVAILABLE", "not looked up: %s", cmp.Or(env.BlocklistProblem, "no blocklist is loaded"))
	}
	l, err := env.Blocklist.Lookup(ctx, k.Public)
	switch {
	case err != nil:
		return undecided("KEYVET_BLOCKLIST_UNAVAILABLE", "not looked up: %v", err)
	case l.Listed:
		reason, why := cmp.Or(l.Reason, device.ReasonDebian), "its private half is public knowledge"
		if reason != device.ReasonDebian {
			why = "replace it"
		}
		found := failed(device.Critical, reason, "the key is on the list %q (set %s): %s", l.Name, l.Set, why)
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
		return warned(device.Low, "KEYVET_DEBIAN_SIZE_NOT_COVERED", "no loaded blocklist covers %s: nothing is known of this key", k.Algorithm())
	}
	return passed("not among the weak keys of set %s", l.Set)
}
