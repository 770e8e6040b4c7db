package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
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
	state, err := agent.LoadState(cfg.StateDir)
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
	st := &statusReport{Findings: []device.ReasonCode{}, Gaps: []device.Gap{}}
	state, err := agent.LoadState(cfg.StateDir)
	switch {
	case errors.Is(err, agent.ErrNoState):
		st.Reason, state = agent.ErrNoState.Error(), new(agent.State)
	case err != nil:
		return nil, err
	default:
		r := state.Report
		st.Verdict, st.ReportID, st.Time = r.Verdict().String(), r.ID, &r.Time
		st.Acknowledged, st.Reason, st.Undelivered, st.Trouble = state.Acknowledged, state.Reason, state.Undelivered, state.Trouble
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
	}
	if err := errors.Join(err, heldErr); err != nil {
		st.Trouble = err.Error()
	}
}

// gateLine is the gate for a person.
func (st *statusReport) gateLine() string {
	switch {
	case st.Gate != gate.Open.String() || st.Vouched:
		return st.Gate
	case st.OpenedBy == byOnce:
		return "open, left so by " + byOnce
	}
	return "open, but nobody vouches for it: no keyvet runs"
}

func (s screen) statusTable(st *statusReport) error {
	w := tabwriter.NewWriter(s.Out, 0, 0, 2, ' ', 0)
	verdict := "none yet"
	if st.Verdict != "" {
		verdict = fmt.Sprintf("%s  (%s, report %s)", st.Verdict, st.Time.Format(time.RFC3339), cli.Printable(st.ReportID))
	}
	fmt.Fprintf(w, "verdict\t%s\n", verdict)
	for _, code := range st.Findings {
		fmt.Fprintf(w, "\t%s\n", cli.Printable(code))
	}
	acknowledged := "no"
	if st.Acknowledged {
		acknowledged = "yes"
	}
	for _, a := range st.Accepted {
		fmt.Fprintf(w, "\t%s on %s is %s\n", cli.Printable(a.ReasonCode), cli.Printable(a.Key), cli.Printable(a.String()))
	}
	for _, g := range st.Gaps {
		fmt.Fprintf(w, "not checked\t%s: %s\n", cli.Printable(g.What), cli.Printable(g.Why))
	}
	fmt.Fprintf(w, "acknowledged\t%s\n", acknowledged)
	fmt.Fprintf(w, "gate\t%s\n", cli.Printable(st.gateLine()))
	for _, line := range [][2]string{{"reason", st.Reason}, {"undelivered", st.Undelivered}, {"trouble", st.Trouble}} {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], cli.Printable(line[1]))
		}
	}
	credential := "none"
	if c := st.Credential; c != nil {
		credential = fmt.Sprintf("%s %s, until %s, %s", c.Algorithm, cli.Printable(c.Subject), c.NotAfter.Format(time.DateOnly), cli.Printable(c.Source))
	}
	fmt.Fprintf(w, "credential\t%s\n", credential)
	fmt.Fprintf(w, "spool\t%d reports, %d bytes\n", st.Spool.Reports, st.Spool.Bytes)
	switch r := st.Rotation; {
	case r == nil:
	case r.Back:
		fmt.Fprintf(w, "rotation\tis being undone, at %s: %s %s\n", r.Step, r.Reason, cli.Printable(r.Message))
	default:
		fmt.Fprintf(w, "rotation\tunder way since %s, at %s\n", r.Started.Format(time.RFC3339), r.Step)
	}
	for _, l := range st.Leaving {
		what, at := "old key", l.At.Format(time.RFC3339)
		if l.ID == rotate.Claim {
			what = "claim"
		}
		if l.Tries == 0 {
			fmt.Fprintf(w, "rotation\tdone; the %s is removed at %s\n", what, at)
		} else {
			fmt.Fprintf(w, "%s\tcould not be removed: %s; it is tried again at %s\n", what, cli.Printable(l.Why), at)
		}
	}
	if o := st.LastRotation; o != nil {
		fmt.Fprintf(w, "last rotation\t%s\n", cli.Printable(strings.Join(strings.Fields(fmt.Sprint(o.Status, " ", o.Time.Format(time.RFC3339), " ", o.Reason, " ", o.Message)), " ")))
	}
	return w.Flush()
}
