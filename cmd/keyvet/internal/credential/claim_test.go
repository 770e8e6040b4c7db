package credential

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
)

// unprivileged runs f as a user that is not root: the thread is given up after it.
func unprivileged(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread() // and never unlocked
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody)
		if errno == 0 {
			f()
		}
		done <- errno
	}()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}

func TestClaimFindings(t *testing.T) {
	dir := t.TempDir()
	c := config.Default()
	c.StateDir = filepath.Join(dir, "state")
	c.Provision.DeleteClaim = true
	c.Provision.ClaimCertificate, c.Provision.ClaimKey = filepath.Join(dir, "claim", "c.pem"), filepath.Join(dir, "claim", "k.pem")
	expect := func(want device.ReasonCode) {
		t.Helper()
		unprivileged(t, func() {
			found := ClaimFindings(*c)
			if want == "" && len(found) == 0 {
				return
			}
			if len(found) != 1 || found[0].ReasonCode != want || found[0].Status != device.Warn || !strings.Contains(found[0].Message, c.StateDir) {
				t.Errorf("%+v, want %s", found, want)
			}
		})
	}
	journal := rotate.File{Path: rotate.JournalPath(c.StateDir)}
	for _, d := range []string{dir, filepath.Dir(dir)} { // for the user that is not root
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	claim := filepath.Join(dir, "claim")
	if err := os.MkdirAll(claim, 0o755); err != nil {
		t.Fatal(err)
	}
	expect("") // no claim any more
	for _, name := range []string{c.Provision.ClaimCertificate, c.Provision.ClaimKey} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mode := func(m os.FileMode) {
		if err := os.Chmod(claim, m); err != nil {
			t.Fatal(err)
		}
	}
	mode(0o777)
	expect("")
	mode(0o555)
	expect(claimNotRemovable.Code)
	c.Provision.DeleteClaim = false
	expect("")
	c.Provision.DeleteClaim = true
	mode(0o777)

	s := &rotate.State{Leaving: []rotate.Leaving{{ID: rotate.Claim, At: time.Now()}}}
	save := func() {
		t.Helper()
		if err := journal.Save(s); err != nil {
			t.Fatal(err)
		}
		for path, m := range map[string]os.FileMode{c.StateDir: 0o755, journal.Path: 0o644} {
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	save()
	expect("") // it has its grace
	s.Leaving[0].Tries, s.Leaving[0].Why = 3, "read-only file system"
	save()
	expect(claimNotRemoved.Code)
	if err := RemoveClaim(*c); err != nil {
		t.Fatal(err)
	}
	if err := RemoveClaim(*c); err != nil {
		t.Errorf("a claim that is not there is not removed: %v", err)
	}
	if entries, err := os.ReadDir(claim); err != nil || len(entries) != 0 {
		t.Errorf("%v, %v", entries, err)
	}
}
