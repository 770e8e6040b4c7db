package evidence

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/advisory"
)

func (v *verification) attestationKey() (device.Status, string) {
	ak, err := attestationKey(v.akPublic)
	if err != nil {
		return device.Fail, err.Error()
	}
	v.ak, v.statement.AKName = ak, nameOf(v.akPublic)
	kind := strings.Replace(device.Key{Public: ak}.Algorithm(), "ECDSA-P", "ECDSA P-", 1)
	return device.Pass, "a restricted " + kind + " signing key that says it was made in a TPM and stays there"
}

// lists reports whether the report lists any key in that role, and this one.
func (d *document) lists(role device.Role, spki []byte) (any, found bool) {
	sum := sha256.Sum256(spki)
	for _, k := range d.report.Keys {
		if k.Role == role {
			any = true
			found = found || k.SPKISHA256 == hex.EncodeToString(sum[:])
		}
	}
	return any, found
}

func (v *verification) signature() (device.Status, string) {
	attest, err := readAttest(v.ak, v.quote, v.decoded.signature)
	if err != nil {
		return device.Fail, err.Error()
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return device.Fail, fmt.Sprintf("what was signed is an attestation of another kind: %v", err)
	}
	v.attest, v.quoteInfo, v.signed = attest, info, true
	s := &v.statement
	s.FirmwareVersion, s.Clock = attest.FirmwareVersion, attest.ClockInfo.Clock
	s.ResetCount, s.RestartCount = attest.ClockInfo.ResetCount, attest.ClockInfo.RestartCount
	return device.Pass, "the attestation key signed the quote"
}

func (v *verification) hierarchy() (device.Status, string) {
	if v.akParent != nil {
		if want := qualifiedName(v.akParent, v.statement.AKName); want == nil || !bytes.Equal(v.attest.QualifiedSigner.Buffer, want) {
			return device.Fail, "the attestation key is not the child of a primary key of that name in the endorsement hierarchy: in another, the TPM signs an obscured firmware version"
		}
		return device.Pass, "the attestation key is under a primary key of the endorsement hierarchy"
	}
	if !bytes.Equal(v.attest.QualifiedSigner.Buffer, qualifiedName(v.statement.AKName)) {
		return device.Fail, "the attestation key is not a primary key of the endorsement hierarchy: in another, the TPM signs an obscured firmware version"
	}
	return device.Pass, "the attestation key is a primary key of the endorsement hierarchy"
}

func (d *document) qualifyingData() []byte {
	q := QualifyingData(d.digest, d.nonce, d.bootLog, d.certificates...)
	return q[:]
}

func (v *verification) over() (device.Status, string) {
	if !bytes.Equal(v.attest.ExtraData.Buffer, v.qualifyingData()) {
		return device.Fail, "the quote is over another report, nonce, EK certificate or boot log"
	}
	if v.report != nil {
		spki, _ := x509.MarshalPKIXPublicKey(v.ak) // no error: it is of a kind that every SubjectPublicKeyInfo can hold
		if listed, found := v.lists(device.RoleAK, spki); listed && !found {
			return device.Fail, "the quote is over this report, but by an attestation key that it does not list: another TPM's"
		}
	}
	return device.Pass, "the quote is over this report, its nonce and its EK certificate"
}

func (v *verification) pcrs() (device.Status, string) {
	pcrs, err := readPCRs(v.quoteInfo, v.pcrValues)
	if err != nil {
		return device.Fail, err.Error()
	}
	if len(pcrs) == 0 {
		return device.NotApplicable, "no PCR is quoted"
	}
	v.statement.PCRs = pcrs
	return device.Pass, fmt.Sprintf("the values of %d PCRs are those quoted", len(pcrs))
}

func (v *verification) firmware() (device.Status, string) {
	t := v.report.TPM
	if t == nil || t.FirmwareVersion == "" {
		return device.Undecided, "the report does not state the firmware version"
	}
	if signed := advisory.FirmwareVersion(t.Manufacturer, v.statement.FirmwareVersion); signed != t.FirmwareVersion {
		return device.Fail, fmt.Sprintf("the report states %s, the TPM signed %s", t.FirmwareVersion, signed)
	}
	return device.Pass, t.FirmwareVersion + ", as the TPM signed it"
}

func (v *verification) freshness() (device.Status, string) {
	age := v.policy.Now.Sub(v.report.Time).Round(time.Second)
	made := fmt.Sprintf("made %s by the device's clock, %s ago", v.report.Time.Format(time.RFC3339), age)
	if age < 0 {
		made = fmt.Sprintf("made %s by the device's clock, which is ahead by %s", v.report.Time.Format(time.RFC3339), -age)
	}
	if v.policy.Nonce != nil && v.nonce == nil {
		return device.Fail, "it carries no nonce; " + made
	}
	if v.policy.Nonce != nil && !bytes.Equal(v.nonce, v.policy.Nonce) {
		return device.Fail, "it carries another nonce than the one given: an old report, or one made for somebody else; " + made
	}
	if v.policy.MaxAge > 0 && age > v.policy.MaxAge {
		return device.Fail, fmt.Sprintf("older than the %s asked for: %s", v.policy.MaxAge, made)
	}
	if v.policy.MaxAge > 0 && age < -maxAhead {
		return device.Undecided, "how old it is cannot be said: " + made
	}
	if v.policy.Nonce == nil {
		return device.Warn, "only a nonce shows that a report is fresh: " + made
	}
	return device.Pass, "the evidence carries the nonce; the report in it was " + made
}

// maxAhead is how far a device's clock may be ahead for the age of a report to
// mean something.
const maxAhead = 5 * time.Minute

func (v *verification) deviceKey() (device.Status, string) {
	k := v.decoded.deviceKey
	if k == nil {
		if v.report == nil {
			return device.NotApplicable, "no key is certified"
		}
		if listed, _ := v.lists(device.RoleDevice, nil); !listed {
			return device.NotApplicable, "the report lists no device key"
		}
		return device.Warn, "the device's key is not certified: nothing shows that it is in the TPM"
	}
	attest, err := readAttest(v.ak, k.attest, k.signature)
	if err != nil {
		return device.Fail, err.Error()
	}
	if !bytes.Equal(attest.ExtraData.Buffer, v.qualifyingData()) {
		return device.Fail, "the certification was made for another report, nonce or EK certificate"
	}
	key, a, nameAlg, err := certifiedKey(attest, k.public)
	if err != nil {
		return device.Fail, err.Error()
	}
	v.certified, v.attributes = key, binary.BigEndian.Uint32(k.public[4:]) // after type and nameAlg; certifiedKey has read it
	if nameAlg == tpm2.TPMAlgSHA1 {
		return device.Fail, "the certified key is named by SHA-1: another key can be made to have its name"
	}
	if v.report != nil {
		spki, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return device.Fail, err.Error()
		}
		listed, found := v.lists(device.RoleDevice, spki)
		if listed && !found {
			return device.Fail, "the certified key is not the device's key that the report lists"
		}
		if !listed {
			return device.Warn, "a key is certified to be in the TPM, but the report lists no device key"
		}
	}
	if !a.FixedTPM || !a.SensitiveDataOrigin {
		return device.Warn, "the device's key is in the TPM, but it was made elsewhere or may leave it"
	}
	return device.Pass, "the device's key was made in the TPM and stays there"
}
