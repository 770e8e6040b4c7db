package tis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// tries is how often a command or a response is sent that came damaged.
const tries = 5

// register is a register of locality 0 by its address on either bus.
type register struct {
	spi uint16
	i2c byte
}

var (
	regAccess = register{0x0000, 0x04}
	regStatus = register{0x0018, 0x18}
	regFIFO   = register{0x0024, 0x24}
	regVendor = register{0x0f00, 0x48} // DID_VID
)

// The ACCESS register (PTP, section 6.5.2.4).
const (
	accessValid   = 0x80
	accessActive  = 0x20 // written: give the locality back
	accessRequest = 0x02
	accessZero    = 0x48 // read as zero
)

// The STS register (PTP, section 6.5.2.5): flags, and the burst count in the
// second and third byte, the low one first.
const (
	statusValid  = 0x80 // expect and avail mean something
	statusReady  = 0x40 // written: be ready for a command, or leave off
	statusGo     = 0x20 // written
	statusAvail  = 0x10
	statusExpect = 0x08
	statusRetry  = 0x02 // written: give the response once more
	statusZero   = 0x23 // read as zero
)

// access reads the ACCESS register.
func (c *Chip) access() (byte, error) {
	b, err := c.readSane(regAccess, 1, accessZero)
	if err != nil {
		return 0, fmt.Errorf("access register: %w", err)
	}
	return b[0], nil
}

type status struct {
	flags byte
	burst int // bytes that the FIFO takes or gives now
}

func (s status) has(flags byte) bool { return s.flags&flags == flags }

// status reads the STS register. The locality has to be active: what the
// register says without is nonsense that may look right.
func (c *Chip) status() (status, error) {
	b, err := c.readSane(regStatus, 3, statusZero)
	if err != nil {
		return status{}, fmt.Errorf("status register: %w", err)
	}
	return status{b[0], int(binary.LittleEndian.Uint16(b[1:]))}, nil
}

// readSane reads a register, again if bits of its first byte are set that
// cannot be: they are what an absent chip gives, or noise, or a chip that takes a
// moment to wake up. The pauses grow; all take no longer than the shortest time
// of the interface, timeout D.
func (c *Chip) readSane(r register, n int, zero byte) ([]byte, error) {
	b := make([]byte, n)
	sane := func() (bool, error) {
		err := c.bus.read(r, b)
		return err == nil && b[0]&zero == 0, err
	}
	ok, err := sane()
	if err == nil && !ok {
		var failed error
		err = c.poll(timeoutD, func() (bool, error) {
			ok, failed = sane()
			return ok, failed
		})
		if err != nil && failed == nil && !errors.Is(err, errClosed) {
			return nil, fmt.Errorf("%#02x cannot be: no TPM, or a bad connection", b[0])
		}
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// await polls the status until it is what ok wants.
func (c *Chip) await(timeout time.Duration, ok func(status) bool) (s status, err error) {
	err = c.poll(timeout, func() (bool, error) {
		var err error
		s, err = c.status()
		return err == nil && ok(s), err
	})
	return s, err
}

// poll calls done until it is true, at least once after the time is over, so
// that a process that was kept waiting does not take that for the chip's fault.
func (c *Chip) poll(timeout time.Duration, done func() (bool, error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := time.Now()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		late := time.Since(start) >= timeout
		if ok, err := done(); ok || err != nil {
			return err
		}
		if late {
			return fmt.Errorf("%w after %v", ErrTimeout, timeout)
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-c.closing:
			return errClosed
		}
	}
}
