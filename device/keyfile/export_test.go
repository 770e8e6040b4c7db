package keyfile

import "crypto/x509"

// ReadCertificate reads a certificate without crypto/x509, whatever that says of it.
func ReadCertificate(der []byte) (*x509.Certificate, error) {
	return (&reader{raw: der}).certificate(der)
}
