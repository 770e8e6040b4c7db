// Package tis drives a TPM 2.0 on a bare SPI or I2C bus, where no kernel driver
// has it. It is the host's side of the FIFO interface of the TCG PC Client
// Platform TPM Profile Specification for TPM 2.0, version 1.05 ("PTP"): section
// 6.5 (FIFO interface: registers, states, timeouts), 7.4 (SPI) and, with the
// TCG TPM I2C Interface Specification for TPM 2.0, revision 1.00, I2C.
//
// It is meant for Infineon SLB9670, SLB9672 and SLB9673, STMicroelectronics
// ST33 and Nuvoton NPCT75x, and for any other chip of that profile.
//
// Locality 0 alone is used, status registers are polled, and one command goes
// at a time. Not supported: interrupts, other localities, the CRB interface,
// TPM 1.2 and its older I2C protocols, SPI chips that share a chip select, and
// updates of firmware. On SPI the profile has no checksum: a bit that flips on
// the wires there is not noticed. On I2C it has one, and every command and
// response is checked by it.
//
// A chip that nobody started is sent TPM2_Startup(CLEAR).
package tis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"periph.io/x/conn/v3/gpio"
)

var (
	// ErrAbsent: there is no such bus, or no TPM answers on it.
	ErrAbsent = errors.New("no TPM there")
	// ErrTimeout: the chip did not do in time what it has to do.
	ErrTimeout = errors.New("timed out")
)

var (
	errClosed  = errors.New("closed")
	errDamaged = errors.New("damaged on the bus")
)

// DefaultTimeout is how long a command may take if [Options] does not say.
const DefaultTimeout = 30 * time.Second

// keyCreation is the least time that the creation of a key may take: chips
// search for the primes of an RSA key for up to two minutes.
const keyCreation = 120 * time.Second

// The timeouts of the interface (PTP, section 6.5.1.3), B and C as long as
// chips of the market were seen to need.
const (
	timeoutA = 750 * time.Millisecond
	timeoutB = 4 * time.Second
	timeoutC = 750 * time.Millisecond
	timeoutD = 30 * time.Millisecond
)

// bus reads and writes registers.
type bus interface {
	read(r register, b []byte) error
	write(r register, b []byte) error
	// burst is how many bytes of the FIFO one transfer may carry.
	burst() int
	// setUp makes the chip's interface ready, after power-on or reset.
	setUp() error
	// checksum is the chip's over the command or response in its FIFO. It is
	// false if the bus has none.
	checksum() (sum uint16, ok bool, err error)
}

// Options for a chip on either bus.
type Options struct {
	// Timeout bounds each command; zero means DefaultTimeout. The creation of
	// a key has at least 120 s.
	Timeout time.Duration
	// SingleTransfer is for SPI controllers that cannot keep the chip selected
	// from one transfer to the next. The chip must not insert wait states then.
	SingleTransfer bool
	// Reset is the chip's reset line, low while it resets; nil if the board
	// drives it. A reset makes the PCRs forget the measurements of the boot.
	Reset interface{ Out(gpio.Level) error }
}

// Chip is one TPM. Its methods may be called from several goroutines.
type Chip struct {
	bus     bus
	timeout time.Duration

	closing chan struct{}
	once    sync.Once

	busy chan struct{} // full for as long as a command takes, of which there is one at a time
	host []io.Closer   // what Open has opened; of who made busy full
}

// start finds the chip on its bus.
func start(b bus, opts Options) (*Chip, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = DefaultTimeout
	}
	c := &Chip{bus: b, timeout: opts.Timeout, closing: make(chan struct{}), busy: make(chan struct{}, 1)}
	if opts.Reset != nil {
		if err := reset(opts.Reset.Out); err != nil {
			return nil, fmt.Errorf("reset: %w", err)
		}
	}
	if err := c.probe(); err != nil {
		return nil, err
	}
	return c, nil
}

// reset pulls the line for longer than any chip needs, and leaves the chip
// timeout D before it is talked to.
func reset(out func(gpio.Level) error) error {
	if err := out(gpio.Low); err != nil {
		return err
	}
	time.Sleep(time.Millisecond)
	err := out(gpio.High)
	time.Sleep(timeoutD)
	return err
}

// probe waits until the chip is up, which takes some time after a reset.
func (c *Chip) probe() error {
	var why error
	err := c.poll(timeoutA, func() (bool, error) {
		if why = c.bus.setUp(); why != nil {
			return false, nil
		}
		var a byte
		if a, why = c.access(); why == nil && a&accessValid == 0 {
			why = fmt.Errorf("access register %#02x is not valid", a)
		}
		return why == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %v within %v: look at power, reset line, wiring, bus, chip select or address", ErrAbsent, why, timeoutA)
	}
	id := make([]byte, 4)
	if err := c.bus.read(regVendor, id); err != nil {
		return fmt.Errorf("read vendor: %w", err)
	}
	if v := binary.LittleEndian.Uint16(id); v == 0 || v == 0xffff {
		return fmt.Errorf("%w: vendor %#04x: something else answers on the bus", ErrAbsent, v)
	}
	return nil
}

// Close gives up the command under way, which then fails, and lets go of the
// bus. It does not wait for a bus that hangs.
func (c *Chip) Close() error {
	c.once.Do(func() { close(c.closing) })
	done := make(chan error, 1)
	go func() {
		c.busy <- struct{}{}
		defer func() { <-c.busy }()
		host := c.host
		c.host = nil
		done <- closeAll(host)
	}()
	timer := time.NewTimer(timeoutA)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("close: the bus hangs: %w after %v", ErrTimeout, timeoutA)
	}
}

// headerLen and maxFrame bound a command and a response: tag (2 bytes), length
// of the whole (4), command or response code (4), all big-endian (TPM 2.0
// Library, Part 1, section 18); 4,096 bytes are the buffer of the profile.
const (
	headerLen = 10
	maxFrame  = 4096
)

func code(frame []byte) uint32 { return binary.BigEndian.Uint32(frame[6:]) }

const (
	rcInitialize    = 0x100 // TPM_RC_INITIALIZE (TPM 2.0 Library, Part 2, section 6.6.3)
	ccCreatePrimary = 0x131
	ccStartup       = 0x144
	ccCreate        = 0x153
	ccCreateLoaded  = 0x191
)

// startupClear is TPM2_Startup(TPM_SU_CLEAR).
var startupClear = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}

// Send sends one command and returns the response, each a whole frame of 10 to
// 4,096 bytes. The error wraps ErrTimeout if the chip was too slow. The chip is
// left at rest even then, as far as it obeys.
func (c *Chip) Send(command []byte) ([]byte, error) {
	if len(command) < headerLen || len(command) > maxFrame || int64(binary.BigEndian.Uint32(command[2:])) != int64(len(command)) {
		return nil, fmt.Errorf("%d bytes are no command", len(command))
	}
	c.busy <- struct{}{}
	defer func() { <-c.busy }()
	response, err := c.exchange(command)
	if err == nil && code(response) == rcInitialize && code(command) != ccStartup {
		// To Startup itself this answer means that it was started before.
		if response, err = c.exchange(startupClear); err == nil && (code(response) == 0 || code(response) == rcInitialize) {
			response, err = c.exchange(command)
		}
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}

// exchange takes the locality, has the chip execute the command, and leaves it
// at rest.
func (c *Chip) exchange(command []byte) (response []byte, err error) {
	select {
	case <-c.closing:
		return nil, errClosed
	default:
	}
	defer func() {
		if restErr := c.rest(); err == nil && restErr != nil {
			response, err = nil, restErr
		}
	}()
	if err := c.request(); err != nil {
		return nil, err
	}
	if err := again(func() error { return c.transmit(command) }); err != nil {
		return nil, fmt.Errorf("send command: %w", err)
	}
	if err := c.bus.write(regStatus, []byte{statusGo}); err != nil {
		return nil, fmt.Errorf("start command: %w", err)
	}
	if _, err := c.await(c.duration(command), func(s status) bool { return s.has(statusValid | statusAvail) }); err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	first := true
	err = again(func() error {
		if !first {
			if err := c.bus.write(regStatus, []byte{statusRetry}); err != nil {
				return err
			}
		}
		first = false
		var err error
		response, err = c.receive()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	return response, nil
}

// again repeats what was damaged on the bus.
func again(do func() error) (err error) {
	for range tries {
		if err = do(); !errors.Is(err, errDamaged) {
			break
		}
	}
	return err
}

// duration is the longest time that the command may take.
func (c *Chip) duration(command []byte) time.Duration {
	switch code(command) {
	case ccCreatePrimary, ccCreate, ccCreateLoaded:
		return max(c.timeout, keyCreation)
	}
	return c.timeout
}
