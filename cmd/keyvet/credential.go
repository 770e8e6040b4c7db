package main

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/keyvet/keyvet/tpm"
)

// loadCredential loads certificate and key of the device. A key in the TPM is
// not asked for anything yet: the TPM may be busy, and answer later.
func (d *deviceRun) loadCredential() {
	d.credential, d.credentialErr = readKeyPair(d.cfg)
}

func readKeyPair(c *config) (tls.Certificate, error) {
	certificatePath, keyPath := c.identity()
	certificate, err := readBounded(certificatePath, maxConfigBytes)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("no device certificate: %w", err)
	}
	pair, err := tls.Certificate{}, error(nil)
	if handle, inTPM, handleErr := persistentHandle(keyPath); handleErr != nil {
		err = handleErr
	} else if inTPM {
		pair, err = keyPairInTPM(certificate, func(public crypto.PublicKey, _ []byte) (*tpm.Signer, error) {
			return tpm.NewPersistentSigner(c.TPM.Address, c.tpmOptions(), handle, public)
		})
	} else {
		key, readErr := readBounded(keyPath, maxConfigBytes)
		if readErr != nil {
			return tls.Certificate{}, fmt.Errorf("no device key: %w", readErr)
		}
		pair, err = keyPairOfFile(c, certificate, key)
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s and %s: %w", certificatePath, keyPath, err)
	}
	return pair, nil
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

// testedCredential is the credential, once its key has shown that it signs.
func (d *deviceRun) testedCredential() (tls.Certificate, error) {
	pair := d.credential
	if d.credentialErr != nil {
		return pair, d.credentialErr
	}
	if s, inTPM := pair.PrivateKey.(*tpm.Signer); inTPM {
		schemes, err := s.SelfTest()
		if err != nil {
			return pair, fmt.Errorf("the device's key in the TPM cannot be used: %w", err)
		}
		pair.SupportedSignatureAlgorithms = schemes
	}
	return pair, nil
}

func (d *deviceRun) signer() crypto.Signer {
	signer, _ := d.credential.PrivateKey.(crypto.Signer)
	return signer
}

func (d *deviceRun) spki() []byte {
	if d.credential.Leaf == nil {
		return nil
	}
	return d.credential.Leaf.RawSubjectPublicKeyInfo
}
