package check

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/keyvet/keyvet/device"
)

// judgeKey puts the questions about a key to that of a CA, once in a run, and
// returns what did not pass. A CA of a chain that AWS IoT sees must be one that it
// takes.
func (m *memory) judgeKey(ctx context.Context, ca *node, under device.Role, env *Env) []device.Finding {
	role := asCAOf(under)
	key := judgedKey{role, ca.bits}
	found, known := m.keys[key]
	if known {
		return found
	}
	k := device.Key{Role: role, Public: ca.key.Public, SPKI: ca.key.SPKI, Chain: []*x509.Certificate{ca.Certificate}}
	for _, c := range OfNumbers {
		if !c.Applies(k) {
			continue
		}
		for _, f := range c.Run(ctx, k, env) {
			if f.Status != device.Pass && f.Status != device.NotApplicable {
				f.Check, f.Citation = c.ID, cmp.Or(f.Citation, c.Cite)
				found = append(found, f)
			}
		}
	}
	m.keys[key] = found
	return found
}

// asCAOf is the role in which the key of a CA above a key of that role is judged.
func asCAOf(role device.Role) device.Role {
	if role == device.RoleDevice || role == device.RoleClaim {
		return device.RoleCA
	}
	return role
}

// issuerKeys passes on what is to be said of the keys of the CAs above a key. It is
// said in full where it is said first, with how many certificates are under the
// CA. Warnings are not repeated, not even those that the CA's own certificate has
// where it is among the keys.
func issuerKeys(ctx context.Context, k device.Key, p *path, env *Env) []device.Finding {
	m := env.remembered()
	var all []device.Finding
	for _, ca := range p.nodes[1:] {
		found := m.judgeKey(ctx, ca, k.Role, env)
		if len(found) == 0 {
			continue
		}
		under := m.below(ctx, ca, k, env)
		for _, f := range found {
			first := under[0] == k.ID
			if f.Status == device.Warn && (!first || m.saysItself(ca, f, env)) {
				continue
			}
			if first {
				f.Message = fmt.Sprintf("the key of the CA %s: %s", subject(ca.Certificate), f.Message)
			} else {
				f.Message = fmt.Sprintf("the key of the CA %s does not pass the check %s: see %s", subject(ca.Certificate), f.Check, under[0])
			}
			if first && len(under) > 1 {
				f.Message += fmt.Sprintf(" (%d certificates are under it)", len(under))
			}
			f.Check = ""
			all = append(all, f)
		}
	}
	return all
}

// below returns the ids of the keys that have a CA's key above them, k among them,
// in the order of the run.
func (m *memory) below(ctx context.Context, ca *node, k device.Key, env *Env) []string {
	if m.under == nil {
		m.under = make(map[judgedKey][]string)
		for _, other := range env.Keys {
			if other.Leaf() == nil || other.Role == device.RoleEK {
				continue
			}
			for _, above := range pathOf(ctx, other, env).nodes[1:] {
				key := judgedKey{asCAOf(other.Role), above.bits}
				m.under[key] = append(m.under[key], other.ID)
			}
		}
	}
	if under := m.under[judgedKey{asCAOf(k.Role), ca.bits}]; slices.Contains(under, k.ID) {
		return under
	}
	return []string{k.ID}
}

// saysItself reports whether a key of the run is that of the CA, so that the
// finding is on it, too.
func (m *memory) saysItself(ca *node, f device.Finding, env *Env) bool {
	for _, k := range env.Keys {
		if !device.SameKey(k.SPKI, ca.RawSubjectPublicKeyInfo) {
			continue
		}
		i := slices.IndexFunc(OfNumbers, func(c Check) bool { return c.ID == f.Check })
		if i >= 0 && OfNumbers[i].Applies(k) {
			return true
		}
	}
	return false
}
