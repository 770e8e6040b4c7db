// Package evidence verifies, without a TPM, what a TPM signed over a report.
//
// It shows that the report was there when the holder of the attestation key
// signed, and what that TPM then said of itself. It does not show that the
// attestation key is in a TPM, let alone in the one of the EK certificate:
// that takes an exchange with the device (TPM2_ActivateCredential).
//
// "Part 1" and "Part 2" are those of the TCG's Trusted Platform Module Library
// Specification, Family "2.0", revision 1.59.
package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

// Statement is what a TPM said over a report.
type Statement struct {
	AK              *ecdsa.PublicKey
	AKName          []byte // of the attestation key: algorithm and digest of its public area (Part 1, section 16)
	FirmwareVersion uint64 // TPM_PT_FIRMWARE_VERSION_1 and _2
	Clock           uint64 // milliseconds that the TPM has run since it was last cleared
	ResetCount      uint32
	RestartCount    uint32
	PCRs            []PCRBank
	PCRDigest       []byte // SHA-256 over the selected PCRs, in ascending order
	EKCertificate   []byte // DER, unverified; nil if there is none
}

// PCRBank is the PCRs of one bank that the quote covers.
type PCRBank struct {
	Hash   uint16 // TPM_ALG_ID
	Select []byte // PCR n is bit n%8 of byte n/8
}

// maxField bounds each member of the evidence, in characters of base64.
const maxField = 16 << 10

// Verify verifies the evidence over report, which is the encoded report with
// the evidence or without it.
func Verify(e *device.Evidence, report []byte) (*Statement, error) {
	digest, err := device.Digest(report)
	if err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	return VerifyDigest(e, digest)
}

// VerifyDigest verifies the evidence over the report of that digest: the key
// is a restricted P-256 signing key of an endorsement hierarchy, and it signed
// a quote over digest.
func VerifyDigest(e *device.Evidence, digest [sha256.Size]byte) (*Statement, error) {
	akPublic, err := decode("akPublic", e.AKPublic)
	if err != nil {
		return nil, err
	}
	quote, err := decode("quote", e.Quote)
	if err != nil {
		return nil, err
	}
	signature, err := decode("signature", e.Signature)
	if err != nil {
		return nil, err
	}
	ak, err := attestationKey(akPublic)
	if err != nil {
		return nil, fmt.Errorf("evidence: attestation key: %w", err)
	}
	if err := verifySignature(ak, quote, signature); err != nil {
		return nil, fmt.Errorf("evidence: signature: %w", err)
	}
	name := nameOf(akPublic)
	s, err := readQuote(quote, digest, qualifiedName(name))
	if err != nil {
		return nil, fmt.Errorf("evidence: quote: %w", err)
	}
	s.AK, s.AKName = ak, name
	if e.EKCertificate != "" {
		if s.EKCertificate, err = decode("ekCertificate", e.EKCertificate); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func decode(what, text string) ([]byte, error) {
	if text == "" {
		return nil, fmt.Errorf("evidence: %s is missing", what)
	}
	if len(text) > maxField {
		return nil, fmt.Errorf("evidence: %s is too large", what)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("evidence: %s: %w", what, err)
	}
	return b, nil
}

// attestationKey is the key in a TPMT_PUBLIC, if it can sign nothing but what
// a TPM made (Part 2, section 8.3, restricted).
func attestationKey(public []byte) (*ecdsa.PublicKey, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	a := area.ObjectAttributes
	if !a.FixedTPM || !a.Restricted || !a.SignEncrypt || a.Decrypt {
		return nil, errors.New("not a restricted signing key that stays in its TPM")
	}
	if area.Type != tpm2.TPMAlgECC || area.NameAlg != tpm2.TPMAlgSHA256 {
		return nil, errors.New("not an ECC key named by SHA-256")
	}
	params, err := area.Parameters.ECCDetail()
	if err != nil {
		return nil, err
	}
	point, err := area.Unique.ECC()
	if err != nil {
		return nil, err
	}
	if params.CurveID != tpm2.TPMECCNistP256 || params.Scheme.Scheme != tpm2.TPMAlgECDSA {
		return nil, errors.New("not an ECDSA P-256 key")
	}
	if len(point.X.Buffer) > 32 || len(point.Y.Buffer) > 32 {
		return nil, errors.New("not a point of P-256")
	}
	uncompressed := make([]byte, 65) // SEC 1, section 2.3.3
	uncompressed[0] = 4
	copy(uncompressed[33-len(point.X.Buffer):], point.X.Buffer)
	copy(uncompressed[65-len(point.Y.Buffer):], point.Y.Buffer)
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
}

func verifySignature(ak *ecdsa.PublicKey, signed, signature []byte) error {
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return err
	}
	s, err := sig.Signature.ECDSA()
	if err != nil || sig.SigAlg != tpm2.TPMAlgECDSA || s.Hash != tpm2.TPMAlgSHA256 {
		return errors.New("not ECDSA with SHA-256")
	}
	if !bytes.Equal(tpm2.Marshal(*sig), signature) {
		return errors.New("something follows it")
	}
	sum := sha256.Sum256(signed)
	if !ecdsa.Verify(ak, sum[:], new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)) {
		return errors.New("it does not verify")
	}
	return nil
}

// readQuote reads a TPMS_ATTEST whose signature is good.
func readQuote(quote []byte, digest [sha256.Size]byte, signer []byte) (*Statement, error) {
	const generated = 0xff544347 // TPM_GENERATED_VALUE: no other restricted signature starts with it
	if len(quote) < 4 || binary.BigEndian.Uint32(quote) != generated {
		return nil, errors.New("not made by a TPM")
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](quote)
	if err != nil {
		return nil, err
	}
	info, err := attest.Attested.Quote()
	if err != nil || attest.Type != tpm2.TPMSTAttestQuote {
		return nil, errors.New("an attestation of another kind")
	}
	if !bytes.Equal(attest.ExtraData.Buffer, digest[:]) {
		return nil, errors.New("it is over another report")
	}
	if !bytes.Equal(attest.QualifiedSigner.Buffer, signer) {
		return nil, errors.New("its signer is not this key in the endorsement hierarchy")
	}
	s := &Statement{
		FirmwareVersion: attest.FirmwareVersion, Clock: attest.ClockInfo.Clock,
		ResetCount: attest.ClockInfo.ResetCount, RestartCount: attest.ClockInfo.RestartCount,
		PCRDigest: info.PCRDigest.Buffer,
	}
	for _, sel := range info.PCRSelect.PCRSelections {
		s.PCRs = append(s.PCRs, PCRBank{Hash: uint16(sel.Hash), Select: sel.PCRSelect})
	}
	return s, nil
}

// nameOf is the name of an object whose name algorithm is SHA-256 (Part 1, section 16).
func nameOf(public []byte) []byte {
	sum := sha256.Sum256(public)
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

// qualifiedName is that of a primary key in the endorsement hierarchy, whose
// own name is its handle (Part 1, on qualified names).
func qualifiedName(name []byte) []byte {
	sum := sha256.Sum256(append([]byte{0x40, 0x00, 0x00, 0x0b}, name...))
	return append([]byte{0x00, 0x0b}, sum[:]...)
}
