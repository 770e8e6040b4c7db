package device

// EvidenceLevel is how much evidence can show, by who vouches for the TPM.
type EvidenceLevel string

const (
	// EvidenceCertified: the TPM's maker vouches for it by an EK certificate.
	EvidenceCertified EvidenceLevel = "ek-certificate"
	// EvidenceSelfAsserted: the TPM has no EK certificate. That the same key
	// signs every report can be seen, not that it is in a TPM.
	EvidenceSelfAsserted EvidenceLevel = "self-asserted"
)

// Evidence is what the TPM signed over a report. Every value but Level is
// base64, of the TCG wire form (TPM 2.0 Library, Part 2) or of DER.
type Evidence struct {
	Level     EvidenceLevel `json:"level"`
	AKPublic  string        `json:"akPublic"`           // TPMT_PUBLIC
	AKParent  string        `json:"akParent,omitempty"` // TPM2B_NAME without its size, of the AK's parent; "" if the AK is a primary key
	Quote     string        `json:"quote"`              // TPMS_ATTEST; package tpm/evidence says what its extraData is
	Signature string        `json:"signature"`          // TPMT_SIGNATURE
	Nonce     string        `json:"nonce,omitempty"`    // as the verifier gave it
	// PCRValues are the values of the PCRs of the quote, in its order, end to end.
	PCRValues     string        `json:"pcrValues,omitempty"`
	BootLog       string        `json:"bootLog,omitempty"`       // gzip, of what the firmware measured
	EKCertificate string        `json:"ekCertificate,omitempty"` // DER
	EKIssuers     []string      `json:"ekIssuers,omitempty"`     // DER, those of its issuers that the TPM holds, upwards
	DeviceKey     *CertifiedKey `json:"deviceKey,omitempty"`
}

// CertifiedKey is a key that the attestation key certified to be in the same
// TPM (TPM2_Certify, Part 3, section 18.2).
type CertifiedKey struct {
	Public    string `json:"public"`    // TPMT_PUBLIC
	Attest    string `json:"attest"`    // TPMS_ATTEST
	Signature string `json:"signature"` // TPMT_SIGNATURE
}
