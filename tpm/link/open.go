package link

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/tpm/tis"
)

// backend is one way to a TPM.
type backend struct {
	scheme string // before the colon of an address; "" for a path
	form   string // of its addresses, for messages
	check  func(address string) error
	open   func(address string, timeout time.Duration) (io.ReadWriteCloser, error)
}

// backends are all there are.
var backends = [...]backend{
	{"", "/dev/tpmrm0", func(string) error { return nil }, openDevice},
	{"unix", "unix:PATH", checkUnix, openSocket},
	{"tcp", "tcp:HOST:PORT", checkTCP, openSocket},
	{"spi", "spi:/dev/spidevB.C", tis.CheckAddress, openBus},
	{"i2c", "i2c:/dev/i2c-N", tis.CheckAddress, openBus},
}

// Forms returns the forms that an address can have, as messages and help show
// them: "unix:PATH".
func Forms() []string {
	var all []string
	for _, b := range backends {
		all = append(all, b.form)
	}
	return all
}

// give is what to do about an address that is none.
func give() string {
	forms := Forms()
	last := len(forms) - 1
	return "give " + strings.Join(forms[:last], ", ") + " or " + forms[last]
}

func backendOf(address string) (backend, error) {
	scheme, _, _ := strings.Cut(address, ":")
	path := strings.HasPrefix(address, "/")
	if path {
		scheme = ""
	}
	for _, b := range backends {
		if b.scheme == scheme && (scheme != "" || path) {
			return b, b.check(address)
		}
	}
	if scheme == "" || scheme == address {
		return backend{}, errors.New("not an address: " + give())
	}
	return backend{}, fmt.Errorf("unknown scheme %q: %s", scheme, give())
}

// Check returns nil if address can be one for [Open]; it opens nothing.
func Check(address string) error {
	_, err := backendOf(address)
	return err
}

// Open connects to the TPM at an address; [Forms] lists what that can be. The
// timeout bounds the connection and each command. The error wraps ErrAbsent if
// nothing is there, ErrTimeout if connecting took too long.
func Open(address string, timeout time.Duration) (*Link, error) {
	b, err := backendOf(address)
	if err != nil {
		return nil, err
	}
	conn, err := b.open(address, timeout)
	if err != nil {
		return nil, err
	}
	return New(address, conn, timeout), nil
}

func checkUnix(address string) error {
	if address == "unix:" {
		return errors.New("unix: without the path of a socket")
	}
	return nil
}

func checkTCP(address string) error {
	_, _, err := net.SplitHostPort(strings.TrimPrefix(address, "tcp:"))
	return err
}

// openSocket connects to a socket that carries plain commands and responses, as
// swtpm's data channel does.
func openSocket(address string, timeout time.Duration) (io.ReadWriteCloser, error) {
	network, rest, _ := strings.Cut(address, ":")
	deadline := time.Now().Add(timeout)
	conn, err := net.DialTimeout(network, rest, timeout)
	for pause := time.Millisecond; errors.Is(err, syscall.EAGAIN) && time.Until(deadline) > pause; pause = min(2*pause, 100*time.Millisecond) {
		time.Sleep(pause) // the queue of a unix socket is full, and connect(2) does not wait for it
		conn, err = net.DialTimeout(network, rest, time.Until(deadline))
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
