package check

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// generalName is a GeneralName (RFC 5280, section 4.2.1.6): its tag, and what
// is in it.
type generalName struct {
	tag   int
	value []byte
	rdns  []string // of a directoryName, [device.RDNKeys]
}

// The tags of general names.
const (
	nameEmail     = 1
	nameDNS       = 2
	nameDirectory = 4
	nameURI       = 6
	nameIP        = 7
	lastName      = 8
	unreadable    = 9 // no tag of its own: names that are malformed, of whatever kind
)

var nameKinds = [unreadable + 1]string{"otherName", "e-mail address", "DNS name", "X.400 address", "directory name", "EDI party name", "URI", "IP address", "registered ID", "malformed names"}

// String is the name as people read it.
func (n generalName) String() string {
	switch addr, ok := netip.AddrFromSlice(n.value); {
	case n.tag == nameIP && ok:
		return nameKinds[nameIP] + " " + addr.String()
	case n.tag == nameEmail, n.tag == nameDNS, n.tag == nameURI:
		return nameKinds[n.tag] + " " + string(n.value)
	}
	return nameKinds[n.tag]
}

// generalNames reads a GeneralNames.
func generalNames(der []byte) ([]generalName, error) {
	var values []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &values); err != nil || len(rest) > 0 {
		return nil, errors.New("malformed general names")
	}
	names := make([]generalName, len(values))
	for i, v := range values {
		var err error
		if names[i], err = newGeneralName(v); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func newGeneralName(v asn1.RawValue) (n generalName, err error) {
	if v.Class != asn1.ClassContextSpecific || v.Tag > lastName {
		return n, errors.New("malformed general name")
	}
	n = generalName{tag: v.Tag, value: v.Bytes}
	if v.Tag == nameDirectory {
		n.rdns, err = device.RDNKeys(v.Bytes)
	}
	return n, err
}

// attributeEmail is emailAddress of PKCS #9, which a name constraint counts as an
// e-mail address.
var attributeEmail = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

// namesOf are the names in a certificate that constraints are put on.
func namesOf(c *x509.Certificate) []generalName {
	var names []generalName
	if der := extension(c, oidSubjectAltName); der != nil {
		var err error
		if names, err = generalNames(der); err != nil {
			names = []generalName{{tag: unreadable}}
		}
	}
	if rdns, err := device.RDNKeys(c.RawSubject); err == nil && len(rdns) > 0 {
		names = append(names, generalName{tag: nameDirectory, rdns: rdns})
	}
	for _, a := range c.Subject.Names {
		if text, ok := a.Value.(string); ok && a.Type.Equal(attributeEmail) {
			names = append(names, generalName{tag: nameEmail, value: []byte(text)})
		}
	}
	return names
}

// nameConstraints is what a CA allows the certificates below it to be called (RFC
// 5280, section 4.2.1.10).
type nameConstraints struct {
	permitted, excluded []generalName
	malformed           bool
}

// constraintsOf returns the constraints of a CA, all of which must be kept: there
// is one set of them, but for a certificate that breaks the rules.
func constraintsOf(c *x509.Certificate) (all []*nameConstraints) {
	for _, e := range c.Extensions {
		if e.Id.Equal(oidNameConstraints) {
			all = append(all, newNameConstraints(e.Value))
		}
	}
	return all
}

func newNameConstraints(der []byte) *nameConstraints {
	type subtree struct {
		Base asn1.RawValue
		Min  int `asn1:"optional,tag:0,default:0"`
		Max  int `asn1:"optional,tag:1,default:-1"`
	}
	var value struct {
		Permitted []subtree `asn1:"optional,tag:0"`
		Excluded  []subtree `asn1:"optional,tag:1"`
	}
	n := new(nameConstraints)
	rest, err := asn1.Unmarshal(der, &value)
	n.malformed = err != nil || len(rest) > 0
	read := func(trees []subtree) (bases []generalName) {
		for _, t := range trees {
			base, err := newGeneralName(t.Base)
			n.malformed = n.malformed || err != nil || t.Min != 0 || t.Max != -1 // RFC 5280 has no other
			bases = append(bases, base)
		}
		return bases
	}
	n.permitted, n.excluded = read(value.Permitted), read(value.Excluded)
	return n
}

// maxComparisons bounds those of names with constraints on one path.
const maxComparisons = 100_000

// nameProblems holds the names of a path's certificates against the constraints
// of the CAs above them, but for CAs that are their own issuers.
func (s *search) nameProblems(p *path) []device.Finding {
	var found []device.Finding
	budget := maxComparisons
	for i, ca := range p.nodes {
		if i == 0 {
			continue
		}
		for _, c := range ca.constraints {
			if c.malformed {
				found = append(found, give(extensionUnknown, "the name constraints of %s (2.5.29.30) are malformed, or of a kind that RFC 5280 does not have", called(s.k, ca))...)
				continue
			}
			for j, n := range p.nodes[:i] {
				if j > 0 && n.selfIssued() {
					continue
				}
				if budget -= len(n.names) * (len(c.permitted) + len(c.excluded)); budget < 0 {
					return append(found, give(extensionUnknown, "the name constraints of %s (2.5.29.30) are too many to be compared with all names", called(s.k, ca))...)
				}
				found = append(found, s.names(ca, c, n)...)
			}
		}
	}
	return found
}

// names holds the names of n against constraints of ca.
func (s *search) names(ca *node, c *nameConstraints, n *node) (found []device.Finding) {
	for _, name := range n.names {
		switch ok, judged := c.allow(name); {
		case !judged:
			found = append(found, give(extensionUnknown, "the name constraints of %s (2.5.29.30) on the %s of %s cannot be judged", called(s.k, ca), name, called(s.k, n))...)
		case !ok:
			found = append(found, give(chainConstraint, "%s does not allow the %s of %s, by its name constraints", called(s.k, ca), name, called(s.k, n))...)
		}
	}
	return found
}

// allow reports whether the constraints allow a name, and whether that could be
// judged.
func (c *nameConstraints) allow(n generalName) (ok, judged bool) {
	ok, judged = true, n.tag != unreadable
	bounded := false
	for _, base := range c.permitted {
		if base.tag != n.tag {
			continue
		}
		if !bounded {
			bounded, ok = true, false
		}
		fits, known := n.within(base)
		ok, judged = ok || fits, judged && known
	}
	for _, base := range c.excluded {
		if base.tag != n.tag {
			continue
		}
		fits, known := n.within(base)
		ok, judged = ok && !fits, judged && known
	}
	return ok, judged
}

// within reports whether n is in the subtree of a base of the same kind, and
// whether that kind, and both names, are understood.
func (n generalName) within(base generalName) (fits, known bool) {
	name, tree := strings.ToLower(string(n.value)), strings.ToLower(string(base.value))
	switch n.tag {
	case nameDirectory:
		return len(base.rdns) <= len(n.rdns) && slices.Equal(base.rdns, n.rdns[:len(base.rdns)]), true
	case nameDNS:
		return tree == "" || name == tree || strings.HasSuffix(name, "."+strings.TrimPrefix(tree, ".")), true
	case nameEmail:
		local, host, ok := cutLast(string(n.value), "@")
		host = strings.ToLower(host)
		if mailbox, of, whole := cutLast(string(base.value), "@"); whole {
			return mailbox == local && strings.EqualFold(of, host), ok
		}
		return withinHost(host, tree), ok
	case nameURI:
		u, err := url.Parse(string(n.value))
		if err != nil || u.Hostname() == "" {
			return false, false
		}
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			return false, true // RFC 5280: only a host's name can be allowed
		}
		return withinHost(strings.ToLower(u.Hostname()), tree), true
	case nameIP:
		half := len(base.value) / 2
		if _, ok := netip.AddrFromSlice(n.value); ok && len(base.value)%2 == 0 && (half == 4 || half == 16) {
			return len(n.value) == half && bytes.Equal(masked(n.value, base.value[half:]), masked(base.value[:half], base.value[half:])), true
		}
	}
	return false, false
}

// withinHost reports whether a host is the one of a constraint, or if that
// begins with a period below it; the empty constraint is on all.
func withinHost(host, tree string) bool {
	return tree == "" || host == tree || strings.HasPrefix(tree, ".") && strings.HasSuffix(host, tree)
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

func masked(addr, mask []byte) []byte {
	b := make([]byte, len(addr))
	for i := range b {
		b[i] = addr[i] & mask[i]
	}
	return b
}

// subject is what a certificate is called: its subject, or without one its serial number.
func subject(c *x509.Certificate) string {
	if s := c.Subject.String(); s != "" || c.SerialNumber == nil {
		return s
	}
	return fmt.Sprintf("the certificate of serial number %X", c.SerialNumber)
}

// called is that of a certificate on the path of a key. That of the key itself is
// told by the key where it has no subject, as EK certificates do not.
func called(k device.Key, n *node) string {
	if len(k.Chain) > 0 && n.Certificate == k.Leaf() && k.Leaf().Subject.String() == "" {
		return "the certificate of " + k.ID
	}
	return subject(n.Certificate)
}
