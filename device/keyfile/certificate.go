package keyfile

import (
	"crypto"
	"crypto/x509"

	"github.com/keyvet/keyvet/device"
)

// ParseCertificate returns the certificate in der, which crypto/x509 may refuse:
// the fields that verdicts need are then filled in here. PublicKey is never nil
// but one of the types of [device.Key.Public], or of crypto/x509 for an
// algorithm that keyvet has no tests for. odd says what of its encoding breaks
// DER or RFC 5280, as far as that hinders nobody from reading it; "" if nothing
// does.
func ParseCertificate(der []byte) (cert *x509.Certificate, odd string, err error) {
	cert, err = x509.ParseCertificate(der)
	if err != nil {
		return nil, "", err
	}
	if cert.PublicKey == nil {
		o, err := parseSPKI(cert.RawSubjectPublicKeyInfo)
		if err != nil {
			return nil, "", err
		}
		cert.PublicKey, cert.PublicKeyAlgorithm = o.public, keyAlgorithm(o.public)
	}
	return cert, "", nil
}

// keyAlgorithm is how crypto/x509 names the algorithm of a key.
func keyAlgorithm(key crypto.PublicKey) x509.PublicKeyAlgorithm {
	if _, _, ok := (device.Key{Public: key}).RSA(); ok {
		return x509.RSA
	}
	return x509.UnknownPublicKeyAlgorithm
}
