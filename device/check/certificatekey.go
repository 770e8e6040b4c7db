package check

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/signature"
)

// schemesOfX509 are the OIDs of the signature algorithms that crypto/x509 names.
var schemesOfX509 = map[x509.SignatureAlgorithm]string{
	x509.MD5WithRSA: pkcs1 + "4", x509.SHA1WithRSA: pkcs1 + "5",
	x509.SHA256WithRSA: pkcs1 + "11", x509.SHA384WithRSA: pkcs1 + "12", x509.SHA512WithRSA: pkcs1 + "13",
	x509.ECDSAWithSHA1: "1.2.840.10045.4.1", x509.ECDSAWithSHA256: "1.2.840.10045.4.3.2", x509.ECDSAWithSHA384: "1.2.840.10045.4.3.3", x509.ECDSAWithSHA512: "1.2.840.10045.4.3.4",
	x509.PureEd25519: "1.3.101.112",
}

const pkcs1 = "1.2.840.113549.1.1."

// schemeOf returns by what a certificate is signed, by its DER or, if it is one in
// BER, by what was read of it.
func schemeOf(c *x509.Certificate) signature.Scheme {
	s := signature.OfSigned(c.Raw)
	if oid, known := schemesOfX509[c.SignatureAlgorithm]; known && !s.Readable() {
		s = signature.Named(oid)
	}
	return s
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
	return &device.OtherKey{Algorithm: signature.Named(info.Algorithm.Algorithm.String()).Name} // an algorithm of its own has the OID of its signatures
}
