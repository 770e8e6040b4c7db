package check

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"

	_ "crypto/md5" // hashes of old certificates
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/keyvet/keyvet/device"
)

// scheme is how a signature is made.
type scheme struct {
	name string      // for people
	by   string      // "RSA", "PSS", "ECDSA" or "Ed25519"; "" cannot be checked here
	hash crypto.Hash // 0: of a scheme that names none
	weak string      // the hash, if collisions of it can be made
	oid  string
}

// String names the scheme, with its OID.
func (s scheme) String() string {
	if s.name == "" || s.name == s.oid {
		return s.oid
	}
	return s.name + " (" + s.oid + ")"
}

// Prefixes of OIDs.
const (
	pkcs1   = "1.2.840.113549.1.1."
	nistSig = "2.16.840.1.101.3.4.3."
)

// schemes are signature algorithms by OID: RFC 8017, RFC 5758, RFC 8410, RFC 9814,
// RFC 9881, and NIST's Computer Security Objects Register.
var schemes = map[string]scheme{
	pkcs1 + "2":                  {name: "RSA with MD2", weak: "MD2"},
	pkcs1 + "3":                  {name: "RSA with MD4"},
	pkcs1 + "4":                  {"RSA with MD5", "RSA", crypto.MD5, "MD5", ""},
	pkcs1 + "5":                  {"RSA with SHA-1", "RSA", crypto.SHA1, "SHA1", ""},
	"1.3.14.3.2.29":              {"RSA with SHA-1", "RSA", crypto.SHA1, "SHA1", ""},
	pkcs1 + "10":                 {name: "RSASSA-PSS", by: "PSS"},
	pkcs1 + "11":                 {"RSA with SHA-256", "RSA", crypto.SHA256, "", ""},
	pkcs1 + "12":                 {"RSA with SHA-384", "RSA", crypto.SHA384, "", ""},
	pkcs1 + "13":                 {"RSA with SHA-512", "RSA", crypto.SHA512, "", ""},
	pkcs1 + "14":                 {"RSA with SHA-224", "RSA", crypto.SHA224, "", ""},
	pkcs1 + "15":                 {"RSA with SHA-512/224", "RSA", crypto.SHA512_224, "", ""},
	pkcs1 + "16":                 {"RSA with SHA-512/256", "RSA", crypto.SHA512_256, "", ""},
	"1.2.840.10045.4.1":          {"ECDSA with SHA-1", "ECDSA", crypto.SHA1, "SHA1", ""},
	"1.2.840.10045.4.3.1":        {"ECDSA with SHA-224", "ECDSA", crypto.SHA224, "", ""},
	"1.2.840.10045.4.3.2":        {"ECDSA with SHA-256", "ECDSA", crypto.SHA256, "", ""},
	"1.2.840.10045.4.3.3":        {"ECDSA with SHA-384", "ECDSA", crypto.SHA384, "", ""},
	"1.2.840.10045.4.3.4":        {"ECDSA with SHA-512", "ECDSA", crypto.SHA512, "", ""},
	"1.3.101.112":                {name: "Ed25519", by: "Ed25519"},
	"1.3.101.113":                {name: "Ed448"},
	"1.2.840.10040.4.3":          {name: "DSA with SHA-1", weak: "SHA1"},
	nistSig + "1":                {name: "DSA with SHA-224"},
	nistSig + "2":                {name: "DSA with SHA-256"},
	nistSig + "9":                {name: "ECDSA with SHA3-224"},
	nistSig + "10":               {name: "ECDSA with SHA3-256"},
	nistSig + "11":               {name: "ECDSA with SHA3-384"},
	nistSig + "12":               {name: "ECDSA with SHA3-512"},
	nistSig + "13":               {name: "RSA with SHA3-224"},
	nistSig + "14":               {name: "RSA with SHA3-256"},
	nistSig + "15":               {name: "RSA with SHA3-384"},
	nistSig + "16":               {name: "RSA with SHA3-512"},
	"1.2.156.10197.1.501":        {name: "SM2 with SM3"},
	"1.2.643.2.2.3":              {name: "GOST R 34.10-2001"},
	"1.2.643.7.1.1.3.2":          {name: "GOST R 34.10-2012, 256 bits"},
	"1.2.643.7.1.1.3.3":          {name: "GOST R 34.10-2012, 512 bits"},
	"1.3.6.1.5.5.7.6.34":         {name: "XMSS"},
	"1.3.6.1.5.5.7.6.35":         {name: "XMSS^MT"},
	"1.2.840.113549.1.9.16.3.17": {name: "HSS/LMS"},
}

// postQuantum are NIST's signatures, from nistSig + "17" on (FIPS 204 and 205).
var postQuantum = []string{
	"ML-DSA-44", "ML-DSA-65", "ML-DSA-87",
	"SLH-DSA-SHA2-128s", "SLH-DSA-SHA2-128f", "SLH-DSA-SHA2-192s", "SLH-DSA-SHA2-192f", "SLH-DSA-SHA2-256s", "SLH-DSA-SHA2-256f",
	"SLH-DSA-SHAKE-128s", "SLH-DSA-SHAKE-128f", "SLH-DSA-SHAKE-192s", "SLH-DSA-SHAKE-192f", "SLH-DSA-SHAKE-256s", "SLH-DSA-SHAKE-256f",
	"HashML-DSA-44", "HashML-DSA-65", "HashML-DSA-87",
	"HashSLH-DSA-SHA2-128s", "HashSLH-DSA-SHA2-128f", "HashSLH-DSA-SHA2-192s", "HashSLH-DSA-SHA2-192f", "HashSLH-DSA-SHA2-256s", "HashSLH-DSA-SHA2-256f",
	"HashSLH-DSA-SHAKE-128s", "HashSLH-DSA-SHAKE-128f", "HashSLH-DSA-SHAKE-192s", "HashSLH-DSA-SHAKE-192f", "HashSLH-DSA-SHAKE-256s", "HashSLH-DSA-SHAKE-256f",
}

// schemeOf returns the scheme of an AlgorithmIdentifier; its name is the OID if
// that is all there is to know.
func schemeOf(a pkix.AlgorithmIdentifier) scheme {
	oid := a.Algorithm.String()
	s, known := schemes[oid]
	if last, ok := strings.CutPrefix(oid, nistSig); ok && !known {
		if n, err := strconv.Atoi(last); err == nil && n >= 17 && n < 17+len(postQuantum) {
			s.name = postQuantum[n-17]
		}
	}
	if s.by == "PSS" {
		s.hash, s.weak = pssHash(a.Parameters.FullBytes)
		if s.hash == 0 {
			s.by, s.name = "", "RSASSA-PSS with parameters of its own"
		} else {
			s.name += " with " + s.hash.String()
		}
	}
	s.name, s.oid = cmp.Or(s.name, oid), oid
	return s
}

// hashOIDs are those of hashes that PSS is used with (RFC 4055, section 2.1).
var hashOIDs = map[string]crypto.Hash{
	"1.3.14.3.2.26":          crypto.SHA1,
	"2.16.840.1.101.3.4.2.4": crypto.SHA224,
	"2.16.840.1.101.3.4.2.1": crypto.SHA256,
	"2.16.840.1.101.3.4.2.2": crypto.SHA384,
	"2.16.840.1.101.3.4.2.3": crypto.SHA512,
}

// pssHash returns the hash of RSASSA-PSS-params (RFC 4055, section 3.1); 0 if they
// are none that crypto/rsa verifies, which takes the same hash for the mask and
// finds out about the salt.
func pssHash(params []byte) (hash crypto.Hash, weak string) {
	sha1 := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}}
	p := struct {
		Hash    pkix.AlgorithmIdentifier `asn1:"explicit,optional,tag:0"`
		Mask    pkix.AlgorithmIdentifier `asn1:"explicit,optional,tag:1"`
		Salt    int                      `asn1:"explicit,optional,tag:2,default:20"`
		Trailer int                      `asn1:"explicit,optional,tag:3,default:1"`
	}{}
	if rest, err := asn1.Unmarshal(params, &p); err != nil || len(rest) > 0 || p.Trailer != 1 {
		return 0, ""
	}
	if p.Hash.Algorithm == nil {
		p.Hash = sha1
	}
	mask := sha1
	if p.Mask.Algorithm != nil {
		if p.Mask.Algorithm.String() != pkcs1+"8" { // MGF1
			return 0, ""
		}
		if _, err := asn1.Unmarshal(p.Mask.Parameters.FullBytes, &mask); err != nil {
			return 0, ""
		}
	}
	hash = hashOIDs[p.Hash.Algorithm.String()]
	if !mask.Algorithm.Equal(p.Hash.Algorithm) {
		return 0, ""
	}
	if hash == crypto.SHA1 {
		weak = "SHA1"
	}
	return hash, weak
}

const unreadableAlgorithm = "an unreadable algorithm"

// signatureScheme returns by what a certificate or revocation list is signed, of
// its whole DER. One that says two things of it is signed by no scheme.
func signatureScheme(der []byte) scheme {
	var outer struct {
		Body      asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	var a pkix.AlgorithmIdentifier
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return scheme{oid: unreadableAlgorithm}
	}
	if _, err := asn1.Unmarshal(outer.Algorithm.FullBytes, &a); err != nil {
		return scheme{oid: unreadableAlgorithm}
	}
	if !bytes.Contains(outer.Body.Bytes, outer.Algorithm.FullBytes) {
		return scheme{oid: "two different algorithms"}
	}
	return schemeOf(a)
}

// schemesOfX509 are the OIDs of the signature algorithms that crypto/x509 names.
var schemesOfX509 = map[x509.SignatureAlgorithm]string{
	x509.MD5WithRSA: pkcs1 + "4", x509.SHA1WithRSA: pkcs1 + "5",
	x509.SHA256WithRSA: pkcs1 + "11", x509.SHA384WithRSA: pkcs1 + "12", x509.SHA512WithRSA: pkcs1 + "13",
	x509.ECDSAWithSHA1: "1.2.840.10045.4.1", x509.ECDSAWithSHA256: "1.2.840.10045.4.3.2", x509.ECDSAWithSHA384: "1.2.840.10045.4.3.3", x509.ECDSAWithSHA512: "1.2.840.10045.4.3.4",
	x509.PureEd25519: "1.3.101.112",
}

// schemeOfCertificate returns by what a certificate is signed, by its DER or, if
// it is one in BER, by what was read of it.
func schemeOfCertificate(c *x509.Certificate) scheme {
	s := signatureScheme(c.Raw)
	if oid, known := schemesOfX509[c.SignatureAlgorithm]; known && s.oid == unreadableAlgorithm {
		s = schemes[oid]
		s.oid = oid
	}
	return s
}

// verdict is what came of checking a signature.
type verdict int

const (
	forged   verdict = iota // it is not by that key
	unknown                 // it cannot be checked
	verified                // it is by that key
)

// verify checks the signature of body by the key. why says what is unknown.
func (s scheme) verify(key crypto.PublicKey, body, signature []byte) (v verdict, why string) {
	var digest []byte
	if s.hash != 0 {
		h := s.hash.New()
		h.Write(body)
		digest = h.Sum(nil)
	}
	of := func(ok bool) (verdict, string) {
		if ok {
			return verified, ""
		}
		return forged, ""
	}
	n, e, isRSA := device.Key{Public: key}.RSA()
	other, isOther := key.(*device.OtherKey)
	switch {
	case s.by == "":
		return unknown, s.String()
	case isOther || key == nil:
		if isOther {
			return unknown, s.String() + " by a key of the algorithm " + other.Algorithm
		}
		return unknown, s.String() + " by a key that could not be read"
	case s.by == "RSA" && isRSA:
		return verifyPKCS1(n, e, s, digest, signature)
	case s.by == "PSS" && isRSA:
		k, ok := key.(*rsa.PublicKey)
		if !ok {
			return unknown, s.String() + " by an RSA key with a very large exponent"
		}
		err := rsa.VerifyPSS(k, s.hash, digest, signature, nil)
		if err != nil && !errors.Is(err, rsa.ErrVerification) {
			return unknown, fmt.Sprintf("%s: %v", s, err) // crypto/rsa refuses the key, say for its size
		}
		return of(err == nil)
	case s.by == "ECDSA":
		k, ok := key.(*ecdsa.PublicKey)
		return of(ok && k.Curve != nil && k.X != nil && k.Y != nil && ecdsa.VerifyASN1(k, digest, signature)) //nolint:staticcheck // a point at infinity has none
	case s.by == "Ed25519":
		k, ok := key.(ed25519.PublicKey)
		return of(ok && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, body, signature))
	}
	return forged, "" // by a key of another algorithm
}

// maxRSABits bounds what is reckoned with; OpenSSL and crypto/rsa have the same bound.
const maxRSABits = 16384

// verifyPKCS1 is RSASSA-PKCS1-V1_5-VERIFY (RFC 8017, section 8.2.2). crypto/rsa
// refuses keys of less than 1024 bits, and large exponents: the signature under
// such a key is not what is wrong with it.
func verifyPKCS1(n, e *big.Int, s scheme, digest, signature []byte) (verdict, string) {
	if n.Sign() <= 0 || n.BitLen() > maxRSABits || e.Sign() <= 0 || e.BitLen() > 64 {
		return unknown, s.String() + " by an RSA key of numbers that are not reckoned with"
	}
	size := (n.BitLen() + 7) / 8
	m := new(big.Int).SetBytes(signature)
	if len(signature) != size || m.Cmp(n) >= 0 {
		return forged, ""
	}
	info := slices.Concat(pkcs1Info[s.hash], digest)
	if size < len(info)+11 {
		return forged, ""
	}
	want := slices.Concat([]byte{0, 1}, bytes.Repeat([]byte{0xff}, size-len(info)-3), []byte{0}, info)
	if !bytes.Equal(m.Exp(m, e, n).FillBytes(make([]byte, size)), want) {
		return forged, ""
	}
	return verified, ""
}

// pkcs1Info is what stands before the digest (RFC 8017, section 9.2, note 1).
var pkcs1Info = map[crypto.Hash][]byte{
	crypto.MD5:        {0x30, 0x20, 0x30, 0x0c, 0x06, 0x08, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x05, 0x05, 0x00, 0x04, 0x10},
	crypto.SHA1:       {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14},
	crypto.SHA224:     pkcs1SHA2(4, 28),
	crypto.SHA256:     pkcs1SHA2(1, 32),
	crypto.SHA384:     pkcs1SHA2(2, 48),
	crypto.SHA512:     pkcs1SHA2(3, 64),
	crypto.SHA512_224: pkcs1SHA2(5, 28),
	crypto.SHA512_256: pkcs1SHA2(6, 32),
}

func pkcs1SHA2(arc, size byte) []byte {
	return []byte{0x30, size + 17, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc, 0x05, 0x00, 0x04, size}
}

// publicKey returns the key in a certificate. crypto/x509 gives none that is stated
// to be for one scheme of RSA, which is an RSA key all the same.
func publicKey(c *x509.Certificate) crypto.PublicKey {
	switch c.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, *device.LargeRSA, *device.OtherKey:
		return c.PublicKey
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil {
		return nil
	}
	switch oid := info.Algorithm.Algorithm.String(); oid {
	case pkcs1 + "1", pkcs1 + "7", pkcs1 + "10", "2.5.8.1.1":
		var k device.LargeRSA
		if _, err := asn1.Unmarshal(info.Key.Bytes, &k); err != nil || k.N.Sign() <= 0 {
			return nil
		}
		if k.E.IsInt64() && k.E.Int64() > 0 && k.E.Int64() <= math.MaxInt32 {
			return &rsa.PublicKey{N: k.N, E: int(k.E.Int64())}
		}
		return &k
	}
	if known := c.PublicKeyAlgorithm; known != x509.UnknownPublicKeyAlgorithm {
		return &device.OtherKey{Algorithm: known.String()}
	}
	return &device.OtherKey{Algorithm: schemeOf(info.Algorithm).name} // an algorithm of its own has the OID of its signatures
}
