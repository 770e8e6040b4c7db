// Package tpm reads one TPM 2.0: what it says of itself, its keys and their
// certificates, and a quote over a report. It changes nothing in the TPM: what
// it loads it flushes, on errors too, and it makes nothing persistent but what
// [TPM.PersistentAK] is asked for. Of a TPM
// 1.2 it reads what there is to be read without a password, see [tpm12].
//
// A TPM is reached through the kernel's character devices, over a socket that
// carries plain TPM commands and responses, as swtpm's data channel does, or on
// a bare SPI or I2C bus (package tis). Not spoken: the Microsoft simulator's
// protocol.
//
// "Part 1" to "Part 4" are those of the TCG's Trusted Platform Module Library
// Specification, Family "2.0", revision 1.59; "EK Profile" is the TCG EK
// Credential Profile for TPM Family 2.0, version 2.5.
package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/tpm/tis"
)

var (
	// ErrAbsent: there is no such device, or nothing listens at the address.
	ErrAbsent = tis.ErrAbsent
	// ErrTimeout: the TPM did not answer in time. Nothing more can be asked
	// of it over the same TPM value.
	ErrTimeout = tis.ErrTimeout
)

// DefaultTimeout is how long a command may take if [Options] does not say.
const DefaultTimeout = 30 * time.Second

// rsaCreation is the least time that the creation of an RSA key may take:
// chips search for primes for up to two minutes.
const rsaCreation = 120 * time.Second

// Options for [Open].
type Options struct {
	// Timeout bounds the connection and each command; zero means
	// DefaultTimeout. The creation of an RSA key has at least 120 s.
	Timeout time.Duration
	// AKOptional says that the operator accepts a TPM that cannot make an
	// attestation key, for want of P-256 or because the endorsement hierarchy
	// has a password: nothing it states is then held against what it signs.
	AKOptional bool
}

// TPM is one connection to one TPM. Its methods may be called from several
// goroutines; commands go one at a time.
type TPM struct {
	address    string
	timeout    time.Duration
	akOptional bool

	is12        atomic.Bool   // a TPM 1.2, as the kernel says or as it answered
	ak          *AK           // nil: the primary key attestationKey
	nvBufferMax atomic.Uint32 // TPM_PT_NV_BUFFER_MAX; zero if it was not read

	mu     sync.Mutex
	conn   io.ReadWriteCloser
	broken error // why no further command may be sent
}

// Open connects to the TPM at address: a device path (/dev/tpmrm0, /dev/tpm0),
// unix:PATH, tcp:HOST:PORT, or spi: or i2c: as tis.Open has them. It sends no command
// yet, unless an earlier connection of this program broke while a key of its
// own was in the TPM. The error wraps ErrAbsent if nothing is there, ErrTimeout if connecting took too long.
func Open(address string, opts Options) (*TPM, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	conn, err := dial(address, opts.Timeout)
	if err != nil {
		return nil, fmt.Errorf("tpm: open %s: %w", address, err)
	}
	t := &TPM{address: address, timeout: opts.Timeout, akOptional: opts.AKOptional, conn: conn}
	t.is12.Store(kernelSaysTPM12("/sys/class/tpm", address))
	t.flushLeftovers()
	return t, nil
}

// kernelSaysTPM12 tells whether the kernel knows a device as a TPM 1.2, so that
// it need not be asked by a command that it does not have. Kernels before Linux
// 5.6 do not say.
func kernelSaysTPM12(sysfs, address string) bool {
	name := strings.Replace(filepath.Base(address), "tpmrm", "tpm", 1)
	major, err := os.ReadFile(filepath.Join(sysfs, name, "tpm_version_major"))
	return err == nil && strings.HasPrefix(address, "/") && strings.TrimSpace(string(major)) == "1"
}

// CheckAddress tells whether address can be one for [Open]; it opens nothing.
func CheckAddress(address string) error {
	scheme, rest, ok := strings.Cut(address, ":")
	switch {
	case strings.HasPrefix(address, "/"):
		return nil
	case !ok:
		return errors.New("not an address: give a device path such as /dev/tpmrm0, unix:PATH or tcp:HOST:PORT")
	case scheme == "spi", scheme == "i2c":
		return tis.CheckAddress(address)
	case scheme != "unix" && scheme != "tcp":
		return fmt.Errorf("unknown scheme %q: give a device path such as /dev/tpmrm0, unix:PATH or tcp:HOST:PORT", scheme)
	case scheme == "unix" && rest == "":
		return errors.New("unix: without the path of a socket")
	case scheme == "tcp":
		_, _, err := net.SplitHostPort(rest)
		return err
	}
	return nil
}

func dial(address string, timeout time.Duration) (io.ReadWriteCloser, error) {
	if err := CheckAddress(address); err != nil {
		return nil, err
	}
	scheme, rest, _ := strings.Cut(address, ":")
	switch {
	case strings.HasPrefix(address, "/"):
		return openDevice(address, timeout)
	case scheme == "spi", scheme == "i2c":
		return openBus(address, timeout)
	}
	deadline := time.Now().Add(timeout)
	conn, err := net.DialTimeout(scheme, rest, timeout)
	for pause := time.Millisecond; errors.Is(err, syscall.EAGAIN) && time.Until(deadline) > pause; pause = min(2*pause, 100*time.Millisecond) {
		time.Sleep(pause) // the queue of a unix socket is full, and connect(2) does not wait for it
		conn, err = net.DialTimeout(scheme, rest, time.Until(deadline))
	}
	if err == nil {
		return conn, nil
	}
	var timedOut net.Error
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %v", ErrAbsent, cause(err))
	case errors.As(err, &timedOut) && timedOut.Timeout():
		return nil, fmt.Errorf("connecting %w after %v", ErrTimeout, timeout)
	}
	return nil, err
}

// cause is the system's word for err, without Go's operation and address.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

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

// Close ends the connection; no command can be sent after it.
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return nil // closed when it broke, or before
	}
	t.broken = fmt.Errorf("%s: closed", t.address)
	return t.conn.Close()
}

// A frame is a command or a response. It starts with a header of ten bytes:
// tag (2 bytes), length of the whole (4), command or response code (4), all
// big-endian (Part 1, section 18).
const (
	headerLen = 10
	maxFrame  = 4096 // the largest buffer of the PC Client profile, and of the kernel
)

// Send sends one command and returns the response to it, each a whole frame.
// It implements transport.TPM of go-tpm. After an error that did not come from
// the TPM itself, every further Send fails with that error: a late answer must
// never be taken for the answer to a later command.
func (t *TPM) Send(command []byte) ([]byte, error) { return t.send(command, t.timeout) }

// send repeats a command that the TPM asks to repeat, within one deadline.
func (t *TPM) send(command []byte, timeout time.Duration) ([]byte, error) {
	deadline := time.Now().Add(timeout)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		response, err := t.exchange(command, deadline, timeout)
		if err != nil || !asksAgain(response) || time.Until(deadline) < pause {
			return response, err
		}
		time.Sleep(pause)
	}
}

// asksAgain tells whether the TPM could not start the command now: it yielded,
// is testing itself, spares its NV, or says so (Part 2, section 6.6.3; for TPM 1.2,
// TPM Main Specification, Part 2, section 16).
func asksAgain(response []byte) bool {
	switch binary.BigEndian.Uint32(response[6:]) {
	case 0x908, 0x90a, 0x920, 0x922: // TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_NV_RATE, TPM_RC_RETRY
		return true
	case 0x800, 0x802: // TPM_RETRY, TPM_DOING_SELFTEST
		return true
	}
	return false
}

func (t *TPM) exchange(command []byte, deadline time.Time, timeout time.Duration) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return nil, t.broken
	}
	response, err := roundTripBy(t.conn, command, deadline)
	switch {
	case err == nil:
		return response, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		t.broken = fmt.Errorf("%s: %w: no answer within %v (hung, or serving another client: an emulator serves one at a time)", t.address, ErrTimeout, timeout)
	default:
		t.broken = fmt.Errorf("%s: %w", t.address, err)
	}
	t.conn.Close()
	return nil, t.broken
}

// roundTripBy is roundTrip, or os.ErrDeadlineExceeded.
func roundTripBy(conn io.ReadWriter, command []byte, deadline time.Time) ([]byte, error) {
	if socket, ok := conn.(net.Conn); ok {
		if err := socket.SetDeadline(deadline); err != nil {
			return nil, err
		}
		return roundTrip(socket, command)
	}
	type result struct {
		response []byte
		err      error
	}
	// In a goroutine, since a read of a device cannot be interrupted: it is
	// left behind on a time-out, and ends when the kernel's driver gives up.
	done := make(chan result, 1)
	go func() {
		response, err := roundTrip(conn, command)
		done <- result{response, err}
	}()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case r := <-done:
		return r.response, r.err
	case <-timer.C:
		return nil, os.ErrDeadlineExceeded
	}
}

// roundTrip writes one command and reads the response by the length in its header.
//
// A device gives the whole response to the first read, and older kernels drop
// what that read had no room for; a socket gives it in pieces. Interrupted
// system calls are repeated by os.File and net.Conn.
func roundTrip(conn io.ReadWriter, command []byte) ([]byte, error) {
	if len(command) < headerLen || len(command) > maxFrame {
		return nil, fmt.Errorf("command of %d bytes", len(command))
	}
	if _, err := conn.Write(command); err != nil {
		return nil, fmt.Errorf("write command: %w", err)
	}
	buf := make([]byte, maxFrame)
	n, want := 0, headerLen
	for n < want {
		m, err := conn.Read(buf[n:])
		n += m
		if n < want && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("read response: %w after %d bytes", err, n)
		}
		if n >= headerLen {
			size := binary.BigEndian.Uint32(buf[2:])
			if size < headerLen || size > maxFrame {
				return nil, fmt.Errorf("read response: its header claims %d bytes: not a TPM, or out of step", size)
			}
			want = int(size)
		}
	}
	if n > want {
		return nil, fmt.Errorf("read response: %d bytes, its header claims %d: not a TPM, or out of step", n, want)
	}
	switch tag := binary.BigEndian.Uint16(buf); tag {
	case 0x8001, 0x8002, 0x00c4: // TPM_ST_NO_SESSIONS, TPM_ST_SESSIONS, TPM_ST_RSP_COMMAND
		return buf[:n], nil
	default:
		return nil, fmt.Errorf("read response: tag %#04x: not a TPM, or out of step", tag)
	}
}
