package blocklist

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// keyNumberOf returns the number that makes a key what it is, big-endian
// without leading zero bytes, or nil: the modulus of RSA, the x coordinate of
// EC, y of DSA, the public key of Ed25519 and its kin. Another exponent, another
// encoding of the point or of the parameters leaves it as it is. It is what
// collections of keys such as badkeys know a key by.
func keyNumberOf(k device.Key) []byte {
	switch p := k.Public.(type) {
	case *rsa.PublicKey:
		if p.N != nil {
			return p.N.Bytes()
		}
	case *device.LargeRSA:
		if p.N != nil {
			return p.N.Bytes()
		}
	case *ecdsa.PublicKey:
		if p.X != nil { //nolint:staticcheck // Bytes refuses a point that is not on the curve
			return p.X.Bytes() //nolint:staticcheck
		}
	case ed25519.PublicKey:
		return trim(p)
	}
	return spkiNumber(k.SPKI)
}

func trim(b []byte) []byte { return bytes.TrimLeft(b, "\x00") }

var (
	oidRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC  = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidDSA = asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}

	oidECDH = asn1.ObjectIdentifier{1, 3, 132, 1, 12} // a key for ECDH alone, RFC 5480
)

// spkiNumber reads the number out of a SubjectPublicKeyInfo (RFC 5280, section
// 4.1); it is nil if there is none.
func spkiNumber(der []byte) []byte {
	info, ok := device.SplitSPKI(der)
	if !ok || len(info.Key) == 0 {
		return nil
	}
	oid, key := info.Algorithm, info.Key
	s := cryptobyte.String(key)
	var number cryptobyte.String
	switch {
	case oid.Equal(oidRSA): // RFC 8017, section A.1.1
		if !s.ReadASN1(&s, tag.SEQUENCE) || !s.ReadASN1(&number, tag.INTEGER) {
			return nil
		}
		return trim(number)
	case oid.Equal(oidDSA): // RFC 3279, section 2.3.2
		if !s.ReadASN1(&number, tag.INTEGER) {
			return nil
		}
		return trim(number)
	case oid.Equal(oidEC), oid.Equal(oidECDH): // SEC 1, section 2.3.3: the form, x, and y but in the compressed form
		point := key[1:]
		if key[0] != 2 && key[0] != 3 {
			point = point[:len(point)/2]
		}
		return trim(point)
	}
	return trim(key)
}
