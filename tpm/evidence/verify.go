package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

// Policy is what a verifier knows and asks for.
type Policy struct {
	Now time.Time
	// Nonce is the one that the verifier gave the device for this report; nil if it gave none.
	Nonce []byte
	// EKRoots are the CA certificates that an EK certificate has to lead to;
	// none: not asked. They need not be self-signed.
	EKRoots []*x509.Certificate
	// ActivatedAK is the name of the attestation key that answered a challenge
	// ([NewChallenge]) to the EK of this device's certificate; nil if there was none.
	ActivatedAK []byte
}

// Result is what of a report and its evidence holds.
type Result struct {
	// Verdict is the worst of the levels and of the report's own verdict. It is
	// Warn at best for a report alone, since that cannot show all.
	Verdict  device.Status `json:"verdict"`
	Evidence device.Status `json:"evidence"` // the worst of the levels
	Levels   []Level       `json:"levels"`
	// Report is what the report says of itself; nil if it is none.
	Report *Summary `json:"report,omitempty"`
	// Statement is what the TPM signed; nil if the signature does not hold.
	Statement *Statement `json:"statement,omitempty"`
}

// Summary is the head of a report.
type Summary struct {
	ID          string              `json:"reportId"`
	Time        time.Time           `json:"time"`
	ThingName   string              `json:"thingName,omitempty"`
	Verdict     device.Status       `json:"verdict"`
	ReasonCodes []device.ReasonCode `json:"reasonCodes"`
}

// Level is one thing that evidence can show: Pass if it holds, Fail if it does
// not, Warn if the evidence does not show it, Undecided if it was asked for and
// could not be looked at, NotApplicable if there is nothing to be shown.
type Level struct {
	Name   string        `json:"level"`
	Status device.Status `json:"status"`
	Reason string        `json:"reason"`
}

// The levels, in the order of a result.
const (
	LevelSchema         = "schema"          // a report with evidence, spelled as keyvet spells it
	LevelAttestationKey = "attestation-key" // a restricted signing key
	LevelSignature      = "signature"       // a quote, signed by that key
	LevelHierarchy      = "hierarchy"       // the key is in the endorsement hierarchy
	LevelReport         = "report"          // the quote is over this very report, nonce and EK certificate, by the key that the report lists
	LevelPCRs           = "pcrs"            // the PCR values are those quoted
	LevelFirmware       = "firmware"        // the firmware version that the report states is the one that the TPM signed
	LevelFreshness      = "freshness"       // it carries the verifier's nonce
	LevelDeviceKey      = "device-key"      // the device's key is in the same TPM
	LevelEKCertificate  = "ek-certificate"  // the EK certificate leads to a given root
	LevelSameTPM        = "same-tpm"        // the attestation key is in the TPM of that certificate
)

// levels are the questions. One that rests on another which does not hold is
// not asked.
var levels = []struct {
	name  string
	needs string
	ask   func(*verification) (device.Status, string)
}{
	{LevelSchema, "", (*verification).schema},
	{LevelAttestationKey, LevelSchema, (*verification).attestationKey},
	{LevelSignature, LevelAttestationKey, (*verification).signature},
	{LevelHierarchy, LevelSignature, (*verification).hierarchy},
	{LevelReport, LevelSignature, (*verification).over},
	{LevelPCRs, LevelSignature, (*verification).pcrs},
	{LevelFirmware, LevelHierarchy, (*verification).firmware},
	{LevelFreshness, LevelReport, (*verification).freshness},
	{LevelDeviceKey, LevelReport, (*verification).deviceKey},
	{LevelEKCertificate, LevelSchema, (*verification).ekCertificate},
	{LevelSameTPM, LevelAttestationKey, (*verification).sameTPM},
}

// verification is one under way.
type verification struct {
	policy   Policy
	evidence *device.Evidence
	report   *device.Report // nil where there is only its digest
	encoded  []byte         // of the report
	digest   [sha256.Size]byte

	*decoded
	ak        *ecdsa.PublicKey
	attest    *tpm2.TPMSAttest
	quoteInfo *tpm2.TPMSQuoteInfo
	statement Statement
}

// Verify verifies the evidence in an encoded report, byte for byte as it came
// from the device, and tells level by level what holds.
func Verify(report []byte, p Policy) *Result {
	v := &verification{policy: p, encoded: report}
	r := new(Result)
	held := make(map[string]bool)
	var statuses []device.Status
	for _, l := range levels {
		status, reason := device.Undecided, "not looked at: it rests on "+l.needs
		if l.needs == "" || held[l.needs] {
			status, reason = l.ask(v)
		}
		held[l.name] = status == device.Pass
		statuses = append(statuses, status)
		r.Levels = append(r.Levels, Level{l.name, status, reason})
	}
	r.Evidence = device.Worst(statuses...)
	r.Verdict = r.Evidence
	if v.report != nil {
		r.Report = &Summary{ID: v.report.ID, Time: v.report.Time, ThingName: v.report.ThingName, Verdict: v.report.Verdict(), ReasonCodes: v.report.ReasonCodes()}
		r.Verdict = device.Worst(r.Evidence, v.report.Verdict())
	}
	if held[LevelSignature] {
		r.Statement = &v.statement
	}
	return r
}

// VerifyDigest verifies what can be seen of evidence over the report of that
// digest without the report: each level up to the PCRs, and the certification
// of the device's key.
func VerifyDigest(e *device.Evidence, digest [sha256.Size]byte) (*Statement, error) {
	v := &verification{evidence: e, digest: digest}
	var err error
	if v.decoded, err = decode(e); err != nil {
		return nil, fmt.Errorf("evidence: %w", err)
	}
	for _, l := range levels {
		switch l.name {
		case LevelAttestationKey, LevelSignature, LevelHierarchy, LevelReport, LevelPCRs, LevelDeviceKey:
			if status, reason := l.ask(v); status == device.Fail || status == device.Undecided {
				return nil, fmt.Errorf("evidence: %s: %s", l.name, reason)
			}
		}
	}
	return &v.statement, nil
}

func (v *verification) schema() (device.Status, string) {
	if len(v.encoded) > device.MaxReportBytes {
		return device.Fail, fmt.Sprintf("more than the %d bytes of a report", device.MaxReportBytes)
	}
	digest, err := device.Digest(v.encoded)
	if err != nil {
		return device.Fail, err.Error()
	}
	r := new(device.Report)
	if err := json.Unmarshal(v.encoded, r); err != nil {
		return device.Fail, err.Error()
	}
	v.report, v.evidence, v.digest = r, r.Evidence, digest
	if r.Evidence == nil {
		return device.Fail, "the report carries no evidence: no TPM signed it"
	}
	if !canonical(r.Evidence, v.encoded) {
		return device.Fail, "the evidence is not written as keyvet writes it: pass the report on byte for byte"
	}
	if v.decoded, err = decode(r.Evidence); err != nil {
		return device.Fail, err.Error()
	}
	return device.Pass, fmt.Sprintf("%s with evidence, %s", r.Schema, r.Evidence.Level)
}

func (v *verification) attestationKey() (device.Status, string) {
	ak, err := attestationKey(v.akPublic)
	if err != nil {
		return device.Fail, err.Error()
	}
	v.ak, v.statement.AKName = ak, nameOf(v.akPublic)
	return device.Pass, "a restricted ECDSA P-256 signing key that says it was made in a TPM and stays there"
}

// lists tells whether the report lists any key in that role, and this one.
func (v *verification) lists(role device.Role, spki []byte) (any, found bool) {
	sum := sha256.Sum256(spki)
	for _, k := range v.report.Keys {
		if k.Role == role {
			any = true
			found = found || k.SPKISHA256 == hex.EncodeToString(sum[:])
		}
	}
	return any, found
}

func (v *verification) signature() (device.Status, string) {
	attest, err := readAttest(tpm2.TPMSTAttestQuote, v.ak, v.quote, v.decoded.signature)
	if err != nil {
		return device.Fail, err.Error()
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return device.Fail, err.Error()
	}
	v.attest, v.quoteInfo = attest, info
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

func (v *verification) qualifyingData() []byte {
	q := QualifyingData(v.digest, v.nonce, v.certificates...)
	return q[:]
}

func (v *verification) over() (device.Status, string) {
	if !bytes.Equal(v.attest.ExtraData.Buffer, v.qualifyingData()) {
		return device.Fail, "the quote is over another report, nonce or EK certificate"
	}
	if v.report != nil {
		spki, err := x509.MarshalPKIXPublicKey(v.ak)
		if err != nil {
			return device.Fail, err.Error()
		}
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
	if signed := FirmwareVersion(t.Manufacturer, v.statement.FirmwareVersion); signed != t.FirmwareVersion {
		return device.Fail, fmt.Sprintf("the report states %s, the TPM signed %s", t.FirmwareVersion, signed)
	}
	return device.Pass, t.FirmwareVersion + ", as the TPM signed it"
}

func (v *verification) freshness() (device.Status, string) {
	made := "made " + v.report.Time.Format(time.RFC3339) + " by the device's clock"
	switch {
	case v.policy.Nonce == nil && v.report.Time.After(v.policy.Now):
		return device.Warn, made + ", which is ahead; only a nonce shows that a report is fresh"
	case v.policy.Nonce == nil:
		return device.Warn, made + "; only a nonce shows that a report is fresh"
	case v.nonce == nil:
		return device.Fail, "it carries no nonce; " + made
	case !bytes.Equal(v.nonce, v.policy.Nonce):
		return device.Fail, "it carries another nonce than the one given: an old report, or one made for somebody else; " + made
	}
	return device.Pass, "it carries the nonce; " + made
}

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
	attest, err := readAttest(tpm2.TPMSTAttestCertify, v.ak, k.attest, k.signature)
	if err != nil {
		return device.Fail, err.Error()
	}
	if !bytes.Equal(attest.ExtraData.Buffer, v.qualifyingData()) {
		return device.Fail, "the certification was made for another report, nonce or EK certificate"
	}
	key, a, err := certifiedKey(attest, k.public)
	if err != nil {
		return device.Fail, err.Error()
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

func (v *verification) sameTPM() (device.Status, string) {
	switch {
	case v.policy.ActivatedAK == nil:
		return device.Warn, "a report alone cannot show that the attestation key is in the TPM of the EK certificate: that takes a challenge to the device"
	case !bytes.Equal(v.policy.ActivatedAK, v.statement.AKName):
		return device.Fail, "another attestation key than this answered the challenge to the EK"
	}
	return device.Pass, "this attestation key answered the challenge to the EK"
}
