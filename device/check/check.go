// Package check asks one question of a key per file: is it a ROCA key, is it
// on the Debian list, has its certificate expired …. Each check has an id, a
// citation and a rule of which keys it applies to; [All] lists them.
//
// A check never mixes "is bad" with "could not be checked": the latter is
// [device.Undecided], which opens nothing.
package check

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
)

// Check is one question. It is asked of each key (Applies and Run), of all keys
// together (RunAll), or of both, or else of the TPM itself (RunTPM).
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

	// RunAll answers a question about the keys of a run together. Each finding
	// names its key; a run without any is well. Of each key there is only what
	// [Numbers] keeps.
	RunAll func(context.Context, []device.Key, *Env) []device.Finding
}

// A new check is a file of its own and its name in one of these two lists.

// OfNumbers are the checks that need nothing but the numbers of a public key.
// They are asked of every CA on a chain, too, and by whoever has only the key.
var OfNumbers = []Check{roca, debian, compromised, size, exponent, factors, point}

// All is every check, in the order of a report.
var All = slices.Concat([]Check{firmware, lockout}, OfNumbers, []Check{expiry, age, chain, belongs, revoked, shared, permissions, proof, ekcert})

// Env is what the checks know besides the key.
type Env struct {
	Now   time.Time // by the device's clock, which need not be right
	Floor time.Time // no clock that shows less can be right; zero: [device.ClockFloor]

	Blocklist        Blocklist // nil if there is none, or none could be loaded
	BlocklistProblem string    // why none could be loaded; "" if there is none

	Advisories Advisories // of TPM firmware; nil if none could be loaded

	Roots   []*x509.Certificate // CA certificates the device's own chain has to lead to; none: not asked
	EKRoots []*x509.Certificate // the same for endorsement keys
	CRLs    []*x509.RevocationList

	ExpiryWarning time.Duration // warn this long before a certificate expires; 0 = 720 h

	MaxAge time.Duration // of the device's certificate; 0: not asked

	Only []string // the ids of the checks to ask; none: all

	Keys []device.Key // those that are asked of; [Run], [OfInventory] and [OfKeys] set it

	Moduli *Moduli // what is known of RSA moduli; nil: nothing is remembered of them

	memory *memory // see [Env.remembered]; a run begins with none
}

func (e *Env) asks(c Check) bool { return len(e.Only) == 0 || slices.Contains(e.Only, c.ID) }

// notChecked is the answer where there is none.
var notChecked = device.Reason{
	Code: "KEYVET_NOT_CHECKED", Status: device.Undecided,
	Means: "A check was interrupted, or gave no answer.",
	Do:    "Check again. If it comes back, report it as a defect of keyvet.",
}

// OfAny are the reasons that any check can give.
var OfAny = []device.Reason{notChecked}

// Blocklist looks for a key among known weak ones. An error means that it could
// not answer, never that the key is good.
type Blocklist interface {
	// Lookup looks among the keys of Debian's broken OpenSSL; it takes what
	// [device.Key] has as Public.
	Lookup(ctx context.Context, pub crypto.PublicKey) (device.Listing, error)
	// Compromised looks among the keys whose private half is public. Asked is
	// false if there is no list of such keys.
	Compromised(k device.Key) (entries []device.Compromised, asked bool, err error)
}

// Advisories holds published weaknesses of firmware against one TPM: those
// that affect the version it runs, and those that affected its family before.
type Advisories interface {
	Match(device.TPM) []device.Advisory
}

// Run puts every applicable check to every key, and those on the TPM to the
// TPM ([device.TPMKeyID]). Once ctx is done, what is left is Undecided.
func Run(ctx context.Context, inv device.Inventory, env *Env) []device.Finding {
	found := OfInventory(ctx, inv, env)
	var keys []device.Key
	for _, k := range inv.Keys {
		keys = append(keys, Numbers(k)...)
	}
	return append(found, Across(ctx, keys, env)...)
}

// OfInventory is [Run] without the checks that compare keys, which [Across] asks
// once the further keys are there.
func OfInventory(ctx context.Context, inv device.Inventory, env *Env) []device.Finding {
	e := *env
	e.Keys = inv.Keys
	var all []device.Finding
	for _, c := range All {
		if c.RunTPM != nil && e.asks(c) {
			all = append(all, ask(ctx, c, device.TPMKeyID, func() []device.Finding { return c.RunTPM(inv.TPM, &e) })...)
		}
	}
	return append(all, OfKeys(ctx, inv.Keys, env)...)
}

// OfKeys puts every check of one key to each of the keys, such as those of one
// file.
func OfKeys(ctx context.Context, keys []device.Key, env *Env) []device.Finding {
	e := *env
	e.Keys, e.memory = keys, nil
	if e.asks(factors) {
		e.Moduli.attack(ctx, keys)
	}
	var all []device.Finding
	for _, k := range keys {
		before := len(all)
		for _, c := range All {
			if c.Run != nil && e.asks(c) && c.Applies(k) {
				all = append(all, ask(ctx, c, k.ID, func() []device.Finding { return c.Run(ctx, k, &e) })...)
			}
		}
		if len(all) == before && len(env.Only) > 0 {
			all = append(all, device.Finding{
				Check: env.Only[0], Key: k.ID, Status: device.Pass,
				Message: "no check that was asked for concerns a key of the algorithm " + k.Algorithm(),
			})
		}
	}
	return all
}

// Across puts the checks that compare keys with each other to all keys of a run.
func Across(ctx context.Context, keys []device.Key, env *Env) []device.Finding {
	var all []device.Finding
	for _, c := range All {
		if c.RunAll == nil || !env.asks(c) {
			continue
		}
		if err := ctx.Err(); err != nil {
			for _, k := range keys {
				all = append(all, ask(ctx, c, k.ID, nil)...)
			}
			continue
		}
		if found := c.RunAll(ctx, keys, env); len(found) > 0 {
			all = append(all, ask(ctx, c, "", func() []device.Finding { return found })...)
		}
	}
	return all
}

// Numbers returns what [Across] needs of a key, and of those of the CAs on its
// chain, which is little: it can be kept of many. A CA's has no role, the id of
// the key that it is above, and its name as source.
func Numbers(k device.Key) []device.Key {
	all := []device.Key{{ID: k.ID, Role: k.Role, Source: k.Source, Public: k.Public, SPKI: bytes.Clone(k.SPKI)}}
	for _, ca := range k.Chain[min(len(k.Chain), 1):] {
		all = append(all, device.Key{ID: k.ID, Source: "the CA " + subject(ca), Public: ca.PublicKey, SPKI: bytes.Clone(ca.RawSubjectPublicKeyInfo)})
	}
	return all
}

// ask has a check answer, or says why it could not.
func ask(ctx context.Context, c Check, key string, run func() []device.Finding) []device.Finding {
	var found []device.Finding
	if err := ctx.Err(); err != nil {
		found = give(notChecked, "not checked: %v", err)
	} else if found = run(); len(found) == 0 {
		found = give(notChecked, "the check gave no answer")
	}
	for i := range found {
		f := &found[i]
		f.Check, f.Key = cmp.Or(f.Check, c.ID), cmp.Or(f.Key, key)
		if f.Status != device.Undecided { // where nothing is decided, the rule's source does not help
			f.Citation = cmp.Or(f.Citation, c.Cite)
		}
		f.Message = device.OneLine(f.Message, maxMessage)
	}
	return found
}

// ReasonOf returns what there is to know of a reason code that the check of that
// id gave; ok is false if no check gives it. Lists have codes of their own.
func ReasonOf(id string, code device.ReasonCode) (found device.Reason, ok bool) {
	for _, c := range append([]Check{{Reasons: OfAny}}, All...) {
		for _, r := range c.Reasons {
			if start, any := strings.CutSuffix(r.Code, "*"); r.Code == code || any && strings.HasPrefix(code, start) {
				if c.ID == id {
					return r, true
				}
				if !ok { // chain gives those of the keys of CAs
					found, ok = r, true
				}
			}
		}
	}
	if !ok && id == compromised.ID { // the code of a list
		return compromisedKey, true
	}
	return found, ok
}

// IDs are the ids of all checks, in the order of a report.
func IDs() []string {
	var all []string
	for _, c := range All {
		all = append(all, c.ID)
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
