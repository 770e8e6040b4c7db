// Package evidence is what a TPM says over a report: its structures, and their
// verification without a TPM.
//
// An attestation key (AK), which signs nothing but what its TPM made itself,
// signs a quote ([QualifyingData] says over what). [Verify] returns what of it
// holds, level by level. A report alone cannot show that the AK is in the TPM
// of the EK certificate, nor, without a certificate, in a TPM at all: that
// takes an exchange with the device, which starts with [NewChallenge].
//
// "Part 1" to "Part 3" are those of the TCG's Trusted Platform Module Library
// Specification, Family "2.0", revision 1.59.
package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

const (
	// MaxNonce bounds the nonce of a verifier, in bytes.
	MaxNonce = 64
	// MaxIssuers bounds the certificates of the EK's issuers.
	MaxIssuers = 8
	// maxField bounds each member of the evidence, in characters of base64.
	maxField = 16 << 10
)

// QualifyingData is what the TPM is given to sign along with a quote or a
// certification, and what their extraData has to be: the SHA-256 of three
// SHA-256s end to end, those of the report without its evidence
// ([device.Digest]), of the verifier's nonce, and of the DER of the EK
// certificate followed by that of its issuers. What is not there counts as empty.
// Where there is a boot log, the SHA-256 of its gzip follows as the fourth.
func QualifyingData(digest [sha256.Size]byte, nonce, bootLog []byte, certificates ...[]byte) [sha256.Size]byte {
	n, c := sha256.Sum256(nonce), sha256.Sum256(bytes.Join(certificates, nil))
	all := append(append(digest[:], n[:]...), c[:]...)
	if len(bootLog) > 0 {
		l := sha256.Sum256(bootLog)
		all = append(all, l[:]...)
	}
	return sha256.Sum256(all)
}

// Hex is bytes that are shown in lower-case hex.
type Hex []byte

// MarshalText implements [encoding.TextMarshaler].
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Statement is what a TPM said over a report.
type Statement struct {
	AKName          Hex    `json:"akName"`      // of the attestation key: algorithm and digest of its public area (Part 1, section 16)
	FirmwareVersion uint64 `json:"-"`           // TPM_PT_FIRMWARE_VERSION_1 and _2
	Clock           uint64 `json:"clockMillis"` // that the TPM has run since it was last cleared
	ResetCount      uint32 `json:"resetCount"`
	RestartCount    uint32 `json:"restartCount"`
	PCRs            []PCR  `json:"pcrs,omitempty"`
}

// PCR is the value of one platform configuration register.
type PCR struct {
	Bank  string `json:"bank"` // "sha256"
	Index int    `json:"index"`
	Value Hex    `json:"value"`
}

// decoded is evidence without its base64.
type decoded struct {
	akPublic, quote, signature []byte
	akParent, nonce, pcrValues []byte   // nil if not there
	bootLog                    []byte   // gzip; nil if not there
	certificates               [][]byte // of the EK and of its issuers; nil if not there
	deviceKey                  *decodedKey
}

type decodedKey struct{ public, attest, signature []byte }

// decode decodes each member and nothing else: a text has one decoding and a
// decoding one text.
func decode(e *device.Evidence) (*decoded, error) {
	d := new(decoded)
	type member struct {
		name, text string
		to         *[]byte
	}
	members := []member{
		{"akPublic", e.AKPublic, &d.akPublic}, {"quote", e.Quote, &d.quote}, {"signature", e.Signature, &d.signature},
	}
	optional := func(name, text string, to *[]byte) {
		if text != "" {
			members = append(members, member{name, text, to})
		}
	}
	optional("akParent", e.AKParent, &d.akParent)
	optional("nonce", e.Nonce, &d.nonce)
	optional("pcrValues", e.PCRValues, &d.pcrValues)
	optional("bootLog", e.BootLog, &d.bootLog)
	if len(e.EKIssuers) > MaxIssuers {
		return nil, fmt.Errorf("ekIssuers are %d, more than %d", len(e.EKIssuers), MaxIssuers)
	}
	if e.EKCertificate != "" {
		d.certificates = make([][]byte, 1+len(e.EKIssuers))
		members = append(members, member{"ekCertificate", e.EKCertificate, &d.certificates[0]})
		for i, text := range e.EKIssuers {
			members = append(members, member{"ekIssuers", text, &d.certificates[1+i]})
		}
	} else if len(e.EKIssuers) > 0 {
		return nil, errors.New("ekIssuers without ekCertificate")
	}
	if k := e.DeviceKey; k != nil {
		d.deviceKey = new(decodedKey)
		members = append(members, member{"deviceKey.public", k.Public, &d.deviceKey.public},
			member{"deviceKey.attest", k.Attest, &d.deviceKey.attest}, member{"deviceKey.signature", k.Signature, &d.deviceKey.signature})
	}
	for _, m := range members {
		switch {
		case m.text == "":
			return nil, fmt.Errorf("%s is missing", m.name)
		case len(m.text) > maxField && m.to != &d.bootLog: // only the size of the report bounds that
			return nil, fmt.Errorf("%s is too large", m.name)
		}
		b, err := base64.StdEncoding.DecodeString(m.text)
		if err == nil && base64.StdEncoding.EncodeToString(b) != m.text { // the decoder skips line breaks and left-over bits
			err = errors.New("not the base64 of what is in it")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		*m.to = b
	}
	if len(d.nonce) > MaxNonce {
		return nil, fmt.Errorf("nonce of %d bytes, more than %d", len(d.nonce), MaxNonce)
	}
	want := device.EvidenceSelfAsserted
	if d.certificates != nil {
		want = device.EvidenceCertified
	}
	if e.Level != want {
		return nil, fmt.Errorf("level %q, but what is there makes it %q", e.Level, want)
	}
	return d, nil
}

// canonical reports whether evidence stands in the report as keyvet writes it:
// last, and byte for byte as it is encoded again. JSON alone would take other
// spellings of the same.
func canonical(e *device.Evidence, report []byte) bool {
	b, err := json.Marshal(e)
	if err != nil {
		return false
	}
	return bytes.HasSuffix(report, append(append([]byte(`,"evidence":`), b...), '}'))
}

// Replace is a report with other evidence in the place of its own.
func Replace(report []byte, e *device.Evidence) ([]byte, error) {
	r := new(device.Report)
	if err := json.Unmarshal(report, r); err != nil {
		return nil, fmt.Errorf("replace: %w", err)
	}
	if r.Evidence == nil || !canonical(r.Evidence, report) {
		return nil, errors.New("replace: the report has no evidence, or is not written as keyvet writes it")
	}
	old, err := json.Marshal(r.Evidence)
	if err != nil {
		return nil, fmt.Errorf("replace: %w", err)
	}
	replacement, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("replace: %w", err)
	}
	head := report[:len(report)-len(old)-1]
	return append(append(bytes.Clone(head), replacement...), '}'), nil
}

func hashName(alg tpm2.TPMAlgID) string {
	switch alg {
	case tpm2.TPMAlgSHA1:
		return "sha1"
	case tpm2.TPMAlgSHA256:
		return "sha256"
	case tpm2.TPMAlgSHA384:
		return "sha384"
	case tpm2.TPMAlgSHA512:
		return "sha512"
	}
	return fmt.Sprintf("%#04x", uint16(alg))
}
