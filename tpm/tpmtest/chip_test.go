package tpmtest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/spi"
)

// i2cRead reads n bytes of a register.
func i2cRead(t *testing.T, bus i2c.Bus, register byte, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if err := errors.Join(bus.Tx(I2CAddress, []byte{register}, nil), bus.Tx(I2CAddress, nil, b)); err != nil {
		t.Fatal(err)
	}
	return b
}

// A command goes through the registers of I2C by hand.
func TestChipOnI2C(t *testing.T) {
	command := []byte(manufacturer)
	answer := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0, 0, 1, 2}
	chip := NewChip(func(c []byte) ([]byte, error) {
		if !bytes.Equal(c, command) {
			t.Errorf("%x", c)
		}
		return answer, nil
	}, Faults{})
	bus := chip.I2C()
	write := func(b ...byte) {
		t.Helper()
		if err := bus.Tx(I2CAddress, b, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := func(register byte, bytesWanted ...byte) {
		t.Helper()
		if got := i2cRead(t, bus, register, len(bytesWanted)); !bytes.Equal(got, bytesWanted) {
			t.Errorf("%#02x: % x, want % x", register, got, bytesWanted)
		}
	}
	want(0x04, 0) // another locality is selected
	write(0x00, 0)
	write(0x40, 1)
	want(0x48, 0xd1, 0x15, 0x1d, 0x00)
	want(0x04, 0x81)
	write(0x04, 0x02)
	want(0x04, 0x83)
	want(0x04, 0xa1)
	write(0x18, 0x40)
	want(0x18, 0x40, 64, 0)
	write(append([]byte{0x24}, command...)...)
	want(0x18, 0x08) // stsValid is not set, and expect is wrong
	want(0x18, 0x80)
	sum := kermit(command)
	want(0x44, byte(sum>>8), byte(sum))
	write(0x18, 0x20)
	want(0x18, 0x90)
	want(0x24, answer...)
	want(0x18, 0x10)
	want(0x18, 0x80)
	write(0x18, 0x02)
	want(0x18, 0x00)
	want(0x18, 0x90)
	want(0x24, answer[:5]...)
	if chip.AtRest() {
		t.Error("at rest in mid-response")
	}
	write(0x18, 0x40)
	want(0x18, 0x80, 64, 0) // idle, not ready
	write(0x04, 0x20)
	if v := chip.Violations(); len(v) != 0 || !chip.AtRest() {
		t.Errorf("%q", v)
	}
}

// What a driver may not do is noted.
func TestChipIsStrict(t *testing.T) {
	for want, c := range map[string]struct {
		faults Faults
		do     func(bus i2c.Bus)
	}{
		"STS read without a locality": {Faults{}, func(bus i2c.Bus) {
			if got := i2cRead(t, bus, 0x18, 4); !bytes.Equal(got, []byte{0xdd, 0xff, 0xff, 0x00}) {
				t.Errorf("% x", got)
			}
		}},
		"CSUM read while it is off":         {Faults{}, func(bus i2c.Bus) { i2cRead(t, bus, 0x44, 2) }},
		"FIFO read without data":            {Faults{}, func(bus i2c.Bus) { i2cRead(t, bus, 0x24, 2) }},
		"repeated start":                    {Faults{}, func(bus i2c.Bus) { bus.Tx(I2CAddress, []byte{4}, []byte{0}) }},
		"I2C message of 33 bytes":           {Faults{}, func(bus i2c.Bus) { bus.Tx(I2CAddress, make([]byte, 33), nil) }},
		"guard time of 100µs is not kept":   {Faults{GuardTime: 100 * time.Microsecond}, func(bus i2c.Bus) { bus.Tx(I2CAddress, []byte{4}, nil); bus.Tx(I2CAddress, nil, []byte{0}) }},
		"FIFO written beyond the burst":     {Faults{Burst: 3}, func(bus i2c.Bus) { fill(bus, 4) }},
		"FIFO written after the end of the": {Faults{}, func(bus i2c.Bus) { fill(bus, 23) }},
	} {
		synctest.Test(t, func(t *testing.T) {
			chip := NewChip(nil, c.faults)
			bus := chip.I2C()
			bus.Tx(I2CAddress, []byte{0, 0}, nil)
			time.Sleep(time.Millisecond) // of the bubble's clock
			c.do(bus)
			if v := chip.Violations(); len(v) == 0 || !strings.HasPrefix(v[0], want) {
				t.Errorf("%q, want %q", v, want)
			}
		})
	}
}

// fill takes the locality and writes n bytes of a command of 22.
func fill(bus i2c.Bus, n int) {
	bus.Tx(I2CAddress, []byte{0x04, 0x02}, nil)
	for range 2 {
		bus.Tx(I2CAddress, []byte{0x04}, nil)
		bus.Tx(I2CAddress, nil, []byte{0})
	}
	bus.Tx(I2CAddress, []byte{0x18, 0x40}, nil)
	bus.Tx(I2CAddress, append([]byte{0x24}, (manufacturer + "\x00")[:n]...), nil)
}

// The frame of SPI: the wait states come with the last byte of the header and
// after it.
func TestChipOnSPI(t *testing.T) {
	for waits, want := range map[int]string{
		0: "\x00\x00\x00\x01\xd1\x15\x1d\x00\xff",
		2: "\x00\x00\x00\x00\x00\x01\xd1\x15\x1d",
	} {
		bus := NewChip(nil, Faults{WaitStates: waits}).SPI()
		got := make([]byte, 9)
		if err := bus.Tx([]byte{0x83, 0xd4, 0x0f, 0x00, 0, 0, 0, 0, 0}, got); err != nil || string(got) != want {
			t.Errorf("%d wait states: % x, %v", waits, got, err)
		}
		for i, b := range []byte{0x83, 0xd4, 0x0f, 0x00, 0, 0, 0, 0, 0} { // byte by byte
			if err := bus.TxPackets([]spi.Packet{{W: []byte{b}, R: got[i : i+1], KeepCS: i < 8}}); err != nil {
				t.Fatal(err)
			}
		}
		if string(got) != want {
			t.Errorf("%d wait states: % x", waits, got)
		}
	}
	absent := NewChip(nil, Faults{Absent: true})
	got := []byte{0}
	if err := absent.SPI().Tx([]byte{0}, got); err != nil || got[0] != 0xff {
		t.Errorf("% x, %v", got, err)
	}
	if err := absent.I2C().Tx(I2CAddress, []byte{0}, nil); err == nil {
		t.Error("an absent chip takes a message")
	}
}
