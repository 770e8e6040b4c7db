package keyfile

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// maxRSABits bounds modulus and exponent: what crypto/rsa and OpenSSL take at most.
const maxRSABits = 16384

var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} // RFC 8017
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}     // RFC 5480
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}             // RFC 8410, as those below
	oidEd448   = asn1.ObjectIdentifier{1, 3, 101, 113}
	oidX25519  = asn1.ObjectIdentifier{1, 3, 101, 110}
	oidX448    = asn1.ObjectIdentifier{1, 3, 101, 111}
	oidDSA     = asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1} // RFC 3279
)

// algorithms names key algorithms by OID.
var algorithms = map[string]string{
	"1.2.840.113549.1.1.1":    "RSA",
	"1.2.840.113549.1.1.7":    "RSA", // for OAEP alone, RFC 4055
	"1.2.840.113549.1.1.10":   "RSA", // for PSS alone, RFC 4055
	"2.5.8.1.1":               "RSA", // X.509 of 1988
	"1.2.840.10045.2.1":       "EC",
	"1.3.132.1.12":            "EC", // for ECDH alone, RFC 5480
	"1.3.101.112":             "Ed25519",
	"1.3.101.110":             "X25519",
	"1.3.101.111":             "X448",
	"1.3.101.113":             "Ed448",
	"1.2.840.10040.4.1":       "DSA",
	"1.2.840.10046.2.1":       "DH",
	"1.2.840.113549.1.3.1":    "DH",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
	"2.16.840.1.101.3.4.3.20": "SLH-DSA-SHA2-128s",
	"2.16.840.1.101.3.4.3.21": "SLH-DSA-SHA2-128f",
	"2.16.840.1.101.3.4.3.22": "SLH-DSA-SHA2-192s",
	"2.16.840.1.101.3.4.3.23": "SLH-DSA-SHA2-192f",
	"2.16.840.1.101.3.4.3.24": "SLH-DSA-SHA2-256s",
	"2.16.840.1.101.3.4.3.25": "SLH-DSA-SHA2-256f",
	"2.16.840.1.101.3.4.3.26": "SLH-DSA-SHAKE-128s",
	"2.16.840.1.101.3.4.3.27": "SLH-DSA-SHAKE-128f",
	"2.16.840.1.101.3.4.3.28": "SLH-DSA-SHAKE-192s",
	"2.16.840.1.101.3.4.3.29": "SLH-DSA-SHAKE-192f",
	"2.16.840.1.101.3.4.3.30": "SLH-DSA-SHAKE-256s",
	"2.16.840.1.101.3.4.3.31": "SLH-DSA-SHAKE-256f",
	"2.16.840.1.101.3.4.4.1":  "ML-KEM-512",
	"2.16.840.1.101.3.4.4.2":  "ML-KEM-768",
	"2.16.840.1.101.3.4.4.3":  "ML-KEM-1024",
	"1.2.643.2.2.19":          "GOST-2001",     // RFC 4491
	"1.2.643.7.1.1.1.1":       "GOST-2012-256", // RFC 9215, as the next
	"1.2.643.7.1.1.1.2":       "GOST-2012-512",
}

// algorithm is an AlgorithmIdentifier (RFC 5280, section 4.1.1.2).
type algorithm struct {
	der    []byte // the whole of it, to be put into an SPKI
	oid    asn1.ObjectIdentifier
	name   string // of algorithms, else the OID
	params cryptobyte.String
}

func readAlgorithm(s *cryptobyte.String) (algorithm, error) {
	var a algorithm
	var element cryptobyte.String
	if !s.ReadASN1Element(&element, tag.SEQUENCE) {
		return a, errors.New("malformed algorithm identifier")
	}
	a.der = element
	var body cryptobyte.String
	if !element.ReadASN1(&body, tag.SEQUENCE) || !readOID(&body, &a.oid) {
		return a, errors.New("malformed algorithm identifier")
	}
	a.params = body
	a.name = algorithms[a.oid.String()]
	if a.name == "" {
		a.name = a.oid.String()
	}
	return a, nil
}

// readOID reads an OID of at most 64 bytes, so that its text is bounded.
func readOID(s *cryptobyte.String, oid *asn1.ObjectIdentifier) bool {
	var element cryptobyte.String
	return s.ReadASN1Element(&element, tag.OBJECT_IDENTIFIER) && len(element) <= 64 && element.ReadASN1ObjectIdentifier(oid)
}

// ecAlgorithm is the algorithm of a key on a named curve.
func ecAlgorithm(oid asn1.ObjectIdentifier) (algorithm, error) {
	name, err := asn1.Marshal(oid)
	if err != nil {
		return algorithm{}, err
	}
	return builtAlgorithm(oidEC, name)
}

func rsaAlgorithm() (algorithm, error) { return builtAlgorithm(oidRSA, asn1.NullBytes) }

// bareAlgorithm is an algorithm without parameters.
func bareAlgorithm(oid asn1.ObjectIdentifier) (algorithm, error) { return builtAlgorithm(oid, nil) }

func builtAlgorithm(oid asn1.ObjectIdentifier, params []byte) (algorithm, error) {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddBytes(params)
	})
	der, err := b.Bytes()
	if err != nil {
		return algorithm{}, err
	}
	s := cryptobyte.String(der)
	return readAlgorithm(&s)
}

// parseSPKI parses a SubjectPublicKeyInfo (RFC 5280, section 4.1); spki is kept as it is.
func parseSPKI(spki []byte) (object, error) {
	s := cryptobyte.String(spki)
	var body cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) || !s.Empty() {
		return object{}, errors.New("malformed public key")
	}
	a, err := readAlgorithm(&body)
	if err != nil {
		return object{}, err
	}
	var key []byte
	if !body.ReadASN1BitStringAsBytes(&key) || !body.Empty() {
		return object{}, errors.New("malformed public key")
	}
	public, odd, err := publicKey(a, key)
	if odd == "" && a.oid.Equal(oidRSA) && !bytes.Equal(a.params, asn1.NullBytes) {
		odd = "RSA key without the NULL of its algorithm (RFC 3279)"
	}
	if odd == "" && len(a.params) > 0 && strings.HasPrefix(a.oid.String(), "1.3.101.") {
		odd = a.name + " key with parameters (RFC 8410 has none)"
	}
	return object{public: public, spki: spki, odd: odd}, err
}

// buildSPKI is the object of a public key that came in another form.
func buildSPKI(a algorithm, key []byte) (object, error) {
	public, odd, err := publicKey(a, key)
	if err != nil {
		return object{}, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(a.der)
		b.AddASN1BitString(key)
	})
	spki, err := b.Bytes()
	return object{public: public, spki: spki, odd: odd}, err
}

// publicKey reads the content of the BIT STRING of an SPKI; odd says what of its
// encoding breaks the standards.
func publicKey(a algorithm, key []byte) (public crypto.PublicKey, odd string, err error) {
	switch a.name {
	case "RSA":
		return rsaPublic(key)
	case "EC":
		if len(key) > 0 && (key[0] == 6 || key[0] == 7) {
			odd = "EC point in the hybrid form (RFC 5480 has two others)"
		}
		public, err = ecPublic(a.params, key)
		return public, odd, err
	case "Ed25519":
		if len(key) != ed25519.PublicKeySize {
			return nil, "", fmt.Errorf("Ed25519 key of %d bytes, not %d", len(key), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(key), "", nil
	}
	return otherPublic(a), "", nil
}

// otherPublic names a key that is not understood, with the size of DSA's and
// DH's modulus, the first of their parameters (RFC 3279, section 2.3).
func otherPublic(a algorithm) *device.OtherKey {
	name := a.name
	if name == "DSA" || name == "DH" {
		params := a.params
		var body cryptobyte.String
		if params.ReadASN1(&body, tag.SEQUENCE) {
			if p, err := readInteger(&body); err == nil {
				name = fmt.Sprintf("%s-%d", name, p.BitLen())
			}
		}
	}
	return &device.OtherKey{Algorithm: name}
}

// rsaPublic reads an RSAPublicKey (RFC 8017, appendix A.1.1). A number without
// the zero byte of its sign is negative in DER, but meant, and read by OpenSSL,
// GnuTLS and Mbed TLS, as positive.
func rsaPublic(der []byte) (public crypto.PublicKey, odd string, err error) {
	malformed := errors.New("malformed RSA key")
	s := cryptobyte.String(der)
	var body, modulus, exponent cryptobyte.String
	if !s.ReadASN1(&body, tag.SEQUENCE) || !s.Empty() ||
		!body.ReadASN1(&modulus, tag.INTEGER) || !body.ReadASN1(&exponent, tag.INTEGER) || !body.Empty() {
		return nil, "", malformed
	}
	if len(modulus) == 0 || len(exponent) == 0 {
		return nil, "", malformed
	}
	switch {
	case modulus[0] >= 0x80:
		odd = "RSA modulus without its sign byte: a negative number in DER, read as a positive one"
	case exponent[0] >= 0x80:
		odd = "RSA exponent without its sign byte: a negative number in DER, read as a positive one"
	}
	n, okN := unsigned(modulus)
	e, okE := unsigned(exponent)
	if !okN || !okE {
		return nil, "", fmt.Errorf("a number of more than %d bits in the key", maxRSABits)
	}
	public, err = newRSA(n, e)
	return public, odd, err
}

// newRSA takes any positive modulus and any exponent.
func newRSA(n, e *big.Int) (crypto.PublicKey, error) {
	if n.Sign() <= 0 {
		return nil, errors.New("RSA modulus is zero or negative")
	}
	if !e.IsInt64() || e.Int64() > math.MaxInt32 || e.Int64() < math.MinInt32 {
		return &device.LargeRSA{N: n, E: e}, nil
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// readInteger reads an INTEGER of bounded size, also one that is padded with
// needless bytes as DER forbids.
func readInteger(s *cryptobyte.String) (*big.Int, error) {
	var b cryptobyte.String
	if !s.ReadASN1(&b, tag.INTEGER) || len(b) == 0 {
		return nil, errors.New("malformed integer in the key")
	}
	return signedInteger(b)
}

// signedInteger reads a big-endian two's complement number, as of DER and of
// SSH's mpint (RFC 4251, section 5).
func signedInteger(b []byte) (*big.Int, error) {
	for len(b) > 1 && b[0] == 0 && b[1] < 0x80 {
		b = b[1:]
	}
	if len(b) > maxRSABits/8+1 {
		return nil, fmt.Errorf("number of %d bits in the key, more than %d", 8*len(b), maxRSABits)
	}
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0] >= 0x80 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	if n.BitLen() > maxRSABits {
		return nil, fmt.Errorf("number of %d bits in the key, more than %d", n.BitLen(), maxRSABits)
	}
	return n, nil
}

// ecPublic reads a point (SEC 1, section 2.3.4) on the curve of params
// (RFC 5480, section 2.1.1). The coordinates are kept as they stand, also if
// they make no point of the curve; infinity is (0, 0).
func ecPublic(params cryptobyte.String, point []byte) (crypto.PublicKey, error) {
	var oid asn1.ObjectIdentifier
	switch {
	case params.Empty() || params.PeekASN1Tag(tag.NULL):
		return nil, errors.New("EC key whose curve is missing: its algorithm has no parameters")
	case params.PeekASN1Tag(tag.SEQUENCE):
		return &device.OtherKey{Algorithm: "ECDSA-explicit-parameters"}, nil
	case !readOID(&params, &oid):
		return nil, errors.New("EC key whose curve is malformed")
	}
	c := curve.Of(oid)
	if c.Std == nil {
		return &device.OtherKey{Algorithm: "ECDSA-" + c.Name}, nil
	}
	size := (c.Std.Params().BitSize + 7) / 8
	if len(point) == 0 {
		return nil, errors.New("EC key without a point")
	}
	xy := point[1:]
	switch form := point[0]; {
	case form == 0 && len(xy) == 0:
		return newEC(c.Std, new(big.Int), new(big.Int)), nil
	case (form == 4 || form == 6 || form == 7) && len(xy) == 2*size:
		return newEC(c.Std, new(big.Int).SetBytes(xy[:size]), new(big.Int).SetBytes(xy[size:])), nil
	case (form == 2 || form == 3) && len(xy) == size:
		x, y := elliptic.UnmarshalCompressed(c.Std, point)
		if x == nil { // no point has this x; (x, 0) is none either
			x, y = new(big.Int).SetBytes(xy), new(big.Int)
		}
		return newEC(c.Std, x, y), nil
	}
	return nil, fmt.Errorf("malformed EC point: form %d of %d bytes on %s", point[0], len(point), c.Name)
}

func newEC(c elliptic.Curve, x, y *big.Int) *ecdsa.PublicKey {
	//lint:ignore SA1019 only the raw coordinates can hold a point that is not on its curve
	return &ecdsa.PublicKey{Curve: c, X: x, Y: y}
}
