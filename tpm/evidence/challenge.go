package evidence

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

// Challenge can be answered only by the TPM that has both the endorsement key
// and the attestation key that it was made for (Part 1, on credential
// protection; TPM2_ActivateCredential, Part 3, section 12.5).
type Challenge struct {
	EKAlgorithm    string `json:"ekAlgorithm"`    // as in reports: "RSA-2048"
	EKSPKISHA256   string `json:"ekSpkiSha256"`   // lower-case hex, as in reports
	CredentialBlob []byte `json:"credentialBlob"` // TPMS_ID_OBJECT
	Secret         []byte `json:"secret"`         // TPMU_ENCRYPTED_SECRET
}

// NewChallenge makes a challenge to the endorsement key ek, which the verifier
// has from a certificate that it verified, and the attestation key of that name
// ([Statement.AKName]). The device has to send back the secret, of 32 bytes;
// compare it with crypto/subtle, and accept it once. The EK is RSA or on a NIST
// curve, made by the TCG's default template for its size.
func NewChallenge(ek crypto.PublicKey, akName []byte) (c *Challenge, secret []byte, err error) {
	area, err := ekArea(ek)
	if err != nil {
		return nil, nil, fmt.Errorf("evidence: challenge: %w", err)
	}
	if len(akName) != 2+sha256.Size {
		return nil, nil, errors.New("evidence: challenge: not the name of an attestation key")
	}
	key, err := tpm2.ImportEncapsulationKey(area)
	if err != nil {
		return nil, nil, fmt.Errorf("evidence: challenge: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(ek)
	if err != nil {
		return nil, nil, fmt.Errorf("evidence: challenge: %w", err)
	}
	secret = make([]byte, 32)
	rand.Read(secret) // never fails
	sum := sha256.Sum256(spki)
	c = &Challenge{EKAlgorithm: device.Key{Public: ek}.Algorithm(), EKSPKISHA256: hex.EncodeToString(sum[:])}
	if c.CredentialBlob, c.Secret, err = tpm2.CreateCredential(rand.Reader, key, akName, secret); err != nil {
		return nil, nil, fmt.Errorf("evidence: challenge: %w", err)
	}
	return c, secret, nil
}

// ekArea is as much of the public area of an EK as a challenge depends on. Name
// algorithm and symmetric cipher follow from the size (TCG EK Credential
// Profile for TPM Family 2.0, annex B: L-1, L-2, H-1 to H-7).
func ekArea(ek crypto.PublicKey) (*tpm2.TPMTPublic, error) {
	symmetric := func(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
		return tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits), Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		}
	}
	switch k := ek.(type) {
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		hash, cipher := tpm2.TPMAlgSHA256, tpm2.TPMKeyBits(128)
		if bits > 2048 {
			hash, cipher = tpm2.TPMAlgSHA384, 256
		}
		return &tpm2.TPMTPublic{
			Type: tpm2.TPMAlgRSA, NameAlg: hash,
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: symmetric(cipher), KeyBits: tpm2.TPMKeyBits(bits), Exponent: uint32(k.E)}),
			Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.N.Bytes()}),
		}, nil
	case *ecdsa.PublicKey:
		curve, hash, cipher := tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256, tpm2.TPMKeyBits(128)
		switch k.Curve {
		case elliptic.P256():
		case elliptic.P384():
			curve, hash, cipher = tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384, 256
		case elliptic.P521():
			curve, hash, cipher = tpm2.TPMECCNistP521, tpm2.TPMAlgSHA512, 256
		default:
			return nil, errors.New("an EK on an unknown curve")
		}
		point, err := k.Bytes()
		if err != nil {
			return nil, err
		}
		size := len(point) / 2
		return &tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: hash,
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: symmetric(cipher), CurveID: curve}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+size]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+size:]},
			}),
		}, nil
	}
	return nil, fmt.Errorf("an EK of type %T", ek)
}
