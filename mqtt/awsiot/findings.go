package awsiot

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// Finding has the shape of a finding of an AWS IoT Device Defender audit (AWS
// IoT API reference, AuditFinding), with AWS's own check names, reason codes and
// severities where AWS has such a check; the rest starts with KEYVET_.
type Finding struct {
	ID                         string            `json:"findingId"` // the same for the same finding of a later report
	CheckName                  string            `json:"checkName"`
	Time                       int64             `json:"findingTime"` // seconds since 1970
	Severity                   device.Severity   `json:"severity"`
	NonCompliantResource       Resource          `json:"nonCompliantResource"`
	RelatedResources           []Resource        `json:"relatedResources"`
	ReasonForNonCompliance     string            `json:"reasonForNonCompliance"`
	ReasonForNonComplianceCode device.ReasonCode `json:"reasonForNonComplianceCode"`
}

// Resource is what a finding is on, or has to do with.
type Resource struct {
	Type       string            `json:"resourceType"`
	Identifier map[string]string `json:"resourceIdentifier"`
	Additional map[string]string `json:"additionalInfo,omitempty"`
}

// The types of resources: AWS's own, and keyvet's for keys that AWS IoT has no
// certificate of.
const (
	resourceDevice = "DEVICE_CERTIFICATE"
	resourceCA     = "CA_CERTIFICATE"
	resourceClient = "CLIENT_ID"
	resourceKey    = "KEYVET_KEY"
	resourceTPM    = "KEYVET_TPM"
	resourceGap    = "KEYVET_GAP" // something that could not be checked
)

// audit is an audit check of AWS's, and what it finds.
type audit struct {
	resource string
	codes    []device.ReasonCode
	name     string
	severity device.Severity
}

// audits are the audit checks that know keyvet's reason codes (AWS IoT Device
// Defender Developer Guide, "Audit checks").
var audits = []audit{
	{resourceDevice, []device.ReasonCode{device.ReasonROCA, device.ReasonDebian}, "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK", device.Critical},
	{resourceCA, []device.ReasonCode{device.ReasonROCA, device.ReasonDebian}, "CA_CERTIFICATE_KEY_QUALITY_CHECK", device.Critical},
	{resourceDevice, []device.ReasonCode{device.ReasonExpiring, device.ReasonExpired}, "DEVICE_CERTIFICATE_EXPIRING_CHECK", device.Medium},
	{resourceCA, []device.ReasonCode{device.ReasonExpiring, device.ReasonExpired}, "CA_CERTIFICATE_EXPIRING_CHECK", device.Medium},
	{resourceDevice, []device.ReasonCode{device.ReasonRevoked}, "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK", device.Medium},
	{resourceCA, []device.ReasonCode{device.ReasonRevoked}, "REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK", device.Critical},
	{resourceDevice, []device.ReasonCode{device.ReasonIssuerRevoked}, "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK", device.Critical},
}

// auditOf names the check of a finding.
func auditOf(resource string, f device.Finding) (name string, severity device.Severity) {
	for _, a := range audits {
		for _, code := range a.codes {
			if a.resource == resource && code == f.ReasonCode {
				return a.name, a.severity
			}
		}
	}
	if severity = f.Severity; severity == "" { // what is undecided has none
		severity = device.Medium
	}
	return device.ReasonKeyvetPrefix + strings.ToUpper(f.Check) + "_CHECK", severity
}

// Findings are what did not pass in a report, the failing ones first, each in
// the shape of an AWS audit finding. One that the operator accepts is among the
// warnings. A gap that is not minor stands before them.
func Findings(r *device.Report) []Finding {
	keys := make(map[string]device.KeyReport, len(r.Keys))
	for _, k := range r.Keys {
		keys[k.ID] = k
	}
	found, places := []Finding{}, r.Places()
	for _, status := range []device.Status{device.Fail, device.Undecided, device.Warn} {
		for _, f := range r.Findings {
			if f.Counts() == status {
				found = append(found, newFinding(r, f, keys[f.Key], places[f.Key]))
			}
		}
		if status == device.Undecided {
			found = append(found, gapFindings(r)...)
		}
	}
	return found
}

func gapFindings(r *device.Report) (found []Finding) {
	for _, g := range r.Gaps {
		if g.Minor {
			continue
		}
		f := device.Finding{Check: "could_not_look", Key: g.What, Status: device.Undecided, ReasonCode: device.CouldNotLook.Code, Message: g.What + ": " + g.Why}
		finding := newFinding(r, f, device.KeyReport{}, "")
		finding.NonCompliantResource.Type = resourceGap
		finding.NonCompliantResource.Identifier = map[string]string{"what": g.What}
		delete(finding.NonCompliantResource.Additional, "keyId")
		found = append(found, finding)
	}
	return found
}

// newFinding is f, on key, which has a place in its file, unless it is on the TPM.
func newFinding(r *device.Report, f device.Finding, key device.KeyReport, place string) Finding {
	resource := Resource{
		Type: resourceKey, Identifier: map[string]string{"keyId": f.Key},
		Additional: map[string]string{"thingName": r.ThingName, "keyId": f.Key, "status": f.Status.String(), "reportId": r.ID},
	}
	if f.Accepted {
		resource.Additional["accepted"] = "true"
	}
	for name, value := range map[string]string{
		"role": string(key.Role), "algorithm": key.Algorithm, "source": key.Source, "place": place, "spkiSha256": key.SPKISHA256, "citation": f.Citation,
	} {
		if value != "" {
			resource.Additional[name] = value
		}
	}
	switch {
	case f.Key == device.TPMKeyID:
		resource.Type = resourceTPM
		if r.TPM != nil && r.TPM.FirmwareVersion != "" {
			resource.Additional["firmwareVersion"] = r.TPM.FirmwareVersion
		}
	case key.Certificate == nil:
	case key.Role == device.RoleDevice, key.Role == device.RoleClaim:
		resource.Type, resource.Identifier = resourceDevice, map[string]string{"deviceCertificateId": key.Certificate.SHA256}
	case key.Role == device.RoleCA:
		resource.Type, resource.Identifier = resourceCA, map[string]string{"caCertificateId": key.Certificate.SHA256}
	}
	name, severity := auditOf(resource.Type, f)
	// The key's digest, so that a new key under an old name is another finding.
	id := sha256.Sum256([]byte(strings.Join([]string{r.ThingName, name, f.Key, key.SPKISHA256, f.ReasonCode}, "\n")))
	finding := Finding{
		ID: hex.EncodeToString(id[:16]), CheckName: name, Time: r.Time.Unix(), Severity: severity,
		NonCompliantResource: resource, RelatedResources: []Resource{},
		ReasonForNonCompliance: f.Message, ReasonForNonComplianceCode: f.ReasonCode,
	}
	if r.ThingName != "" {
		finding.RelatedResources = append(finding.RelatedResources, Resource{Type: resourceClient, Identifier: map[string]string{"clientId": r.ThingName}})
	}
	return finding
}

// findingsMessage is what carries findings to the account's rule.
type findingsMessage struct {
	ThingName string    `json:"thingName"`
	ReportID  string    `json:"reportId"`
	Verdict   string    `json:"verdict"`
	Findings  []Finding `json:"findings"`
	LeftOut   int       `json:"leftOut,omitempty"` // findings that the message had no room for; the report has them
	Folded    int       `json:"folded,omitempty"`  // reports on the same faults, earlier than this and not delivered
}

// PublishFindings sends the findings of a report, for the account's topic rule,
// to keyvet/{thing}/findings. Without findings it sends nothing. The report is
// what counts: this is to be called once it is acknowledged.
func (c *Client) PublishFindings(ctx context.Context, r *device.Report) error {
	m := findingsMessage{ThingName: c.thing, ReportID: r.ID, Verdict: r.Verdict().String(), Findings: Findings(r), Folded: r.Folded}
	if len(m.Findings) == 0 {
		return nil
	}
	payload, err := m.encode()
	if err == nil {
		err = c.session.Publish(ctx, c.own("findings"), payload)
	}
	if err != nil {
		return fmt.Errorf("publish findings: %w", err)
	}
	return nil
}

// maxFindings bounds the message: SNS takes 256 KB and Security Hub 100
// findings at once, MQTT 128 KB.
const maxFindings = 100

// encode leaves the last findings out as far as needed.
func (m findingsMessage) encode() ([]byte, error) {
	for keep := min(len(m.Findings), maxFindings); ; keep = keep * 3 / 4 {
		m.LeftOut += len(m.Findings) - keep
		m.Findings = m.Findings[:keep]
		b, err := json.Marshal(m)
		if err != nil || len(b) <= maxPayload {
			return b, err
		}
	}
}
