package tis

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// request takes locality 0.
func (c *Chip) request() error {
	a, err := c.access()
	if err != nil {
		return err
	}
	if a&(accessValid|accessActive) == accessValid|accessActive {
		return nil // left by a program that ended in mid-command
	}
	if err := c.bus.write(regAccess, []byte{accessRequest}); err != nil {
		return fmt.Errorf("request locality: %w", err)
	}
	err = c.poll(timeoutA, func() (bool, error) {
		a, err := c.access()
		return a&(accessValid|accessActive) == accessValid|accessActive, err
	})
	if err != nil {
		return fmt.Errorf("request locality 0 (does the firmware hold another?): %w", err)
	}
	return nil
}

// rest ends whatever is under way and gives the locality back.
func (c *Chip) rest() error {
	err := c.bus.write(regStatus, []byte{statusReady})
	if err2 := c.bus.write(regAccess, []byte{accessActive}); err == nil {
		err = err2
	}
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// transmit puts the command into the FIFO.
func (c *Chip) transmit(command []byte) error {
	// From the end of a command the chip first goes idle, and to be ready it
	// has to be told once more. A ready chip is told too: it may hold half of
	// a damaged command. There is no stsValid with commandReady.
	if err := c.bus.write(regStatus, []byte{statusReady}); err != nil {
		return err
	}
	var s status
	err := c.poll(timeoutB, func() (bool, error) {
		var err error
		if s, err = c.status(); err != nil || s.has(statusReady) {
			return err == nil, err
		}
		return false, c.bus.write(regStatus, []byte{statusReady})
	})
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	for left := command; len(left) > 0; {
		if s.burst == 0 {
			if s, err = c.await(timeoutA, func(s status) bool { return s.burst > 0 }); err != nil {
				return fmt.Errorf("no room: %w", err)
			}
		}
		n := min(s.burst, c.bus.burst(), len(left))
		if err := c.bus.write(regFIFO, left[:n]); err != nil {
			return err
		}
		left = left[n:]
		if s, err = c.await(timeoutC, func(s status) bool { return s.has(statusValid) }); err != nil {
			return err
		}
		if more := len(left) > 0; s.has(statusExpect) != more {
			return fmt.Errorf("%w: %d bytes left, the chip expects more: %v", errDamaged, len(left), !more)
		}
	}
	return c.verify(command)
}

// receive reads the response out of the FIFO.
func (c *Chip) receive() ([]byte, error) {
	response := make([]byte, headerLen)
	for n := 0; n < len(response); {
		// Before each part: the burst count says nothing of the end, and a
		// FIFO that has no more gives ff.
		s, err := c.await(timeoutC, func(s status) bool { return s.has(statusValid|statusAvail) && s.burst > 0 })
		if errors.Is(err, ErrTimeout) && s.has(statusValid) && !s.has(statusAvail) {
			err = errDamaged // the chip has given all, so the length in the header was wrong
		}
		if err != nil {
			return nil, fmt.Errorf("the chip stopped after %d of %d bytes: %w", n, len(response), err)
		}
		part := response[n:min(n+s.burst, n+c.bus.burst(), len(response))]
		if err := c.bus.read(regFIFO, part); err != nil {
			return nil, err
		}
		n += len(part)
		if n == headerLen {
			size := binary.BigEndian.Uint32(response[2:])
			if size < headerLen || size > maxFrame {
				return nil, fmt.Errorf("%w: its header claims %d bytes", errDamaged, size)
			}
			response = append(response, make([]byte, size-headerLen)...)
		}
	}
	s, err := c.await(timeoutC, func(s status) bool { return s.has(statusValid) })
	if err != nil {
		return nil, err
	}
	if s.has(statusAvail) {
		return nil, fmt.Errorf("%w: there is more than its header claims", errDamaged)
	}
	return response, c.verify(response)
}

// verify compares the chip's checksum with that of the frame.
func (c *Chip) verify(frame []byte) error {
	theirs, ok, err := c.bus.checksum()
	if err != nil {
		return err
	}
	if ours := crc(frame); ok && theirs != ours {
		return fmt.Errorf("%w: checksum %#04x, not %#04x", errDamaged, theirs, ours)
	}
	return nil
}

// crc is the CRC-16 of the I2C interface, CRC-16/KERMIT: polynomial 0x1021
// reflected, from zero.
func crc(b []byte) (sum uint16) {
	for _, v := range b {
		sum ^= uint16(v)
		for range 8 {
			if sum&1 != 0 {
				sum = sum>>1 ^ 0x8408
			} else {
				sum >>= 1
			}
		}
	}
	return sum
}
