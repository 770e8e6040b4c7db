package tis

import (
	"encoding/binary"
	"fmt"
	"time"

	"periph.io/x/conn/v3/i2c"
)

// DefaultI2CAddress is where TPMs are on an I2C bus unless told otherwise.
const DefaultI2CAddress = 0x2e

// Registers that I2C alone has (TCG TPM I2C Interface Specification).
var (
	regLocality       = register{i2c: 0x00} // LOC_SEL
	regCapability     = register{i2c: 0x30} // INTF_CAP; 0x14 is INT_CAP here
	regChecksumEnable = register{i2c: 0x40}
	regChecksum       = register{i2c: 0x44}
)

const (
	maxMessage = 32 // bytes, the register's with them
	maxNACKs   = 50
	nackPause  = 250 * time.Microsecond
	// guard is the pause between messages until the chip has said how long
	// it needs one.
	guard = 250 * time.Microsecond
)

// NewI2C finds the TPM with that address, of 7 bits, on a bus. The bus stays
// the caller's to close. The error wraps ErrAbsent if no TPM answers.
func NewI2C(bus i2c.Bus, address uint16, opts Options) (*Chip, error) {
	c, err := start(&i2cBus{dev: i2c.Dev{Bus: bus, Addr: address}}, opts)
	if err != nil {
		return nil, fmt.Errorf("%v at %#02x: %w", bus, address, err)
	}
	return c, nil
}

// i2cBus reads and writes registers by messages of their own, since chips need
// not understand a repeated start.
type i2cBus struct {
	dev                   i2c.Dev
	afterRead, afterWrite time.Duration // guard times
	free                  time.Time     // when the next message may begin
}

func (b *i2cBus) burst() int { return maxMessage - 1 }

// setUp selects locality 0, turns the checksum on and learns the guard time.
func (b *i2cBus) setUp() error {
	b.afterRead, b.afterWrite = guard, guard
	if err := b.set(regLocality, 0); err != nil {
		return fmt.Errorf("select locality 0: %w", err)
	}
	if err := b.set(regChecksumEnable, 1); err != nil {
		return fmt.Errorf("enable the checksum: %w", err)
	}
	c := make([]byte, 4)
	if err := b.read(regCapability, c); err != nil {
		return fmt.Errorf("read the interface's capabilities: %w", err)
	}
	b.afterRead, b.afterWrite = guardTimes(binary.LittleEndian.Uint32(c))
	return nil
}

// guardTimes reads INTF_CAP: bits 16 to 9 are the guard time in microseconds,
// 20 and 19 tell that it is needed after a read (before another read, before a
// write), 18 and 17 after a write.
func guardTimes(capability uint32) (afterRead, afterWrite time.Duration) {
	d := time.Duration(capability>>9&0xff) * time.Microsecond
	if capability&(3<<19) != 0 {
		afterRead = d
	}
	if capability&(3<<17) != 0 {
		afterWrite = d
	}
	return afterRead, afterWrite
}

// set writes a register of one byte and reads it back.
func (b *i2cBus) set(r register, value byte) error {
	if err := b.write(r, []byte{value}); err != nil {
		return err
	}
	got := make([]byte, 1)
	if err := b.read(r, got); err != nil {
		return err
	}
	if got[0] != value {
		return fmt.Errorf("wrote %#02x, read %#02x", value, got[0])
	}
	return nil
}

func (b *i2cBus) checksum() (uint16, bool, error) {
	sum := make([]byte, 2)
	err := b.read(regChecksum, sum)
	return binary.BigEndian.Uint16(sum), true, err
}

func (b *i2cBus) write(r register, data []byte) error {
	return b.untilTaken(func() error { return b.message(append([]byte{r.i2c}, data...), nil, &b.afterWrite) })
}

// read starts over if the second message is refused: the chip may have
// forgotten the register, and then gives zeros.
func (b *i2cBus) read(r register, data []byte) error {
	return b.untilTaken(func() error {
		if err := b.message([]byte{r.i2c}, nil, &b.afterWrite); err != nil {
			return err
		}
		return b.message(nil, data, &b.afterRead)
	})
}

// untilTaken repeats what a busy chip refuses.
func (b *i2cBus) untilTaken(do func() error) (err error) {
	for range maxNACKs {
		if err = do(); err == nil {
			return nil
		}
		time.Sleep(nackPause)
	}
	return err
}

func (b *i2cBus) message(w, r []byte, guard *time.Duration) error {
	time.Sleep(time.Until(b.free))
	err := b.dev.Tx(w, r)
	b.free = time.Now().Add(*guard)
	return err
}
