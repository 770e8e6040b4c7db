package tpm

import (
	"encoding/hex"

	"github.com/google/go-tpm/tpm2"
)

// primary is a key that the TPM makes of a seed and a template: the same key
// each time (Part 1, on primary objects), so making it is reading it.
type primary struct {
	id        string // of device.Key
	algorithm string // as device.Key names it
	name      string // of the template, as sources tell it
	hierarchy tpm2.TPMHandle
	area      tpm2.TPMTPublic
}

// endorsementKey is an EK of the EK Profile, annex B.
type endorsementKey struct {
	primary
	index    uint32 // NV index of its certificate (EK Profile, sections 2.2.1.4 and 2.2.1.5)
	always   bool   // made even without a certificate or a persistent key
	optional bool   // a TPM need not be able to make it, whatever it lists
}

// endorsementKeys are those by the templates L-1, L-2 and, of the high range,
// H-1 to H-7 without H-5, which is of SM2. Making an RSA key takes a chip
// minutes, so only what is common is made where nothing tells of it. RSA-2048
// and P-256 are what the PC Client profile asks of every TPM.
var endorsementKeys = []endorsementKey{
	{primary{"tpm-ek-rsa2048", "RSA-2048", "L-1", tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate}, 0x01c00002, true, false},
	{primary{"tpm-ek-p256", "ECDSA-P256", "L-2", tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate}, 0x01c0000a, true, false},
	{primary{"tpm-ek-p384", "ECDSA-P384", "H-3", tpm2.TPMRHEndorsement, highECC(tpm2.TPMAlgSHA384, 256, tpm2.TPMECCNistP384)}, 0x01c00016, true, true},
	{primary{"tpm-ek-rsa2048-high", "RSA-2048", "H-1", tpm2.TPMRHEndorsement, highRSA(tpm2.TPMAlgSHA256, 128, 2048)}, 0x01c00012, false, true},
	{primary{"tpm-ek-p256-high", "ECDSA-P256", "H-2", tpm2.TPMRHEndorsement, highECC(tpm2.TPMAlgSHA256, 128, tpm2.TPMECCNistP256)}, 0x01c00014, false, true},
	{primary{"tpm-ek-p521", "ECDSA-P521", "H-4", tpm2.TPMRHEndorsement, highECC(tpm2.TPMAlgSHA512, 256, tpm2.TPMECCNistP521)}, 0x01c00018, false, true},
	{primary{"tpm-ek-rsa3072", "RSA-3072", "H-6", tpm2.TPMRHEndorsement, highRSA(tpm2.TPMAlgSHA384, 256, 3072)}, 0x01c0001c, false, true},
	{primary{"tpm-ek-rsa4096", "RSA-4096", "H-7", tpm2.TPMRHEndorsement, highRSA(tpm2.TPMAlgSHA384, 256, 4096)}, 0x01c0001e, false, true},
}

// ekOf is the id of the endorsement key whose certificate is at that NV index, or "".
func ekOf(index uint32) string {
	for _, ek := range endorsementKeys {
		if ek.index == index {
			return ek.id
		}
	}
	return ""
}

// isEKIndex reports whether the certificate of one of endorsementKeys is at that NV index.
func isEKIndex(index uint32) bool {
	return ekOf(index) != ""
}

// policyB is the policy of the templates of the high range, by hash (EK
// Profile, annex B): PolicySecret of the endorsement hierarchy, or a policy in NV.
var policyB = map[tpm2.TPMAlgID]string{
	tpm2.TPMAlgSHA256: "ca3d0a99a2b93906f7a3342414efcfb3a385d44cd1fd459089d19b5071c0b7a0",
	tpm2.TPMAlgSHA384: "b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12",
	tpm2.TPMAlgSHA512: "b8221ca69e8550a4914de3faa6a18c072cc01208073a928d5d66d59ef79e49a4" +
		"29c41a6b269571d57edb25fbdb1838425608b413cd616a5f6db5b6071af99bea",
}

// high is what the templates of the high range have in common.
func high(kind, hash tpm2.TPMAlgID) tpm2.TPMTPublic {
	policy, err := hex.DecodeString(policyB[hash])
	if err != nil {
		panic(err) // a constant, above
	}
	return tpm2.TPMTPublic{
		Type: kind, NameAlg: hash,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
		},
		AuthPolicy: tpm2.TPM2BDigest{Buffer: policy},
	}
}

func aesCFB(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
	return tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES,
		KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
		Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
	}
}

func highRSA(hash tpm2.TPMAlgID, aesBits, bits tpm2.TPMKeyBits) tpm2.TPMTPublic {
	area := high(tpm2.TPMAlgRSA, hash)
	area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: aesCFB(aesBits), KeyBits: bits})
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	return area
}

func highECC(hash tpm2.TPMAlgID, aesBits tpm2.TPMKeyBits, curve tpm2.TPMECCCurve) tpm2.TPMTPublic {
	area := high(tpm2.TPMAlgECC, hash)
	area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: aesCFB(aesBits), CurveID: curve})
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return area
}

// The templates of the TCG TPM v2.0 Provisioning Guidance, section 7.5.1.
var (
	storageRootKey    = primary{"tpm-srk", "ECDSA-P256", "SRK-P256", tpm2.TPMRHOwner, tpm2.ECCSRKTemplate}
	rsaStorageRootKey = primary{"tpm-srk-rsa2048", "RSA-2048", "SRK-RSA2048", tpm2.TPMRHOwner, tpm2.RSASRKTemplate}
)

// attestationKey signs quotes. It is a restricted P-256 signing key, so it
// signs nothing that the TPM did not make itself, in the endorsement
// hierarchy, outside of which the TPM obscures its firmware version and reset
// counts in what it signs (Part 1, on attestation). Its use counts towards no lockout.
var attestationKey = primary{"tpm-ak", "ECDSA-P256", "AK-P256", tpm2.TPMRHEndorsement, akArea(tpm2.TPMAlgECC,
	tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
	tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
	}),
)}

// rsaAttestationKey takes the place of attestationKey on a TPM without P-256.
var rsaAttestationKey = primary{"tpm-ak", "RSA-2048", "AK-RSA2048", tpm2.TPMRHEndorsement, akArea(tpm2.TPMAlgRSA,
	tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
		Scheme: tpm2.TPMTRSAScheme{
			Scheme:  tpm2.TPMAlgRSASSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		KeyBits: 2048,
	}),
	tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)}),
)}

func akArea(algorithm tpm2.TPMAlgID, parameters tpm2.TPMUPublicParms, unique tpm2.TPMUPublicID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    algorithm,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: parameters,
		Unique:     unique,
	}
}

// isAK reports whether a key was made by the template of an attestation key.
func isAK(area *tpm2.TPMTPublic) bool {
	return sameTemplate(area, &attestationKey.area) || sameTemplate(area, &rsaAttestationKey.area)
}
