package awsiot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyvet/keyvet/device"
)

// metricsEvery is how often Device Defender takes metrics of a device (AWS IoT
// Device Defender Developer Guide, "Sending metrics from devices").
const metricsEvery = 5 * time.Minute

// ErrTooSoon: Device Defender takes metrics once in five minutes. They have
// not been sent.
var ErrTooSoon = errors.New("report metrics: too soon after the ones before")

// Metrics are the custom metrics of a device, which the account has to define
// by the names in docs/aws/metrics.json.
type Metrics struct {
	Failures  int // findings that failed, but for those that the operator accepts
	Warnings  int // and findings that he accepts
	Undecided int // findings and gaps that leave the verdict open
	GateOpen  bool
	Findings  []device.ReasonCode // the distinct reason codes
}

// MetricsOf counts a report.
func MetricsOf(r *device.Report, gateOpen bool) Metrics {
	m := Metrics{GateOpen: gateOpen, Findings: r.ReasonCodes()}
	for _, f := range r.Findings {
		switch f.Counts() {
		case device.Fail:
			m.Failures++
		case device.Warn:
			m.Warnings++
		case device.Undecided:
			m.Undecided++
		}
	}
	for _, g := range r.Gaps {
		if !g.Minor {
			m.Undecided++
		}
	}
	return m
}

// maxFindingsMetric bounds the strings of the list; the report has them all.
const maxFindingsMetric = 20

// document is the metrics report of JSON in its long form.
func (m Metrics) document(id int64) map[string]any {
	number := func(n int) []any { return []any{map[string]any{"number": n}} }
	gate := 0
	if m.GateOpen {
		gate = 1
	}
	custom := map[string]any{
		"keyvet_failures": number(m.Failures), "keyvet_warnings": number(m.Warnings),
		"keyvet_undecided": number(m.Undecided), "keyvet_gate_open": number(gate),
	}
	if n := len(m.Findings); n > 0 { // nothing tells that an empty list is taken
		custom["keyvet_findings"] = []any{map[string]any{"string_list": m.Findings[:min(n, maxFindingsMetric)]}}
	}
	return map[string]any{"header": map[string]any{"report_id": id, "version": "1.0"}, "custom_metrics": custom}
}

// Pace keeps a device to one report of metrics in five minutes. The zero value
// is ready for use.
type Pace struct {
	mu   sync.Mutex
	last time.Time // of the clock that cannot be set
	id   int64
}

// next gives the id of the report, which increases from one to the next, or false.
func (p *Pace) next(now time.Time) (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() && now.Sub(p.last) < metricsEvery {
		return 0, false
	}
	p.last, p.id = now, max(p.id+1, now.Unix())
	return p.id, true
}

// ReportMetrics sends custom metrics to Device Defender and waits until they
// are accepted. Sooner than five minutes after the last try it sends nothing
// and returns [ErrTooSoon], as it does if AWS IoT finds it too soon.
func (c *Client) ReportMetrics(ctx context.Context, m Metrics) error {
	id, ok := c.Pace.next(time.Now())
	if !ok {
		return ErrTooSoon
	}
	_, err := ask(ctx, c.session, c.prefix+"defender/metrics/json", plain(m.document(id)))
	var rejected *Rejected
	if errors.As(err, &rejected) && throttled(rejected) {
		return ErrTooSoon
	}
	if err != nil {
		return fmt.Errorf("report metrics: %w", err)
	}
	return nil
}
