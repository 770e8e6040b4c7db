package device

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// SameKey reports whether two SubjectPublicKeyInfos (RFC 5280, section 4.1)
// hold the same public key, in whatever form.
func SameKey(a, b []byte) bool {
	if bytes.Equal(a, b) || KeyIdentity(a) != KeyIdentity(b) {
		return len(a) > 0 && bytes.Equal(a, b)
	}
	ka, _ := SplitSPKI(a)
	kb, _ := SplitSPKI(b)
	if families[ka.Algorithm.String()] != familyEC {
		return true
	}
	// Points off their curve may have x in common, and whether y is odd.
	named := len(ka.Params) > 0 && ka.Params[0] == asn1.TagOID && len(kb.Params) > 0 && kb.Params[0] == asn1.TagOID
	return (!named || bytes.Equal(ka.Params, kb.Params)) && (len(ka.Key) != len(kb.Key) || bytes.Equal(ka.Key[1:], kb.Key[1:]))
}

// KeyIdentity is the same for all SubjectPublicKeyInfos that hold one public
// key: the numbers of an RSA key may be padded and its use named, a point of a
// curve may be in any form of SEC 1, section 2.3.3. Others have it only if a
// point is not on its curve. It is "" for an empty one.
func KeyIdentity(spki []byte) string {
	k, ok := SplitSPKI(spki)
	if !ok {
		return string(spki)
	}
	algorithm := k.Algorithm.String()
	switch families[algorithm] {
	case familyRSA:
		if n, e, ok := rsaNumbers(k.Key); ok {
			return familyRSA + string(n) + " " + string(e)
		}
	case familyEC: // the curve may be named, or described by its numbers
		if x, odd, ok := coordinate(k.Key); ok {
			return familyEC + string(odd) + string(x)
		}
	default:
		return algorithm + " " + string(k.Key)
	}
	return string(spki)
}

// PublicKeyInfo is what a SubjectPublicKeyInfo (RFC 5280, section 4.1) is made of.
type PublicKeyInfo struct {
	Algorithm asn1.ObjectIdentifier
	Params    []byte // DER, of the algorithm; nil if it has none
	Key       []byte
}

// SplitSPKI takes a SubjectPublicKeyInfo apart.
func SplitSPKI(spki []byte) (k PublicKeyInfo, ok bool) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	rest, err := asn1.Unmarshal(spki, &info)
	return PublicKeyInfo{info.Algorithm.Algorithm, info.Algorithm.Parameters.FullBytes, info.Key.Bytes}, err == nil && len(rest) == 0
}

const (
	familyRSA = "RSA "
	familyEC  = "EC "
)

// families are the algorithms that differ by nothing but what the key is for.
var families = map[string]string{
	"1.2.840.113549.1.1.1":  familyRSA, // RFC 8017
	"1.2.840.113549.1.1.7":  familyRSA, // for OAEP alone, RFC 4055
	"1.2.840.113549.1.1.10": familyRSA, // for PSS alone, RFC 4055
	"2.5.8.1.1":             familyRSA, // X.509 of 1988
	"1.2.840.10045.2.1":     familyEC,  // RFC 5480
	"1.3.132.1.12":          familyEC,  // for ECDH alone, RFC 5480
}

// rsaNumbers reads an RSAPublicKey; zeros before a number do not count.
func rsaNumbers(der []byte) (n, e []byte, ok bool) {
	var list []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) > 0 || len(list) != 2 {
		return nil, nil, false
	}
	for _, v := range list {
		if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagInteger {
			return nil, nil, false
		}
	}
	return bytes.TrimLeft(list[0].Bytes, "\x00"), bytes.TrimLeft(list[1].Bytes, "\x00"), true
}

// coordinate is x of a point that is compressed (2, 3), uncompressed (4) or both
// (6, 7), and whether y is odd.
func coordinate(point []byte) (x []byte, odd byte, ok bool) {
	if len(point) < 3 {
		return nil, 0, false
	}
	xy := point[1:]
	switch point[0] {
	case 2, 3:
		return xy, '0' + point[0]&1, true
	case 4, 6, 7:
		if len(xy)%2 == 0 {
			return xy[:len(xy)/2], '0' + xy[len(xy)-1]&1, true
		}
	}
	return nil, 0, false
}
