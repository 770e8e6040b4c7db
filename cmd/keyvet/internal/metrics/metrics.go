// Package metrics writes a device's state for node_exporter's textfile collector
// (github.com/prometheus/node_exporter, "Textfile Collector").
package metrics

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
)

// Textfile is the file, and what is in it. Without a path it is none.
type Textfile struct {
	Path  string
	Agent device.Agent
	Log   *slog.Logger

	last    *device.Report // nil: none yet
	outcome gate.Outcome   // of the last
}

// Ended writes how the gate stands when the service ends.
func (t *Textfile) Ended(state gate.State) {
	if t.last != nil {
		t.outcome.State = state
		t.Settled(t.last, t.outcome)
	}
}

// Settled writes what came of a report.
func (t *Textfile) Settled(r *device.Report, o gate.Outcome) {
	if t.last, t.outcome = r, o; t.Path == "" {
		return
	}
	if err := (durable.Disk{}).WriteFile(t.Path, t.text(r, o), 0o644); err != nil {
		t.Log.Warn("metrics.textfile is not written", "error", err)
	}
}

// text is in the text-based exposition format, version 0.0.4.
func (t *Textfile) text(r *device.Report, o gate.Outcome) []byte {
	var b strings.Builder
	family := func(name, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %[1]s gauge\n", name, help) }
	family("keyvet_build_info", "The keyvet that made the last report.")
	fmt.Fprintf(&b, "keyvet_build_info{version=%s,commit=%s} 1\n", quoted(t.Agent.Version), quoted(t.Agent.Commit))
	family("keyvet_verdict", "1 for the verdict of the last self-check.")
	for _, status := range []device.Status{device.Pass, device.Warn, device.Fail, device.Undecided} {
		fmt.Fprintf(&b, "keyvet_verdict{verdict=%s} %d\n", quoted(status.String()), one(r.Verdict() == status))
	}
	family("keyvet_check_timestamp_seconds", "When the last self-check was made, by the device's clock.")
	fmt.Fprintf(&b, "keyvet_check_timestamp_seconds %d\n", r.Time.Unix())
	family("keyvet_report_acknowledged", "1 if the cloud has acknowledged the report of the last self-check.")
	fmt.Fprintf(&b, "keyvet_report_acknowledged %d\n", one(o.Acknowledged))
	family("keyvet_gate_open", "1 if the gate is open.")
	fmt.Fprintf(&b, "keyvet_gate_open %d\n", one(o.State == gate.Open))
	family("keyvet_gaps", "What could not be checked, and leaves the verdict open.")
	fmt.Fprintf(&b, "keyvet_gaps %d\n", len(r.Missing()))
	family("keyvet_keys", "The keys that were tested, by their status.")
	counts(&b, "keyvet_keys", r.Keys, func(k device.KeyReport) string {
		return "role=" + quoted(string(k.Role)) + ",status=" + quoted(k.Status.String())
	})
	family("keyvet_findings", "What did not pass.")
	counts(&b, "keyvet_findings", r.Findings, func(f device.Finding) string {
		if f.Status == device.Pass {
			return ""
		}
		return "check=" + quoted(f.Check) + ",status=" + quoted(f.Status.String()) + ",code=" + quoted(string(f.ReasonCode))
	})
	family("keyvet_certificate_not_after_seconds", "When the device's certificate expires.")
	for _, k := range r.Keys {
		if k.Role == device.RoleDevice && k.Certificate != nil {
			fmt.Fprintf(&b, "keyvet_certificate_not_after_seconds{key=%s} %d\n", quoted(k.ID), k.Certificate.NotAfter.Unix())
		}
	}
	return []byte(b.String())
}

// counts writes how many there are of each set of labels; "" is not counted.
func counts[T any](b *strings.Builder, name string, all []T, labels func(T) string) {
	n := make(map[string]int)
	for _, v := range all {
		if of := labels(v); of != "" {
			n[of]++
		}
	}
	var sorted []string
	for of := range n {
		sorted = append(sorted, of)
	}
	slices.SortFunc(sorted, cmp.Compare[string])
	for _, of := range sorted {
		fmt.Fprintf(b, "%s{%s} %d\n", name, of, n[of])
	}
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// quoted is the value of a label.
func quoted(text string) string { return `"` + escape.Replace(strings.ToValidUTF8(text, "�")) + `"` }
