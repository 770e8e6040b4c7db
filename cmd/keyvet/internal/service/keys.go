package service

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/advisory"
)

// keys makes keys in the TPM or, on a device that has none, in software.
type keys struct {
	config config.Config
	log    *slog.Logger
}

// Make implements [rotate.Keys].
func (k keys) Make(ctx context.Context, algorithm string) ([]byte, error) {
	if k.config.TPM.Address == "" {
		return makeKeyFile(algorithm)
	}
	t, err := tpm.Open(k.config.TPM.Address, k.config.TPMOptions())
	if err != nil {
		return nil, err
	}
	defer t.Close()
	if strings.HasPrefix(algorithm, "rsa") {
		if err := makesGoodRSA(t); err != nil {
			return nil, fmt.Errorf("%w: %w", rotate.ErrAlgorithm, err)
		}
	}
	blob, err := t.CreateKey(algorithm)
	switch {
	case errors.Is(err, tpm.ErrFull):
		return nil, fmt.Errorf("%w: %w", rotate.ErrTPMFull, err)
	case errors.Is(err, tpm.ErrAlgorithm):
		return nil, fmt.Errorf("%w: %w", rotate.ErrAlgorithm, err)
	case err != nil:
		return nil, err
	}
	if why := blob.Beside(); why != nil {
		k.log.Warn("the new key is under the primary key of the owner hierarchy", "error", why)
	}
	if blob.NeedsOwner() && k.config.TPM.OwnerAuthFile == "" {
		k.log.Warn("the new key is under the owner hierarchy of the TPM: once that hierarchy has a password, " +
			"the key cannot be used without tpm.owner_auth_file; a storage key at 0x81000001 avoids that")
	}
	return blob.PEM(), nil
}

// makesGoodRSA returns why no RSA key of this TPM's firmware can be trusted, or nil.
func makesGoodRSA(t *tpm.TPM) error {
	info, err := t.Info()
	if err != nil {
		return err
	}
	for _, a := range advisory.Match(info) {
		if a.Affected && a.CVE == "CVE-2017-15361" {
			return fmt.Errorf("firmware %s makes RSA keys that can be factored (%s): take an ECDSA key", info.FirmwareVersion, a.CVE)
		}
	}
	return nil
}

func makeKeyFile(algorithm string) ([]byte, error) {
	var key crypto.Signer
	var err error
	switch algorithm {
	case device.ECDSAP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case device.ECDSAP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case device.RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case device.RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		err = fmt.Errorf("unknown algorithm %q: %w", algorithm, rotate.ErrAlgorithm)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Open implements [rotate.Keys].
func (k keys) Open(_ context.Context, file []byte) (crypto.Signer, error) {
	blob, err := tpm.ParseKeyBlob(file)
	if err == nil {
		s, err := tpm.NewSigner(k.config.TPM.Address, k.config.TPMOptions(), blob)
		if err == nil {
			_, err = s.SelfTest()
		}
		return s, credential.Gone(err)
	}
	if !errors.Is(err, tpm.ErrNoKeyBlob) {
		return nil, err
	}
	block, _ := pem.Decode(file)
	if block == nil {
		return nil, errors.New("no key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T does not sign", key)
	}
	return signer, nil
}

// Destroy has nothing to do: the blob is all there is of a key.
func (k keys) Destroy(context.Context, []byte) error { return nil }
