package gate_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device/gate"
)

// waiting waits for the gate of dir, and has begun when it returns.
func waiting(t *testing.T, ctx context.Context, dir string) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- gate.Wait(ctx, dir, "alone") }()
	return ended
}

func writeMark(t *testing.T, dir, text string) {
	t.Helper()
	next := filepath.Join(dir, ".trusted")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, gate.Path(dir)); err != nil {
		t.Fatal(err)
	}
}

// TestWait has the gate open while it is waited for: at once where the kernel
// reports changes, so that much less than the time between two looks is allowed.
func TestWait(t *testing.T) {
	const soon = 3 * time.Second // less than lookAgain
	for name, open := range map[string]func(*testing.T, string){
		"in a directory that is there": func(t *testing.T, dir string) { writeMark(t, dir, `{"by":"alone"}`) },
		"by an agent that holds it": func(t *testing.T, dir string) {
			hold(t, dir)
			writeMark(t, dir, `{"by":"keyvet run"}`)
		},
		"in a directory that is made again": func(t *testing.T, dir string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			writeMark(t, dir, `{"by":"alone"}`)
		},
		"after a mark of an agent that was killed": func(t *testing.T, dir string) {
			writeMark(t, dir, `{"by":"keyvet run"}`)
			hold(t, dir)
			writeMark(t, dir, `{"by":"keyvet run"}`)
		},
		"after a mark of another boot": func(t *testing.T, dir string) {
			writeMark(t, dir, `{"by":"alone","bootId":"another"}`)
			writeMark(t, dir, `{"by":"alone"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "keyvet")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			ended := waiting(t, t.Context(), dir)
			open(t, dir)
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(soon):
				t.Error("the gate is open, and it still waits")
			}
		})
	}
}

func hold(t *testing.T, dir string) {
	t.Helper()
	release, err := gate.Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
}

// TestWaitForDirectory begins before there is a run directory.
func TestWaitForDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run", "keyvet")
	ended := waiting(t, t.Context(), dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeMark(t, dir, `{"by":"alone"}`)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWaitInVain has marks that open nothing.
func TestWaitInVain(t *testing.T) {
	t.Parallel()
	for name, mark := range map[string]string{
		"no mark":                       "",
		"of an agent that was killed":   `{"by":"keyvet run"}`,
		"of another boot":               `{"by":"alone","bootId":"another"}`,
		"of another boot, by the agent": `{"by":"keyvet run","bootId":"another"}`,
	} {
		dir := t.TempDir()
		if mark != "" {
			writeMark(t, dir, mark)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := gate.Wait(ctx, dir, "alone"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	dir := t.TempDir()
	writeMark(t, dir, "damaged")
	if err := gate.Wait(t.Context(), dir, "alone"); err == nil || !strings.Contains(err.Error(), gate.Path(dir)) {
		t.Errorf("a damaged mark: %v", err)
	}
}
