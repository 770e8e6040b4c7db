package awsiot

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
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
const ReasonCut device.ReasonCode = "KEYVET_MORE_IN_REPORT"

// Reasons are what the codes mean that are in no report.
var Reasons = []device.Reason{{
	Code:  ReasonCut,
	Means: "The list of reason codes is too long for the shadow.",
	Do:    "Read the report: it has all of them.",
}}

// Summary is what the named shadow keyvet reports of a device.
type Summary struct {
	Verdict         string              `json:"verdict"` // [device.Status]
	ReportID        string              `json:"reportId"`
	Time            string              `json:"time"`     // RFC 3339, of the report
	Gate            string              `json:"gate"`     // open, shut, stuck
	Gaps            []Gap               `json:"gaps"`     // what opens nothing because it could not be checked
	GapCount        int                 `json:"gapCount"` // also those that Gaps has no room for
	FirmwareVersion string              `json:"firmwareVersion,omitempty"`
	Findings        []device.ReasonCode `json:"findings"`
	Accepted        []string            `json:"accepted"`                // findings that the operator accepts, a line each
	CertificateID   string              `json:"certificateId,omitempty"` // AWS IoT's: lower-case hex SHA-256 of the DER
	NotAfter        string              `json:"notAfter,omitempty"`      // RFC 3339
	Check           string              `json:"check,omitempty"`         // the desired check that was carried out last
}

// Gap is something that could not be checked.
type Gap struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Gaps are cut to what a person needs to find the rest on the device.
const (
	maxGaps     = 8
	maxGapBytes = 200 // of each of its two texts
)

func gapsOf(r *device.Report) (some []Gap, count int) {
	some = []Gap{}
	for _, g := range r.Gaps {
		if g.Minor {
			continue
		}
		if count++; count <= maxGaps {
			some = append(some, Gap{bounded(g.What, maxGapBytes), bounded(g.Why, maxGapBytes)})
		}
	}
	return some, count
}

// maxAccepted bounds the accepted findings; the report has them all.
const maxAccepted = 8

func acceptedOf(r *device.Report) []string {
	lines := []string{}
	for _, a := range r.Accepted[:min(len(r.Accepted), maxAccepted)] {
		lines = append(lines, bounded(fmt.Sprintf("%s on %s, %s", a.ReasonCode, a.Key, a), maxGapBytes))
	}
	return lines
}

func bounded(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

func (c *Client) summary(r *device.Report) Summary {
	s := Summary{
		Verdict: r.Verdict().String(), ReportID: r.ID, Time: r.Time.UTC().Format(time.RFC3339),
		Gate: c.gateWord(), Findings: r.ReasonCodes(), Accepted: acceptedOf(r),
	}
	s.Gaps, s.GapCount = gapsOf(r)
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
		"verdict": s.Verdict, "reportId": s.ReportID, "time": s.Time, "gate": s.Gate, "gaps": s.Gaps, "gapCount": s.GapCount, "findings": s.Findings, "accepted": s.Accepted,
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
		if n == 0 && len(s.Gaps)+len(s.Accepted) > 0 { // the number of gaps stays
			s.Gaps, s.Accepted, state["gaps"], state["accepted"] = nil, nil, []Gap{}, []string{}
			n++
			continue
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
