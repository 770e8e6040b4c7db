package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	_ "crypto/md5"
	"crypto/rsa"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// scheme is a way to sign: the family of the key and, but for Ed25519 and PSS,
// the hash.
type scheme struct {
	family string
	hash   crypto.Hash
}

// schemes are signature algorithms by OID (RFC 3279, 4055, 5754, 5758, 8410, 8702
// and NIST's register of algorithms).
var schemes = map[string]scheme{
	"1.2.840.113549.1.1.4":    {"RSA", crypto.MD5},
	"1.2.840.113549.1.1.5":    {"RSA", crypto.SHA1},
	"1.3.14.3.2.29":           {"RSA", crypto.SHA1},
	"1.2.840.113549.1.1.14":   {"RSA", crypto.SHA224},
	"1.2.840.113549.1.1.11":   {"RSA", crypto.SHA256},
	"1.2.840.113549.1.1.12":   {"RSA", crypto.SHA384},
	"1.2.840.113549.1.1.13":   {"RSA", crypto.SHA512},
	"1.2.840.113549.1.1.15":   {"RSA", crypto.SHA512_224},
	"1.2.840.113549.1.1.16":   {"RSA", crypto.SHA512_256},
	"2.16.840.1.101.3.4.3.13": {"RSA", crypto.SHA3_224},
	"2.16.840.1.101.3.4.3.14": {"RSA", crypto.SHA3_256},
	"2.16.840.1.101.3.4.3.15": {"RSA", crypto.SHA3_384},
	"2.16.840.1.101.3.4.3.16": {"RSA", crypto.SHA3_512},
	"1.2.840.113549.1.1.10":   {"PSS", 0},
	"1.2.840.10045.4.1":       {"EC", crypto.SHA1},
	"1.2.840.10045.4.3.1":     {"EC", crypto.SHA224},
	"1.2.840.10045.4.3.2":     {"EC", crypto.SHA256},
	"1.2.840.10045.4.3.3":     {"EC", crypto.SHA384},
	"1.2.840.10045.4.3.4":     {"EC", crypto.SHA512},
	"2.16.840.1.101.3.4.3.9":  {"EC", crypto.SHA3_224},
	"2.16.840.1.101.3.4.3.10": {"EC", crypto.SHA3_256},
	"2.16.840.1.101.3.4.3.11": {"EC", crypto.SHA3_384},
	"2.16.840.1.101.3.4.3.12": {"EC", crypto.SHA3_512},
	"1.2.840.10040.4.3":       {"DSA", crypto.SHA1},
	"2.16.840.1.101.3.4.3.1":  {"DSA", crypto.SHA224},
	"2.16.840.1.101.3.4.3.2":  {"DSA", crypto.SHA256},
	"2.16.840.1.101.3.4.3.3":  {"DSA", crypto.SHA384},
	"2.16.840.1.101.3.4.3.4":  {"DSA", crypto.SHA512},
	"1.3.101.112":             {"Ed25519", 0},
}

// hashOIDs are those of DigestInfo (RFC 8017, appendix B.1).
var hashOIDs = map[crypto.Hash]asn1.ObjectIdentifier{
	crypto.MD5:        {1, 2, 840, 113549, 2, 5},
	crypto.SHA1:       {1, 3, 14, 3, 2, 26},
	crypto.SHA224:     {2, 16, 840, 1, 101, 3, 4, 2, 4},
	crypto.SHA256:     {2, 16, 840, 1, 101, 3, 4, 2, 1},
	crypto.SHA384:     {2, 16, 840, 1, 101, 3, 4, 2, 2},
	crypto.SHA512:     {2, 16, 840, 1, 101, 3, 4, 2, 3},
	crypto.SHA512_224: {2, 16, 840, 1, 101, 3, 4, 2, 5},
	crypto.SHA512_256: {2, 16, 840, 1, 101, 3, 4, 2, 6},
	crypto.SHA3_224:   {2, 16, 840, 1, 101, 3, 4, 2, 7},
	crypto.SHA3_256:   {2, 16, 840, 1, 101, 3, 4, 2, 8},
	crypto.SHA3_384:   {2, 16, 840, 1, 101, 3, 4, 2, 9},
	crypto.SHA3_512:   {2, 16, 840, 1, 101, 3, 4, 2, 10},
}

// verify says whether signature is one of signed by the key, of any size: a
// weak key or hash is not what is asked here.
func verify(a algorithm, key object, signed, signature []byte) device.Answer {
	s, known := schemes[a.oid.String()]
	if !known {
		return notTested("its signature is of the algorithm %s, which cannot be checked", a.oid)
	}
	var digest []byte
	if s.hash != 0 {
		h := s.hash.New()
		h.Write(signed)
		digest = h.Sum(nil)
	}
	good, known := false, true
	switch s.family {
	case "RSA":
		good, known = verifyPKCS1(key, s.hash, digest, signature)
	case "PSS":
		good, known = verifyPSS(a.params, key, signed, signature)
	case "EC":
		good, known = verifyECDSA(key, digest, signature)
	case "DSA":
		good, known = verifyDSA(key, digest, signature)
	case "Ed25519":
		var public ed25519.PublicKey
		public, isKey := key.public.(ed25519.PublicKey)
		good = isKey && ed25519.Verify(public, signed, signature)
	}
	switch {
	case !known:
		return notTested("its signature, of the algorithm %s by a key %s, cannot be checked", a.oid, device.Key{Public: key.public}.Algorithm())
	case good:
		return device.Answer{Status: device.Pass, Why: "its signature is by its own key"}
	}
	return device.Answer{Status: device.Fail, Why: "its signature does not verify: it was changed, or signed by another key"}
}

// maxVerifyExponent bounds public exponents, in bits: those of real keys have 32 at most.
const maxVerifyExponent = 256

// verifyPKCS1 is RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2.2); crypto/rsa refuses
// short moduli and odd exponents.
func verifyPKCS1(key object, hash crypto.Hash, digest, signature []byte) (good, known bool) {
	n, e, ok := device.Key{Public: key.public}.RSA()
	if !ok {
		return false, true
	}
	if e.BitLen() > maxVerifyExponent || e.Sign() <= 0 {
		return false, false
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(hashOIDs[hash])
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(digest)
	})
	info, err := b.Bytes()
	size := (n.BitLen() + 7) / 8
	if err != nil || size < len(info)+11 || len(signature) != size {
		return false, err == nil
	}
	want := bytes.Repeat([]byte{0xff}, size)
	want[0], want[1], want[size-len(info)-1] = 0, 1, 0
	copy(want[size-len(info):], info)
	number := new(big.Int).SetBytes(signature)
	if number.Cmp(n) >= 0 {
		return false, true
	}
	return bytes.Equal(number.Exp(number, e, n).FillBytes(make([]byte, size)), want), true
}

// verifyPSS is RSASSA-PSS with the parameters of RFC 4055, section 3.1.
func verifyPSS(params cryptobyte.String, key object, signed, signature []byte) (good, known bool) {
	public, ok := key.public.(*rsa.PublicKey)
	if !ok || public.N.BitLen() < 1024 { // crypto/rsa refuses them
		return false, false
	}
	hash, ok := pssHash(params)
	if !ok {
		return false, false
	}
	h := hash.New()
	h.Write(signed)
	err := rsa.VerifyPSS(public, hash, h.Sum(nil), signature, nil) // any length of salt
	return err == nil, err == nil || err == rsa.ErrVerification
}

// pssHash is the hash of RSASSA-PSS-params, which is to be that of the mask, too.
func pssHash(params cryptobyte.String) (crypto.Hash, bool) {
	hash, mask := crypto.SHA1, crypto.SHA1
	var body, field cryptobyte.String
	if !params.ReadASN1(&body, tag.SEQUENCE) {
		return 0, false
	}
	var ok, isThere bool
	if !body.ReadOptionalASN1(&field, &isThere, tag.Tag(0).Constructed().ContextSpecific()) {
		return 0, false
	}
	if isThere {
		if hash, ok = hashOf(&field); !ok {
			return 0, false
		}
	}
	if !body.ReadOptionalASN1(&field, &isThere, tag.Tag(1).Constructed().ContextSpecific()) {
		return 0, false
	}
	if isThere {
		a, err := readAlgorithm(&field)
		if err != nil || !a.oid.Equal(oidMGF1) {
			return 0, false
		}
		if mask, ok = hashOf(&a.params); !ok {
			return 0, false
		}
	}
	return hash, hash == mask
}

var oidMGF1 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}

func hashOf(s *cryptobyte.String) (crypto.Hash, bool) {
	a, err := readAlgorithm(s)
	if err != nil {
		return 0, false
	}
	for hash, oid := range hashOIDs {
		if a.oid.Equal(oid) {
			return hash, true
		}
	}
	return 0, false
}

// verifyECDSA is for every curve that can be computed on.
func verifyECDSA(key object, digest, signature []byte) (good, known bool) {
	if public, ok := key.public.(*ecdsa.PublicKey); ok {
		return ecdsa.VerifyASN1(public, digest, signature), true
	}
	a, point, ok := splitSPKI(key.spki)
	if !ok || a.name != "EC" {
		return false, ok
	}
	c, err := weierstrassOf(a.params)
	if err != nil {
		return false, false
	}
	x, y, ok := c.point(point)
	r, s, isPair := pairOf(signature)
	return ok && isPair && c.verifies(x, y, digest, r, s), true
}

// verifyDSA is FIPS 186-4, section 4.7.
func verifyDSA(key object, digest, signature []byte) (good, known bool) {
	a, number, ok := splitSPKI(key.spki)
	if !ok || a.name != "DSA" {
		return false, ok
	}
	k, err := readDSAParams(a.params)
	element := cryptobyte.String(number)
	y, ok := readNumbers(&element, 1)
	if err != nil || !ok || k.q.BitLen() > maxSubgroupBits || k.q.Sign() == 0 || k.p.Sign() == 0 {
		return false, false
	}
	r, s, ok := pairOf(signature)
	if !ok || r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(k.q) >= 0 || s.Cmp(k.q) >= 0 {
		return false, true
	}
	w := new(big.Int).ModInverse(s, k.q)
	if w == nil {
		return false, true
	}
	z := new(big.Int).SetBytes(digest[:min(len(digest), k.q.BitLen()/8)])
	u1, u2 := z.Mul(z, w), new(big.Int).Mul(r, w)
	v := new(big.Int).Exp(k.g, u1.Mod(u1, k.q), k.p)
	v.Mul(v, new(big.Int).Exp(y[0], u2.Mod(u2, k.q), k.p))
	return v.Mod(v, k.p).Mod(v, k.q).Cmp(r) == 0, true
}

// splitSPKI is the algorithm of an SPKI, and the content of its BIT STRING.
func splitSPKI(spki []byte) (a algorithm, key []byte, ok bool) {
	s := cryptobyte.String(spki)
	var body cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) {
		return a, nil, false
	}
	a, err := readAlgorithm(&body)
	return a, key, err == nil && body.ReadASN1BitStringAsBytes(&key)
}

// pairOf reads the SEQUENCE of r and s (RFC 3279, section 2.2.2).
func pairOf(signature []byte) (r, s *big.Int, ok bool) {
	in := cryptobyte.String(signature)
	var body cryptobyte.String
	if !in.ReadASN1(&body, tag.SEQUENCE) || !in.Empty() {
		return nil, nil, false
	}
	pair, ok := readNumbers(&body, 2)
	if !ok || !body.Empty() {
		return nil, nil, false
	}
	return pair[0], pair[1], true
}
