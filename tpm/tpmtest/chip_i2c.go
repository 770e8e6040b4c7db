package tpmtest

import (
	"errors"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// I2CAddress is that of the chip.
const I2CAddress = 0x2e

// I2C is a bus with the chip on it.
func (c *Chip) I2C() i2c.Bus {
	c.onI2C = true
	return &chipI2C{chip: c}
}

// chipI2C takes the messages of an I2C bus (TCG TPM I2C Interface Specification).
type chipI2C struct {
	chip     *Chip
	register Register  // what the next message reads
	refused  int       // NACKs since a register was read or written
	free     time.Time // when the guard time is over
}

var i2cRegisters = map[byte]Register{0x00: Locality, 0x04: Access, 0x18: Status, 0x24: FIFO, 0x30: Capability, 0x40: ChecksumEnable, 0x44: Checksum, 0x48: Vendor}

var errNACK = errors.New("NACK")

func (b *chipI2C) String() string                  { return "chip model" }
func (b *chipI2C) SetSpeed(physic.Frequency) error { return nil }

func (b *chipI2C) Tx(address uint16, w, r []byte) error {
	c := b.chip
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case c.faults.Absent, address != I2CAddress:
		return errNACK
	case now.Before(b.free):
		c.violation("guard time of %v is not kept", c.faults.GuardTime)
		return errNACK
	case len(w) > 0 && len(r) > 0:
		c.violation("repeated start")
		return errNACK
	case len(w) > 32 || len(r) > 32:
		c.violation("I2C message of %d bytes", len(w)+len(r))
		return errNACK
	}
	if len(w) != 1 && b.refused < c.faults.NACKs {
		b.refused++
		b.register = "" // forgotten, so a read has to say it again
		return errNACK
	}
	b.free = now.Add(c.faults.GuardTime)
	if len(w) != 1 {
		b.refused = 0
	}
	if len(w) > 0 {
		b.register = i2cRegisters[w[0]]
		if len(w) > 1 {
			data := append([]byte(nil), w[1:]...)
			c.wire(b.register, true, data)
			if c.locality == 0 || b.register == Locality {
				c.write(b.register, data)
			}
			b.register = ""
		}
		return nil
	}
	clear(r) // what a read gives that follows no register
	if c.locality == 0 || b.register == Locality {
		c.read(b.register, r)
	}
	c.wire(b.register, false, r)
	b.register = ""
	return nil
}
