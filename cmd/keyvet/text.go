package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// outcome says why the gate is not open, and what was not delivered: a line each.
func (s streams) outcome(o gate.Outcome) {
	if o.State != gate.Open {
		line := "gate is " + o.State.String()
		if o.Refusal != "" {
			line += ": " + o.Refusal
		}
		s.fail(errors.New(line))
	}
	if o.Undelivered != nil {
		s.fail(fmt.Errorf("the report is not acknowledged: %w", o.Undelivered))
	}
	if o.Trouble != nil {
		s.fail(o.Trouble)
	}
}

// gaps tells what could not be looked at, a line each.
func (s streams) gaps(r *device.Report) {
	for _, g := range r.Gaps {
		if !g.Minor || r.Verbose {
			fmt.Fprintf(s.err, "keyvet: %s: %s\n", printable(g.What), printable(g.Why))
		}
	}
}

// notMinor is the gaps that leave the verdict open.
func notMinor(gaps []device.Gap) []device.Gap {
	return slices.DeleteFunc(slices.Clone(gaps), func(g device.Gap) bool { return g.Minor })
}

// table shows a report to a person.
func (s streams) table(r *device.Report) error {
	var b bytes.Buffer
	color := isTerminal(s.out) && os.Getenv("NO_COLOR") == ""
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if r.TPM != nil || len(r.Keys) > 0 {
		fmt.Fprintln(w, "KEY\tROLE\tALGORITHM\tSTATUS")
	}
	if t := r.TPM; t != nil {
		status := device.Worst(statuses(r, device.TPMKeyID)...)
		fmt.Fprintf(w, "%s\tTPM\t%s\t%s\n", device.TPMKeyID, printable(describeTPM(t)), paint(status, color))
	}
	for _, k := range r.Keys {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(k.ID), k.Role, printable(k.Algorithm), paint(k.Status, color))
	}
	w.Flush()
	for _, f := range r.Findings {
		if f.Status == device.NotApplicable || f.Status == device.Pass && !r.Verbose {
			continue
		}
		fmt.Fprintf(&b, "\n%s  %s: %s", paint(f.Status, color), f.Check, printable(f.Key))
		if f.Severity != "" {
			fmt.Fprintf(&b, "  %s", f.Severity)
		}
		if f.ReasonCode != "" {
			fmt.Fprintf(&b, "  %s", f.ReasonCode)
		}
		fmt.Fprintf(&b, "\n  %s\n", printable(f.Message))
		if f.Citation != "" && f.Status != device.Pass {
			fmt.Fprintf(&b, "  %s\n", f.Citation)
		}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s\n", paint(r.Verdict(), color))
	_, err := s.out.Write(b.Bytes())
	return err
}

func statuses(r *device.Report, key string) []device.Status {
	var all []device.Status
	for _, f := range r.Findings {
		if f.Key == key {
			all = append(all, f.Status)
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

// printable keeps text from outside, such as a file's name or a certificate's
// subject, from steering the terminal or breaking the line.
func printable(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '�'
	}, text)
}

// progress tells on a terminal what takes longer than two seconds, until done
// is called.
func (s streams) progress(what string) (done func()) {
	if !isTerminal(s.err) {
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
					fmt.Fprint(s.err, "\r\x1b[K")
				}
				return
			case <-tick.C:
				if d := time.Since(start); d >= 2*time.Second {
					fmt.Fprintf(s.err, "\r\x1b[K%s … %.0f s", printable(what), d.Seconds())
					shown = true
				}
			}
		}
	}()
	return func() { close(stop); <-stopped }
}
