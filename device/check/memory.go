package check

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"slices"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/signature"
)

// memory is what was found out in one run and need not be found out again: most
// certificates of a file stand under the same few CAs.
type memory struct {
	nodes map[*x509.Certificate]*node
	pools map[poolKey]*pool
	links map[linkKey]signature.Result
	keys  map[judgedKey][]device.Finding
	paths map[pathKey]*path
	crls  map[crlKey]bool
	under map[judgedKey][]string // ids of the keys with a path over a CA's key; nil until it is asked for

	spent int // on signatures that did not verify, see [memory.link]
}

type (
	poolKey struct {
		first **x509.Certificate // of a slice
		n     int
		ek    bool
	}
	linkKey struct {
		child *node
		spki  [32]byte
	}
	pathKey struct {
		id   string
		leaf *x509.Certificate
	}
	crlKey struct {
		crl *x509.RevocationList
		ca  *x509.Certificate
	}
	judgedKey struct {
		role device.Role
		key  caKey
	}
	caKey = [32]byte
)

// remembered returns the memory of the run.
func (e *Env) remembered() *memory {
	if e.memory == nil {
		e.memory = &memory{
			nodes: make(map[*x509.Certificate]*node), pools: make(map[poolKey]*pool), links: make(map[linkKey]signature.Result),
			keys: make(map[judgedKey][]device.Finding), paths: make(map[pathKey]*path), crls: make(map[crlKey]bool),
		}
	}
	return e.memory
}

// node is a certificate with what a search for paths asks of it again and again.
type node struct {
	*x509.Certificate
	subject, issuer string     // [device.NameKey]
	key             device.Key // its Public and SPKI
	bits            caKey      // SHA-256 of the public key
	spki            [32]byte   // SHA-256 of the SubjectPublicKeyInfo: the same bits on another curve verify otherwise
	scheme          signature.Scheme
	critical        string // critical extensions that are not understood
	names           []generalName
	constraints     []*nameConstraints
}

func (m *memory) node(c *x509.Certificate) *node {
	n := m.nodes[c]
	if n == nil {
		n = &node{
			Certificate: c, subject: device.NameKey(c.RawSubject), issuer: device.NameKey(c.RawIssuer),
			key:  device.Key{Public: publicKey(c), SPKI: c.RawSubjectPublicKeyInfo},
			bits: keyHash(c.RawSubjectPublicKeyInfo), spki: sha256.Sum256(c.RawSubjectPublicKeyInfo), scheme: schemeOf(c),
		}
		n.critical = unknownExtensions(c)
		n.names, n.constraints = namesOf(c), constraintsOf(c)
		m.nodes[c] = n
	}
	return n
}

// keyHash is the SHA-256 of what all SubjectPublicKeyInfos of one key share.
func keyHash(spki []byte) caKey { return sha256.Sum256([]byte(device.KeyIdentity(spki))) }

// is reports whether two certificates are of one CA: of one name and key.
func (n *node) is(o *node) bool { return n == o || n.subject == o.subject && n.bits == o.bits }

// selfIssued reports whether its own name is its issuer's.
func (n *node) selfIssued() bool { return n.subject == n.issuer }

// maxSpent bounds what a run spends on signatures that do not verify, in checks
// of RSA-2048: where many CAs have one name, which one signed is found by trying.
const maxSpent = 4000

// link returns whether the key of parent signed child.
func (m *memory) link(child, parent *node) signature.Result {
	key := linkKey{child, parent.spki}
	l, known := m.links[key]
	if known {
		return l
	}
	if m.spent > maxSpent && child != parent {
		return signature.Result{Why: "not checked, after so many that did not verify"}
	}
	l = child.scheme.Verify(parent.key, child.RawTBSCertificate, child.Signature)
	if l.Outcome != signature.Good {
		m.spent++
		if n, _, ok := parent.key.RSA(); ok {
			m.spent += n.BitLen() / 2048 * n.BitLen() / 2048
		}
	}
	m.links[key] = l
	return l
}

// pool are the certificates that a path may go over.
type pool struct {
	issuers map[string][]*node // by subject
	given   map[*node]bool     // those that end a path
	cas     int                // how many certificates of CAs were found with the key

	standing map[*node]*standing
}

// poolOf returns the pool of a key: the CAs given for its role, and the
// certificates that were found with it.
func (m *memory) poolOf(k device.Key, env *Env) *pool {
	beside, given := k.Beside, env.Roots
	if len(beside) == 0 {
		beside = k.Chain
	}
	if k.Role == device.RoleEK {
		given = env.EKRoots
	}
	key := poolKey{&beside[0], len(beside), k.Role == device.RoleEK}
	if p := m.pools[key]; p != nil {
		return p
	}
	p := &pool{issuers: make(map[string][]*node), given: make(map[*node]bool), standing: make(map[*node]*standing)}
	seen := make(map[string]bool)
	add := func(certs []*x509.Certificate, given bool) {
		for _, c := range certs {
			if !given && isCA(c) {
				p.cas++
			}
			if seen[string(c.Raw)] {
				continue
			}
			seen[string(c.Raw)] = true
			n := m.node(c)
			p.issuers[n.subject] = append(p.issuers[n.subject], n)
			if given {
				p.given[n] = true
			}
		}
	}
	add(given, true)
	add(beside, false)
	for _, all := range p.issuers {
		slices.SortFunc(all, func(a, b *node) int { return p.order(a, b, env) })
	}
	m.pools[key] = p
	return p
}

// order puts those first that more likely make a good path; it does not depend
// on the order in which they were found.
func (p *pool) order(a, b *node, env *Env) int {
	first := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	}
	inTime := func(n *node) bool { return !env.Now.After(n.NotAfter) && !env.Now.Before(n.NotBefore) }
	return cmp.Or(
		first(p.given[a], p.given[b]),
		first(inTime(a), inTime(b)),
		first(a.selfIssued(), b.selfIssued()),
		b.NotAfter.Compare(a.NotAfter),
		bytes.Compare(a.Raw, b.Raw),
	)
}

// standing is what stands directly above a certificate.
type standing struct {
	root    bool    // it is signed by its own key, or seems to be
	issuers []*node // those that signed it, or may have
	others  []*node // those of its issuer's name that did not
}

// above finds out what stands above n. RFC 5280 calls key identifiers a help, so
// those that differ are tried last; a signature decides.
func (m *memory) above(p *pool, n *node) *standing {
	if s := p.standing[n]; s != nil {
		return s
	}
	s := new(standing)
	p.standing[n] = s
	if n.selfIssued() {
		own := m.link(n, n).Outcome // nothing relies on that of a root
		if s.root = own == signature.Good || own == signature.Unknown && keyIDs(n, n) >= 0; s.root {
			return s
		}
	}
	candidates := slices.DeleteFunc(slices.Clone(p.issuers[n.issuer]), n.is)
	slices.SortStableFunc(candidates, func(a, b *node) int { return cmp.Compare(keyIDs(n, b), keyIDs(n, a)) })
	for _, c := range candidates {
		switch {
		case len(s.issuers) > 0 && keyIDs(n, c) < 0:
		case m.link(n, c).Outcome == signature.Bad:
			s.others = append(s.others, c)
		default:
			s.issuers = append(s.issuers, c)
		}
	}
	return s
}

// keyIDs compares the key identifier that n has of its issuer with that of
// issuer: 1 they agree, 0 one is not there, -1 they differ.
func keyIDs(n, issuer *node) int {
	switch {
	case len(n.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0:
		return 0
	case bytes.Equal(n.AuthorityKeyId, issuer.SubjectKeyId):
		return 1
	}
	return -1
}
