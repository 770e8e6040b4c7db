package link

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// openDevice opens a TPM character device for blocking reads and writes.
//
// Deadlines of os.File are of no use here: they need a non-blocking
// descriptor, and on one the kernel's TPM driver answers a read that comes
// before the response with 0 bytes, an end of file, instead of EAGAIN
// (drivers/char/tpm/tpm-dev-common.c). os.OpenFile would set it non-blocking
// by itself, hence syscall.Open.
func openDevice(path string, timeout time.Duration) (io.ReadWriteCloser, error) {
	fd, err := whileBusy(timeout, func() (int, error) { return syscall.Open(path, syscall.O_RDWR|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return nil, explainOpen(path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if info, err := f.Stat(); err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		f.Close()
		return nil, errors.New("not a character device")
	}
	return f, nil
}

// whileBusy repeats open while it is interrupted, or another program holds the
// device, until the timeout.
func whileBusy(timeout time.Duration, open func() (int, error)) (int, error) {
	deadline := time.Now().Add(timeout)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		fd, err := open()
		if !errors.Is(err, syscall.EINTR) && !errors.Is(err, syscall.EBUSY) || time.Until(deadline) < pause {
			return fd, err
		}
		time.Sleep(pause)
	}
}

// explainOpen says why a device cannot be opened, and what to do next.
func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		dir, name := filepath.Split(path)
		if number, ok := strings.CutPrefix(name, "tpmrm"); ok {
			if bare := dir + "tpm" + number; exists(bare) {
				return fmt.Errorf("%w: %v, but there is %s: the kernel has no resource manager for this TPM (before Linux 4.12, or a TPM 1.2): give %s, and let no other program use it", ErrAbsent, err, bare, bare)
			}
		}
		return fmt.Errorf("%w: %v", ErrAbsent, err)
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: another program holds it; use the kernel's resource manager, /dev/tpmrm0", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: run as root or as a member of the device's group", err)
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
