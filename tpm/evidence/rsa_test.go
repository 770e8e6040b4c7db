package evidence

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

// An attestation key of RSA is taken with RSASSA and SHA-256, of a size and an
// exponent that TPMs make, and no other.
func TestRSAAttestationKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := func() (tpm2.TPMTPublic, *tpm2.TPMSRSAParms, *tpm2.TPM2BPublicKeyRSA) {
		return tpm2.TPMTPublic{
				Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, Restricted: true, SignEncrypt: true},
			}, &tpm2.TPMSRSAParms{
				Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
				KeyBits: 2048,
			}, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()}
	}
	for name, tt := range map[string]struct {
		change func(*tpm2.TPMTPublic, *tpm2.TPMSRSAParms, *tpm2.TPM2BPublicKeyRSA)
		good   bool
	}{
		"as TPMs make it":     {func(*tpm2.TPMTPublic, *tpm2.TPMSRSAParms, *tpm2.TPM2BPublicKeyRSA) {}, true},
		"its exponent stated": {func(_ *tpm2.TPMTPublic, p *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) { p.Exponent = 65537 }, true},
		"the exponent 3":      {func(_ *tpm2.TPMTPublic, p *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) { p.Exponent = 3 }, false},
		"without a scheme": {func(_ *tpm2.TPMTPublic, p *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) {
			p.Scheme = tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull}
		}, false},
		"PSS": {func(_ *tpm2.TPMTPublic, p *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) {
			p.Scheme = tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSAPSS, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: tpm2.TPMAlgSHA256})}
		}, false},
		"1,024 bits": {func(_ *tpm2.TPMTPublic, p *tpm2.TPMSRSAParms, n *tpm2.TPM2BPublicKeyRSA) {
			p.KeyBits, n.Buffer = 1024, n.Buffer[:128]
		}, false},
		"fewer bits than stated": {func(_ *tpm2.TPMTPublic, p *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) { p.KeyBits = 3072 }, false},
		"no modulus":             {func(_ *tpm2.TPMTPublic, _ *tpm2.TPMSRSAParms, n *tpm2.TPM2BPublicKeyRSA) { n.Buffer = nil }, false},
		"not restricted": {func(a *tpm2.TPMTPublic, _ *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) {
			a.ObjectAttributes.Restricted = false
		}, false},
		"that may leave its TPM": {func(a *tpm2.TPMTPublic, _ *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) {
			a.ObjectAttributes.FixedTPM = false
		}, false},
		"named by SHA-1": {func(a *tpm2.TPMTPublic, _ *tpm2.TPMSRSAParms, _ *tpm2.TPM2BPublicKeyRSA) { a.NameAlg = tpm2.TPMAlgSHA1 }, false},
	} {
		area, params, n := good()
		tt.change(&area, params, n)
		area.Parameters, area.Unique = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, params), tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, n)
		found, err := attestationKey(tpm2.Marshal(area))
		if (err == nil) != tt.good || tt.good && !key.PublicKey.Equal(found) {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}

	message := []byte("\xffTCG")
	sum256, sum := sha256.Sum256(message), sha256.Sum256([]byte("another"))
	sign := func(digest []byte, pss bool, hash tpm2.TPMAlgID) []byte {
		algorithm, b := tpm2.TPMAlgRSASSA, []byte(nil)
		if pss {
			algorithm = tpm2.TPMAlgRSAPSS
			b, err = rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest, nil)
		} else {
			b, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest)
		}
		if err != nil {
			t.Fatal(err)
		}
		return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: algorithm, Signature: tpm2.NewTPMUSignature(algorithm, &tpm2.TPMSSignatureRSA{
			Hash: hash, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: b},
		})})
	}
	for name, tt := range map[string]struct {
		signature []byte
		good      bool
	}{
		"good":                 {sign(sum256[:], false, tpm2.TPMAlgSHA256), true},
		"PSS":                  {sign(sum256[:], true, tpm2.TPMAlgSHA256), false},
		"by SHA-1, as it says": {sign(sum256[:], false, tpm2.TPMAlgSHA1), false},
		"of something else":    {sign(sum[:], false, tpm2.TPMAlgSHA256), false},
		"and more":             {append(sign(sum256[:], false, tpm2.TPMAlgSHA256), 0), false},
		"nothing":              {nil, false},
	} {
		if err := verifySignature(&key.PublicKey, message, tt.signature); (err == nil) != tt.good {
			t.Errorf("signature: %s: %v", name, err)
		}
	}
}
