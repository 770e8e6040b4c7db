package durabletest_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
)

// TestKill is how a test has a real program lose power: the program, this one
// run again, kills itself at a point, and leaves its directory torn.
func TestKill(t *testing.T) {
	const inside = "DURABLETEST_KILL"
	if cutAt, err := strconv.Atoi(os.Getenv(inside)); err == nil {
		dir := os.Getenv(inside + "_DIR")
		shadow, err := durabletest.NewShadow(dir)
		must(t, err)
		power := &durabletest.Power{CutAt: cutAt, Kill: func() {
			must(t, shadow.Leave(1))
			must(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
			select {}
		}}
		must(t, durable.Disk{FS: power.FS(shadow)}.WriteFile(filepath.Join(dir, "file"), []byte("new!"), 0o600))
		return
	}
	var left []string
	for cutAt := 1; ; cutAt++ {
		dir := t.TempDir()
		must(t, durable.WriteFile(filepath.Join(dir, "file"), []byte("old!"), 0o600))
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), inside+"="+strconv.Itoa(cutAt), inside+"_DIR="+dir)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || err != nil && exit == nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b, readErr := os.ReadFile(filepath.Join(dir, "file"))
		must(t, readErr)
		left = append(left, string(b))
		if err == nil {
			break
		}
	}
	// Create, sync, rename, sync of the directory: two points each.
	if len(left) != 9 || left[0] != "old!" || left[8] != "new!" {
		t.Errorf("%d points, left %q", len(left)-1, left)
	}
	for _, content := range left {
		if content != "old!" && content != "new!" {
			t.Errorf("half a file: %q", content)
		}
	}
}
