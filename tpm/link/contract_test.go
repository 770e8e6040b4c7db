package link

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyvet/keyvet/tpm/tis"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// answerer is a TPM as the far end of a connection sees it.
type answerer func(command []byte) (response []byte)

// ends are, for each backend, a link to a TPM that answers so.
var ends = map[string]func(t *testing.T, answer answerer, timeout time.Duration) *Link{
	"": func(t *testing.T, answer answerer, timeout time.Duration) *Link {
		device, chip := blockingFile(t)
		go serve(chip, answer)
		return New("device", device, timeout)
	},
	"unix": func(t *testing.T, answer answerer, timeout time.Duration) *Link {
		return overSocket(t, "unix", filepath.Join(t.TempDir(), "s"), answer, timeout)
	},
	"tcp": func(t *testing.T, answer answerer, timeout time.Duration) *Link {
		return overSocket(t, "tcp", "127.0.0.1:0", answer, timeout)
	},
	"spi": func(t *testing.T, answer answerer, timeout time.Duration) *Link {
		chip := tpmtest.NewChip(answering(answer), tpmtest.Faults{Prompt: true})
		c, err := tis.NewSPI(chip.SPI(), tis.Options{Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		return New("spi", OverBus(c), timeout)
	},
	"i2c": func(t *testing.T, answer answerer, timeout time.Duration) *Link {
		chip := tpmtest.NewChip(answering(answer), tpmtest.Faults{Prompt: true})
		c, err := tis.NewI2C(chip.I2C(), tpmtest.I2CAddress, tis.Options{Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		return New("i2c", OverBus(c), timeout)
	},
}

func answering(answer answerer) func([]byte) ([]byte, error) {
	return func(command []byte) ([]byte, error) { return answer(command), nil }
}

func serve(conn io.ReadWriteCloser, answer answerer) {
	defer conn.Close()
	command := make([]byte, maxFrame)
	for {
		n, err := conn.Read(command)
		if err != nil {
			return
		}
		if _, err := conn.Write(answer(command[:n])); err != nil {
			return
		}
	}
}

func overSocket(t *testing.T, network, at string, answer answerer, timeout time.Duration) *Link {
	t.Helper()
	listener, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(conn, answer)
		}
	}()
	l, err := Open(network+":"+listener.Addr().String(), timeout)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

var (
	aCommand = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 2, 3, 4}
	anAnswer = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0, 0, 3, 4}
	retry    = []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x22} // TPM_RC_RETRY
	startup  = []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x00} // TPM_RC_INITIALIZE: started already
)

// TestContract holds every backend to what a Link promises.
func TestContract(t *testing.T) {
	for _, b := range backends {
		end := ends[b.scheme]
		if end == nil {
			t.Errorf("backend %q is not held to the contract", b.scheme)
			continue
		}
		// A chip on a bus is started first.
		started := func(then answerer) answerer {
			return func(command []byte) []byte {
				if bytes.Equal(command[6:10], []byte{0, 0, 0x01, 0x44}) {
					return startup
				}
				return then(command)
			}
		}
		t.Run("answer "+b.scheme, func(t *testing.T) {
			l := end(t, started(func([]byte) []byte { return anAnswer }), time.Minute)
			for range 3 {
				if response, err := l.Send(aCommand); err != nil || !bytes.Equal(response, anAnswer) {
					t.Errorf("%x, %v", response, err)
				}
			}
			if l.Broken() {
				t.Error("a link that answers is broken")
			}
			if err := errors.Join(l.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			if _, err := l.Send(aCommand); err == nil || !strings.Contains(err.Error(), "closed") || !l.Broken() {
				t.Errorf("after Close: %v", err)
			}
		})
		t.Run("retry "+b.scheme, func(t *testing.T) {
			var asked atomic.Int32
			l := end(t, started(func([]byte) []byte {
				if asked.Add(1) < 3 {
					return retry
				}
				return anAnswer
			}), time.Minute)
			defer l.Close()
			if response, err := l.Send(aCommand); err != nil || !bytes.Equal(response, anAnswer) || asked.Load() != 3 {
				t.Errorf("%x, %v after %d", response, err, asked.Load())
			}
			asked.Store(-1000)
			if response, err := l.Within(time.Second).Send(aCommand); err != nil || !bytes.Equal(response, retry) || l.Broken() {
				t.Errorf("a TPM that never can: %x, %v", response, err)
			}
		})
		t.Run("mute "+b.scheme, func(t *testing.T) {
			let := make(chan struct{})
			defer close(let)
			l := end(t, started(func([]byte) []byte { <-let; return anAnswer }), time.Minute)
			_, first := l.Within(50 * time.Millisecond).Send(aCommand)
			_, second := l.Send(aCommand)
			if !errors.Is(first, ErrTimeout) || second != first || !l.Broken() || l.Close() != nil {
				t.Errorf("%v, then %v", first, second)
			}
		})
		t.Run("bounds "+b.scheme, func(t *testing.T) {
			for _, n := range []int{0, 9, maxFrame + 1} {
				l := end(t, started(func([]byte) []byte { return anAnswer }), time.Minute)
				if _, err := l.Send(make([]byte, n)); err == nil {
					t.Errorf("a command of %d bytes was sent", n)
				}
				l.Close()
			}
		})
	}
}

// Addresses are told apart by their scheme, and refused with what there is.
func TestCheck(t *testing.T) {
	for address, want := range map[string]string{
		"/dev/tpmrm0": "", "unix:/run/s": "", "tcp:localhost:2321": "", "spi:/dev/spidev0.1?speed=1MHz": "", "i2c:/dev/i2c-1?addr=0x2e": "",
		"":     "not an address: give /dev/tpmrm0, unix:PATH, tcp:HOST:PORT, spi:/dev/spidevB.C or i2c:/dev/i2c-N",
		"tpm0": "not an address", "mssim:localhost:2321": "unknown scheme", ":x": "not an address", "unix:": "without the path",
		"tcp:localhost": "missing port", "spi:spidev0.0": "not a SPI device", "i2c:/dev/i2c-1?speed=1MHz": "no such parameter",
	} {
		err := Check(address)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
}
