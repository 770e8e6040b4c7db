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
	var kept, readable, names []pkix.Extension
	var unhandled []asn1.ObjectIdentifier
	for _, group := range groups(all) {
		e, err := r.settle(group)
		if err != nil {
			return nil, fmt.Errorf("extension %s is malformed", group[0].Id)
		}
		kept = append(kept, e...)
		switch id := group[0].Id; {
		case len(e) == 0:
		case len(e) > 1:
			unhandled = append(unhandled, id)
		case id.Equal(oidSubjectAltName):
			names = e
		default:
			form, err := acceptable(algorithm, e[0])
			switch {
			case err == nil:
				kept[len(kept)-1].Value = form.Value
				readable = append(readable, form)
				continue
			case entitles(id):
				return nil, fmt.Errorf("extension %s is malformed", id)
			case e[0].Critical || limits(id):
				unhandled = append(unhandled, id)
			}
			r.note("extension %s cannot be read", id)
		}
	}
	cert, err := carrier(algorithm, readable)
	if err != nil {
		return nil, err
	}
	cert.Extensions = kept
	cert.UnhandledCriticalExtensions = append(cert.UnhandledCriticalExtensions, unhandled...)
	if len(names) > 0 {
		if err := altNames(cert, names[0]); err != nil {
			return nil, err
		}
	}
	for _, e := range kept { // nothing at all would mean everything to crypto/x509
		if e.Id.Equal(oidKeyUsage) && cert.KeyUsage == 0 && r.reduced {
			cert.KeyUsage = noUsage
		}
		if e.Id.Equal(oidExtKeyUsage) && len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 && r.reduced {
			cert.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidExtKeyUsage}
		}
	}
	return cert, nil
}

// noUsage is the bit after those that have a meaning.
const noUsage x509.KeyUsage = 1 << 9

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

// settle makes one extension of those of one identifier with different values: a
// usage or a right must be in all of them, names are those of all, and
// identifiers of keys are of none. Limits, which must all be kept, stay several.
func (r *reader) settle(group []pkix.Extension) ([]pkix.Extension, error) {
	e := group[0]
	if len(group) == 1 {
		return group, nil
	}
	var err error
	switch id := e.Id; {
	case limits(id):
		r.note("two different extensions %s, both of which must be kept to", id)
		return group, nil
	case entitles(id):
		r.note("of two different extensions %s, only what both allow counts", id)
		r.reduced = true
		for _, o := range group[1:] {
			if e.Value, err = common(id, e.Value, o.Value); err != nil {
				return nil, err
			}
		}
	case id.Equal(oidSubjectAltName):
		r.note("of two different extensions %s, both count", id)
		var joined []byte
		for _, o := range group {
			names, err := content(o.Value, tag.SEQUENCE)
			if err != nil {
				return nil, err
			}
			joined = append(joined, names...)
		}
		e.Value = appendDER(nil, 0x30, joined)
	case id.Equal(oidSubjectKeyID), id.Equal(oidAuthorityKeyID), id.Equal(oidPolicies), id.Equal(oidPolicyMappings):
		r.note("of two different extensions %s, none counts", id)
		return nil, nil
	default:
		r.note("of two different extensions %s, the first counts", id)
	}
	return []pkix.Extension{e}, nil
}

// content is what is in the element of that tag, in DER or BER.
func content(ber []byte, t tag.Tag) (cryptobyte.String, error) {
	der, rest, err := toDER(ber)
	s := cryptobyte.String(der)
	var in cryptobyte.String
	if err != nil || len(rest) > 0 || !s.ReadASN1(&in, t) {
		return nil, errors.New("malformed")
	}
	return in, nil
}

// common is what two extensions that entitle to something both allow.
func common(id asn1.ObjectIdentifier, a, b []byte) ([]byte, error) {
	malformed := errors.New("malformed")
	t := tag.SEQUENCE
	if id.Equal(oidKeyUsage) {
		t = tag.BIT_STRING
	}
	x, errX := content(a, t)
	y, errY := content(b, t)
	if errX != nil || errY != nil {
		return nil, malformed
	}
	switch {
	case id.Equal(oidKeyUsage):
		if len(x) == 0 || len(y) == 0 {
			return nil, malformed
		}
		n := min(len(x), len(y))
		bits := []byte{3, byte(n), 0}
		for i := 1; i < n; i++ {
			bits = append(bits, x[i]&y[i])
		}
		return bits, nil
	case id.Equal(oidExtKeyUsage):
		in := make(map[string]bool)
		for !y.Empty() {
			var usage cryptobyte.String
			if !y.ReadASN1Element(&usage, tag.OBJECT_IDENTIFIER) {
				return nil, malformed
			}
			in[string(usage)] = true
		}
		var both []byte
		for !x.Empty() {
			var usage cryptobyte.String
			if !x.ReadASN1Element(&usage, tag.OBJECT_IDENTIFIER) {
				return nil, malformed
			}
			if in[string(usage)] {
				both = append(both, usage...)
			}
		}
		return appendDER(nil, 0x30, both), nil
	}
	var ca [2]bool
	var least []byte // of the two path lengths
	for i, s := range []cryptobyte.String{x, y} {
		var isCA, length cryptobyte.String
		var stated, limited bool
		if !s.ReadOptionalASN1(&isCA, &stated, tag.BOOLEAN) || !s.ReadOptionalASN1(&length, &limited, tag.INTEGER) || !s.Empty() ||
			stated && len(isCA) != 1 || limited && len(length) == 0 {
			return nil, malformed
		}
		if limited && length[0] >= 0x80 { // a negative one allows nothing, as OpenSSL has it
			length = []byte{0}
		}
		ca[i] = stated && isCA[0] != 0
		if limited && (least == nil || len(length) < len(least) || len(length) == len(least) && bytes.Compare(length, least) < 0) {
			least = length
		}
	}
	var both []byte
	if ca[0] && ca[1] {
		both = []byte{1, 1, 0xff}
	}
	if least != nil {
		both = appendDER(both, 2, least)
	}
	return appendDER(nil, 0x30, both), nil
}

// acceptable returns the extension as crypto/x509 takes it: in DER, and not
// critical where RFC 5280 says so, which is for what limits nothing.
func acceptable(algorithm []byte, e pkix.Extension) (pkix.Extension, error) {
	forms := []pkix.Extension{e, {Id: e.Id, Value: e.Value}}
	if der, rest, err := toDER(e.Value); err == nil && len(rest) == 0 {
		forms = append(forms, pkix.Extension{Id: e.Id, Critical: e.Critical, Value: der}, pkix.Extension{Id: e.Id, Value: der})
	}
	if e.Id.Equal(oidBasicConstraints) {
		if strict, err := common(e.Id, e.Value, e.Value); err == nil {
			forms = append(forms, pkix.Extension{Id: e.Id, Critical: e.Critical, Value: strict})
		}
	}
	var err error
	for _, form := range forms {
		if _, err = carrier(algorithm, []pkix.Extension{form}); err == nil {
			return form, nil
		}
	}
	return e, err
}

// altNames reads subject alternative names (RFC 5280, section 4.2.1.6): all of
// them, so that a constraint is held against each. One that cannot be read becomes
// a URI without a host, which crypto/x509 lets pass no constraint.
func altNames(cert *x509.Certificate, e pkix.Extension) error {
	malformed := errors.New("the subject alternative names are malformed")
	s := cryptobyte.String(e.Value)
	var names cryptobyte.String
	if !s.ReadASN1(&names, tag.SEQUENCE) {
		var err error
		if names, err = content(e.Value, tag.SEQUENCE); err != nil {
			return malformed
		}
	}
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
	if e.Critical && len(cert.EmailAddresses)+len(cert.DNSNames)+len(cert.URIs)+len(cert.IPAddresses) == 0 {
		cert.UnhandledCriticalExtensions = append(cert.UnhandledCriticalExtensions, oidSubjectAltName)
	}
	return nil
}

// carrier parses a certificate that has no more than a signature algorithm and
// extensions.
func carrier(algorithm []byte, extensions []pkix.Extension) (*x509.Certificate, error) {
	key, err := bareAlgorithm(oidEd25519)
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
