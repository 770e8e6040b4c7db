// Package link is one connection to one TPM: it carries commands and responses,
// each whole, one at a time and by a deadline, whatever lies between: a device of
// the kernel's, a socket, or a bare SPI or I2C bus (package tis). It knows of a
// command no more than its header.
package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/keyvet/keyvet/tpm/tis"
)

var (
	// ErrAbsent: there is no such device, or nothing listens at the address.
	ErrAbsent = tis.ErrAbsent
	// ErrTimeout: the TPM did not answer in time. Nothing more can be asked of it
	// over the same Link.
	ErrTimeout = tis.ErrTimeout
)

// Link is one connection to one TPM. Its methods may be called from several
// goroutines; commands go one at a time.
type Link struct {
	address string
	timeout time.Duration

	mu     sync.Mutex
	conn   io.ReadWriteCloser
	broken error // why no further command may be sent
}

// New returns the link over a connection that is open already: a command is
// written to it whole, and the response read from it. The address is for errors,
// the timeout for commands.
func New(address string, conn io.ReadWriteCloser, timeout time.Duration) *Link {
	return &Link{address: address, conn: conn, timeout: timeout}
}

// Broken reports whether the connection broke, or was closed: no command can be
// sent any more, and what the last one did is not known.
func (l *Link) Broken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken != nil
}

// Close ends the connection.
func (l *Link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return nil // closed when it broke, or before
	}
	l.broken = fmt.Errorf("%s: closed", l.address)
	return l.conn.Close()
}

// A frame is a command or a response. It starts with a header of ten bytes:
// tag (2 bytes), length of the whole (4), command or response code (4), all
// big-endian (Part 1, section 18).
const (
	headerLen = 10
	maxFrame  = 4096 // the largest buffer of the PC Client profile, and of the kernel
)

// Send sends one command and returns the response to it. It implements
// transport.TPM of go-tpm. After an error that did not come from the TPM itself,
// every further Send fails with that error: a late answer must never be taken for
// the answer to a later command.
func (l *Link) Send(command []byte) ([]byte, error) { return l.send(command, l.timeout) }

// Within returns the transport of commands that may take another time than the
// link's timeout.
func (l *Link) Within(timeout time.Duration) transport.TPM { return within{l, timeout} }

type within struct {
	link    *Link
	timeout time.Duration
}

func (w within) Send(command []byte) ([]byte, error) { return w.link.send(command, w.timeout) }

// send repeats a command that the TPM asks to repeat, within one deadline, and
// once a command that was canceled (TPM_RC_CANCELED): nothing of it was done.
func (l *Link) send(command []byte, timeout time.Duration) ([]byte, error) {
	deadline := time.Now().Add(timeout)
	canceled := false
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		response, err := l.exchange(command, deadline, timeout)
		if err == nil && !canceled && binary.BigEndian.Uint32(response[6:]) == 0x909 && time.Until(deadline) > 0 {
			canceled = true
			response, err = l.exchange(command, deadline, timeout)
		}
		if err != nil || !asksAgain(response) || time.Until(deadline) < pause {
			return response, err
		}
		time.Sleep(pause)
	}
}

// asksAgain reports whether the TPM could not start the command now: it yielded,
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

func (l *Link) exchange(command []byte, deadline time.Time, timeout time.Duration) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return nil, l.broken
	}
	response, err := roundTripBy(l.conn, command, deadline)
	switch {
	case err == nil:
		return response, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		l.broken = fmt.Errorf("%s: %w: no answer within %v (hung, or serving another client: an emulator serves one at a time)", l.address, ErrTimeout, timeout)
	default:
		l.broken = fmt.Errorf("%s: %w", l.address, err)
	}
	l.conn.Close()
	return nil, l.broken
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
