package signature

import (
	"crypto"
	_ "crypto/md5" // the hashes of the table
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha3"
	_ "crypto/sha512"
	"encoding/asn1"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Scheme is how a signature is made.
type Scheme struct {
	Name string // for people: "RSA with SHA-256"; the OID where no name is known
	OID  string // or the name of a format of SSH
	Weak string // the hash, if collisions of it can be made: "MD2", "MD5", "SHA1"

	family string      // of keys; "" cannot be checked here
	hash   crypto.Hash // 0: the scheme has its own
	pss    *pss        // not nil: RSASSA-PSS
}

// The families of keys.
const (
	isRSA     = "RSA"
	isEC      = "EC"
	isDSA     = "DSA"
	isEd25519 = "Ed25519"
)

// String names the scheme, with its OID.
func (s Scheme) String() string {
	if s.Name == "" || s.Name == s.OID {
		return s.OID
	}
	return s.Name + " (" + s.OID + ")"
}

// Prefixes of OIDs.
const (
	pkcs1   = "1.2.840.113549.1.1."
	nistSig = "2.16.840.1.101.3.4.3."
	ecdsa2  = "1.2.840.10045.4.3."
	oidPSS  = pkcs1 + "10"
)

// schemes are signature algorithms by OID (RFC 3279, 4055, 5754, 5758, 8017, 8410,
// 8702, 9802, 9814, 9881 and NIST's Computer Security Objects Register), and the
// formats of SSH by name (RFC 4253, section 6.6; RFC 5656; RFC 8332; RFC 8709;
// OpenSSH, PROTOCOL.u2f).
var schemes = map[string]Scheme{
	pkcs1 + "2":                  {Name: "RSA with MD2", Weak: "MD2"},
	pkcs1 + "3":                  {Name: "RSA with MD4"},
	pkcs1 + "4":                  {Name: "RSA with MD5", family: isRSA, hash: crypto.MD5, Weak: "MD5"},
	pkcs1 + "5":                  {Name: "RSA with SHA-1", family: isRSA, hash: crypto.SHA1, Weak: "SHA1"},
	"1.3.14.3.2.29":              {Name: "RSA with SHA-1", family: isRSA, hash: crypto.SHA1, Weak: "SHA1"},
	pkcs1 + "11":                 {Name: "RSA with SHA-256", family: isRSA, hash: crypto.SHA256},
	pkcs1 + "12":                 {Name: "RSA with SHA-384", family: isRSA, hash: crypto.SHA384},
	pkcs1 + "13":                 {Name: "RSA with SHA-512", family: isRSA, hash: crypto.SHA512},
	pkcs1 + "14":                 {Name: "RSA with SHA-224", family: isRSA, hash: crypto.SHA224},
	pkcs1 + "15":                 {Name: "RSA with SHA-512/224", family: isRSA, hash: crypto.SHA512_224},
	pkcs1 + "16":                 {Name: "RSA with SHA-512/256", family: isRSA, hash: crypto.SHA512_256},
	nistSig + "13":               {Name: "RSA with SHA3-224", family: isRSA, hash: crypto.SHA3_224},
	nistSig + "14":               {Name: "RSA with SHA3-256", family: isRSA, hash: crypto.SHA3_256},
	nistSig + "15":               {Name: "RSA with SHA3-384", family: isRSA, hash: crypto.SHA3_384},
	nistSig + "16":               {Name: "RSA with SHA3-512", family: isRSA, hash: crypto.SHA3_512},
	"1.2.840.10045.4.1":          {Name: "ECDSA with SHA-1", family: isEC, hash: crypto.SHA1, Weak: "SHA1"},
	ecdsa2 + "1":                 {Name: "ECDSA with SHA-224", family: isEC, hash: crypto.SHA224},
	ecdsa2 + "2":                 {Name: "ECDSA with SHA-256", family: isEC, hash: crypto.SHA256},
	ecdsa2 + "3":                 {Name: "ECDSA with SHA-384", family: isEC, hash: crypto.SHA384},
	ecdsa2 + "4":                 {Name: "ECDSA with SHA-512", family: isEC, hash: crypto.SHA512},
	nistSig + "9":                {Name: "ECDSA with SHA3-224", family: isEC, hash: crypto.SHA3_224},
	nistSig + "10":               {Name: "ECDSA with SHA3-256", family: isEC, hash: crypto.SHA3_256},
	nistSig + "11":               {Name: "ECDSA with SHA3-384", family: isEC, hash: crypto.SHA3_384},
	nistSig + "12":               {Name: "ECDSA with SHA3-512", family: isEC, hash: crypto.SHA3_512},
	"1.2.840.10040.4.3":          {Name: "DSA with SHA-1", family: isDSA, hash: crypto.SHA1, Weak: "SHA1"},
	nistSig + "1":                {Name: "DSA with SHA-224", family: isDSA, hash: crypto.SHA224},
	nistSig + "2":                {Name: "DSA with SHA-256", family: isDSA, hash: crypto.SHA256},
	nistSig + "3":                {Name: "DSA with SHA-384", family: isDSA, hash: crypto.SHA384},
	nistSig + "4":                {Name: "DSA with SHA-512", family: isDSA, hash: crypto.SHA512},
	nistSig + "5":                {Name: "DSA with SHA3-224", family: isDSA, hash: crypto.SHA3_224},
	nistSig + "6":                {Name: "DSA with SHA3-256", family: isDSA, hash: crypto.SHA3_256},
	nistSig + "7":                {Name: "DSA with SHA3-384", family: isDSA, hash: crypto.SHA3_384},
	nistSig + "8":                {Name: "DSA with SHA3-512", family: isDSA, hash: crypto.SHA3_512},
	"1.3.101.112":                {Name: "Ed25519", family: isEd25519},
	"1.3.101.113":                {Name: "Ed448"},
	"1.3.6.1.5.5.7.6.30":         {Name: "RSASSA-PSS with SHAKE128"},
	"1.3.6.1.5.5.7.6.31":         {Name: "RSASSA-PSS with SHAKE256"},
	"1.3.6.1.5.5.7.6.32":         {Name: "ECDSA with SHAKE128"},
	"1.3.6.1.5.5.7.6.33":         {Name: "ECDSA with SHAKE256"},
	"1.2.156.10197.1.501":        {Name: "SM2 with SM3"},
	"1.2.643.2.2.3":              {Name: "GOST R 34.10-2001"},
	"1.2.643.7.1.1.3.2":          {Name: "GOST R 34.10-2012, 256 bits"},
	"1.2.643.7.1.1.3.3":          {Name: "GOST R 34.10-2012, 512 bits"},
	"1.3.6.1.5.5.7.6.34":         {Name: "XMSS"},
	"1.3.6.1.5.5.7.6.35":         {Name: "XMSS^MT"},
	"1.2.840.113549.1.9.16.3.17": {Name: "HSS/LMS"},

	"ssh-rsa":                            {family: isRSA, hash: crypto.SHA1, Weak: "SHA1"},
	"rsa-sha2-256":                       {family: isRSA, hash: crypto.SHA256},
	"rsa-sha2-512":                       {family: isRSA, hash: crypto.SHA512},
	"ssh-dss":                            {family: isDSA, hash: crypto.SHA1, Weak: "SHA1"},
	"ecdsa-sha2-nistp256":                {family: isEC, hash: crypto.SHA256},
	"ecdsa-sha2-nistp384":                {family: isEC, hash: crypto.SHA384},
	"ecdsa-sha2-nistp521":                {family: isEC, hash: crypto.SHA512},
	"ssh-ed25519":                        {family: isEd25519},
	"sk-ecdsa-sha2-nistp256@openssh.com": {family: isEC, hash: crypto.SHA256},
	"sk-ssh-ed25519@openssh.com":         {family: isEd25519},
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

// Named returns the scheme of an OID that needs no parameters, or of a format of
// SSH. Of one that is not known there is no more than the name.
func Named(name string) Scheme {
	s := schemes[name]
	if last, ok := strings.CutPrefix(name, nistSig); ok && s.Name == "" {
		if n, err := strconv.Atoi(last); err == nil && n >= 17 && n < 17+len(postQuantum) {
			s.Name = postQuantum[n-17]
		}
	}
	if s.Name == "" {
		s.Name = name
	}
	s.OID = name
	return s
}

// Schemes that certificates cannot be signed by.
const (
	unreadable = "an unreadable algorithm"
	two        = "two different algorithms"
)

// maxOID bounds an OID in DER, in bytes, so that its text is bounded.
const maxOID = 64

// Of returns the scheme of an AlgorithmIdentifier in DER.
func Of(algorithm []byte) Scheme {
	s := cryptobyte.String(algorithm)
	var body, element cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&body, tag.SEQUENCE) || !body.ReadASN1Element(&element, tag.OBJECT_IDENTIFIER) || len(element) > maxOID || !element.ReadASN1ObjectIdentifier(&oid) {
		return Scheme{OID: unreadable}
	}
	name := oid.String()
	if name != oidPSS {
		return Named(name)
	}
	p, ok := readPSS(body)
	if !ok {
		return Scheme{Name: "RSASSA-PSS with parameters that are not known", OID: name}
	}
	scheme := Scheme{Name: "RSASSA-PSS with " + p.hash.String(), OID: name, family: isRSA, hash: p.hash, pss: p}
	switch p.hash {
	case crypto.SHA1:
		scheme.Weak = "SHA1"
	case crypto.MD5:
		scheme.Weak = "MD5"
	}
	return scheme
}

// OfSigned returns by what a certificate or revocation list is signed, of its
// whole DER. One that says two things of it is signed by no scheme.
func OfSigned(der []byte) Scheme {
	s := cryptobyte.String(der)
	var body, signed, algorithm, own cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) || !body.ReadASN1(&signed, tag.SEQUENCE) || !body.ReadASN1Element(&algorithm, tag.SEQUENCE) {
		return Scheme{OID: unreadable}
	}
	signed.SkipOptionalASN1(tag.Tag(0).Constructed().ContextSpecific()) // a certificate's version
	signed.SkipOptionalASN1(tag.INTEGER)                                // a certificate's serial number, or a list's version
	if !signed.ReadASN1Element(&own, tag.SEQUENCE) || string(own) != string(algorithm) {
		return Scheme{OID: two}
	}
	return Of(algorithm)
}

// Readable reports whether the scheme could be read at all.
func (s Scheme) Readable() bool { return s.OID != unreadable }
