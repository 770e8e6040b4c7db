package keyfile

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

const maxExtensions = 1000

// Extensions of RFC 5280, section 4.2.
var (
	oidSubjectKeyID      = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage          = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName    = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasicConstraints  = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidNameConstraints   = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidPolicies          = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidPolicyMappings    = asn1.ObjectIdentifier{2, 5, 29, 33}
	oidAuthorityKeyID    = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidPolicyConstraints = asn1.ObjectIdentifier{2, 5, 29, 36}
	oidExtKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidInhibitAnyPolicy  = asn1.ObjectIdentifier{2, 5, 29, 54}
)

// limits reports whether the extension is one without which a certificate could
// be taken for more than it is.
func limits(id asn1.ObjectIdentifier) bool {
	return id.Equal(oidNameConstraints) || id.Equal(oidPolicyConstraints) || id.Equal(oidInhibitAnyPolicy)
}

// entitles reports whether the extension says what the key may be used for.
func entitles(id asn1.ObjectIdentifier) bool {
	return id.Equal(oidBasicConstraints) || id.Equal(oidKeyUsage) || id.Equal(oidExtKeyUsage)
}

// readExtensions reads what follows the key in a TBSCertificate, of any version.
func (r *reader) readExtensions(tbs *cryptobyte.String) ([]pkix.Extension, error) {
	malformed := errors.New("damaged certificate: the extensions are malformed")
	for _, n := range []tag.Tag{1, 2} { // unique identifiers of issuer and subject
		if !tbs.SkipOptionalASN1(n.ContextSpecific()) || !tbs.SkipOptionalASN1(n.Constructed().ContextSpecific()) {
			return nil, malformed
		}
	}
	var all []pkix.Extension
	var list cryptobyte.String
	var present bool
	if !tbs.ReadOptionalASN1(&list, &present, tag.Tag(3).Constructed().ContextSpecific()) || present && !list.ReadASN1(&list, tag.SEQUENCE) {
		return nil, malformed
	}
	for !list.Empty() {
		var one, id, critical, value cryptobyte.String
		var stated bool
		if !list.ReadASN1(&one, tag.SEQUENCE) || !one.ReadASN1Element(&id, tag.OBJECT_IDENTIFIER) ||
			!one.ReadOptionalASN1(&critical, &stated, tag.BOOLEAN) || stated && len(critical) != 1 ||
			!one.ReadASN1(&value, tag.OCTET_STRING) {
			return nil, malformed
		}
		e := pkix.Extension{Critical: stated && critical[0] != 0, Value: value}
		switch {
		case id.ReadASN1ObjectIdentifier(&e.Id):
			all = append(all, e)
		case e.Critical:
			return nil, errors.New("a critical extension with an object identifier that cannot be read")
		default:
			r.note("an extension with an object identifier that cannot be read is left out")
		}
		if len(all) > maxExtensions {
			return nil, fmt.Errorf("more than %d extensions", maxExtensions)
		}
	}
	return all, nil
}

// understand returns a certificate that has of all fields those that extensions
// make, and the signature algorithm. crypto/x509 reads each extension, in a
// certificate made for it; what it refuses, or what is there twice, is decided
// here, never for the laxer reading.
func (r *reader) understand(algorithm []byte, all []pkix.Extension) (*x509.Certificate, error) {
	if _, err := carrier(algorithm, nil); err != nil {
		return nil, errors.New("malformed signature algorithm")
	}
	var plain, altNames []pkix.Extension
	var twice [][]pkix.Extension
	var unhandled []asn1.ObjectIdentifier
	all = slices.Clone(all)
	for _, group := range groups(all) {
		e := group[0]
		switch {
		case e.Id.Equal(oidSubjectAltName):
			altNames = group
		case len(group) > 1 && (entitles(e.Id) || limits(e.Id)):
			twice = append(twice, group)
		case len(group) > 1 && (e.Id.Equal(oidSubjectKeyID) || e.Id.Equal(oidAuthorityKeyID)):
			r.note("of two different extensions %s, none counts", e.Id)
		case len(group) > 1 && (e.Id.Equal(oidPolicies) || e.Id.Equal(oidPolicyMappings)):
			r.note("of two different extensions %s, none counts", e.Id)
		default:
			if len(group) > 1 {
				r.note("of two different extensions %s, the first counts", e.Id)
			}
			fit, err := acceptable(algorithm, e)
			switch {
			case err == nil:
				plain = append(plain, fit)
			case entitles(e.Id):
				return nil, fmt.Errorf("extension %s is malformed", e.Id)
			case e.Critical || limits(e.Id):
				unhandled = append(unhandled, e.Id)
				r.note("extension %s cannot be read", e.Id)
			default:
				r.note("extension %s cannot be read", e.Id)
			}
		}
	}
	cert, err := carrier(algorithm, plain)
	if err != nil {
		return nil, err
	}
	cert.Extensions = all
	cert.UnhandledCriticalExtensions = append(cert.UnhandledCriticalExtensions, unhandled...)
	for _, group := range twice {
		if err := r.strictest(cert, algorithm, group); err != nil {
			return nil, err
		}
	}
	if altNames != nil {
		return cert, r.altNames(cert, altNames)
	}
	return cert, nil
}

// groups are the extensions by their identifiers, in order; one that is there
// twice with the same value counts once, and is critical if one of the two is.
func groups(all []pkix.Extension) [][]pkix.Extension {
	var list [][]pkix.Extension
	place := make(map[string]int)
	for _, e := range all {
		id := e.Id.String()
		i, seen := place[id]
		if !seen {
			place[id] = len(list)
			list = append(list, []pkix.Extension{e})
			continue
		}
		list[i][0].Critical = list[i][0].Critical || e.Critical
		if !slices.ContainsFunc(list[i], func(o pkix.Extension) bool { return bytes.Equal(o.Value, e.Value) }) {
			list[i] = append(list[i], e)
		}
	}
	return list
}

// acceptable returns the extension as crypto/x509 takes it: in DER, and not
// critical where RFC 5280 says so, which is for what limits nothing.
func acceptable(algorithm []byte, e pkix.Extension) (pkix.Extension, error) {
	forms := []pkix.Extension{e, {Id: e.Id, Value: e.Value}}
	if der, rest, err := toDER(e.Value); err == nil && len(rest) == 0 {
		forms = append(forms, pkix.Extension{Id: e.Id, Critical: e.Critical, Value: der}, pkix.Extension{Id: e.Id, Value: der})
	}
	var err error
	for _, form := range forms {
		if _, err = carrier(algorithm, []pkix.Extension{form}); err == nil {
			return form, nil
		}
	}
	return e, err
}

// strictest settles an extension that is there twice with different values: a
// usage or a right must be in both; of two limits, both would have to be kept,
// which nothing here can, so the extension counts as one that is not understood.
func (r *reader) strictest(cert *x509.Certificate, algorithm []byte, group []pkix.Extension) error {
	id := group[0].Id
	if limits(id) {
		r.note("two different extensions %s, both of which would have to be kept", id)
		cert.UnhandledCriticalExtensions = append(cert.UnhandledCriticalExtensions, id)
		return nil
	}
	r.note("of two different extensions %s, only what both allow counts", id)
	for i, e := range group {
		fit, err := acceptable(algorithm, e)
		if err != nil {
			return fmt.Errorf("extension %s is malformed", id)
		}
		one, err := carrier(algorithm, []pkix.Extension{fit})
		if err != nil {
			return err
		}
		switch {
		case i == 0:
			cert.BasicConstraintsValid = cert.BasicConstraintsValid || one.BasicConstraintsValid
			if id.Equal(oidBasicConstraints) {
				cert.IsCA, cert.MaxPathLen = one.IsCA, one.MaxPathLen
			}
			if id.Equal(oidKeyUsage) {
				cert.KeyUsage = one.KeyUsage
			}
			if id.Equal(oidExtKeyUsage) {
				cert.ExtKeyUsage, cert.UnknownExtKeyUsage = one.ExtKeyUsage, one.UnknownExtKeyUsage
			}
		case id.Equal(oidBasicConstraints):
			cert.IsCA = cert.IsCA && one.IsCA
			if cert.MaxPathLen < 0 || one.MaxPathLen >= 0 && one.MaxPathLen < cert.MaxPathLen {
				cert.MaxPathLen = one.MaxPathLen
			}
		case id.Equal(oidKeyUsage):
			cert.KeyUsage &= one.KeyUsage
		default:
			cert.ExtKeyUsage = slices.DeleteFunc(cert.ExtKeyUsage, func(u x509.ExtKeyUsage) bool { return !slices.Contains(one.ExtKeyUsage, u) })
			cert.UnknownExtKeyUsage = slices.DeleteFunc(cert.UnknownExtKeyUsage, func(u asn1.ObjectIdentifier) bool {
				return !slices.ContainsFunc(one.UnknownExtKeyUsage, u.Equal)
			})
		}
	}
	cert.MaxPathLenZero = cert.BasicConstraintsValid && cert.MaxPathLen == 0
	// Nothing at all would mean everything to crypto/x509.
	if id.Equal(oidKeyUsage) && cert.KeyUsage == 0 {
		cert.KeyUsage = noUsage
	}
	if id.Equal(oidExtKeyUsage) && len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 {
		cert.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidExtKeyUsage}
	}
	return nil
}

// noUsage is the bit after those that have a meaning.
const noUsage x509.KeyUsage = 1 << 9

// altNames reads subject alternative names (RFC 5280, section 4.2.1.6): all of
// them, so that a constraint is held against each. One that cannot be read becomes
// a URI without a host, which crypto/x509 lets pass no constraint.
func (r *reader) altNames(cert *x509.Certificate, group []pkix.Extension) error {
	malformed := errors.New("the subject alternative names are malformed")
	var joined []byte
	for _, e := range group {
		s := cryptobyte.String(e.Value)
		var names cryptobyte.String
		if !s.ReadASN1(&names, tag.SEQUENCE) {
			der, _, err := toDER(e.Value)
			if s = der; err != nil || !s.ReadASN1(&names, tag.SEQUENCE) {
				return malformed
			}
		}
		joined = append(joined, names...)
		for !names.Empty() {
			var b cryptobyte.String
			var t tag.Tag
			if !names.ReadAnyASN1(&b, &t) {
				return malformed
			}
			switch t ^ 0x80 {
			case 1:
				cert.EmailAddresses = append(cert.EmailAddresses, string(b))
			case 2:
				cert.DNSNames = append(cert.DNSNames, string(b))
			case 6:
				uri, err := url.Parse(string(b))
				if err != nil {
					uri = &url.URL{Opaque: string(b)}
				}
				cert.URIs = append(cert.URIs, uri)
			case 7:
				if len(b) == net.IPv4len || len(b) == net.IPv6len {
					cert.IPAddresses = append(cert.IPAddresses, net.IP(b))
				} else {
					cert.URIs = append(cert.URIs, &url.URL{Opaque: fmt.Sprintf("IP address of %d bytes", len(b))})
				}
			}
		}
	}
	if len(group) > 1 {
		r.note("of two different extensions %s, both count", oidSubjectAltName)
		var b cryptobyte.Builder
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(joined) })
		value, err := b.Bytes()
		if err != nil {
			return err
		}
		cert.Extensions = slices.DeleteFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
		cert.Extensions = append(cert.Extensions, pkix.Extension{Id: oidSubjectAltName, Critical: group[0].Critical, Value: value})
	}
	if group[0].Critical && len(cert.EmailAddresses)+len(cert.DNSNames)+len(cert.URIs)+len(cert.IPAddresses) == 0 {
		cert.UnhandledCriticalExtensions = append(cert.UnhandledCriticalExtensions, oidSubjectAltName)
	}
	return nil
}

// carrier parses a certificate that has no more than a signature algorithm and
// extensions.
func carrier(algorithm []byte, extensions []pkix.Extension) (*x509.Certificate, error) {
	key, err := ed25519Algorithm()
	if err != nil {
		return nil, err
	}
	list, err := asn1.Marshal(extensions)
	if err != nil {
		return nil, err
	}
	const moment = "700101000000Z"
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(tag.Tag(0).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // version 3
			b.AddASN1Int64(1)
			b.AddBytes(algorithm)
			b.AddASN1(tag.SEQUENCE, func(*cryptobyte.Builder) {})
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(tag.UTCTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte(moment)) })
				b.AddASN1(tag.UTCTime, func(b *cryptobyte.Builder) { b.AddBytes([]byte(moment)) })
			})
			b.AddASN1(tag.SEQUENCE, func(*cryptobyte.Builder) {})
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(key.der)
				b.AddASN1BitString(make([]byte, 32))
			})
			b.AddASN1(tag.Tag(3).Constructed().ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(list) })
		})
		b.AddBytes(algorithm)
		b.AddASN1BitString(nil)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
