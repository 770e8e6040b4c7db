package link

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	if err := os.WriteFile(filepath.Join(dir, "tpm0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		err  error
		want string
	}{
		{"tpmrm0", syscall.ENOENT, "but there is " + dir + "/tpm0: the kernel has no resource manager"},
		{"tpmrm1", syscall.ENOENT, "no TPM there: no such file or directory"},
		{"tpm1", syscall.ENOENT, "no TPM there: no such file or directory"},
		{"tpm0", syscall.ENODEV, "no TPM there: no such device"},
		{"tpm0", syscall.EBUSY, "another program holds it; use the kernel's resource manager"},
		{"tpm0", syscall.EACCES, "run as root"},
		{"tpm0", syscall.EIO, "input/output error"},
	} {
		err := explainOpen(filepath.Join(dir, c.path), c.err)
		absent := errors.Is(c.err, fs.ErrNotExist) || c.err == syscall.ENODEV
		if !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrAbsent) != absent || !absent && !errors.Is(err, c.err) {
			t.Errorf("%s, %v: %v", c.path, c.err, err)
		}
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
