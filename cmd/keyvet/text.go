package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// screen is what people and programs read.
type screen struct{ cli.IO }

// Fail says what went wrong: of a file that only another user may use, what to do.
func (s screen) Fail(err error) {
	if refused, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		err = fmt.Errorf("%s: permission denied: run keyvet as root, or as the user of the service", refused.Path)
	}
	s.IO.Fail(err)
}

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

// table shows a report to a person.
func (s screen) table(r *device.Report) error {
	_, err := io.WriteString(s.Out, terminal.Of(s.Out).Report(r))
	return err
}

// progress shows on a terminal what takes longer than two seconds, until done
// is called.
func (s screen) progress(what string) (done func()) {
	if !cli.IsTerminal(s.Err) {
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
