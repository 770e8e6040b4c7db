package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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

const stateFile = "last.json"

// LoadState reads the outcome of the last self-check. The error wraps
// ErrNoState if there was none.
func LoadState(dir string) (*State, error) { return loadState(durable.Disk{}, dir) }

// LatestState is LoadState, but for what the run directory holds while the state
// directory, full or read-only, takes nothing.
func LatestState(stateDir, runDir string) (*State, error) {
	s, err := loadState(durable.Disk{}, runDir)
	if errors.Is(err, ErrNoState) {
		return LoadState(stateDir)
	}
	return s, err
}

// maxStateBytes is more than any report has that keyvet makes.
const maxStateBytes = 64 << 20

func loadState(disk durable.Disk, dir string) (*State, error) {
	path := filepath.Join(dir, stateFile)
	b, err := disk.ReadFile(path, maxStateBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoState
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read state: %s: %w", path, err)
	}
	if s.Report == nil {
		return nil, fmt.Errorf("read state: %s holds no report", path)
	}
	return s, nil
}

// keep puts s into the state directory or, where that takes nothing, into the run
// directory, so that what is shown is about the report that the gate stands on. It
// returns why the first failed; what an earlier keep left in the second goes.
func (s *State) keep(stateDir string, disk durable.Disk, runDir string) error {
	err := durable.Dir(stateDir, 0o700)
	if err == nil {
		err = s.write(durable.Disk{}, stateDir)
	}
	if err == nil {
		if err := disk.Remove(filepath.Join(runDir, stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("keep state: %w", err)
		}
		return nil
	}
	err = fmt.Errorf("the verdict cannot be kept in state_dir: %w", err)
	beside := *s
	beside.Trouble = strings.TrimPrefix(s.Trouble+"; "+oneLine(err), "; ")
	return errors.Join(err, beside.write(disk, runDir))
}

func (s *State) write(disk durable.Disk, dir string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return disk.WriteFile(filepath.Join(dir, stateFile), append(b, '\n'), 0o600)
}
