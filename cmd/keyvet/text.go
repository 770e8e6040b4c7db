package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// screen is what people and programs read.
type screen struct{ cli.IO }

// say says something to people, in one line.
func (s screen) say(line string) { fmt.Fprintf(s.Err, "keyvet: %s\n", line) }

// json shows v to a program.
func (s screen) json(v any) error {
	enc := json.NewEncoder(s.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// outcome says why the gate is not open, and what was not delivered: a line each.
func (s screen) outcome(o gate.Outcome) {
	if o.State != gate.Open {
		line := "gate is " + o.State.String()
		if o.Refusal != "" {
			line += ": " + o.Refusal
		}
		s.Fail(errors.New(line))
	}
	if o.Undelivered != nil {
		s.Fail(fmt.Errorf("the report is not acknowledged: %w", o.Undelivered))
	}
	if o.Trouble != nil {
		s.Fail(o.Trouble)
	}
}

// gaps shows what could not be checked, one line each.
func (s screen) gaps(r *device.Report) {
	for _, g := range r.Gaps {
		if !g.Minor || r.Verbose {
			fmt.Fprintf(s.Err, "keyvet: %s: %s\n", cli.Printable(g.What), cli.Printable(g.Why))
		}
	}
}

// notMinor is the gaps that leave the verdict open.
func notMinor(gaps []device.Gap) []device.Gap {
	return slices.DeleteFunc(slices.Clone(gaps), func(g device.Gap) bool { return g.Minor })
}

// table shows a report to a person.
func (s screen) table(r *device.Report) error {
	var b bytes.Buffer
	color := isTerminal(s.Out) && os.Getenv("NO_COLOR") == ""
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if r.TPM != nil || len(r.Keys) > 0 {
		fmt.Fprintln(w, "KEY\tROLE\tALGORITHM\tSTATUS")
	}
	if t := r.TPM; t != nil {
		status := device.Worst(statuses(r, device.TPMKeyID)...)
		fmt.Fprintf(w, "%s\tTPM\t%s\t%s\n", device.TPMKeyID, cli.Printable(describeTPM(t)), paint(status, color))
	}
	for _, k := range r.Keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", cli.Printable(k.ID), k.Role, cli.Printable(k.Algorithm), paint(k.Status, color))
	}
	w.Flush()
	for _, f := range r.Findings {
		if !r.Verbose && (f.Status == device.Pass || f.Status == device.NotApplicable) {
			continue
		}
		fmt.Fprintf(&b, "\n%s  %s: %s", paint(f.Counts(), color), f.Check, cli.Printable(f.Key))
		if f.Severity != "" {
			fmt.Fprintf(&b, "  %s", f.Severity)
		}
		if f.ReasonCode != "" {
			fmt.Fprintf(&b, "  %s", f.ReasonCode)
		}
		fmt.Fprintf(&b, "\n  %s\n", cli.Printable(f.Message))
		if f.Citation != "" && f.Status != device.Pass && f.Status != device.NotApplicable {
			fmt.Fprintf(&b, "  %s\n", f.Citation)
		}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	if line := notLookedUp(r); line != "" {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, "%s\n", paint(r.Verdict(), color))
	_, err := s.Out.Write(b.Bytes())
	return err
}

// notLookedUp is the line on keys that no loaded list of Debian's weak keys has,
// wholly or in part; "" if there are none.
func notLookedUp(r *device.Report) string {
	count := make(map[string]int)
	for _, f := range r.Findings {
		if f.NotLookedUp != "" {
			count[f.NotLookedUp]++
		}
	}
	if len(count) == 0 {
		return ""
	}
	var words []string
	for _, what := range slices.Sorted(maps.Keys(count)) {
		words = append(words, fmt.Sprintf("%d %s", count[what], cli.Printable(what)))
	}
	return "could not be looked up in the Debian weak-key list: " + strings.Join(words, "; ")
}

func statuses(r *device.Report, key string) []device.Status {
	var all []device.Status
	for _, f := range r.Findings {
		if f.Key == key {
			all = append(all, f.Counts())
		}
	}
	return all
}

// describeTPM is one line: "IFX SLB9670 7.85.4555.0".
func describeTPM(t *device.TPM) string {
	if t.State != device.TPMOK {
		return string(t.State)
	}
	return strings.Join(strings.Fields(t.Manufacturer+" "+t.VendorString+" "+t.FirmwareVersion), " ")
}

// paint colours a status for a terminal.
func paint(v device.Status, color bool) string {
	if !color {
		return v.String()
	}
	code := map[device.Status]int{device.Pass: 32, device.Warn: 33, device.Fail: 31, device.Undecided: 35}[v]
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, v)
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress shows on a terminal what takes longer than two seconds, until done
// is called.
func (s screen) progress(what string) (done func()) {
	if !isTerminal(s.Err) {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	start := time.Now()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-stop:
				if shown {
					fmt.Fprint(s.Err, "\r\x1b[K")
				}
				return
			case <-tick.C:
				if d := time.Since(start); d >= 2*time.Second {
					fmt.Fprintf(s.Err, "\r\x1b[K%s … %.0f s", cli.Printable(what), d.Seconds())
					shown = true
				}
			}
		}
	}()
	return func() { close(stop); <-stopped }
}
