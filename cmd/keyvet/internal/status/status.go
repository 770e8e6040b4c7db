// Package status reads from a device's files how it stands.
package status

import (
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/terminal"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/device/rotate"
)

// Once is what the mark of a gate says that nobody holds: run -once has ended.
const Once = "keyvet run -once"

// Report is what `keyvet status` tells.
type Report struct {
	Verdict      string              `json:"verdict,omitempty"` // "" before the first self-check
	ReportID     string              `json:"reportId,omitempty"`
	Time         *time.Time          `json:"time,omitempty"`
	Acknowledged bool                `json:"acknowledged"`
	Findings     []device.ReasonCode `json:"findings"`
	Problems     []Problem           `json:"problems"`              // what did not pass, the failing ones first
	Accepted     []device.Accepted   `json:"accepted,omitempty"`    // findings that the operator accepts
	Gaps         []device.Gap        `json:"gaps"`                  // those that are not minor: what could not be checked
	Gate         string              `json:"gate"`                  // open, shut, stuck
	Vouched      bool                `json:"vouched"`               // a keyvet lives that holds the gate
	OpenedBy     string              `json:"openedBy,omitempty"`    // "keyvet run -once" ends with the gate open, and nobody holds it
	Reason       string              `json:"reason,omitempty"`      // why the report opens nothing
	Undelivered  string              `json:"undelivered,omitempty"` // why the cloud has not acknowledged it
	Trouble      string              `json:"trouble,omitempty"`     // with the gate's files
	Credential   *Credential         `json:"credential,omitempty"`
	Spool        Spool               `json:"spool"`
	Rotation     *Rotation           `json:"rotation,omitempty"`     // under way
	Leaving      []rotate.Leaving    `json:"leaving,omitempty"`      // old credentials that are to be removed
	LastRotation *rotate.Outcome     `json:"lastRotation,omitempty"` // how the last one ended

	Configuration []string `json:"configuration,omitempty"` // its files, those last whose values take precedence
}

// Problem is a finding that did not pass.
type Problem struct {
	Status     device.Status     `json:"status"` // what the check found, even if that is accepted
	Key        string            `json:"keyId"`
	Place      string            `json:"place,omitempty"` // of a key that stands in one file with others
	Check      string            `json:"check"`
	ReasonCode device.ReasonCode `json:"reasonCode"`
	Message    string            `json:"message"`
	Accepted   bool              `json:"accepted,omitempty"`
}

// problemsOf lists the findings of a report that did not pass, the worst first.
func problemsOf(r *device.Report) []Problem {
	all, places := []Problem{}, r.Places()
	for _, status := range []device.Status{device.Fail, device.Undecided, device.Warn} {
		for _, f := range r.Findings {
			if f.Counts() == status {
				all = append(all, Problem{f.Status, f.Key, places[f.Key], f.Check, f.ReasonCode, f.Message, f.Accepted})
			}
		}
	}
	return all
}

// Rotation is a rotation under way.
type Rotation struct {
	Step    string            `json:"step"` // done or rolled back next
	Back    bool              `json:"back"`
	Job     string            `json:"job,omitempty"`
	Started time.Time         `json:"started"`
	Reason  device.ReasonCode `json:"reasonCode,omitempty"`
	Message string            `json:"message,omitempty"`
}

// Credential is the device's certificate.
type Credential struct {
	Source        string    `json:"source"`
	Algorithm     string    `json:"algorithm"`
	Subject       string    `json:"subject"`
	NotAfter      time.Time `json:"notAfter"`
	CertificateID string    `json:"certificateId"`
}

// Spool is what waits to be delivered.
type Spool struct {
	Reports int   `json:"reports"`
	Bytes   int64 `json:"bytes"`
}

// Read reads the state of a device. A device that was never vetted has one, too.
func Read(cfg *config.Config) (*Report, error) {
	st := &Report{Findings: []device.ReasonCode{}, Problems: []Problem{}, Gaps: []device.Gap{}, Configuration: cfg.Files()}
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
		st.Findings, st.Gaps, st.Accepted = r.ReasonCodes(), append(st.Gaps, r.Missing()...), r.Accepted
	}
	st.readGate(cfg.RunDir, state)
	certificate, _ := cfg.CredentialFiles()
	keys, _ := keyfile.Read(certificate)
	if len(keys) > 0 && keys[0].Leaf() != nil {
		leaf := keys[0].Leaf()
		st.Credential = &Credential{keys[0].Source, keys[0].Algorithm(), leaf.Subject.String(), leaf.NotAfter, device.CertificateID(leaf)}
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
		st.Rotation = &Rotation{r.Step, r.Back, r.Job.ID, r.Started, r.Reason, r.Message}
	}
	st.Leaving = journal.Leaving
	if n := len(journal.Ended); n > 0 {
		st.LastRotation = &journal.Ended[n-1]
	}
	return st, nil
}

// readGate says how the gate stands by the mark, and who vouches for it.
func (st *Report) readGate(dir string, kept *agent.State) {
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

// GateLine is the gate for a person.
func (st *Report) GateLine() string {
	switch {
	case st.Gate == gate.Shut.String():
		return strings.TrimSuffix("shut: "+st.whyShut(), ": ")
	case st.Gate != gate.Open.String() || st.Vouched:
		return st.Gate
	case st.OpenedBy == Once:
		return "open, left so by " + Once
	}
	return "open, but nobody vouches for it: no keyvet runs"
}

// whyShut is why the report opens nothing, as far as that is known.
func (st *Report) whyShut() string {
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
		return terminal.Count(n, "thing", "things") + " could not be checked"
	case st.Verdict != "" && !st.Acknowledged:
		return "AWS IoT has not acknowledged the report"
	}
	return ""
}
