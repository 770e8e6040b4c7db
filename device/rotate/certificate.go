package rotate

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/keyvet/keyvet/device/keyfile"
)

const (
	maxChainBytes   = 64 << 10
	maxCertificates = 10
)

// certificateRequest is a PKCS#10 request in PEM (RFC 2986).
func certificateRequest(commonName string, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// parseChain reads certificates in PEM, leaf first, and nothing else: also such as
// crypto/x509 refuses for how they are encoded. odd says what is so in the leaf.
func parseChain(chain []byte) (all []*x509.Certificate, odd string, err error) {
	if len(chain) > maxChainBytes {
		return nil, "", fmt.Errorf("%d bytes of certificates", len(chain))
	}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, "", fmt.Errorf("a %q is among the certificates", block.Type)
		}
		c, how, err := keyfile.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, "", err
		}
		if all == nil {
			odd = how
		}
		if all = append(all, c); len(all) > maxCertificates {
			return nil, "", fmt.Errorf("more than %d certificates", maxCertificates)
		}
	}
	if all == nil {
		return nil, "", errors.New("no certificate in PEM")
	}
	return all, odd, nil
}
