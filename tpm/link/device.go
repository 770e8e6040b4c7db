package link

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
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
		if other := otherDevice(dir, name); other != "" {
			return fmt.Errorf("%w: %v, but there is %s: give that as the address", ErrAbsent, err, other)
		}
		return fmt.Errorf("%w: %v", ErrAbsent, err)
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: another program holds it; use the kernel's resource manager, /dev/tpmrm0", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %s", err, explainMode(path))
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// otherDevice is a TPM of the directory that has another name than the one that
// was given: the numbers change with the order in which drivers find their chips.
// One behind the resource manager comes first. It is "" if there is none.
func otherDevice(dir, name string) string {
	if !strings.HasPrefix(name, "tpm") {
		return ""
	}
	for _, pattern := range []string{"tpmrm[0-9]*", "tpm[0-9]*"} {
		if found, _ := filepath.Glob(dir + pattern); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

// explainMode says who may open a device, by its owner, group and mode.
func explainMode(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "the device's owner and mode cannot be read: run as root"
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "run as root"
	}
	mode := info.Mode().Perm()
	if mode&0o060 == 0o060 && owner.Gid != 0 {
		return fmt.Sprintf("%s belongs to user %d and group %s, mode %04o: run as root, or add this user to the group", path, owner.Uid, groupName("/etc/group", owner.Gid), mode)
	}
	return fmt.Sprintf("%s belongs to user %d and group %s, mode %04o, so no group may use it: give it one by a udev rule, as tpm2-tss installs one, or run as root",
		path, owner.Uid, groupName("/etc/group", owner.Gid), mode)
}

// groupName is the name of a group, by the file of groups, else its number.
func groupName(file string, gid uint32) string {
	number := strconv.FormatUint(uint64(gid), 10)
	f, err := os.Open(file)
	if err != nil {
		return number
	}
	defer f.Close()
	const most = 4 << 20
	lines := bufio.NewScanner(io.LimitReader(f, most))
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); len(fields) == 4 && fields[2] == number {
			return fields[0]
		}
	}
	return number
}
