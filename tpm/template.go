package tpm

import "github.com/google/go-tpm/tpm2"

// primary is a key that the TPM makes of a seed and a template: the same key
// each time (Part 1, on primary objects), so making it is reading it.
type primary struct {
	id        string // of device.Key
	algorithm string // as device.Key names it
	name      string // of the template, as sources tell it
	hierarchy tpm2.TPMHandle
	area      tpm2.TPMTPublic
}

// endorsementKeys are the templates L-1, L-2 and H-3 of the EK Profile, annex B.
var endorsementKeys = []primary{
	{"tpm-ek-rsa2048", "RSA-2048", "L-1", tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate},
	{"tpm-ek-p256", "ECDSA-P256", "L-2", tpm2.TPMRHEndorsement, tpm2.ECCEKTemplate},
	{"tpm-ek-p384", "ECDSA-P384", "H-3", tpm2.TPMRHEndorsement, tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA384,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, AdminWithPolicy: true, Restricted: true, Decrypt: true,
		},
		// PolicyB of the EK Profile, annex B: PolicySecret of the
		// endorsement hierarchy, or a policy in NV.
		AuthPolicy: tpm2.TPM2BDigest{Buffer: []byte{
			0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
			0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
			0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
		}},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{
				Algorithm: tpm2.TPMAlgAES,
				KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
				Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
			},
			CurveID: tpm2.TPMECCNistP384,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}},
}

// storageRootKey is the ECC template of the TCG TPM v2.0 Provisioning
// Guidance, section 7.5.1.
var storageRootKey = primary{"tpm-srk", "ECDSA-P256", "SRK-P256", tpm2.TPMRHOwner, tpm2.ECCSRKTemplate}

// attestationKey signs quotes. It is a restricted P-256 signing key, so it
// signs nothing that the TPM did not make itself, in the endorsement
// hierarchy, outside of which the TPM obscures its firmware version and reset
// counts in what it signs (Part 1, on attestation). Its use counts towards no lockout.
var attestationKey = primary{"tpm-ak", "ECDSA-P256", "AK-P256", tpm2.TPMRHEndorsement, tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
		UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
		CurveID: tpm2.TPMECCNistP256,
	}),
	Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
		Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
	}),
}}
