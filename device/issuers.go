package device

import (
	"bytes"
	"crypto/x509"
	"slices"
)

// SelfIssued reports whether subject and issuer of a certificate are one name.
func SelfIssued(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) || NameKey(c.RawSubject) == NameKey(c.RawIssuer)
}

// Issuers are certificates by the name of their subject.
type Issuers map[string][]*x509.Certificate

// NewIssuers makes [Issuers] of certificates.
func NewIssuers(pool []*x509.Certificate) Issuers {
	issuers := make(Issuers)
	for _, c := range pool {
		key := NameKey(c.RawSubject)
		issuers[key] = append(issuers[key], c)
	}
	return issuers
}

// maxChain is how many certificates [Issuers.Chain] gives; AWS IoT and browsers take about ten.
const maxChain = 16

// Chain returns leaf and the certificates that seem to have issued it in turn, by
// name and key identifier (RFC 5280, sections 4.1.2.4 and 4.2.1.1): one path of
// perhaps several. No signature is checked.
func (i Issuers) Chain(leaf *x509.Certificate) []*x509.Certificate {
	path := []*x509.Certificate{leaf}
	for len(path) < maxChain {
		last := path[len(path)-1]
		if SelfIssued(last) && keyIDs(last, last) != differ {
			break // self-signed
		}
		var next *x509.Certificate
		for _, c := range i[NameKey(last.RawIssuer)] {
			if keyIDs(last, c) != differ && !slices.ContainsFunc(path, c.Equal) && (next == nil || better(last, c, next)) {
				next = c
			}
		}
		if next == nil {
			break
		}
		path = append(path, next)
	}
	return path
}

// Above returns every certificate that stands above leaf on any path, by name,
// nearest first.
func (i Issuers) Above(leaf *x509.Certificate) []*x509.Certificate {
	var above []*x509.Certificate
	for at, c := -1, leaf; ; c = above[at] {
		for _, issuer := range i[NameKey(c.RawIssuer)] {
			if !issuer.Equal(leaf) && !slices.ContainsFunc(above, issuer.Equal) {
				above = append(above, issuer)
			}
		}
		if at++; at == len(above) {
			return above
		}
	}
}

// better reports whether a is rather the issuer of c than b. The order in which they
// were found does not matter.
func better(c, a, b *x509.Certificate) bool {
	if x, y := keyIDs(c, a), keyIDs(c, b); x != y {
		return x > y
	}
	if x, y := SelfIssued(a), SelfIssued(b); x != y {
		return x // a root ends the path
	}
	if !a.NotAfter.Equal(b.NotAfter) {
		return a.NotAfter.After(b.NotAfter)
	}
	return bytes.Compare(a.Raw, b.Raw) < 0
}

type agreement int

const (
	differ agreement = iota
	unsaid           // one of them has none
	agree
)

// keyIDs compares the key identifier that c has of its issuer with that of issuer.
func keyIDs(c, issuer *x509.Certificate) agreement {
	switch {
	case len(c.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0:
		return unsaid
	case bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId):
		return agree
	}
	return differ
}
