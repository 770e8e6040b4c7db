package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/tpm"
)

// credential is a certificate with its key, which may be one that only the TPM
// can use.
type credential struct {
	tls.Certificate
	chain, key []byte // the files, PEM; a key at a handle of the TPM has none
}

// readCredential loads a certificate and its key. A key in the TPM is not asked
// for anything yet: the TPM may be busy, and answer later.
func readCredential(c *config, certificatePath, keyPath string) (credential, error) {
	chain, err := readBounded(certificatePath, maxConfigBytes)
	if err != nil {
		return credential{}, fmt.Errorf("no device certificate: %w", err)
	}
	loaded := credential{chain: chain}
	if handle, inTPM, handleErr := persistentHandle(keyPath); handleErr != nil {
		err = handleErr
	} else if inTPM {
		loaded.Certificate, err = keyPairInTPM(chain, func(public crypto.PublicKey, _ []byte) (*tpm.Signer, error) {
			return tpm.NewPersistentSigner(c.TPM.Address, c.tpmOptions(), handle, public)
		})
	} else {
		loaded.key, err = readBounded(keyPath, maxConfigBytes)
		if err != nil {
			return credential{}, fmt.Errorf("no device key: %w", err)
		}
		loaded.Certificate, err = keyPairOfFile(c, chain, loaded.key)
	}
	if err != nil {
		return credential{}, fmt.Errorf("%s and %s: %w", certificatePath, keyPath, err)
	}
	return loaded, nil
}

// keyPairOfFile is for a key in a file, which may be one that only the TPM can use.
func keyPairOfFile(c *config, certificate, key []byte) (tls.Certificate, error) {
	blob, err := tpm.ParseKeyBlob(key)
	switch {
	case errors.Is(err, tpm.ErrNoKeyBlob):
		return tls.X509KeyPair(certificate, key)
	case err != nil:
		return tls.Certificate{}, err
	}
	return keyPairInTPM(certificate, func(_ crypto.PublicKey, spki []byte) (*tpm.Signer, error) {
		if !bytes.Equal(spki, blob.SPKI()) {
			return nil, errors.New("the key does not belong to the certificate")
		}
		return tpm.NewSigner(c.TPM.Address, c.tpmOptions(), blob)
	})
}

// keyPairInTPM is a chain in PEM, leaf first, with the signer of its leaf's key.
func keyPairInTPM(chain []byte, signer func(crypto.PublicKey, []byte) (*tpm.Signer, error)) (pair tls.Certificate, err error) {
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			pair.Certificate = append(pair.Certificate, block.Bytes)
		}
	}
	if len(pair.Certificate) == 0 {
		return pair, errors.New("no certificate in PEM")
	}
	if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
		return pair, err
	}
	pair.PrivateKey, err = signer(pair.Leaf.PublicKey, pair.Leaf.RawSubjectPublicKeyInfo)
	return pair, err
}

// tested is what TLS takes of the credential, once its key has shown that it
// signs: with the CA certificates of the configuration that it leads to, which
// just-in-time registration wants to see (AWS IoT Developer Guide, "Just-in-time
// registration").
func (c credential) tested(cfg *config) (tls.Certificate, error) {
	pair := c.Certificate
	if s, inTPM := pair.PrivateKey.(*tpm.Signer); inTPM {
		schemes, err := s.SelfTest()
		if err != nil {
			return pair, fmt.Errorf("the device's key in the TPM cannot be used: %w", err)
		}
		pair.SupportedSignatureAlgorithms = schemes
	}
	pair.Certificate = append([][]byte(nil), pair.Certificate...)
	issuers := certificates(cfg.Identity.CA, func(string, error) {}) // the inventory tells
	for last := c.last(); last != nil && len(pair.Certificate) <= len(c.Certificate.Certificate)+len(issuers); {
		last = issuerOf(last, issuers)
		if last != nil {
			pair.Certificate = append(pair.Certificate, last.Raw)
		}
	}
	return pair, nil
}

// last is the certificate at the end of the chain; nil if it cannot be read.
func (c credential) last() *x509.Certificate {
	n := len(c.Certificate.Certificate)
	last, err := x509.ParseCertificate(c.Certificate.Certificate[n-1])
	if err != nil {
		return nil
	}
	return last
}

// issuerOf is the one of the certificates that signed c; nil if none did, or c itself.
func issuerOf(c *x509.Certificate, issuers []*x509.Certificate) *x509.Certificate {
	if c.CheckSignatureFrom(c) == nil {
		return nil
	}
	for _, issuer := range issuers {
		if c.CheckSignatureFrom(issuer) == nil {
			return issuer
		}
	}
	return nil
}

func (c credential) spki() []byte {
	if c.Leaf == nil {
		return nil
	}
	return c.Leaf.RawSubjectPublicKeyInfo
}

// guarded is the credential as the gate has it.
func (c credential) guarded() gate.Credential {
	signer, _ := c.PrivateKey.(crypto.Signer)
	return gate.Credential{Key: signer, SPKI: c.spki(), Certificate: c.chain, KeyFile: c.key}
}
