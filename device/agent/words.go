package agent

import (
	"context"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// words are what the cloud is to hear besides the report: how the gate stands,
// the findings, the metrics. What could not be said is said later, in this session
// or the next; a restart makes another report, with words of its own. The zero
// value has nothing to say.
type words struct {
	report            *device.Report // that the findings and the metrics are of; nil: it is not acknowledged
	state             gate.State
	gate              bool // how it stands is to be said
	findings, metrics bool
	tries             int // in a row that failed
	again             time.Time
}

// Between two tries to say what could not be said.
const (
	sayFirst = time.Minute
	sayMost  = time.Hour
)

// owe has said what came of a report. That the gate is shut, or stuck, counts as
// well where the report itself was refused.
func (w *words) owe(v gate.Vetted, o gate.Outcome) *words {
	w.gate, w.state, w.tries, w.again = true, o.State, 0, time.Time{}
	if o.Acknowledged {
		w.report, w.findings, w.metrics = v.Report, true, true
	}
	return w
}

// stands has said how the gate stands, where that is not known already.
func (w *words) stands(s gate.State) {
	if w.state != s {
		w.gate, w.state, w.tries, w.again = true, s, 0, time.Time{}
	}
}

// due reports whether there is something to say now.
func (w *words) due() bool {
	return (w.gate || w.findings || w.metrics) && !time.Now().Before(w.again)
}

// next is when something is to be said again, if anything is.
func (w *words) next() (time.Time, bool) { return w.again, w.gate || w.findings || w.metrics }

// tell says what is due.
func (w *words) tell(ctx context.Context, a *Agent, cloud Cloud) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	said := func(due *bool, failure string, say func() error) {
		if !*due || lost(cloud) {
			return
		}
		err := say()
		if err != nil && !lost(cloud) { // else that is logged
			a.Log.Warn(failure, "error", err)
		}
		if err != nil {
			return
		}
		*due = false
	}
	said(&w.gate, "the shadow does not show the gate yet", func() error { return cloud.ReportGate(ctx, w.state) })
	said(&w.findings, "the findings are not published yet", func() error { return cloud.PublishFindings(ctx, w.report) })
	said(&w.metrics, "Device Defender has not taken the metrics yet", func() error { return cloud.ReportMetrics(ctx, w.report) })
	if w.gate || w.findings || w.metrics {
		w.again = time.Now().Add(jittered(min(sayMost, sayFirst<<min(w.tries, 10))))
		w.tries++
	}
}
