package awsiot_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

func TestFindings(t *testing.T) {
	certificate := func(id string) *device.Certificate { return &device.Certificate{SHA256: id} }
	keys := []device.KeyReport{
		{ID: "device", Role: device.RoleDevice, Algorithm: "RSA-2048", SPKISHA256: "d1", Certificate: certificate("c1")},
		{ID: "claim", Role: device.RoleClaim, Certificate: certificate("c2")},
		{ID: "ca", Role: device.RoleCA, Certificate: certificate("c3")},
		{ID: "bare", Role: device.RoleDevice},
		{ID: "ek", Role: device.RoleEK, Certificate: certificate("c4")},
	}
	for _, tt := range []struct {
		check, key string
		code       device.ReasonCode
		severity   device.Severity
		want       string // check, severity, resource
	}{
		{"roca", "device", device.ReasonROCA, "CRITICAL", "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK CRITICAL DEVICE_CERTIFICATE map[deviceCertificateId:c1]"},
		{"debian", "claim", device.ReasonDebian, "CRITICAL", "DEVICE_CERTIFICATE_KEY_QUALITY_CHECK CRITICAL DEVICE_CERTIFICATE map[deviceCertificateId:c2]"},
		{"roca", "ca", device.ReasonROCA, "CRITICAL", "CA_CERTIFICATE_KEY_QUALITY_CHECK CRITICAL CA_CERTIFICATE map[caCertificateId:c3]"},
		{"roca", "bare", device.ReasonROCA, "CRITICAL", "KEYVET_ROCA_CHECK CRITICAL KEYVET_KEY map[keyId:bare]"},
		{"roca", "ek", device.ReasonROCA, "CRITICAL", "KEYVET_ROCA_CHECK CRITICAL KEYVET_KEY map[keyId:ek]"},
		{"expiry", "device", device.ReasonExpiring, "LOW", "DEVICE_CERTIFICATE_EXPIRING_CHECK MEDIUM DEVICE_CERTIFICATE map[deviceCertificateId:c1]"},
		{"expiry", "ca", device.ReasonExpired, "HIGH", "CA_CERTIFICATE_EXPIRING_CHECK MEDIUM CA_CERTIFICATE map[caCertificateId:c3]"},
		{"revoked", "device", device.ReasonRevoked, "MEDIUM", "REVOKED_DEVICE_CERTIFICATE_STILL_ACTIVE_CHECK MEDIUM DEVICE_CERTIFICATE map[deviceCertificateId:c1]"},
		{"revoked", "ca", device.ReasonRevoked, "MEDIUM", "REVOKED_CA_CERTIFICATE_STILL_ACTIVE_CHECK CRITICAL CA_CERTIFICATE map[caCertificateId:c3]"},
		{"revoked", "device", device.ReasonIssuerRevoked, "CRITICAL", "INTERMEDIATE_CA_REVOKED_FOR_ACTIVE_DEVICE_CERTIFICATES_CHECK CRITICAL DEVICE_CERTIFICATE map[deviceCertificateId:c1]"},
		{"size", "device", "KEYVET_RSA_TOO_SHORT", "HIGH", "KEYVET_SIZE_CHECK HIGH DEVICE_CERTIFICATE map[deviceCertificateId:c1]"},
		{"size", "device", "KEYVET_NOT_CHECKED", "", "KEYVET_SIZE_CHECK MEDIUM DEVICE_CERTIFICATE map[deviceCertificateId:c1]"},
		{"firmware", device.TPMKeyID, device.ReasonROCA, "CRITICAL", "KEYVET_FIRMWARE_CHECK CRITICAL KEYVET_TPM map[keyId:tpm]"},
		{"size", "unknown", "KEYVET_X", "LOW", "KEYVET_SIZE_CHECK LOW KEYVET_KEY map[keyId:unknown]"},
	} {
		r := &device.Report{ID: "r1", ThingName: thing, Time: time.Unix(1700000000, 0), Keys: keys, TPM: &device.TPM{FirmwareVersion: "7.40"},
			Findings: []device.Finding{{Check: tt.check, Key: tt.key, Status: device.Fail, Severity: tt.severity, ReasonCode: tt.code, Message: "why", Citation: "https://example.com"}}}
		f := awsiot.Findings(r)[0]
		resource := f.NonCompliantResource
		if got := fmt.Sprint(f.CheckName, " ", f.Severity, " ", resource.Type, " ", resource.Identifier); got != tt.want {
			t.Errorf("%s on %s: %s, want %s", tt.code, tt.key, got, tt.want)
		}
		if f.ReasonForNonComplianceCode != tt.code || f.ReasonForNonCompliance != "why" || f.Time != 1700000000 || resource.Additional["keyId"] != tt.key ||
			resource.Additional["status"] != "FAIL" || resource.Additional["thingName"] != thing || f.RelatedResources[0].Identifier["clientId"] != thing {
			t.Errorf("%+v", f)
		}
		if again := awsiot.Findings(r)[0]; again.ID != f.ID || len(f.ID) != 32 {
			t.Errorf("id %q, then %q", f.ID, again.ID)
		}
		r.Keys = append([]device.KeyReport{}, keys...)
		r.Keys[0].SPKISHA256 = "d2"
		if again := awsiot.Findings(r)[0]; (again.ID == f.ID) != (tt.key != "device") {
			t.Errorf("%s: id %q, with another key %q", tt.key, f.ID, again.ID)
		}
	}
}

// What could not be checked is a finding, too.
func TestFindingsOfGaps(t *testing.T) {
	r := &device.Report{
		ID: "r1", ThingName: thing, Findings: []device.Finding{{Check: "a", Status: device.Warn}, {Check: "c", Status: device.Fail}},
		Gaps: []device.Gap{{What: "/etc/ssl/none.pem", Why: "no such file or directory"}, {What: "a curve", Why: "not there", Minor: true}},
	}
	found := awsiot.Findings(r)
	if len(found) != 3 || found[1].CheckName != "KEYVET_COULD_NOT_LOOK_CHECK" {
		t.Fatalf("%+v", found)
	}
	f := found[1]
	if f.ReasonForNonComplianceCode != "KEYVET_COULD_NOT_LOOK" || f.ReasonForNonCompliance != "/etc/ssl/none.pem: no such file or directory" || f.Severity != device.Medium ||
		f.NonCompliantResource.Type != "KEYVET_GAP" || f.NonCompliantResource.Identifier["what"] != "/etc/ssl/none.pem" || f.NonCompliantResource.Additional["status"] != "UNDECIDED" {
		t.Errorf("%+v", f)
	}
	if again := awsiot.Findings(r)[1]; again.ID != f.ID {
		t.Errorf("id %q, then %q", f.ID, again.ID)
	}
}

// The members are those of AuditFinding in the AWS IoT API reference.
func TestFindingShape(t *testing.T) {
	r := &device.Report{Findings: []device.Finding{
		{Check: "a", Status: device.Warn}, {Check: "b", Status: device.Pass}, {Check: "c", Status: device.Fail}, {Check: "d", Status: device.Undecided},
	}}
	found := awsiot.Findings(r)
	if len(found) != 3 || found[0].CheckName != "KEYVET_C_CHECK" || found[1].CheckName != "KEYVET_D_CHECK" || found[2].CheckName != "KEYVET_A_CHECK" {
		t.Errorf("%+v", found)
	}
	b, err := json.Marshal(found[0])
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(b, &members); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"findingId", "checkName", "findingTime", "severity", "nonCompliantResource", "relatedResources", "reasonForNonCompliance", "reasonForNonComplianceCode"} {
		if _, ok := members[name]; !ok {
			t.Errorf("no %s in %s", name, b)
		}
		delete(members, name)
	}
	if len(members) > 0 {
		t.Errorf("AuditFinding has no %v", members)
	}
	if b, _ := json.Marshal(awsiot.Findings(&device.Report{})); string(b) != "[]" {
		t.Errorf("no findings are %s", b)
	}
}

func TestPublishFindings(t *testing.T) {
	s, c := dialScript(t, nil)
	if err := c.PublishFindings(t.Context(), &device.Report{Findings: []device.Finding{{Status: device.Pass}}}); err != nil || len(s.requests()) != 0 {
		t.Errorf("%v, %d messages of nothing", err, len(s.requests()))
	}
	r := &device.Report{ID: "r1", Folded: 42}
	for range 150 {
		r.Findings = append(r.Findings, device.Finding{Check: "size", Status: device.Warn, Message: strings.Repeat("x", 2000)})
	}
	r.Findings = append(r.Findings, device.Finding{Check: "roca", Status: device.Fail, ReasonCode: device.ReasonROCA})
	if err := c.PublishFindings(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	var m struct {
		ThingName, ReportID, Verdict string
		Findings                     []awsiot.Finding
		LeftOut, Folded              int
	}
	sent := s.requests()[0]
	if err := json.Unmarshal(sent.raw, &m); err != nil || sent.topic != "keyvet/"+thing+"/findings" {
		t.Errorf("%s: %v", sent.topic, err)
	}
	if len(sent.raw) > mqtt.MaxPayload || m.ThingName != thing || m.ReportID != "r1" || m.Verdict != "FAIL" || m.Folded != 42 ||
		m.Findings[0].ReasonForNonComplianceCode != device.ReasonROCA || len(m.Findings)+m.LeftOut != 151 || len(m.Findings) < 30 {
		t.Errorf("%d bytes, %d findings, %d left out: %.300s", len(sent.raw), len(m.Findings), m.LeftOut, sent.raw)
	}
}
