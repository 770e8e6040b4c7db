package keyfile

import (
	"bytes"
	"crypto/x509"
	"slices"
)

const maxChain = 16 // certificates; AWS IoT and browsers take about ten

func bySubject(pool []*x509.Certificate) map[string][]*x509.Certificate {
	issuers := make(map[string][]*x509.Certificate)
	for _, c := range pool {
		issuers[string(c.RawSubject)] = append(issuers[string(c.RawSubject)], c)
	}
	return issuers
}

// chain is leaf and those that issued it in turn, by name and key identifier
// (RFC 5280, sections 4.1.2.4 and 4.2.1.1). Signatures are for others to check.
func chain(leaf *x509.Certificate, issuers map[string][]*x509.Certificate) []*x509.Certificate {
	path := []*x509.Certificate{leaf}
	for len(path) < maxChain {
		last := path[len(path)-1]
		if bytes.Equal(last.RawSubject, last.RawIssuer) && issuedBy(last, last) != no {
			break // self-signed
		}
		var next *x509.Certificate
		best := no
		for _, c := range issuers[string(last.RawIssuer)] {
			if m := issuedBy(last, c); m > best && !slices.ContainsFunc(path, c.Equal) {
				next, best = c, m
			}
		}
		if next == nil {
			break
		}
		path = append(path, next)
	}
	return path
}

type match int

const (
	no    match = iota
	name        // the names agree, and there are no key identifiers to compare
	keyID       // the key identifiers agree as well
)

// issuedBy compares key identifiers; the names agree already.
func issuedBy(c, issuer *x509.Certificate) match {
	switch {
	case len(c.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0:
		return name
	case bytes.Equal(c.AuthorityKeyId, issuer.SubjectKeyId):
		return keyID
	}
	return no
}
