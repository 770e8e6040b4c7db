package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/advisory"
)

// Policy is what a verifier knows and asks for.
type Policy struct {
	Now time.Time
	// Nonce is the one that the verifier gave the device for this report; nil if it gave none.
	Nonce []byte
	// MaxAge is how old a report may be by the device's clock; 0: any age.
	MaxAge time.Duration
	// EKRoots are the CA certificates that an EK certificate has to lead to;
	// none: not asked. They need not be self-signed.
	EKRoots []*x509.Certificate
	// Activated is the pair that answered a challenge ([Expected.Answered]);
	// the zero value is none.
	Activated Activated
	// AKName is the name of an attestation key that answered a challenge to
	// this device before; nil if none is known.
	AKName []byte
	// Require names levels that must pass: what does not is then undecided.
	Require []string
	// Check tests the keys that the report and its evidence show, and the TPM's
	// firmware, and returns what it found, passes included. Where it is nil no
	// key is tested, and the verdict is undecided.
	Check func(device.Inventory) []device.Finding
}

// Result is what of a report and its evidence holds.
type Result struct {
	// Verdict is the worst of the levels, of the report's own verdict and of
	// what its findings add up to. It is Warn at best for a report alone, since
	// that cannot show all.
	Verdict  device.Status `json:"verdict"`
	Evidence device.Status `json:"evidence"` // the worst of the levels that are about evidence
	Levels   []Level       `json:"levels"`
	// Findings are those of the verifier's own checks that did not pass.
	Findings []device.Finding `json:"findings,omitempty"`
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
	Verdict     device.Status       `json:"verdict"`  // as it states
	Computed    device.Status       `json:"computed"` // what its findings, keys and gaps add up to; a finding that it calls accepted counts in full
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
	LevelSchema         = "schema"          // a report with evidence, written as keyvet writes it
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
	LevelConsistency    = "consistency"     // the report's verdict is what its findings, keys and gaps add up to
	LevelKeys           = "keys"            // the verifier's own checks of the keys and of the firmware pass
)

// levels are the questions. One that rests on another which does not hold is
// not asked. What a TPM says is worth nothing of a key that may be in software:
// levels of that kind do not pass unless the TPM was shown.
var levels = []struct {
	name  string
	needs string
	ofTPM bool // it holds only if the attestation key is in a TPM
	ask   func(*verification) (device.Status, string)
}{
	{LevelSchema, "", false, (*verification).schema},
	{LevelAttestationKey, LevelSchema, true, (*verification).attestationKey},
	{LevelSignature, LevelAttestationKey, false, (*verification).signature},
	{LevelHierarchy, LevelSignature, true, (*verification).hierarchy},
	{LevelReport, LevelSignature, false, (*verification).over},
	{LevelPCRs, LevelSignature, true, (*verification).pcrs},
	{LevelFirmware, LevelHierarchy, true, (*verification).firmware},
	{LevelFreshness, LevelReport, false, (*verification).freshness},
	{LevelDeviceKey, LevelReport, true, (*verification).deviceKey},
	{LevelEKCertificate, LevelSchema, false, (*verification).ekCertificate},
	{LevelSameTPM, LevelAttestationKey, false, (*verification).sameTPM},
	{LevelConsistency, "", false, (*verification).consistency},
	{LevelKeys, "", false, (*verification).keys},
}

// Levels returns the names of all levels, in the order of a result.
func Levels() (names []string) {
	for _, l := range levels {
		names = append(names, l.name)
	}
	return names
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
	certified crypto.PublicKey // the device's key; nil if none is certified
	signed    bool             // the signature holds, so that statement is the key's
	computed  []device.Status  // of what the report holds
	findings  []device.Finding
}

// Verify verifies an encoded report and its evidence, byte for byte as it came
// from the device, and returns what holds, level by level.
func Verify(report []byte, p Policy) *Result {
	v := &verification{policy: p, encoded: report}
	r := new(Result)
	held := make(map[string]bool)
	for _, l := range levels {
		status, reason := device.Undecided, "not looked at: it rests on "+l.needs
		if l.needs == "" || held[l.needs] {
			status, reason = l.ask(v)
		}
		held[l.name] = status == device.Pass
		r.Levels = append(r.Levels, Level{l.name, status, reason})
	}
	shown := v.namedAK() || held[LevelSameTPM] && held[LevelEKCertificate]
	for i, l := range levels {
		if l.ofTPM && !shown && r.Levels[i].Status == device.Pass {
			r.Levels[i].Status = device.Warn
			r.Levels[i].Reason = "only if the attestation key is in a TPM, which is not shown: " + r.Levels[i].Reason
		}
	}
	r.require(p.Require)

	var ofEvidence, all []device.Status
	for _, l := range r.Levels {
		all = append(all, l.Status)
		if l.Name != LevelConsistency && l.Name != LevelKeys {
			ofEvidence = append(ofEvidence, l.Status)
		}
	}
	r.Evidence, r.Findings = device.Worst(ofEvidence...), v.findings
	if v.report != nil {
		computed := device.Worst(v.computed...)
		r.Report = &Summary{
			ID: v.report.ID, Time: v.report.Time, ThingName: v.report.ThingName,
			Verdict: v.report.Verdict(), Computed: computed, ReasonCodes: v.report.ReasonCodes(),
		}
		all = append(all, v.report.Verdict(), computed)
	}
	r.Verdict = device.Worst(all...)
	if v.signed {
		r.Statement = &v.statement
	}
	return r
}

// require has the levels of these names pass or be undecided.
func (r *Result) require(names []string) {
	for _, name := range names {
		i := slices.IndexFunc(r.Levels, func(l Level) bool { return l.Name == name })
		if i < 0 {
			r.Levels = append(r.Levels, Level{name, device.Undecided, "required, but there is no such level"})
			continue
		}
		if l := &r.Levels[i]; l.Status != device.Pass && l.Status != device.Fail {
			l.Status, l.Reason = device.Undecided, "required, but not shown: "+l.Reason
		}
	}
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
	digest, noJSON := device.Digest(v.encoded)
	if noJSON != nil {
		return device.Fail, noJSON.Error()
	}
	if schema := newerSchema(v.encoded); schema != "" {
		return device.Undecided, fmt.Sprintf("schema %q: a newer verifier is needed", schema)
	}
	r := new(device.Report)
	if noReport := json.Unmarshal(v.encoded, r); noReport != nil {
		return device.Fail, noReport.Error()
	}
	v.report, v.evidence, v.digest = r, r.Evidence, digest
	if loose := strict(v.encoded, r); loose != nil {
		return device.Fail, loose.Error()
	}
	if twice := oneOfEach(r); twice != nil {
		return device.Fail, twice.Error()
	}
	if r.Evidence == nil {
		if r.TPM != nil && r.TPM.Family != "1.2" && r.TPM.State == device.TPMOK {
			return device.Fail, "the report carries no evidence, although it names a TPM that is ok: no TPM signed it"
		}
		return device.Undecided, "the report carries no evidence: no TPM signed it"
	}
	if !canonical(r.Evidence, v.encoded) {
		return device.Fail, "the evidence is not written as keyvet writes it: pass the report on byte for byte"
	}
	d, malformed := decode(r.Evidence)
	if malformed != nil {
		return device.Fail, malformed.Error()
	}
	v.decoded = d
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

// lists reports whether the report lists any key in that role, and this one.
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

func (v *verification) qualifyingData() []byte {
	q := QualifyingData(v.digest, v.nonce, v.certificates...)
	return q[:]
}

func (v *verification) over() (device.Status, string) {
	if !bytes.Equal(v.attest.ExtraData.Buffer, v.qualifyingData()) {
		return device.Fail, "the quote is over another report, nonce or EK certificate"
	}
	if v.report != nil {
		spki, _ := x509.MarshalPKIXPublicKey(v.ak) // no error: it is a point of P-256
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
	v.certified = key
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

// namedAK reports whether this is the attestation key that the verifier knows
// by its name.
func (v *verification) namedAK() bool {
	return len(v.policy.AKName) > 0 && bytes.Equal(v.policy.AKName, v.statement.AKName)
}

// unshown is the status of what the evidence does not show about a TPM: roots
// ask for it.
func (v *verification) unshown() device.Status {
	if len(v.policy.EKRoots) > 0 {
		return device.Undecided
	}
	return device.Warn
}

func (v *verification) sameTPM() (device.Status, string) {
	pair := v.policy.Activated
	if v.policy.AKName != nil && !v.namedAK() {
		return device.Fail, "this is another attestation key than the one that was named"
	}
	if len(pair.AKName) == 0 && pair.EKSPKISHA256 == "" && v.namedAK() {
		return device.Warn, "this is the attestation key that was named; that it is in the TPM of this EK certificate takes a challenge"
	}
	if len(pair.AKName) == 0 && pair.EKSPKISHA256 == "" {
		return v.unshown(), "a report alone cannot show that the attestation key is in the TPM of the EK certificate: that takes a challenge to the device"
	}
	if len(pair.AKName) == 0 || pair.EKSPKISHA256 == "" {
		return device.Fail, "half a pair: which attestation key and which EK answered the challenge is not known"
	}
	if !bytes.Equal(pair.AKName, v.statement.AKName) {
		return device.Fail, "another attestation key than this answered the challenge to the EK"
	}
	if v.certificates == nil {
		return v.unshown(), "this attestation key answered the challenge to an EK, but the evidence shows no certificate of that EK: no maker vouches for its TPM"
	}
	shown, noKey := ekInCertificate(v.certificates[0])
	if noKey != nil {
		return v.unshown(), fmt.Sprintf("the key in the EK certificate cannot be read: %v", noKey)
	}
	if shown != pair.EKSPKISHA256 {
		return device.Fail, "the challenge was to another EK than the one of this EK certificate: two TPMs"
	}
	return device.Pass, "this attestation key answered the challenge to the EK of this EK certificate"
}
