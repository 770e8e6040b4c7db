package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
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

// Activated is the pair of keys that a TPM showed to be both in it, by
// answering a challenge. The zero value shows nothing.
type Activated struct {
	AKName       Hex    `json:"akName"`       // of the attestation key ([Statement.AKName])
	EKSPKISHA256 string `json:"ekSpkiSha256"` // lower-case hex, of the endorsement key
}

// Expected is what a verifier keeps of a challenge until it is answered: the
// secret that has to come back, and what that then shows.
type Expected struct {
	Secret []byte `json:"secret"` // 32 bytes
	Activated
}

// ErrNotAnswered: what came back is not the secret, so the TPM that answered
// does not have both keys.
var ErrNotAnswered = errors.New("not the secret: the TPM that answered is not the one of the EK certificate and the attestation key")

// Answered returns the pair of keys that the secret shows to be in one TPM. The
// caller accepts an answer once.
func (e Expected) Answered(secret []byte) (Activated, error) {
	if len(e.Secret) == 0 || len(e.AKName) == 0 || e.EKSPKISHA256 == "" {
		return Activated{}, errors.New("not what was kept of a challenge")
	}
	if subtle.ConstantTimeCompare(secret, e.Secret) != 1 {
		return Activated{}, ErrNotAnswered
	}
	return e.Activated, nil
}

// NewChallenge makes a challenge to the endorsement key ek, which the verifier
// has from a certificate that it verified, and the attestation key of that name
// ([Statement.AKName]). The EK is RSA or on a NIST curve, made by the TCG's
// default template for its size.
//
// An EK whose private half can be computed (CVE-2017-15361) makes the challenge
// worthless: vet tests the key and returns why it must not be challenged.
// Without vet there is no challenge.
func NewChallenge(ek crypto.PublicKey, akName []byte, vet func(crypto.PublicKey) error) (*Challenge, Expected, error) {
	fail := func(err error) (*Challenge, Expected, error) {
		return nil, Expected{}, fmt.Errorf("challenge: %w", err)
	}
	if vet == nil {
		return fail(errors.New("no vet: an endorsement key that was not tested must not be challenged"))
	}
	sum, err := spkiSHA256(ek)
	if err != nil {
		return fail(err)
	}
	area, err := ekArea(ek)
	if err != nil {
		return fail(err)
	}
	if err := vet(ek); err != nil {
		return fail(fmt.Errorf("the endorsement key: %w", err))
	}
	if len(akName) != 2+sha256.Size {
		return fail(errors.New("not the name of an attestation key"))
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	c := &Challenge{EKAlgorithm: device.Key{Public: ek}.Algorithm(), EKSPKISHA256: sum}
	if c.CredentialBlob, c.Secret, err = makeCredential(area, akName, secret); err != nil {
		return fail(err)
	}
	return c, Expected{secret, Activated{bytes.Clone(akName), sum}}, nil
}

// makeCredential is TPM2_MakeCredential (Part 3, section 12.6) without a TPM.
func makeCredential(ek *tpm2.TPMTPublic, akName, secret []byte) (blob, encrypted []byte, err error) {
	key, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		return nil, nil, err
	}
	return tpm2.CreateCredential(rand.Reader, key, akName, secret)
}

func spkiSHA256(key crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:]), nil
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
