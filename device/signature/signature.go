// Package signature verifies signatures by public keys of every kind, weak ones
// too: whether a key or a hash is good is not what is asked here.
package signature

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/asn1"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// Outcome is what came of checking a signature.
type Outcome int

// The outcomes. The zero value is Unknown, on which nothing may rely.
const (
	Unknown Outcome = iota // it could not be checked
	Bad                    // it is not by that key
	Good                   // it is by that key
)

// Result is an outcome; Why says what is Unknown.
type Result struct {
	Outcome Outcome
	Why     string
}

func of(good bool) Result {
	if good {
		return Result{Outcome: Good}
	}
	return Result{Outcome: Bad}
}

// Verify reports whether signature is one of signed by the key, whose Public and
// SPKI count. Where Public only names the algorithm, the SPKI has the numbers.
// Signatures of ECDSA and DSA are in DER (RFC 3279, section 2.2.2).
func (s Scheme) Verify(key device.Key, signed, signature []byte) Result {
	family, by := familyOf(key)
	switch {
	case s.family == "":
		return Result{Why: s.String()}
	case family == "":
		return Result{Why: s.String() + " by " + by}
	case family != s.family:
		return of(false)
	}
	var digest []byte
	if s.hash != 0 {
		h := s.hash.New()
		h.Write(signed)
		digest = h.Sum(nil)
	}
	var r Result
	switch s.family {
	case isRSA:
		r = s.verifyRSA(key, digest, signature)
	case isEC:
		r = verifyECDSA(key, digest, signature)
	case isDSA:
		r = verifyDSA(key, digest, signature)
	case isEd25519:
		k, ok := key.Public.(ed25519.PublicKey)
		r = of(ok && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, signed, signature))
	}
	if r.Outcome == Unknown {
		r.Why = s.String() + " by " + by + ": " + r.Why
	}
	return r
}

// familyOf returns the family of a key, "" if only the OID of its algorithm is
// known, and what the key is called.
func familyOf(key device.Key) (family, name string) {
	if key.Public == nil {
		return "", "a key that could not be read"
	}
	algorithm := key.Algorithm()
	name = "a key of the algorithm " + algorithm
	if _, _, ok := key.RSA(); ok {
		return isRSA, name
	}
	switch k := key.Public.(type) {
	case *ecdsa.PublicKey:
		return isEC, name
	case ed25519.PublicKey:
		return isEd25519, name
	case *device.OtherKey:
		switch {
		case strings.HasPrefix(k.Algorithm, "ECDSA"):
			return isEC, name
		case strings.HasPrefix(k.Algorithm, "DSA"):
			return isDSA, name
		case k.Algorithm != "" && (k.Algorithm[0] < '0' || k.Algorithm[0] > '9'):
			return k.Algorithm, name // known, and none of the schemes'
		}
	}
	return "", name
}

// verifyECDSA is for every curve that can be computed on.
func verifyECDSA(key device.Key, digest, signature []byte) Result {
	if k, ok := key.Public.(*ecdsa.PublicKey); ok {
		return of(k.Curve != nil && k.X != nil && k.Y != nil && ecdsa.VerifyASN1(k, digest, signature)) //nolint:staticcheck // a point at infinity has none
	}
	c, point, known := curve.OfKey(key.SPKI)
	switch {
	case point == nil:
		return Result{Why: "the key is damaged"}
	case !known:
		return Result{Why: "its curve is not known"}
	}
	r, n, ok := pairOf(signature)
	return of(ok && c.Verify(point, digest, r, n))
}

// maxModulus bounds the modulus of a DSA key, in bits; OpenSSL has the same bound.
const maxModulus = 10000

// verifyDSA is FIPS 186-4, section 4.7.
func verifyDSA(key device.Key, digest, signature []byte) Result {
	params, number, ok := splitSPKI(key.SPKI)
	if !ok {
		return Result{Why: "the key is damaged"}
	}
	var p, q, g, y big.Int
	var numbers cryptobyte.String
	s, element := cryptobyte.String(params), cryptobyte.String(number)
	if !s.ReadASN1(&numbers, tag.SEQUENCE) || !numbers.ReadASN1Integer(&p) || !numbers.ReadASN1Integer(&q) || !numbers.ReadASN1Integer(&g) || !element.ReadASN1Integer(&y) {
		return Result{Why: "the key has no numbers of its own"} // it may have those of its CA
	}
	bits := q.BitLen()
	if p.Sign() <= 0 || p.BitLen() > maxModulus || bits != 160 && bits != 224 && bits != 256 || q.Sign() < 0 || g.Sign() <= 0 || y.Sign() <= 0 {
		return Result{Why: "the key has numbers that FIPS 186-4 does not allow"}
	}
	r, n, ok := pairOf(signature)
	if !ok || r.Sign() <= 0 || n.Sign() <= 0 || r.Cmp(&q) >= 0 || n.Cmp(&q) >= 0 {
		return of(false)
	}
	w := new(big.Int).ModInverse(n, &q)
	if w == nil {
		return of(false)
	}
	z := new(big.Int).SetBytes(digest[:min(len(digest), bits/8)])
	u1, u2 := z.Mul(z, w), new(big.Int).Mul(r, w)
	v := new(big.Int).Exp(&g, u1.Mod(u1, &q), &p)
	v.Mul(v, y.Exp(&y, u2.Mod(u2, &q), &p))
	return of(v.Mod(v, &p).Mod(v, &q).Cmp(r) == 0)
}

// splitSPKI returns the parameters of the algorithm of a SubjectPublicKeyInfo, and
// the content of its BIT STRING.
func splitSPKI(spki []byte) (params, key []byte, ok bool) {
	s := cryptobyte.String(spki)
	var body, algorithm cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) || !body.ReadASN1(&algorithm, tag.SEQUENCE) || !algorithm.SkipASN1(tag.OBJECT_IDENTIFIER) {
		return nil, nil, false
	}
	return algorithm, key, body.ReadASN1BitStringAsBytes(&key)
}

// pairOf reads the SEQUENCE of r and s.
func pairOf(signature []byte) (r, s *big.Int, ok bool) {
	in := cryptobyte.String(signature)
	var body cryptobyte.String
	r, s = new(big.Int), new(big.Int)
	ok = len(signature) <= maxPair && in.ReadASN1(&body, tag.SEQUENCE) && in.Empty() &&
		body.ReadASN1Integer(r) && body.ReadASN1Integer(s) && body.Empty()
	return r, s, ok
}

// Pair returns the DER of the pair of numbers that are a signature of ECDSA or DSA.
func Pair(r, s *big.Int) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	return b.BytesOrPanic() // of two numbers
}

// maxPair bounds the two numbers of a signature, in bytes.
const maxPair = 1024

// oidOf returns the text of the first OID in der.
func oidOf(der []byte) string {
	s := cryptobyte.String(der)
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1ObjectIdentifier(&oid) {
		return ""
	}
	return oid.String()
}
