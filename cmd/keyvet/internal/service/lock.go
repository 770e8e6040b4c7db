package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
)

// ErrLocked says that another keyvet runs on the state directory.
var ErrLocked = errors.New("another keyvet runs")

// lock keeps a second keyvet off the state directory. Where that is full or read-only
// and has no file for it yet, the directory itself is locked. Where there is not even
// that, nothing is: whoever opens a gate holds the run directory as well, and the state
// has nothing that two could spoil.
func lock(dir string) (unlock func(), err error) {
	err = durable.Dir(dir, 0o700)
	var f *os.File
	if err == nil || takesNothing(err) {
		f, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	}
	if takesNothing(err) {
		f, err = os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return func() {}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w on %s", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// takesNothing reports whether err is that of a disk that is full or read-only, which
// ends no report.
func takesNothing(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// newGate holds the run directory, if nobody else does, and makes the shut gate.
// A directory that cannot be held lets no gate open until it can; but the device
// is vetted, and its report goes out.
func newGate(cfg config.Config, by string) (g *gate.Gate, release func(), err error) {
	var letGo func() // nil: not held yet
	hold := func() (err error) {
		if letGo == nil {
			letGo, err = gate.Hold(cfg.RunDir)
		}
		return err
	}
	if err := hold(); errors.Is(err, gate.ErrHeld) {
		return nil, nil, err
	}
	g, _ = gate.New(cfg.RunDir, durable.Disk{}) // the gate's own state says what could not be removed
	g.Policy, g.By, g.BootID, g.Ready = cfg.Gate.Open, by, gate.BootID(), hold
	return g, func() {
		if letGo != nil {
			letGo()
		}
	}, nil
}
