package check

import (
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/signature"
)

// OIDs of RFC 5280, section 4.2.1.
var (
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidNetscapeCertType = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 1}
)

// extension returns the value of an extension, nil if it is not there.
func extension(c *x509.Certificate, id asn1.ObjectIdentifier) []byte {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return e.Value
		}
	}
	return nil
}

// isCA reports whether a certificate is one of a CA, or of a version that could
// not say so.
func isCA(c *x509.Certificate) bool {
	return c.BasicConstraintsValid && c.IsCA || c.Version < 3 && device.SelfIssued(c)
}

// mayIssue reports whether a certificate may sign others (RFC 5280, section
// 6.1.4, steps k and n). One at the end of a path, which is trusted as it is,
// may be of before basic constraints (as OpenSSL has it).
func mayIssue(n *node, end bool) bool {
	usage := extension(n.Certificate, oidKeyUsage) != nil
	switch {
	case usage && n.KeyUsage&x509.KeyUsageCertSign == 0:
		return false
	case n.BasicConstraintsValid:
		return n.IsCA
	case !end:
		return false
	}
	var netscape asn1.BitString // bits 5 to 7 are for CAs
	_, err := asn1.Unmarshal(extension(n.Certificate, oidNetscapeCertType), &netscape)
	return n.Version < 3 && n.selfIssued() || usage || err == nil && netscape.At(5)|netscape.At(6)|netscape.At(7) != 0
}

// problems are those of a path that is signed throughout, or as far as can be
// checked: what its certificates say of themselves and of what is below them.
func (s *search) problems(p *path) []device.Finding {
	var found []device.Finding
	say := func(f []device.Finding) { found = append(found, f...) }
	last := len(p.nodes) - 1
	below := 0 // certificates of CAs below that are not their own issuers
	for i, n := range p.nodes {
		if relied := i < last || p.anchor == nil && !p.root; relied && n.scheme.Weak != "" {
			say(weakSignature(s.k, n))
		}
		if n.critical != "" {
			say(give(extensionUnknown, "%s has critical extensions that keyvet does not know: %s", called(s.k, n), n.critical))
		}
		if i < last {
			if l := s.link(n, p.nodes[i+1]); l.Outcome == signature.Unknown && n.scheme.Weak == "" {
				say(give(signatureUnknown, "the signature of %s by %s cannot be checked: %s", called(s.k, n), called(s.k, p.nodes[i+1]), l.Why))
			}
		}
		if i == 0 {
			continue
		}
		if !mayIssue(n, i == last && (p.anchor != nil || p.root)) {
			say(give(issuerNotCA, "%s signed %s but is not entitled to sign certificates", called(s.k, n), called(s.k, p.nodes[i-1])))
		}
		if n.BasicConstraintsValid && (n.MaxPathLen > 0 || n.MaxPathLenZero) && below > n.MaxPathLen {
			say(give(chainConstraint, "%s allows %d CAs below it, and there are %d", called(s.k, n), n.MaxPathLen, below))
		}
		if !n.selfIssued() {
			below++
		}
	}
	say(nameProblems(s.k, p))
	say(usageProblems(s.k, p))
	unsigned := s.unsigned(p)
	p.forged = unsigned != nil
	return append(found, unsigned...)
}

// weakSignature is about a signature by a hash that can be forged. What lies in
// the TPM nobody can replace, and a collision would need the help of its maker.
func weakSignature(k device.Key, n *node) []device.Finding {
	const message = "%s is signed with %s, which can be forged"
	reason := forgeable[n.scheme.Weak]
	if inTPM(k.Role) {
		return giveAs(device.Warn, device.Low, reason, message, called(k, n), n.scheme.Weak)
	}
	return give(reason, message, called(k, n), n.scheme.Weak)
}

// unsigned is about the end of a path that neither its own key signed nor one
// that was given or comes with it.
func (s *search) unsigned(p *path) []device.Finding {
	last := p.nodes[len(p.nodes)-1]
	if p.anchor != nil && len(p.nodes) > 1 || p.root || p.cut {
		return nil
	}
	const message = "the signature of %s by %s does not verify"
	for _, o := range p.others {
		if s.pool.given[o] || keyIDs(last, o) > 0 || s.k.Role == device.RoleEK {
			return give(signatureInvalid, message, called(s.k, last), called(s.k, o))
		}
	}
	if len(p.others) == 0 && last.selfIssued() && keyIDs(last, last) >= 0 && s.link(last, last).Outcome == signature.Bad {
		return give(signatureInvalid, "%s has its own name as issuer, and neither its own key nor another certificate that is there signed it", called(s.k, last))
	}
	return nil
}

// The usages of TLS (RFC 5280, section 4.2.1.12), and what stood for them.
var (
	clientAuth   = []string{"1.3.6.1.5.5.7.3.2"}
	serverAuth   = []string{"1.3.6.1.5.5.7.3.1", "2.16.840.1.113730.4.1", "1.3.6.1.4.1.311.10.3.3"}
	anyUsage     = "2.5.29.37.0"
	tlsUsages    = [][]string{clientAuth, serverAuth}
	ofTLSUsages  = []string{"clients", "servers"}
	shownAsUsage = map[device.Role]bool{device.RoleDevice: true, device.RoleClaim: true}
)

// usages returns the extended key usages of a certificate; nil allows all.
func usages(n *node) []string {
	value := extension(n.Certificate, oidExtKeyUsage)
	if value == nil {
		return nil
	}
	var ids []asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(value, &ids); err != nil {
		return []string{}
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	return names
}

// usageProblems asks whether all CAs of a path are for one usage of TLS that its
// certificate is for, as TLS clients and servers do. What does not say that it is
// for TLS, and is not known to be the device's, is not asked, nor is what is good
// for another of its usages.
func usageProblems(k device.Key, p *path) []device.Finding {
	if k.Role == device.RoleEK {
		return ekUsageProblems(k, p)
	}
	leaf := p.nodes[0]
	said, isDevice := usages(leaf), shownAsUsage[k.Role]
	if isCA(leaf.Certificate) {
		return nil
	}
	// refusing is the first certificate of the path that is not for a usage.
	refusing := func(usage []string) *node {
		i := slices.IndexFunc(p.nodes, func(n *node) bool {
			all := usages(n)
			return all != nil && !slices.Contains(all, anyUsage) && !slices.ContainsFunc(usage, func(u string) bool { return slices.Contains(all, u) })
		})
		if i < 0 {
			return nil
		}
		return p.nodes[i]
	}
	var found []device.Finding
	for i, usage := range tlsUsages {
		asked := slices.ContainsFunc(usage, func(u string) bool { return slices.Contains(said, u) })
		if isDevice { // a device is a client
			asked = i == 0 && (asked || said == nil || slices.Contains(said, anyUsage))
		}
		if !asked {
			continue
		}
		ca := refusing(usage)
		if ca == nil {
			return nil
		}
		found = give(chainConstraint, "%s is not for certificates of TLS %s, by its extended key usage", called(k, ca), ofTLSUsages[i])
	}
	if !isDevice && slices.ContainsFunc(said, func(u string) bool { return refusing([]string{u}) == nil }) {
		return nil
	}
	return found
}

// ekCertificate is tcg-kp-EKCertificate, the extended key usage of certificates of
// endorsement keys (TCG EK Credential Profile for TPM Family 2.0).
const ekCertificate = "2.23.133.8.1"

// ekUsageProblems asks whether each CA between the certificate of an EK and a given
// root, which is trusted as it is, may issue it: a maker's CA issues others too,
// and those have their keys outside of TPMs.
func ekUsageProblems(k device.Key, p *path) (found []device.Finding) {
	if p.anchor == nil || len(p.nodes) < 3 {
		return nil
	}
	for _, ca := range p.nodes[1 : len(p.nodes)-1] {
		if all := usages(ca); all != nil && !slices.Contains(all, ekCertificate) && !slices.Contains(all, anyUsage) {
			found = append(found, give(chainConstraint, "%s is not for EK certificates, by its extended key usage", called(k, ca))...)
		}
	}
	return found
}
