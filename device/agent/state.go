package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
)

// State is the outcome of the last self-check, as it is kept in the state
// directory.
type State struct {
	Report       *device.Report `json:"report"`
	Acknowledged bool           `json:"acknowledged"` // by the cloud
	Gate         string         `json:"gate"`         // [gate.State] when this was written; [gate.Look] says how it stands
	// Why the report opens nothing, why the cloud has not acknowledged it, and
	// what is wrong with the gate's files; "" where there is nothing to say.
	Reason      string `json:"reason,omitempty"`
	Undelivered string `json:"undelivered,omitempty"`
	Trouble     string `json:"trouble,omitempty"`
}

func stateOf(r *device.Report, o gate.Outcome) *State {
	s := &State{Report: r, Acknowledged: o.Acknowledged, Gate: o.State.String(), Reason: o.Refusal}
	if o.Undelivered != nil {
		s.Undelivered = oneLine(o.Undelivered)
	}
	if o.Trouble != nil {
		s.Trouble = oneLine(o.Trouble)
	}
	return s
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// ErrNoState says that this device has not vetted itself yet.
var ErrNoState = errors.New("no self-check has run yet")

func statePath(dir string) string { return filepath.Join(dir, "last.json") }

// LoadState reads the outcome of the last self-check. The error wraps
// ErrNoState if there was none.
func LoadState(dir string) (*State, error) {
	b, err := os.ReadFile(statePath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("agent: %w", ErrNoState)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: read state: %w", err)
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("agent: read state: %s: %w", statePath(dir), err)
	}
	if s.Report == nil {
		return nil, fmt.Errorf("agent: read state: %s holds no report", statePath(dir))
	}
	return s, nil
}

func (s *State) save(dir string) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = durable.Dir(dir, 0o700)
	}
	if err == nil {
		err = durable.WriteFile(statePath(dir), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("agent: keep state: %w", err)
	}
	return nil
}
