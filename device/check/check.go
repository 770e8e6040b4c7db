// Package check asks one question of a key per file: is it a ROCA key, is it
// on the Debian list, has its certificate expired …. Each check has an id, a
// citation and a rule of which keys it applies to; [All] lists them.
//
// A check never mixes "is bad" with "could not be looked at": the latter is
// [device.Undecided], which opens nothing.
package check

import (
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
)

// Check is one question. It is asked either of keys (Applies and Run) or of
// the TPM itself (RunTPM); the other is nil.
type Check struct {
	ID   string // the word in reports: "roca"
	Cite string // URL of the source of the rule
	Asks string // the question, for people

	// Reasons are all that a finding of this check can give for not passing.
	Reasons []device.Reason

	// Applies reports whether the question makes sense for a key.
	Applies func(device.Key) bool
	// Run answers it with one finding or more. What a finding leaves empty of
	// Check, Key and Citation is filled in by the package's [Run].
	Run func(context.Context, device.Key, *Env) []device.Finding

	// RunTPM answers a question about the TPM, which is nil on a device that
	// is not meant to have one.
	RunTPM func(*device.TPM, *Env) []device.Finding
}

// A new check is a file of its own and its name in one of these two lists.

// OfNumbers are the checks that need nothing but the numbers of a public key.
// They are asked of every CA on a chain, too, and by whoever has only the key.
var OfNumbers = []Check{roca, debian, size, exponent, factors, point}

// All is every check, in the order of a report.
var All = slices.Concat([]Check{firmware, lockout}, OfNumbers, []Check{expiry, chain, revoked, shared, permissions, proof, ekcert})

// Env is what the checks know besides the key.
type Env struct {
	Now time.Time // by the device's clock, which need not be right

	Blocklist        Blocklist // nil if none could be loaded
	BlocklistProblem string    // why Blocklist is nil

	Advisories Advisories // of TPM firmware; nil if none could be loaded

	Roots   []*x509.Certificate // CA certificates the device's own chain has to lead to; none: not asked
	EKRoots []*x509.Certificate // the same for endorsement keys
	CRLs    []*x509.RevocationList

	ExpiryWarning time.Duration // warn this long before a certificate expires; 0 = 720 h

	Keys []device.Key // the whole inventory; [Run] sets it

	memory *memory // see [Env.remembered]; [Run] begins with none
}

// notChecked is the answer where there is none.
var notChecked = device.Reason{
	Code: "KEYVET_NOT_CHECKED", Status: device.Undecided,
	Means: "A check was interrupted, or gave no answer.",
	Do:    "Check again. If it comes back, report it as a defect of keyvet.",
}

// OfAny are the reasons that any check can give.
var OfAny = []device.Reason{notChecked}

// Blocklist looks for a key among known weak ones.
type Blocklist interface {
	// Lookup takes what [device.Key] has as Public. An error means that the
	// list could not answer, never that the key is good.
	Lookup(ctx context.Context, pub crypto.PublicKey) (device.Listing, error)
}

// Advisories holds published weaknesses of firmware against one TPM: those
// that affect the version it runs, and those that affected its family before.
type Advisories interface {
	Match(device.TPM) []device.Advisory
}

// Run puts every applicable check to every key, and those on the TPM to the
// TPM ([device.TPMKeyID]). Once ctx is done, what is left is Undecided.
func Run(ctx context.Context, inv device.Inventory, env *Env) []device.Finding {
	e := *env
	e.Keys, e.memory = inv.Keys, nil
	var all []device.Finding
	ask := func(c Check, key string, run func() []device.Finding) {
		var found []device.Finding
		if err := ctx.Err(); err != nil {
			found = give(notChecked, "not checked: %v", err)
		} else if found = run(); len(found) == 0 {
			found = give(notChecked, "the check gave no answer")
		}
		for _, f := range found {
			f.Check, f.Key = cmp.Or(f.Check, c.ID), cmp.Or(f.Key, key)
			if f.Status != device.Undecided { // where nothing is decided, the rule's source does not help
				f.Citation = cmp.Or(f.Citation, c.Cite)
			}
			f.Message = device.OneLine(f.Message, maxMessage)
			all = append(all, f)
		}
	}
	for _, c := range All {
		if c.RunTPM != nil {
			ask(c, device.TPMKeyID, func() []device.Finding { return c.RunTPM(inv.TPM, &e) })
		}
	}
	for _, k := range inv.Keys {
		for _, c := range All {
			if c.Run != nil && c.Applies(k) {
				ask(c, k.ID, func() []device.Finding { return c.Run(ctx, k, &e) })
			}
		}
	}
	return all
}

// maxMessage is how many bytes of a message are shown: names in certificates are
// by strangers, of any length.
const maxMessage = 500

func passed(format string, args ...any) []device.Finding {
	return []device.Finding{{Status: device.Pass, Message: fmt.Sprintf(format, args...)}}
}

func notApplicable(format string, args ...any) []device.Finding {
	return []device.Finding{{Status: device.NotApplicable, Message: fmt.Sprintf(format, args...)}}
}

// give is a finding for that reason.
func give(r device.Reason, format string, args ...any) []device.Finding {
	return giveAs(r.Status, r.Severity, r, format, args...)
}

// giveAs is a finding for that reason that weighs otherwise than most.
func giveAs(status device.Status, severity device.Severity, r device.Reason, format string, args ...any) []device.Finding {
	return []device.Finding{{Status: status, Severity: severity, ReasonCode: r.Code, Message: fmt.Sprintf(format, args...)}}
}

func isRSA(k device.Key) bool {
	_, _, ok := k.RSA()
	return ok
}
