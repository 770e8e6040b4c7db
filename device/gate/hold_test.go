package gate_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
)

// TestHold runs itself again as the other process.
func TestHold(t *testing.T) {
	const inside = "KEYVET_TEST_HOLD"
	if dir := os.Getenv(inside); dir != "" {
		_, err := gate.Hold(dir)
		held, heldErr := gate.Held(dir)
		t.Logf("refused: %v, held: %v %v", errors.Is(err, gate.ErrHeld), held, heldErr)
		return
	}
	other := func(dir string) string {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=^TestHold$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	run := filepath.Join(t.TempDir(), "run")
	if held, err := gate.Held(run); held || err != nil {
		t.Errorf("a directory that is not there: %v, %v", held, err)
	}
	release, err := gate.Hold(run)
	if err != nil {
		t.Fatal(err)
	}
	if held, err := gate.Held(run); !held || err != nil {
		t.Errorf("held: %v, %v", held, err)
	}
	if out := other(run); !strings.Contains(out, "refused: true, held: true <nil>") {
		t.Error(out)
	}
	release()
	if held, err := gate.Held(run); held || err != nil {
		t.Errorf("after the release: %v, %v", held, err)
	}
	if out := other(run); !strings.Contains(out, "refused: false, held: true <nil>") {
		t.Error(out)
	}
	if held, err := gate.Held(run); held || err != nil { // its holder has ended
		t.Errorf("after its end: %v, %v", held, err)
	}
	if info, err := os.Stat(filepath.Join(run, "lock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the lock is %v, %v: others must not be able to take it", info, err)
	}
}

func TestBootID(t *testing.T) {
	if id := gate.BootID(); len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("%q", id)
	}
}

// A start removes what an earlier agent left, but not from under one that lives.
func TestClear(t *testing.T) {
	run := t.TempDir()
	mark := gate.Path(run)
	if err := os.WriteFile(mark, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := gate.Hold(run)
	if err != nil {
		t.Fatal(err)
	}
	if err := gate.Clear(run, durable.Disk{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the mark of an agent that lives: %v", err)
	}
	release()
	if err := gate.Clear(run, durable.Disk{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark of one that ended: %v", err)
	}
	none := filepath.Join(run, "none")
	if err := gate.Clear(none, durable.Disk{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(none); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that was not there: %v", err)
	}
}
