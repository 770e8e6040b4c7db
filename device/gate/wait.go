package gate

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/device/durable"
)

// lookAgain is how long a change can go unseen that the kernel does not report:
// there is no inotify, or it has no watch left.
const lookAgain = 5 * time.Second

// Wait returns when the gate of a run directory is open: there is a mark of this
// boot, and either a process holds the directory or the mark is by alone, which
// ends when it has opened the gate. The directory need not be there yet. An error
// means that it cannot be known how the gate stands, or that ctx is done.
func Wait(ctx context.Context, dir, alone string) error {
	w := newWatch()
	defer w.close()
	for {
		w.add(dir) // before looking: no change is missed
		open, err := vouchedFor(dir, alone)
		if err != nil || open {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.changed:
		case <-time.After(lookAgain):
		}
	}
}

// vouchedFor reports whether a gate is open by a mark that somebody vouches for.
// The mark of a process that was killed may still be there.
func vouchedFor(dir, alone string) (bool, error) {
	seen, mark, err := Look(dir, durable.Disk{}, BootID())
	if err != nil || seen != Open {
		return false, err
	}
	if mark.By == alone {
		return true, nil
	}
	return Held(dir)
}

// watch is inotify's on a directory.
type watch struct {
	fd      int
	file    *os.File // the same; nil without inotify
	changed chan struct{}
}

func newWatch() *watch {
	w := &watch{changed: make(chan struct{}, 1)}
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return w
	}
	w.fd, w.file = fd, os.NewFile(uintptr(fd), "inotify")
	go func() {
		buffer := make([]byte, 4<<10)
		for {
			if _, err := w.file.Read(buffer); err != nil {
				return
			}
			select {
			case w.changed <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

// events are those after which the gate may stand in another way.
const events = syscall.IN_CREATE | syscall.IN_MOVED_TO | syscall.IN_CLOSE_WRITE | syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF

// add watches dir or, as long as it is not there, the directory in which it, or
// what it is below, is to be made.
func (w *watch) add(dir string) {
	for at := dir; w.file != nil && !w.watched(at) && at != filepath.Dir(at); {
		at = filepath.Dir(at)
		if w.watched(at) && !w.watched(dir) {
			return // or else it was made in the meantime
		}
	}
}

// watched watches what is at path, if it is there.
func (w *watch) watched(path string) bool {
	_, err := syscall.InotifyAddWatch(w.fd, path, events)
	return err == nil
}

func (w *watch) close() {
	if w.file != nil {
		w.file.Close()
	}
}
