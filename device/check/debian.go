package check

import (
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
		Do:    "Replace the key and everything that relied on it; `keyvet rotate` replaces the device's.",
	}
	blocklistUnavailable = device.Reason{
		Code: "KEYVET_BLOCKLIST_UNAVAILABLE", Status: device.Undecided,
		Means: "The key could not be looked up: a blocklist could not be loaded or read.",
		Do:    "Put a whole list in the place of the file that the message names.",
	}
)

var debian = Check{
	ID:   "debian",
	Cite: "https://www.debian.org/security/2008/dsa-1571",
	Asks: "Is the key one that Debian's broken OpenSSL could make?",
	Applies: func(k device.Key) bool {
		_, ec := k.Public.(*ecdsa.PublicKey)
		return ec || isRSA(k)
	},
	Reasons: []device.Reason{debianWeak, blocklistUnavailable},
	Run:     runDebian,
}

func runDebian(ctx context.Context, k device.Key, env *Env) []device.Finding {
	var l device.Listing
	switch {
	case env.Blocklist != nil:
		var err error
		if l, err = env.Blocklist.Lookup(ctx, k.Public); err != nil {
			return give(blocklistUnavailable, "not looked up: %v", err)
		}
	case env.BlocklistProblem != "":
		return give(blocklistUnavailable, "not looked up: %s", env.BlocklistProblem)
	}
	switch {
	case l.Listed:
		return debianListed(l)
	case l.Covered:
		return passed("not among the %s keys in the Debian weak-key list", k.Algorithm())
	case k.TPM.MadeInTPM() || k.Role == device.RoleEK:
		// It comes from the TPM's own generator, never from OpenSSL.
		return notApplicable("a key that a TPM made")
	}
	return notLookedUp(k.Algorithm(), l)
}

// debianListed is about a key that a list has, or, if it is of no set, a search found.
func debianListed(l device.Listing) []device.Finding {
	of := "Debian's OpenSSL made the key"
	if l.Set != "" {
		of = fmt.Sprintf("the key is on the list %q (set %s)", l.Name, l.Set)
	}
	found := give(debianWeak, "%s: its private half is public knowledge", of)
	if !l.Exact {
		found[0].Message += "; the list is a filter, so a good key can hit it by rare chance"
	}
	if pid, ok := l.Proof["pid"]; ok {
		found[0].Message += fmt.Sprintf("; process id %v, architecture %v, variant %v makes it", pid, l.Proof["architecture"], l.Proof["variant"])
	}
	found[0].Proof = l.Proof
	return found
}

// Lacking says which keys of Debian's no list has, and that the key could be, as
// the check debian does in [device.Finding.NotLookedUp]; "" if it is looked up, or
// need not be.
func Lacking(ctx context.Context, k device.Key, lists Blocklist) string {
	if !debian.Applies(k) || lists == nil {
		return ""
	}
	return runDebian(ctx, k, &Env{Blocklist: lists})[0].NotLookedUp
}

// Searched is the answer of the check debian on a key that a search of Debian's
// generator was made for. Whether it is listed says the search; how says how far
// it went.
func Searched(key string, l device.Listing, how string) device.Finding {
	found := passed("not among the keys that Debian's OpenSSL could make: %s", how)
	if l.Listed {
		found = debianListed(l)
	}
	f := found[0]
	f.Check, f.Key, f.Citation = debian.ID, key, debian.Cite
	return f
}

// notLookedUp is about a key that is none of those that the lists have, if they
// have any, but could be another that Debian's OpenSSL made.
func notLookedUp(algorithm string, l device.Listing) []device.Finding {
	if l.Looked == "" {
		found := notApplicable("could not be looked up in the Debian weak-key list: no loaded list has %s", algorithm)
		found[0].NotLookedUp = algorithm
		return found
	}
	found := notApplicable("not among the %s keys of %s in the Debian weak-key list; those of %s could not be looked up: no loaded list has them", algorithm, l.Looked, l.Missing)
	found[0].NotLookedUp = fmt.Sprintf("%s for %s (%s were looked up)", algorithm, l.Missing, l.Looked)
	return found
}
