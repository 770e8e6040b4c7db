package keyfile

import (
	"encoding/asn1"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

var oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2} // RFC 5652, section 5.1

// isSignedData reports whether der is a ContentInfo of PKCS#7 or CMS with
// SignedData, the form in which certificates are handed out.
func isSignedData(der []byte) bool {
	s := cryptobyte.String(der)
	var body cryptobyte.String
	var oid asn1.ObjectIdentifier
	return s.ReadASN1(&body, tag.SEQUENCE) && readOID(&body, &oid) && oid.Equal(oidSignedData)
}

// addSignedData reads the certificates of a SignedData (RFC 5652, sections 5.1
// and 10.2.2). Its signatures are nobody's question; revocation lists and
// attribute certificates hold no key.
func (c *contents) addSignedData(at place, der []byte) {
	if normal, _, err := definite(der); err == nil { // streams have indefinite lengths within
		der = normal
	}
	certificates, lists, err := signedData(der)
	if err != nil {
		c.lose(at, err.Error())
		return
	}
	found := false
	for !certificates.Empty() {
		if c.full() {
			c.gap(at.name(c.number+1), tooMany)
			return
		}
		var certificate cryptobyte.String
		var t tag.Tag
		if !certificates.ReadAnyASN1Element(&certificate, &t) {
			c.lose(at, "damaged PKCS#7: a certificate is cut short")
			return
		}
		found = true
		if t != tag.SEQUENCE {
			c.pass(at, "an attribute certificate or one of PKCS#6 in PKCS#7: it is not tested")
			continue
		}
		c.addElement(at, certificate)
	}
	switch {
	case !lists.Empty():
		c.pass(at, "a revocation list in PKCS#7: there is no key in it")
	case !found:
		c.lose(at, "PKCS#7 without a certificate")
	}
}

// signedData returns what is in the fields certificates and crls.
func signedData(der cryptobyte.String) (certificates, lists cryptobyte.String, err error) {
	damaged := errors.New("damaged PKCS#7")
	var info, content, data cryptobyte.String
	explicit0, implicit1 := tag.Tag(0).Constructed().ContextSpecific(), tag.Tag(1).Constructed().ContextSpecific()
	if !der.ReadASN1(&info, tag.SEQUENCE) || !info.SkipASN1(tag.OBJECT_IDENTIFIER) || !info.ReadASN1(&content, explicit0) ||
		!content.ReadASN1(&data, tag.SEQUENCE) {
		return nil, nil, damaged
	}
	if !data.SkipASN1(tag.INTEGER) || !data.SkipASN1(tag.SET) || !data.SkipASN1(tag.SEQUENCE) || // version, digestAlgorithms, encapContentInfo
		!data.ReadOptionalASN1(&certificates, nil, explicit0) || !data.ReadOptionalASN1(&lists, nil, implicit1) {
		return nil, nil, damaged
	}
	return certificates, lists, nil
}
