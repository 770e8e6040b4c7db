package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/status"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
)

var statusCommand = cli.Command{
	Name: "status", Short: "the last verdict, the gate, the credential, what waits",
	Long: `Shows the last verdict, how the gate stands and why, the credential, what waits
in the spool, and a rotation under way. It only reads files.`,
	Notes: `exit status: 0 shown, 2 wrong usage or configuration, 3 the state cannot be
read; with -q: 0 pass (warnings included), 1 a key or the firmware fails,
3 undecided, or not vetted yet`,
	New: func(f *flag.FlagSet) cli.Action {
		configPath := f.String("config", "", configUsage+", if it is there")
		asJSON := f.Bool("json", false, "one JSON document on standard output")
		quiet := f.Bool("q", false, "show nothing: the exit status is that of the last verdict")
		return func(_ context.Context, s cli.IO, _ []string) int {
			if *quiet && *asJSON {
				return s.Misused("status: -q shows nothing, -json a document")
			}
			cfg, err := config.Load(*configPath)
			if err != nil {
				s.Fail(err)
				return cli.Usage
			}
			if *quiet {
				return screen{s}.verdict(cfg)
			}
			if err := config.None(*configPath); err != nil {
				screen{s}.Fail(err)
			}
			return screen{s}.status(cfg, *asJSON)
		}
	},
}

// verdict returns the exit status of the last verdict.
func (s screen) verdict(cfg *config.Config) int {
	state, err := agent.LatestState(cfg.StateDir, cfg.RunDir)
	switch {
	case errors.Is(err, agent.ErrNoState):
		return cli.Undecided
	case err != nil:
		s.Fail(err)
		return cli.Undecided
	}
	return exitStatus(state.Report.Verdict())
}

func (s screen) status(cfg *config.Config, asJSON bool) int {
	st, err := status.Read(cfg)
	if err != nil {
		s.Fail(err)
		return cli.Undecided
	}
	if asJSON {
		err = s.json(st)
	} else {
		err = s.statusTable(st)
	}
	if err != nil {
		s.Fail(fmt.Errorf("write the result: %w", err))
		return cli.Undecided
	}
	return cli.Pass
}

func (s screen) statusTable(st *status.Report) error {
	var rows []terminal.Row
	add := func(name string, values ...string) { rows = append(rows, terminal.Row{Name: name, Values: values}) }
	verdict := "none yet"
	if st.Verdict != "" {
		verdict = fmt.Sprintf("%s  (%s, report %s)", st.Verdict, st.Time.Format(time.RFC3339), st.ReportID)
	} else if st.Gate != gate.Shut.String() {
		verdict = "unknown: " + st.Reason
	}
	add("verdict", verdict)
	name := "why"
	why := func(mark device.Status, word string, values ...string) {
		rows = append(rows, terminal.Row{Name: name, Status: mark, Word: word, Values: values})
		name = ""
	}
	for _, p := range st.Problems {
		mark, code := p.Status, p.ReasonCode
		if i := slices.IndexFunc(st.Accepted, func(a device.Accepted) bool { return a.ReasonCode == p.ReasonCode && a.Key == p.Key }); p.Accepted && i >= 0 {
			mark, code = device.Warn, code+", "+st.Accepted[i].String()
		}
		why(mark, p.Status.String(), p.Key, p.Check, strings.TrimSpace(code+"  "+p.Place))
	}
	for _, g := range st.Gaps {
		why(device.Undecided, "GAP", g.What+": "+g.Why)
	}
	add("acknowledged", map[bool]string{true: "yes", false: "no"}[st.Acknowledged])
	add("gate", st.GateLine())
	for _, line := range [][2]string{{"undelivered", st.Undelivered}, {"trouble", st.Trouble}} {
		if line[1] != "" {
			add(line[0], line[1])
		}
	}
	credential := "none"
	if c := st.Credential; c != nil {
		credential = fmt.Sprintf("%s %s, until %s, %s", c.Algorithm, c.Subject, c.NotAfter.Format(time.DateOnly), c.Source)
	}
	add("credential", credential)
	add("spool", fmt.Sprintf("%d reports, %d bytes", st.Spool.Reports, st.Spool.Bytes))
	switch r := st.Rotation; {
	case r == nil:
	case r.Back:
		add("rotation", fmt.Sprintf("is being rolled back, at %s: %s %s", r.Step, r.Reason, r.Message))
	default:
		add("rotation", fmt.Sprintf("under way since %s, at %s", r.Started.Format(time.RFC3339), r.Step))
	}
	for _, l := range st.Leaving {
		what, at := "old key", l.At.Format(time.RFC3339)
		if l.ID == rotate.Claim {
			what = "claim"
		}
		if l.Tries == 0 {
			add("rotation", fmt.Sprintf("done; the %s is removed at %s", what, at))
		} else {
			add(what, fmt.Sprintf("could not be removed: %s; it is tried again at %s", l.Why, at))
		}
	}
	if o := st.LastRotation; o != nil {
		add("last rotation", strings.Join(strings.Fields(fmt.Sprint(o.Status, " ", o.Time.Format(time.RFC3339), " ", o.Reason, " ", o.Message)), " "))
	}
	if len(st.Configuration) > 1 { // with fragments, those last whose values take precedence
		for i, file := range st.Configuration {
			add([]string{"configuration", ""}[min(i, 1)], file)
		}
	}
	_, err := io.WriteString(s.Out, terminal.Of(s.Out).Rows(rows))
	return err
}
