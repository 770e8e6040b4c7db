package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
)

// Told is the latest time by AWS IoT's clock, kept over restarts: a clock that is
// behind it is wrong. The machine's own clock has no part in it.
type Told struct {
	Path string
	Disk durable.Disk

	kept time.Time
}

// ToldPath is where a state directory has it.
func ToldPath(stateDir string) string { return filepath.Join(stateDir, "clock") }

// keptEach spares the flash: a floor that is late by this does no harm.
const keptEach = time.Hour

const maxToldBytes = 64

// Load has [device.ClockFloor] know what was kept; nothing is no error.
func (t *Told) Load() error {
	b, err := t.Disk.ReadFile(t.Path, maxToldBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the time of AWS IoT's last answer: %w", err)
	}
	at, err := time.Parse(time.RFC3339, string(bytes.TrimSpace(b)))
	if err != nil {
		return fmt.Errorf("the time of AWS IoT's last answer: %s: %w", t.Path, err)
	}
	t.kept = at
	device.RaiseClockFloor(at)
	return nil
}

// Take takes the time of an answer. One that is before what is kept changes
// nothing.
func (t *Told) Take(at time.Time) error {
	if !device.RaiseClockFloor(at) || at.Before(t.kept.Add(keptEach)) {
		return nil
	}
	if err := t.Disk.WriteFile(t.Path, []byte(at.UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return fmt.Errorf("the time of AWS IoT's answer: %w", err)
	}
	t.kept = at
	return nil
}
