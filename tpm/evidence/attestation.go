package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// attestationKey is the key in a TPMT_PUBLIC, an *ecdsa.PublicKey of P-256 or an
// *rsa.PublicKey of 2,048 bits or more, if it says of itself that it was made in
// a TPM, stays there, and signs nothing but what the TPM made (Part 2, section
// 8.3), by SHA-256.
func attestationKey(public []byte) (crypto.PublicKey, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	a := area.ObjectAttributes
	switch {
	case !a.Restricted || !a.SignEncrypt || a.Decrypt:
		return nil, errors.New("not a restricted signing key: it would sign what no TPM made")
	case !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin:
		return nil, errors.New("not a key that was made in its TPM and stays there")
	case area.NameAlg != tpm2.TPMAlgSHA256:
		return nil, errors.New("not a key named by SHA-256")
	case area.Type == tpm2.TPMAlgRSA:
		return rsaAttestationKey(area)
	}
	return eccAttestationKey(area)
}

func eccAttestationKey(area *tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	params, noECC := area.Parameters.ECCDetail()
	point, noPoint := area.Unique.ECC()
	if noECC != nil || noPoint != nil {
		return nil, errors.New("neither an ECC nor an RSA key")
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

// rsaAttestationKey is the key of a TPM without P-256.
func rsaAttestationKey(area *tpm2.TPMTPublic) (*rsa.PublicKey, error) {
	params, _ := area.Parameters.RSADetail() // no error: that is its type
	modulus, _ := area.Unique.RSA()
	n := new(big.Int).SetBytes(modulus.Buffer)
	switch bits := n.BitLen(); {
	case params.Scheme.Scheme != tpm2.TPMAlgRSASSA:
		return nil, errors.New("not an RSASSA key")
	case bits < 2048 || bits > 4096 || bits != int(params.KeyBits):
		return nil, fmt.Errorf("an RSA key of %d bits, not of 2048 to 4096", bits)
	case params.Exponent != 0 && params.Exponent != 65537: // 0 is the default (Part 2, section 12.2.3.5)
		return nil, fmt.Errorf("an RSA key of exponent %d", params.Exponent)
	}
	return &rsa.PublicKey{N: n, E: 65537}, nil
}

// readAttest is the TPMS_ATTEST that ak signed. The caller looks at its kind.
func readAttest(ak crypto.PublicKey, signed, signature []byte) (*tpm2.TPMSAttest, error) {
	if err := verifySignature(ak, signed, signature); err != nil {
		return nil, err
	}
	return parseAttest(signed)
}

func verifySignature(ak crypto.PublicKey, signed, signature []byte) error {
	sig, err := tpm2.Unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return fmt.Errorf("the signature cannot be read: %w", err)
	}
	sum := sha256.Sum256(signed)
	holds := false
	switch k := ak.(type) {
	case *ecdsa.PublicKey:
		s, err := sig.Signature.ECDSA()
		if err != nil || sig.SigAlg != tpm2.TPMAlgECDSA || s.Hash != tpm2.TPMAlgSHA256 {
			return errors.New("the signature is not ECDSA with SHA-256")
		}
		holds = ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer))
	case *rsa.PublicKey:
		s, err := sig.Signature.RSASSA()
		if err != nil || sig.SigAlg != tpm2.TPMAlgRSASSA || s.Hash != tpm2.TPMAlgSHA256 {
			return errors.New("the signature is not RSASSA with SHA-256")
		}
		holds = rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], s.Sig.Buffer) == nil
	}
	if !bytes.Equal(tpm2.Marshal(*sig), signature) {
		return errors.New("something follows the signature")
	}
	if !holds {
		return errors.New("the signature does not verify by the attestation key")
	}
	return nil
}

func parseAttest(signed []byte) (*tpm2.TPMSAttest, error) {
	const generated = 0xff544347 // TPM_GENERATED_VALUE: no other restricted signature starts with it
	if len(signed) < 4 || binary.BigEndian.Uint32(signed) != generated {
		return nil, errors.New("what was signed was not made by a TPM")
	}
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](signed)
	if err != nil {
		return nil, fmt.Errorf("what was signed cannot be read: %w", err)
	}
	return attest, nil
}

// nameOf is the name of an object whose name algorithm is SHA-256 (Part 1, section 16).
func nameOf(public []byte) []byte {
	sum := sha256.Sum256(public)
	return append([]byte{0x00, 0x0b}, sum[:]...)
}

// qualifiedName is that of the last of these keys, each the parent of the next
// and the first a primary key in the endorsement hierarchy, whose own name is
// its handle (Part 1, on qualified names); nil if one is not the name of a key.
func qualifiedName(names ...[]byte) []byte {
	qualified := []byte{0x40, 0x00, 0x00, 0x0b}
	for _, name := range names {
		if len(name) < 2 {
			return nil
		}
		hash, err := tpm2.TPMAlgID(binary.BigEndian.Uint16(name)).Hash()
		if err != nil || len(name) != 2+hash.Size() {
			return nil
		}
		h := hash.New()
		h.Write(qualified)
		h.Write(name)
		qualified = h.Sum(bytes.Clone(name[:2]))
	}
	return qualified
}

// certifiedKey is the key in a TPMT_PUBLIC, its attributes and the algorithm
// of its name, if a certification names it.
func certifiedKey(attest *tpm2.TPMSAttest, public []byte) (crypto.PublicKey, tpm2.TPMAObject, tpm2.TPMAlgID, error) {
	var none tpm2.TPMAObject
	info, err := attest.Attested.Certify()
	if err != nil {
		return nil, none, 0, fmt.Errorf("what was signed is an attestation of another kind: %w", err)
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, none, 0, err
	}
	hash, err := area.NameAlg.Hash()
	if err != nil {
		return nil, none, 0, err
	}
	h := hash.New()
	h.Write(public)
	if name := h.Sum(binary.BigEndian.AppendUint16(nil, uint16(area.NameAlg))); !bytes.Equal(name, info.Name.Buffer) {
		return nil, none, 0, errors.New("the TPM certified another key")
	}
	key, err := tpm2.Pub(*area)
	return key, area.ObjectAttributes, area.NameAlg, err
}
