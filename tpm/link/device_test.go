package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// blockingFile is a file that blocks, as that of a TPM does, and the other end of it.
func blockingFile(t *testing.T) (device, chip *os.File) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	device, chip = os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "chip")
	t.Cleanup(func() { device.Close(); chip.Close() })
	return device, chip
}

func TestBlockingFile(t *testing.T) {
	device, chip := blockingFile(t)
	if err := device.SetDeadline(time.Now()); err == nil {
		t.Fatal("the file takes deadlines: it is not as a device is")
	}
	go func() {
		command := make([]byte, maxFrame)
		n, _ := chip.Read(command)
		binary.BigEndian.PutUint32(command[6:], 0) // success
		chip.Write(command[:n])
	}()
	c := New("device", device, time.Minute)
	command := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 2, 3, 4}
	response, err := c.Send(command)
	if want := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0, 0, 3, 4}; err != nil || !bytes.Equal(response, want) {
		t.Errorf("%x, %v", response, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Send(command); err == nil {
		t.Error("a closed link answered")
	}
}

// A read that nothing can interrupt is left behind.
func TestBlockingFileTimeout(t *testing.T) {
	device, chip := blockingFile(t)
	c := New("device", device, 20*time.Millisecond)
	command := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 2}
	if _, err := c.Send(command); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	if _, err := chip.Write(command); err != nil { // the late answer
		t.Fatal(err)
	}
	if _, err := c.Send(command); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestCommandBounds(t *testing.T) {
	for _, n := range []int{0, 9, 4097} {
		if _, err := roundTrip(nil, make([]byte, n)); err == nil {
			t.Errorf("a command of %d bytes was sent", n)
		}
	}
}

func TestExplainOpen(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"tpm0": 0o600, "tpmrm2": 0o660} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	other, grouped := t.TempDir(), filepath.Join(dir, "tpmrm2")
	shut := fmt.Sprintf("tpm0 belongs to user %d and group ", os.Getuid())
	who := "run as root, or add this user to the group"
	if os.Chown(grouped, -1, 12345) != nil || os.Getgid() != 0 { // only root may
		t.Log("not run as root: the device's group is this user's")
	}
	for _, c := range []struct {
		path string
		err  error
		want string
	}{
		{"tpmrm0", syscall.ENOENT, "but there is " + dir + "/tpm0: the kernel has no resource manager"},
		{"tpmrm1", syscall.ENOENT, "no such file or directory, but there is " + grouped + ": give that as the address"},
		{"tpm1", syscall.ENOENT, "but there is " + grouped},
		{"tpm0", syscall.ENODEV, "no TPM there: no such device"},
		{"other", syscall.ENOENT, "no TPM there: no such file or directory"},
		{"tpm0", syscall.EBUSY, "another program holds it; use the kernel's resource manager"},
		{"tpm0", syscall.EACCES, shut},
		{"tpm0", syscall.EACCES, ", mode 0600, so no group may use it: give it one by a udev rule"},
		{"tpmrm2", syscall.EACCES, who},
		{"tpmrm2", syscall.EPERM, ", mode 0660: "},
		{"none", syscall.EACCES, "cannot be read"},
		{"tpm0", syscall.EIO, "input/output error"},
	} {
		err := explainOpen(filepath.Join(dir, c.path), c.err)
		absent := errors.Is(c.err, fs.ErrNotExist) || c.err == syscall.ENODEV
		if !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrAbsent) != absent || !absent && !errors.Is(err, c.err) {
			t.Errorf("%s, %v: %v", c.path, c.err, err)
		}
	}
	if err := explainOpen(filepath.Join(other, "tpmrm0"), syscall.ENOENT); err.Error() != "no TPM there: no such file or directory" {
		t.Errorf("%v", err)
	}
	if _, err := Open(filepath.Join(dir, "tpmrm0"), time.Second); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "no resource manager") {
		t.Errorf("%v", err)
	}
}

// Another program may hold the device for a while, but not for ever.
func TestWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		answers := []error{syscall.EBUSY, syscall.EINTR, syscall.EBUSY, nil}
		fd, err := whileBusy(time.Minute, func() (int, error) { tries++; return 7, answers[tries-1] })
		if fd != 7 || err != nil || tries != len(answers) {
			t.Errorf("%d, %v after %d tries", fd, err, tries)
		}
		start := time.Now()
		if _, err := whileBusy(time.Minute, func() (int, error) { return -1, syscall.EBUSY }); err != syscall.EBUSY || time.Since(start) > time.Minute || time.Since(start) < 50*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		start = time.Now()
		if _, err := whileBusy(time.Minute, func() (int, error) { return -1, syscall.ENOENT }); err != syscall.ENOENT || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestGroupName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "group")
	if err := os.WriteFile(file, []byte("root:x:0:\nbroken\ntss:x:59:keyvet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for gid, want := range map[uint32]string{0: "root", 59: "tss", 60: "60"} {
		if got := groupName(file, gid); got != want {
			t.Errorf("%d is %q, want %q", gid, got, want)
		}
	}
	if got := groupName(file+"x", 59); got != "59" {
		t.Errorf("%q", got)
	}
}
