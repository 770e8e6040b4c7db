package evidence

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
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
	// Replay says what the log of a boot, in gzip, shows, held against the PCRs of a
	// quote; nil: boot logs are not looked at. An error says why the log cannot be read.
	Replay func(packed []byte, pcrs []PCR) (Boot, error)
	// Accept are the findings that the verifier accepts, of the report and of its
	// own. What a device accepts for itself counts in full.
	Accept []device.Acceptance
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
	// Boot is what the boot log says; nil if there is none that could be read.
	Boot *Boot `json:"boot,omitempty"`
	// Changes are what is no longer as it was, for a verifier that keeps that.
	Changes []string `json:"changes,omitempty"`
}

// Fail has a level fail for a reason of the caller's.
func (r *Result) Fail(level, reason string) {
	for i, l := range r.Levels {
		if l.Name != level {
			continue
		}
		if l.Status == device.Fail {
			reason = l.Reason + "; " + reason
		}
		r.Levels[i].Status, r.Levels[i].Reason = device.Fail, reason
	}
	r.Verdict, r.Evidence = device.Fail, device.Fail
}

// Summary is the head of a report.
type Summary struct {
	ID          string              `json:"reportId"`
	Time        time.Time           `json:"time"`
	ThingName   string              `json:"thingName,omitempty"`
	Verdict     device.Status       `json:"verdict"`  // as it states
	Computed    device.Status       `json:"computed"` // what its findings, keys and gaps add up to; a finding that it calls accepted counts in full, unless the verifier accepts it too
	ReasonCodes []device.ReasonCode `json:"reasonCodes"`
	Accepted    []device.Accepted   `json:"accepted,omitempty"` // what of its findings the verifier accepts
}

// Level is one thing that evidence can show: Pass if it holds, Fail if it does
// not, Warn if the evidence does not show it, Undecided if it was asked for and
// could not be checked, NotApplicable if there is nothing to be shown.
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
	LevelReport         = "report"          // the quote is over exactly this report, nonce and EK certificate, by the key that the report lists
	LevelPCRs           = "pcrs"            // the PCR values are those quoted
	LevelBootLog        = "boot-log"        // the boot log explains every quoted PCR
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
	{LevelBootLog, LevelReport, true, (*verification).bootLog},
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
	policy Policy
	document
	proof
	computed []device.Status // of what the report holds
	stated   device.Status   // its verdict, or what that comes to by what the verifier accepts
	accepted []device.Accepted
	findings []device.Finding
	leads    bool // the EK certificate leads to a given root, whatever is to be warned of
}

// document is a report with its evidence, as it came.
type document struct {
	encoded []byte
	digest  [sha256.Size]byte
	report  *device.Report // nil where there is only its digest
	*decoded
}

// proof is what was signed by the attestation key, as far as that is seen yet.
type proof struct {
	ak         crypto.PublicKey
	signed     bool // the signature holds, so that what follows is the key's
	attest     *tpm2.TPMSAttest
	quoteInfo  *tpm2.TPMSQuoteInfo
	statement  Statement
	certified  crypto.PublicKey // the device's key; nil if none is certified
	attributes uint32           // of that key, TPMA_OBJECT
	boot       *Boot            // what the boot log says; nil if none could be read
}

// skipped is the reason of a level that needs another, which does not hold.
func skipped(needs string) string { return `skipped: depends on "` + needs + `", which does not hold` }

// Verify verifies an encoded report and its evidence, byte for byte as it came
// from the device, and returns what holds, level by level.
func Verify(report []byte, p Policy) *Result {
	v := &verification{policy: p, document: document{encoded: report}}
	r := new(Result)
	held := make(map[string]bool)
	for _, l := range levels {
		status, reason := device.Undecided, skipped(l.needs)
		if l.needs == "" || held[l.needs] {
			status, reason = l.ask(v)
		}
		held[l.name] = status == device.Pass || l.name == LevelEKCertificate && v.leads
		r.Levels = append(r.Levels, Level{l.name, status, reason})
	}
	shown := v.namedAK() || held[LevelSameTPM] && held[LevelEKCertificate]
	for i, l := range levels {
		if l.ofTPM && !shown && r.Levels[i].Status == device.Pass {
			r.Levels[i].Status = device.Warn
			r.Levels[i].Reason = "only if the attestation key is in a TPM, which is not shown: " + r.Levels[i].Reason
		}
	}
	r.require(p.Require, v.leads)

	var ofEvidence, all []device.Status
	for _, l := range r.Levels {
		all = append(all, l.Status)
		if l.Name != LevelConsistency && l.Name != LevelKeys {
			ofEvidence = append(ofEvidence, l.Status)
		}
	}
	r.Evidence, r.Findings, r.Boot = device.Worst(ofEvidence...), v.findings, v.boot
	if v.report != nil {
		computed := device.Worst(v.computed...)
		r.Report = &Summary{
			ID: v.report.ID, Time: v.report.Time, ThingName: v.report.ThingName,
			Verdict: v.report.Verdict(), Computed: computed, ReasonCodes: v.report.ReasonCodes(), Accepted: v.accepted,
		}
		all = append(all, v.stated, computed)
	}
	r.Verdict = device.Worst(all...)
	if v.signed {
		r.Statement = &v.statement
	}
	return r
}

// require has the levels of these names pass or be undecided. Of an EK certificate
// that leads to a root, a warning may be left.
func (r *Result) require(names []string, leads bool) {
	for _, name := range names {
		i := slices.IndexFunc(r.Levels, func(l Level) bool { return l.Name == name })
		if i < 0 {
			r.Levels = append(r.Levels, Level{name, device.Undecided, "required, but there is no such level"})
			continue
		}
		if l := &r.Levels[i]; l.Status != device.Pass && l.Status != device.Fail && (name != LevelEKCertificate || l.Status != device.Warn || !leads) {
			l.Status, l.Reason = device.Undecided, "required, but not shown: "+l.Reason
		}
	}
}

// VerifyDigest verifies what can be seen of evidence over the report of that
// digest without the report: each level up to the PCRs, and the certification
// of the device's key.
func VerifyDigest(e *device.Evidence, digest [sha256.Size]byte) (*Statement, error) {
	v := &verification{document: document{digest: digest}}
	var err error
	if v.decoded, err = decode(e); err != nil {
		return nil, err
	}
	for _, l := range []struct { // not those of the table: a device has no use for the rest of it
		name string
		ask  func(*verification) (device.Status, string)
	}{
		{LevelAttestationKey, (*verification).attestationKey},
		{LevelSignature, (*verification).signature},
		{LevelHierarchy, (*verification).hierarchy},
		{LevelReport, (*verification).over},
		{LevelPCRs, (*verification).pcrs},
		{LevelDeviceKey, (*verification).deviceKey},
	} {
		if status, reason := l.ask(v); status == device.Fail || status == device.Undecided {
			return nil, fmt.Errorf("%s: %s", l.name, reason)
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
	v.report, v.digest = r, digest
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
