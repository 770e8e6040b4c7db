package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// envelope is what the rule of docs/aws puts a report into: its bytes, as they were
// signed, and which thing's topic they came on, which no device can choose.
type envelope struct {
	Report        []byte      `json:"report"` // base64
	Thing         string      `json:"thing"`
	CertificateID string      `json:"certificateId"`
	ReceivedAt    json.Number `json:"receivedAt"` // milliseconds since 1970
}

// maxEnvelope bounds one, in bytes: the report's base64, and the other members.
const maxEnvelope = device.MaxReportBytes/3*4 + 4<<10

// open returns the report in an envelope, and the thing that AWS IoT says it is of.
// What is no envelope is the report.
func open(b []byte) (report []byte, thing string) {
	var e envelope
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if dec.Decode(&e) != nil || e.Thing == "" || len(e.Report) == 0 || len(bytes.TrimSpace(b[dec.InputOffset():])) > 0 {
		return b, ""
	}
	return e.Report, e.Thing
}

// heldTo is the result on a report that came on the topic of thing; "" is a report
// of which that is not known.
func heldTo(thing string, r *evidence.Result) *evidence.Result {
	if thing == "" || r.Report == nil || r.Report.ThingName == thing {
		return r
	}
	r.Fail(evidence.LevelSchema, fmt.Sprintf("it came on the topic of the thing %q, and is of %q", thing, r.Report.ThingName))
	return r
}
