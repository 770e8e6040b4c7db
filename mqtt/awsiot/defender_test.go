package awsiot_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

func TestMetricsOf(t *testing.T) {
	r := &device.Report{
		Findings: []device.Finding{
			{Status: device.Fail, ReasonCode: device.ReasonROCA}, {Status: device.Fail, ReasonCode: device.ReasonROCA},
			{Status: device.Warn, ReasonCode: "KEYVET_CRL_STALE"}, {Status: device.Undecided, ReasonCode: "KEYVET_NOT_CHECKED"},
			{Status: device.Pass, ReasonCode: "KEYVET_X"}, {Status: device.NotApplicable},
		},
		Gaps: []device.Gap{{What: "x"}, {What: "y", Minor: true}},
	}
	m := awsiot.MetricsOf(r, true)
	if m.Failures != 2 || m.Warnings != 1 || m.Undecided != 2 || !m.GateOpen ||
		!slices.Equal(m.Findings, []string{device.ReasonROCA, "KEYVET_CRL_STALE", "KEYVET_NOT_CHECKED"}) {
		t.Errorf("%+v", m)
	}
}

func TestReportMetrics(t *testing.T) {
	reply := accept(`{"thingName":"gateway-0042","reportId":1,"status":"ACCEPTED"}`)
	s, c := dialScript(t, func(request) answer { return reply })
	m := awsiot.Metrics{Failures: 2, Warnings: 1, GateOpen: true}
	if err := c.ReportMetrics(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := c.ReportMetrics(t.Context(), m); !errors.Is(err, awsiot.ErrTooSoon) || len(s.requests()) != 1 {
		t.Errorf("at once again: %v, %d requests", err, len(s.requests()))
	}
	r := s.requests()[0]
	custom := fmt.Sprint(r.doc["custom_metrics"])
	if r.topic != "$aws/things/"+thing+"/defender/metrics/json" ||
		custom != "map[keyvet_failures:[map[number:2]] keyvet_gate_open:[map[number:1]] keyvet_undecided:[map[number:0]] keyvet_warnings:[map[number:1]]]" {
		t.Errorf("%s %s", r.topic, r.raw)
	}
	header, _ := r.doc["header"].(map[string]any)
	if id, _ := header["report_id"].(float64); header["version"] != "1.0" || id < float64(time.Now().Add(-time.Hour).Unix()) {
		t.Errorf("header %v", header)
	}

	for range 50 {
		m.Findings = append(m.Findings, "KEYVET_X")
	}
	c.Pace = new(awsiot.Pace)
	if err := c.ReportMetrics(t.Context(), m); err != nil {
		t.Error(err)
	}
	if n := strings.Count(string(s.requests()[1].raw), "KEYVET_X"); n != 20 {
		t.Errorf("%d strings in a metric", n)
	}

	// AWS IoT knows of a report that this process does not.
	c.Pace = new(awsiot.Pace)
	reply = reject(`{"status":"REJECTED","statusDetails":{"ErrorCode":"Throttled","ErrorMessage":"slow down"}}`)
	if err := c.ReportMetrics(t.Context(), m); !errors.Is(err, awsiot.ErrTooSoon) {
		t.Error(err)
	}
	c.Pace = new(awsiot.Pace)
	reply = reject(`{"status":"REJECTED","statusDetails":{"ErrorCode":"InvalidPayload","ErrorMessage":"no such metric"}}`)
	var rejected *awsiot.Rejected
	if err := c.ReportMetrics(t.Context(), m); !errors.As(err, &rejected) || rejected.Code != "InvalidPayload" || !strings.Contains(err.Error(), "no such metric") {
		t.Error(err)
	}
	if err := c.ReportMetrics(t.Context(), m); !errors.Is(err, awsiot.ErrTooSoon) {
		t.Errorf("after a rejection: %v", err)
	}
}
