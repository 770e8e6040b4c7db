package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/device/rotate"
)

// statusReport is what `keyvet status` tells.
type statusReport struct {
	Verdict      string              `json:"verdict,omitempty"` // "" before the first self-check
	ReportID     string              `json:"reportId,omitempty"`
	Time         *time.Time          `json:"time,omitempty"`
	Acknowledged bool                `json:"acknowledged"`
	Findings     []device.ReasonCode `json:"findings"`
	Problems     []problem           `json:"problems"`              // what did not pass, the failing ones first
	Accepted     []device.Accepted   `json:"accepted,omitempty"`    // findings that the operator accepts
	Gaps         []device.Gap        `json:"gaps"`                  // those that are not minor: what could not be checked
	Gate         string              `json:"gate"`                  // open, shut, stuck
	Vouched      bool                `json:"vouched"`               // a keyvet lives that holds the gate
	OpenedBy     string              `json:"openedBy,omitempty"`    // "keyvet run -once" ends with the gate open, and nobody holds it
	Reason       string              `json:"reason,omitempty"`      // why the report opens nothing
	Undelivered  string              `json:"undelivered,omitempty"` // why the cloud has not acknowledged it
	Trouble      string              `json:"trouble,omitempty"`     // with the gate's files
	Credential   *credentialStatus   `json:"credential,omitempty"`
	Spool        spoolStatus         `json:"spool"`
	Rotation     *rotationStatus     `json:"rotation,omitempty"`     // under way
	Leaving      []rotate.Leaving    `json:"leaving,omitempty"`      // old credentials that are to be removed
	LastRotation *rotate.Outcome     `json:"lastRotation,omitempty"` // how the last one ended
}

// problem is a finding that did not pass.
type problem struct {
	Status     device.Status     `json:"status"` // what the check found, even if that is accepted
	Key        string            `json:"keyId"`
	Check      string            `json:"check"`
	ReasonCode device.ReasonCode `json:"reasonCode"`
	Message    string            `json:"message"`
	Accepted   bool              `json:"accepted,omitempty"`
}

// problemsOf lists the findings of a report that did not pass, the worst first.
func problemsOf(r *device.Report) []problem {
	all := []problem{}
	for _, status := range []device.Status{device.Fail, device.Undecided, device.Warn} {
		for _, f := range r.Findings {
			if f.Counts() == status {
				all = append(all, problem{f.Status, f.Key, f.Check, f.ReasonCode, f.Message, f.Accepted})
			}
		}
	}
	return all
}

// rotationStatus is a rotation under way.
type rotationStatus struct {
	Step    string            `json:"step"` // done or undone next
	Back    bool              `json:"back"`
	Job     string            `json:"job,omitempty"`
	Started time.Time         `json:"started"`
	Reason  device.ReasonCode `json:"reasonCode,omitempty"`
	Message string            `json:"message,omitempty"`
}

type credentialStatus struct {
	Source        string    `json:"source"`
	Algorithm     string    `json:"algorithm"`
	Subject       string    `json:"subject"`
	NotAfter      time.Time `json:"notAfter"`
	CertificateID string    `json:"certificateId"`
}

type spoolStatus struct {
	Reports int   `json:"reports"`
	Bytes   int64 `json:"bytes"`
}

var statusCommand = cli.Command{
	Name: "status", Short: "the last verdict, the gate, the credential, the spool, a rotation",
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
	st, err := readStatus(cfg)
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

func readStatus(cfg *config.Config) (*statusReport, error) {
	st := &statusReport{Findings: []device.ReasonCode{}, Problems: []problem{}, Gaps: []device.Gap{}}
	state, err := agent.LatestState(cfg.StateDir, cfg.RunDir)
	switch {
	case errors.Is(err, agent.ErrNoState):
		st.Reason, state = agent.ErrNoState.Error(), new(agent.State)
	case err != nil:
		return nil, err
	default:
		r := state.Report
		st.Verdict, st.ReportID, st.Time = r.Verdict().String(), r.ID, &r.Time
		st.Acknowledged, st.Reason, st.Undelivered, st.Trouble = state.Acknowledged, state.Reason, state.Undelivered, state.Trouble
		st.Problems = problemsOf(r)
		st.Findings, st.Gaps, st.Accepted = r.ReasonCodes(), append(st.Gaps, notMinor(r.Gaps)...), r.Accepted
	}
	st.readGate(cfg.RunDir, state)
	certificate, _ := cfg.CredentialFiles()
	keys, _ := keyfile.Read(certificate)
	if len(keys) > 0 && keys[0].Leaf() != nil {
		leaf := keys[0].Leaf()
		st.Credential = &credentialStatus{keys[0].Source, keys[0].Algorithm(), leaf.Subject.String(), leaf.NotAfter, device.CertificateID(leaf)}
	}
	entries, err := (&durable.Spool{Dir: filepath.Join(cfg.StateDir, "spool")}).List()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		st.Spool.Reports++
		st.Spool.Bytes += e.Size
	}
	journal, err := rotate.File{Path: rotate.JournalPath(cfg.StateDir)}.Load()
	if err != nil {
		return nil, err
	}
	if r := journal.Rotation; r != nil {
		st.Rotation = &rotationStatus{r.Step, r.Back, r.Job.ID, r.Started, r.Reason, r.Message}
	}
	st.Leaving = journal.Leaving
	if n := len(journal.Ended); n > 0 {
		st.LastRotation = &journal.Ended[n-1]
	}
	return st, nil
}

// readGate says how the gate stands by the mark, and who vouches for it.
func (st *statusReport) readGate(dir string, kept *agent.State) {
	seen, mark, err := gate.Look(dir, durable.Disk{}, gate.BootID())
	if seen == gate.Open && kept.Gate == gate.Stuck.String() {
		seen = gate.Stuck
	}
	held, heldErr := gate.Held(dir)
	st.Gate, st.Vouched = seen.String(), held
	if mark != nil {
		st.OpenedBy = mark.By
		if seen == gate.Open && st.Verdict == "" { // not even run_dir took it
			st.Reason = "the gate is open by report " + mark.ReportID + ", whose verdict could not be kept: see the log"
		}
	}
	if err := errors.Join(err, heldErr); err != nil {
		st.Trouble = err.Error()
	}
}

// gateLine is the gate for a person.
func (st *statusReport) gateLine() string {
	switch {
	case st.Gate == gate.Shut.String():
		return strings.TrimSuffix("shut: "+st.whyShut(), ": ")
	case st.Gate != gate.Open.String() || st.Vouched:
		return st.Gate
	case st.OpenedBy == byOnce:
		return "open, left so by " + byOnce
	}
	return "open, but nobody vouches for it: no keyvet runs"
}

// whyShut is why the report opens nothing, as far as that is known.
func (st *statusReport) whyShut() string {
	switch {
	case st.Reason != "" && st.Reason != "the verdict is "+st.Verdict:
		return st.Reason
	case st.Verdict == device.Fail.String():
		failing := make(map[string]bool)
		for _, p := range st.Problems {
			if p.Status == device.Fail && !p.Accepted {
				failing[p.Key] = true
			}
		}
		return terminal.Count(len(failing), "key fails", "keys fail")
	case st.Verdict == device.Undecided.String():
		n := len(st.Gaps)
		for _, p := range st.Problems {
			if p.Status == device.Undecided && !p.Accepted {
				n++
			}
		}
		return terminal.Count(n, "thing", "things") + " could not be looked at"
	case st.Verdict != "" && !st.Acknowledged:
		return "AWS IoT has not acknowledged the report"
	}
	return ""
}

func (s screen) statusTable(st *statusReport) error {
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
	why := func(status device.Status, word string, values ...string) {
		rows = append(rows, terminal.Row{Name: name, Status: status, Word: word, Values: values})
		name = ""
	}
	for _, p := range st.Problems {
		status, code := p.Status, p.ReasonCode
		if i := slices.IndexFunc(st.Accepted, func(a device.Accepted) bool { return a.ReasonCode == p.ReasonCode && a.Key == p.Key }); p.Accepted && i >= 0 {
			status, code = device.Warn, code+", "+st.Accepted[i].String()
		}
		why(status, p.Status.String(), p.Key, p.Check, code)
	}
	for _, g := range st.Gaps {
		why(device.Undecided, "GAP", g.What+": "+g.Why)
	}
	add("acknowledged", map[bool]string{true: "yes", false: "no"}[st.Acknowledged])
	add("gate", st.gateLine())
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
		add("rotation", fmt.Sprintf("is being undone, at %s: %s %s", r.Step, r.Reason, r.Message))
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
	_, err := io.WriteString(s.Out, terminal.Of(s.Out).Rows(rows))
	return err
}
