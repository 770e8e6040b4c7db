package gate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keyvet/keyvet/device/durable"
)

// ErrHeld: another process holds the run directory, and vouches for its gate.
var ErrHeld = errors.New("another keyvet runs")

// Hold keeps other processes off a run directory until release, or until this
// process ends in whatever way. The error wraps ErrHeld if one is there already.
func Hold(dir string) (release func(), err error) {
	if err := durable.Dir(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lockPath(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.FcntlFlock(f.Fd(), setLock, &syscall.Flock_t{Type: syscall.F_WRLCK}); err != nil {
		f.Close()
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
			return nil, fmt.Errorf("%w on run_dir %s: end it first, or give this one a run_dir of its own", ErrHeld, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// Held reports whether a process holds the run directory. It takes no lock, so
// that it is in nobody's way.
func Held(dir string) (bool, error) {
	f, err := os.Open(lockPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	l := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), getLock, &l); err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return l.Type != syscall.F_UNLCK, nil
}

// Locks of an open file (fcntl(2), "Open file description locks"), which unlike
// those of flock(2) can be asked for without being taken.
const (
	getLock = 36 // F_OFD_GETLK
	setLock = 37 // F_OFD_SETLK
)

func lockPath(dir string) string { return filepath.Join(dir, "lock") }
