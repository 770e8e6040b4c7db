package evidence

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm/advisory"
)

// consistency holds the report's verdict against what else the report says.
func (v *verification) consistency() (device.Status, string) {
	if v.report == nil {
		return device.Undecided, skipped(LevelSchema)
	}
	r := v.report
	own, accepts := device.Accept(r.Findings, r.Keys, v.policy.Accept, v.policy.Now) // as the verifier accepts them
	v.accept(accepts)
	var counted []device.Status // with what the device calls accepted
	accepted, contradiction := 0, ""
	worst := make(map[string]device.Status) // of the findings on a key
	for i, f := range r.Findings {
		counted, v.computed = append(counted, f.Counts()), append(v.computed, own[i].Counts())
		if f.Accepted && f.Counts() != own[i].Counts() {
			accepted++
		}
		if before, ok := worst[f.Key]; ok {
			worst[f.Key] = device.Worst(before, f.Counts())
		} else {
			worst[f.Key] = f.Counts()
		}
	}
	both := func(s device.Status) { counted, v.computed = append(counted, s), append(v.computed, s) }
	for _, k := range r.Keys {
		s, ok := worst[k.ID]
		if ok && !worse(k.Status, s) { // the findings say why, and count above
			counted = append(counted, k.Status)
		} else {
			both(k.Status)
		}
		if ok && s != device.NotApplicable && worse(s, k.Status) && contradiction == "" {
			contradiction = fmt.Sprintf("it says %s of %s, but %s in a finding on it", k.Status, k.ID, s)
		}
	}
	for _, g := range r.Gaps {
		if !g.Minor {
			both(device.Undecided)
		}
	}
	for _, c := range r.Cut {
		if !r.Cut.Uncounted() { // what was cut, nobody can accept
			counted, v.computed = append(counted, c.Counts()), append(v.computed, c.Status)
		}
	}
	computed := device.Worst(counted...)
	v.stated = r.Verdict()
	if !worse(v.stated, computed) { // what the report holds says why
		v.stated = device.Worst(v.computed...)
	}
	if worse(computed, r.Verdict()) {
		contradiction = fmt.Sprintf("its verdict is %s, but what it holds makes it %s", r.Verdict(), computed)
	}
	if contradiction != "" {
		return device.Worst(device.Warn, computed), "the report contradicts itself: " + contradiction
	}
	if accepted > 0 {
		return device.Pass, fmt.Sprintf("%s, as what the report holds adds up to; the %d findings that the device calls accepted count in full here", r.Verdict(), accepted)
	}
	return device.Pass, fmt.Sprintf("%s, as what the report holds adds up to", r.Verdict())
}

// worse reports whether a outweighs b.
func worse(a, b device.Status) bool { return a != b && device.Worst(a, b) == a }

// keys has the verifier's checks test what the report and its evidence show.
func (v *verification) keys() (device.Status, string) {
	if v.report == nil {
		return device.Undecided, skipped(LevelSchema)
	}
	if v.policy.Check == nil {
		return device.Undecided, "not tested: the verifier has no checks"
	}
	inv, problems := v.inventory()
	found, accepted := device.Accept(append(problems, v.policy.Check(inv)...), v.keyReports(inv), v.policy.Accept, v.policy.Now)
	v.accept(accepted)
	statuses := []device.Status{device.NotApplicable}
	byKey := make(map[string]device.Status)
	var said []string
	for _, f := range found {
		statuses = append(statuses, f.Counts())
		if f.Status == device.Pass || f.Status == device.NotApplicable {
			continue
		}
		v.findings = append(v.findings, f)
		if before, ok := byKey[f.Key]; !ok || worse(f.Counts(), before) {
			byKey[f.Key] = f.Counts()
		}
		if f.Counts() == device.Fail && len(said) < 3 {
			said = append(said, fmt.Sprintf("%s on %s: %s", f.Check, f.Key, f.Message))
		}
	}
	for _, k := range v.report.Keys {
		if s, ok := byKey[k.ID]; ok && s == device.Fail && worse(s, k.Status) && len(said) < 6 {
			said = append(said, fmt.Sprintf("the report says %s of %s", k.Status, k.ID))
		}
	}
	what := fmt.Sprintf("%d keys tested again", len(inv.Keys))
	if len(said) > 0 {
		what += ": " + strings.Join(said, "; ")
	}
	return device.Worst(statuses...), what
}

// accept keeps what the verifier accepted, once each.
func (v *verification) accept(more []device.Accepted) {
	v.accepted = append(slices.DeleteFunc(v.accepted, func(a device.Accepted) bool { return slices.Contains(more, a) }), more...)
}

// keyReports returns the keys of the report and those that its evidence shows besides.
func (v *verification) keyReports(inv device.Inventory) []device.KeyReport {
	all := slices.Clone(v.report.Keys)
	for _, k := range inv.Keys {
		if !slices.ContainsFunc(all, func(r device.KeyReport) bool { return r.ID == k.ID }) {
			all = append(all, device.KeyReport{ID: k.ID, Role: k.Role, SPKISHA256: k.SPKISHA256()})
		}
	}
	return all
}

// What the verifier can find besides the findings of its checks.
var (
	keyUnreadable = device.Reason{
		Code: "KEYVET_KEY_UNREADABLE", Status: device.Undecided,
		Means: "A key of the report, or of its evidence, cannot be read. A key that the report holds but does not encode correctly is FAIL.",
		Do:    "Ask the device for another report; if it comes back, look at the device.",
	}
	keyNotShown = device.Reason{
		Code: "KEYVET_KEY_NOT_SHOWN", Status: device.Warn,
		Means: "The report does not hold the key itself, so the key cannot be tested again. For the key of the device this is UNDECIDED.",
		Do:    "Update keyvet on the device, and ask for another report.",
	}
	bootForbidden = device.Reason{
		Code: "KEYVET_BOOT_FORBIDDEN", Status: device.Fail, Severity: device.High,
		Means: "What was started at boot, or a certificate that vouched for it, is in dbx, the firmware's own list of what it must not start.",
		Do:    "Replace the boot loader. If Secure Boot is on, the firmware does not keep its own list: update it.",
	}
	keyDigest = device.Reason{
		Code: "KEYVET_KEY_DIGEST", Status: device.Fail,
		Means: "The digest of a key in the report is not that of the key beside it.",
		Do:    "Do not trust the report: it was changed, or its program is faulty.",
	}
)

// inventory returns what the report and its evidence show, with findings on
// what of it cannot be tested.
func (v *verification) inventory() (inv device.Inventory, problems []device.Finding) {
	problem := func(key string, status device.Status, reason device.Reason, message string) {
		problems = append(problems, device.Finding{Check: LevelKeys, Key: key, Status: status, ReasonCode: reason.Code, Message: message})
	}
	inv.ReadAt = v.policy.Now
	if t := v.report.TPM; t != nil {
		own := *t
		if v.signed {
			own.FirmwareVersion = advisory.FirmwareVersion(t.Manufacturer, v.statement.FirmwareVersion)
		}
		inv.TPM = &own
	}
	add := func(id string, role device.Role, source string, der []byte) {
		found, gaps := keyfile.ReadFrom(bytes.NewReader(der), id)
		if len(found) != 1 || len(gaps) > 0 {
			problem(id, device.Undecided, keyUnreadable, "the key cannot be read")
			return
		}
		k := found[0]
		k.ID, k.Role, k.Source, k.Private = id, role, source, nil
		if role == device.RoleDevice && v.certified != nil {
			if sum, err := spkiSHA256(v.certified); err == nil && sum == k.SPKISHA256() {
				k.TPM = &device.TPMObject{Attributes: v.attributes}
			}
		}
		inv.Keys = append(inv.Keys, k)
	}
	shown := v.inEvidence()
	for _, k := range v.report.Keys {
		if spki, ok := shown[k.SPKISHA256]; ok && k.SPKI == "" {
			add(k.ID, k.Role, k.Source, spki)
			continue
		}
		if k.SPKI == "" && k.Role == device.RoleDevice {
			problem(k.ID, device.Undecided, keyNotShown, "neither report nor evidence shows the device's key, so it cannot be tested again")
			continue
		}
		if k.SPKI == "" {
			problem(k.ID, device.Warn, keyNotShown, "the report does not show the key, so it cannot be tested again")
			continue
		}
		spki, err := base64.StdEncoding.DecodeString(k.SPKI)
		if err != nil {
			problem(k.ID, device.Fail, keyUnreadable, "the key is not in base64")
			continue
		}
		if sum := sha256.Sum256(spki); hex.EncodeToString(sum[:]) != k.SPKISHA256 {
			problem(k.ID, device.Fail, keyDigest, "spkiSha256 is not that of the key in the report")
		}
		add(k.ID, k.Role, k.Source, spki)
	}
	if v.decoded == nil {
		return inv, problems
	}
	if v.boot != nil {
		for i, k := range v.boot.signers() {
			add(fmt.Sprintf("boot: %s %d", k.Variable, i+1), device.RoleAnchor, "boot log", k.Certificate.RawSubjectPublicKeyInfo)
		}
		for _, what := range v.boot.Forbidden {
			status := device.Fail
			if v.boot.SecureBoot != "on" {
				status = device.Warn
			}
			problem("boot", status, bootForbidden, what)
		}
	}
	for i, der := range v.certificates {
		id, role := "evidence: EK certificate", device.RoleEK
		if i > 0 {
			id, role = fmt.Sprintf("evidence: EK issuer %d", i), device.RoleCA
		}
		_, spki, err := keyfile.CertificateKey(der)
		if err != nil {
			problem(id, device.Undecided, keyUnreadable, err.Error())
			continue
		}
		add(id, role, "evidence", spki)
	}
	return inv, problems
}

// inEvidence are the public keys that the evidence shows, by their digest.
func (v *verification) inEvidence() map[string][]byte {
	keys := make(map[string][]byte)
	add := func(key crypto.PublicKey) {
		if spki, err := x509.MarshalPKIXPublicKey(key); err == nil { // else it is none that a report lists
			sum := sha256.Sum256(spki)
			keys[hex.EncodeToString(sum[:])] = spki
		}
	}
	if v.ak != nil {
		add(v.ak)
	}
	if v.certified != nil {
		add(v.certified)
	}
	if v.decoded != nil && v.certificates != nil {
		if key, _, err := keyfile.CertificateKey(v.certificates[0]); err == nil {
			add(key)
		}
	}
	return keys
}

// ekInCertificate is the SHA-256 of the SubjectPublicKeyInfo of the key in an
// EK certificate, as [NewChallenge] writes it.
func ekInCertificate(der []byte) (string, error) {
	key, _, err := keyfile.CertificateKey(der)
	if err != nil {
		return "", err
	}
	return spkiSHA256(key)
}
