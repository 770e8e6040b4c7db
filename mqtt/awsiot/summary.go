package awsiot

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/keyvet/keyvet/device"
)

// shadowName is the named shadow that carries the summary.
const shadowName = "keyvet"

// maxReported bounds the reported state in bytes of JSON. A shadow document
// takes 8 KB (AWS IoT Core endpoints and quotas, "Device Shadow"), of which
// the rest is left to what others desire.
const maxReported = 7 << 10

// ReasonCut ends a list of reason codes that was too long for the shadow; the
// report has them all.
const ReasonCut device.ReasonCode = device.ReasonKeyvetPrefix + "MORE_IN_REPORT"

// Summary is what the named shadow keyvet reports of a device.
type Summary struct {
	Verdict         string              `json:"verdict"` // [device.Status]
	ReportID        string              `json:"reportId"`
	Time            string              `json:"time"` // RFC 3339, of the report
	Gate            string              `json:"gate"` // open, shut, stuck
	FirmwareVersion string              `json:"firmwareVersion,omitempty"`
	Findings        []device.ReasonCode `json:"findings"`
	CertificateID   string              `json:"certificateId,omitempty"` // AWS IoT's: lower-case hex SHA-256 of the DER
	NotAfter        string              `json:"notAfter,omitempty"`      // RFC 3339
	Check           string              `json:"check,omitempty"`         // the desired check that was carried out last
}

func (c *Client) summary(r *device.Report) Summary {
	s := Summary{
		Verdict: r.Verdict().String(), ReportID: r.ID, Time: r.Time.UTC().Format(time.RFC3339),
		Gate: c.gateWord(), Findings: r.ReasonCodes(),
	}
	if r.TPM != nil {
		s.FirmwareVersion = r.TPM.FirmwareVersion
	}
	for _, k := range r.Keys {
		if k.Role == device.RoleDevice && k.Certificate != nil {
			s.CertificateID, s.NotAfter = k.Certificate.SHA256, k.Certificate.NotAfter.UTC().Format(time.RFC3339)
			break
		}
	}
	return s
}

// reported is the state for a shadow update, at most maxReported bytes: of too
// many reason codes the last ones, in the order of the report, give way to
// [ReasonCut]. A shadow merges, so what the report does not have is written as
// null, or it would stay from the one before; but the answer to a desired
// check stays.
func (s Summary) reported() (map[string]any, error) {
	state := map[string]any{
		"verdict": s.Verdict, "reportId": s.ReportID, "time": s.Time, "gate": s.Gate, "findings": s.Findings,
		"firmwareVersion": orNull(s.FirmwareVersion), "certificateId": orNull(s.CertificateID), "notAfter": orNull(s.NotAfter),
	}
	if s.Check != "" {
		state["check"] = s.Check
	}
	for n := len(s.Findings); ; n-- {
		b, err := json.Marshal(state)
		if err != nil {
			return nil, err
		}
		if len(b) <= maxReported {
			return state, nil
		}
		if n == 0 {
			return nil, errors.New("the summary is too large for a shadow even without findings")
		}
		state["findings"] = append(append([]device.ReasonCode{}, s.Findings[:n-1]...), ReasonCut)
	}
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
