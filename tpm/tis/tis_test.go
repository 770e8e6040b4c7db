package tis

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/gpio"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// frame is a command or response of that code and length, with content that
// differs from byte to byte.
func frame(code uint32, size int) []byte {
	b := binary.BigEndian.AppendUint16(nil, 0x8001)
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	b = binary.BigEndian.AppendUint32(b, code)
	for i := len(b); i < size; i++ {
		b = append(b, byte(i*7+i>>8+size))
	}
	return b
}

// answers is a TPM that answers with size bytes, and notes the command.
type answers struct {
	size    int
	command []byte
}

func (a *answers) answer(command []byte) ([]byte, error) {
	a.command = bytes.Clone(command)
	return frame(0, a.size), nil
}

// anyCommand takes no longer than others.
var anyCommand = frame(0x17a, 22)

// on tests a chip of those faults on both buses, or on one.
func on(t *testing.T, bus string, faults tpmtest.Faults, opts Options, test func(t *testing.T, tpm *answers, chip *tpmtest.Chip, c *Chip, err error)) {
	t.Helper()
	for _, name := range []string{"spi", "i2c"} {
		if bus != "" && bus != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tpm := &answers{size: 40}
				chip := tpmtest.NewChip(tpm.answer, faults)
				var c *Chip
				var err error
				if name == "spi" {
					c, err = NewSPI(chip.SPI(), opts)
				} else {
					c, err = NewI2C(chip.I2C(), tpmtest.I2CAddress, opts)
				}
				if err == nil {
					defer func() {
						if err := c.Close(); err != nil {
							t.Error(err)
						}
					}()
				} else if strings.Contains(err.Error(), "\n") {
					t.Errorf("%v", err)
				}
				test(t, tpm, chip, c, err)
				// Damage may well lead the driver beyond what there is.
				if v := chip.Violations(); len(v) != 0 && faults.Wire == nil {
					t.Errorf("violations: %q", v)
				}
				if !chip.AtRest() {
					t.Error("the chip is not at rest")
				}
			})
		})
	}
}

// works sends a command and looks at both ways.
func works(t *testing.T, tpm *answers, c *Chip, commandSize, responseSize int) {
	t.Helper()
	tpm.size = responseSize
	command := frame(0x17a, commandSize)
	response, err := c.Send(command)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(tpm.command, command) {
		t.Errorf("command of %d bytes arrived as %x", commandSize, tpm.command)
	}
	if !bytes.Equal(response, frame(0, responseSize)) {
		t.Errorf("response of %d bytes arrived as %x", responseSize, response)
	}
}

// fails wants an error from a command, and how it reads.
func fails(t *testing.T, c *Chip, want string, timeout bool) {
	t.Helper()
	response, err := c.Send(anyCommand)
	if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrTimeout) != timeout || response != nil {
		t.Errorf("%x, %v, want %q", response, err, want)
	}
}

func TestSend(t *testing.T) {
	for _, burst := range []int{1, 7, 31, 32, 33, 64} {
		for waits := range 4 {
			t.Run(fmt.Sprintf("burst %d, %d wait states", burst, waits), func(t *testing.T) {
				on(t, "", tpmtest.Faults{Burst: burst, WaitStates: waits, Duration: 5 * time.Millisecond}, Options{}, func(t *testing.T, tpm *answers, chip *tpmtest.Chip, c *Chip, err error) {
					if err != nil {
						t.Fatal(err)
					}
					for _, size := range []int{10, 11, 31, 32, 33, 42, 63, 64, 65, 255, 256, 257, 4096} {
						works(t, tpm, c, size, 4106-size)
						works(t, tpm, c, size, size)
						if !chip.AtRest() {
							t.Fatal("the chip is not at rest between commands")
						}
					}
				})
			})
		}
	}
}

func TestCommandBounds(t *testing.T) {
	on(t, "", tpmtest.Faults{}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		for _, command := range [][]byte{nil, frame(0x17a, 10)[:9], frame(0x17a, 4097), append(frame(0x17a, 20), 0), frame(0x17a, 20)[:19]} {
			if _, err := c.Send(command); err == nil || tpm.command != nil {
				t.Errorf("%d bytes were sent as a command: %v", len(command), err)
			}
		}
	})
}

func TestUnstarted(t *testing.T) {
	on(t, "", tpmtest.Faults{Unstarted: true}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		works(t, tpm, c, 22, 40)
		works(t, tpm, c, 22, 40)
	})
}

// A chip that cannot be started is not asked for ever.
func TestNeverStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var commands [][]byte
		chip := tpmtest.NewChip(func(command []byte) ([]byte, error) {
			commands = append(commands, bytes.Clone(command))
			return frame(0x100, 10), nil
		}, tpmtest.Faults{})
		c, err := NewSPI(chip.SPI(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if response, err := c.Send(anyCommand); err != nil || !bytes.Equal(response, frame(0x100, 10)) {
			t.Errorf("%x, %v", response, err)
		}
		startup := []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0}
		if len(commands) != 3 || !bytes.Equal(commands[0], anyCommand) || !bytes.Equal(commands[1], startup) || !bytes.Equal(commands[2], anyCommand) {
			t.Errorf("%x", commands)
		}
		if _, err := c.Send(startup); err != nil || len(commands) != 4 {
			t.Errorf("%x, %v", commands, err)
		}
	})
}

// The command that creates a key may take two minutes, others may not.
func TestDuration(t *testing.T) {
	on(t, "", tpmtest.Faults{Duration: 119 * time.Second}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		for _, code := range []uint32{0x131, 0x153, 0x191} {
			if _, err := c.Send(frame(code, 200)); err != nil {
				t.Errorf("%#x: %v", code, err)
			}
		}
		fails(t, c, "no answer: timed out after 30s", true)
	})
	on(t, "", tpmtest.Faults{Duration: 200 * time.Second}, Options{Timeout: 300 * time.Second}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		works(t, tpm, c, 22, 40)
	})
}

func TestMute(t *testing.T) {
	on(t, "", tpmtest.Faults{Mute: true}, Options{Timeout: 3 * time.Second}, func(t *testing.T, _ *answers, chip *tpmtest.Chip, c *Chip, _ error) {
		start := time.Now()
		fails(t, c, "no answer: timed out after 3s", true)
		if took := time.Since(start); took > 3500*time.Millisecond { // of the bubble's clock
			t.Errorf("it took %v", took)
		}
		if !chip.AtRest() {
			t.Error("the chip is not at rest after a time-out")
		}
	})
}

func TestStopsInMidResponse(t *testing.T) {
	for _, n := range []int{1, 9, 10, 20, 39} {
		on(t, "", tpmtest.Faults{StopAfter: n, Burst: n}, Options{}, func(t *testing.T, tpm *answers, chip *tpmtest.Chip, c *Chip, _ error) {
			fails(t, c, fmt.Sprintf("the chip stopped after %d of ", n), true)
			if !chip.AtRest() {
				t.Error("the chip is not at rest after a time-out")
			}
			if n >= 10 {
				return
			}
			fails(t, c, "the chip stopped", true)
		})
	}
}

func TestAbsent(t *testing.T) {
	on(t, "", tpmtest.Faults{Absent: true}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, c *Chip, err error) {
		if !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "look at power") || c != nil {
			t.Errorf("%v", err)
		}
	})
	on(t, "i2c", tpmtest.Faults{NACKs: 50}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, _ *Chip, err error) {
		if !errors.Is(err, ErrAbsent) {
			t.Errorf("%v", err)
		}
	})
	for _, id := range []byte{0, 0xff} { // lines that are pulled down, or up, after ACCESS was read
		on(t, "", tpmtest.Faults{Wire: func(r tpmtest.Register, _ bool, b []byte) {
			if r == tpmtest.Vendor {
				copy(b, []byte{id, id, id, id})
			}
		}}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, _ *Chip, err error) {
			if !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "something else answers") {
				t.Errorf("%v", err)
			}
		})
	}
	on(t, "", tpmtest.Faults{Wire: func(r tpmtest.Register, _ bool, b []byte) {
		if r == tpmtest.Access {
			b[0] = 0
		}
	}}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, _ *Chip, err error) {
		if !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "is not valid") {
			t.Errorf("%v", err)
		}
	})
}

// A chip needs some time after a reset.
func TestLateChip(t *testing.T) {
	for delay, found := range map[time.Duration]bool{500 * time.Millisecond: true, time.Second: false} {
		synctest.Test(t, func(t *testing.T) {
			up := time.Now().Add(delay)
			chip := tpmtest.NewChip((&answers{size: 10}).answer, tpmtest.Faults{Wire: func(r tpmtest.Register, write bool, b []byte) {
				if !write && time.Now().Before(up) {
					clear(b)
				}
			}})
			if _, err := NewSPI(chip.SPI(), Options{}); (err == nil) != found {
				t.Errorf("%v: %v", delay, err)
			}
		})
	}
}

// sleeper has a chip fall asleep whenever the locality is given back, and give ff
// until it has been awake for that long after the next access.
func sleeper(wakes time.Duration) func(tpmtest.Register, bool, []byte) {
	asleep, since := true, time.Time{}
	return func(r tpmtest.Register, write bool, b []byte) {
		if r == tpmtest.Access && write && b[0] == accessActive {
			asleep, since = true, time.Time{}
			return
		}
		if write || !asleep {
			return
		}
		if since.IsZero() {
			since = time.Now()
		}
		if asleep = time.Since(since) < wakes; asleep {
			for i := range b {
				b[i] = 0xff
			}
		}
	}
}

// A chip that takes a moment to wake up is waited for, and no longer than the
// interface lets it be.
func TestSleepingChip(t *testing.T) {
	for _, bus := range []string{"spi", "i2c"} {
		for _, wakes := range []time.Duration{50 * time.Microsecond, 5 * time.Millisecond, timeoutD - time.Millisecond} {
			on(t, bus, tpmtest.Faults{Wire: sleeper(wakes)}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, err error) {
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					start := time.Now()
					works(t, tpm, c, 22, 40)
					if took := time.Since(start); took > wakes+100*time.Millisecond { // of the bubble's clock
						t.Errorf("it took %v", took)
					}
				}
			})
		}
		var commands bool
		sleeps := sleeper(time.Hour)
		never := tpmtest.Faults{Wire: func(r tpmtest.Register, write bool, b []byte) {
			if commands = commands || r == tpmtest.Access && write; commands { // from the first one on
				sleeps(r, write, b)
			}
		}}
		on(t, bus, never, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, c *Chip, err error) {
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			fails(t, c, "0xff cannot be: no TPM, or a bad connection", false)
			if took := time.Since(start); took > timeoutA { // of the bubble's clock
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestWaitStates(t *testing.T) {
	on(t, "spi", tpmtest.Faults{WaitStates: maxWaits}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, err error) {
		if err != nil {
			t.Fatal(err)
		}
		works(t, tpm, c, 100, 100)
	})
	on(t, "spi", tpmtest.Faults{WaitStates: maxWaits + 1}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, _ *Chip, err error) {
		if !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "asks to wait for more than 50 bytes") {
			t.Errorf("%v", err)
		}
	})
}

func TestSingleTransfer(t *testing.T) {
	on(t, "spi", tpmtest.Faults{DeselectAll: true}, Options{SingleTransfer: true}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, err error) {
		if err != nil {
			t.Fatal(err)
		}
		works(t, tpm, c, 100, 100)
	})
	on(t, "spi", tpmtest.Faults{DeselectAll: true}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, _ *Chip, err error) {
		if !errors.Is(err, ErrAbsent) {
			t.Errorf("%v", err)
		}
	})
	on(t, "spi", tpmtest.Faults{WaitStates: 1}, Options{SingleTransfer: true}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, _ *Chip, err error) {
		if !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "which single transfers cannot do") {
			t.Errorf("%v", err)
		}
	})
}

func TestNACKs(t *testing.T) {
	on(t, "i2c", tpmtest.Faults{NACKs: maxNACKs - 1, GuardTime: 250 * time.Microsecond}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, err error) {
		if err != nil {
			t.Fatal(err)
		}
		works(t, tpm, c, 100, 100)
	})
}

func TestChecksum(t *testing.T) {
	on(t, "i2c", tpmtest.Faults{BadSums: tries - 1}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		works(t, tpm, c, 100, 100)
	})
	on(t, "i2c", tpmtest.Faults{BadSums: tries}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		fails(t, c, "send command: damaged on the bus: checksum", false)
		if tpm.command != nil {
			t.Error("a damaged command was executed")
		}
		works(t, tpm, c, 100, 100)
	})
}

// damage flips a bit of what goes over the FIFO, a few times.
func damage(write bool, at int, times int) func(tpmtest.Register, bool, []byte) {
	n := 0
	return func(r tpmtest.Register, w bool, b []byte) {
		if r == tpmtest.FIFO && w == write && at < len(b) && n < times {
			n++
			b[at] ^= 0x10
		}
	}
}

func TestDamage(t *testing.T) {
	for _, write := range []bool{false, true} {
		for _, at := range []int{0, 4, 5, 7, 9} { // of the length in the header, of the rest
			on(t, "i2c", tpmtest.Faults{Wire: damage(write, at, 2)}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
				response, err := c.Send(frame(0x17a, 100))
				if err != nil || !bytes.Equal(response, frame(0, 40)) || !bytes.Equal(tpm.command, frame(0x17a, 100)) {
					t.Errorf("write %v, byte %d: %x, %v", write, at, response, err)
				}
			})
		}
	}
	on(t, "i2c", tpmtest.Faults{Wire: damage(false, 7, 1000)}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		fails(t, c, "read response: damaged on the bus: checksum", false)
	})
	on(t, "spi", tpmtest.Faults{Wire: damage(false, 4, 1000)}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		fails(t, c, "damaged on the bus", false)
	})
}

// Without a checksum, a command whose length is damaged is still told.
func TestDamagedLength(t *testing.T) {
	on(t, "spi", tpmtest.Faults{Wire: damage(true, 4, 1000)}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		fails(t, c, "the chip expects more: true", false)
	})
}

// What a TPM may not answer is an error, and the chip is at rest after it.
func TestBadAnswers(t *testing.T) {
	withLength := func(length uint32) []byte {
		b := frame(0, 40)
		binary.BigEndian.PutUint32(b[2:], length)
		return b
	}
	for name, c := range map[string]struct {
		answer []byte
		want   string
	}{
		"length 9":    {withLength(9), "claims 9 bytes"},
		"length 4097": {withLength(4097), "claims 4097 bytes"},
		"length 2^32": {withLength(0xffffffff), "claims 4294967295 bytes"},
		"longer":      {withLength(39), "more than its header claims"},
		"shorter":     {withLength(41), "stopped after 40 of 41"},
		"one byte":    {[]byte{0x80}, "stopped after 1 of 10"},
		"nothing":     {nil, "no answer: timed out"},
	} {
		synctest.Test(t, func(t *testing.T) {
			chip := tpmtest.NewChip(func([]byte) ([]byte, error) { return c.answer, nil }, tpmtest.Faults{Burst: 1})
			driver, err := NewSPI(chip.SPI(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if response, err := driver.Send(anyCommand); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %x, %v", name, response, err)
			}
			if v := chip.Violations(); len(v) != 0 || !chip.AtRest() {
				t.Errorf("%s: violations %q, at rest: %v", name, v, chip.AtRest())
			}
		})
	}
}

// Bits that cannot be are read again; for good, they are an error.
func TestNoise(t *testing.T) {
	for _, r := range []tpmtest.Register{tpmtest.Status, tpmtest.Access} {
		for times, works := range map[int]bool{tries - 1: true, 1000: false} {
			n := -1 // not yet
			wire := func(reg tpmtest.Register, write bool, b []byte) {
				if reg == r && !write && n >= 0 && n < times {
					n++
					b[0] = 0xff
				}
			}
			on(t, "spi", tpmtest.Faults{Wire: wire}, Options{}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, c *Chip, _ error) {
				n = 0
				if _, err := c.Send(anyCommand); (err == nil) != works || err != nil && !strings.Contains(err.Error(), "0xff cannot be: no TPM, or a bad connection") {
					t.Errorf("%s: %v", r, err)
				}
			})
		}
	}
}

func TestLocalityIsTaken(t *testing.T) {
	on(t, "", tpmtest.Faults{Wire: func(r tpmtest.Register, write bool, b []byte) {
		if r == tpmtest.Access && !write {
			b[0] &^= 0x20
		}
	}}, Options{}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, _ error) {
		fails(t, c, "request locality 0 (does the firmware hold another?): timed out", true)
		if tpm.command != nil {
			t.Error("a command was sent")
		}
	})
}

// A program that ended in mid-command has left the locality taken.
func TestLocalityIsLeft(t *testing.T) {
	on(t, "", tpmtest.Faults{}, Options{}, func(t *testing.T, tpm *answers, chip *tpmtest.Chip, c *Chip, _ error) {
		if err := c.request(); err != nil || chip.AtRest() {
			t.Fatal(err)
		}
		if err := c.transmit(anyCommand); err != nil {
			t.Fatal(err)
		}
		works(t, tpm, c, 100, 100)
	})
}

func TestClose(t *testing.T) {
	on(t, "", tpmtest.Faults{Mute: true}, Options{}, func(t *testing.T, _ *answers, chip *tpmtest.Chip, c *Chip, _ error) {
		done := make(chan error)
		go func() {
			_, err := c.Send(anyCommand)
			done <- err
		}()
		time.Sleep(time.Second) // of the bubble's clock
		start := time.Now()
		if err := c.Close(); err != nil || !chip.AtRest() {
			t.Errorf("%v, at rest: %v", err, chip.AtRest())
		}
		if err := <-done; !errors.Is(err, errClosed) || time.Since(start) > 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		fails(t, c, "closed", false)
	})
}

// resetLine notes the levels of a line and when they came.
type resetLine struct {
	levels []gpio.Level
	at     []time.Time
	err    error
}

func (r *resetLine) Out(l gpio.Level) error {
	r.levels, r.at = append(r.levels, l), append(r.at, time.Now())
	return r.err
}

func TestReset(t *testing.T) {
	line := &resetLine{}
	on(t, "", tpmtest.Faults{Unstarted: true}, Options{Reset: line}, func(t *testing.T, tpm *answers, _ *tpmtest.Chip, c *Chip, err error) {
		if err != nil || len(line.levels) != 2 || line.levels[0] != gpio.Low || line.levels[1] != gpio.High || line.at[1].Sub(line.at[0]) < time.Millisecond {
			t.Errorf("%v, %v", line, err)
		}
		line.levels, line.at = nil, nil
		works(t, tpm, c, 100, 100)
	})
	on(t, "", tpmtest.Faults{}, Options{Reset: &resetLine{err: errors.New("no such line")}}, func(t *testing.T, _ *answers, _ *tpmtest.Chip, _ *Chip, err error) {
		if err == nil || !strings.Contains(err.Error(), "reset: no such line") {
			t.Errorf("%v", err)
		}
	})
}

func TestCRC(t *testing.T) {
	if got := crc([]byte("123456789")); got != 0x2189 { // the check value of CRC-16/KERMIT
		t.Errorf("%#04x", got)
	}
}

func TestGuardTimes(t *testing.T) {
	for capability, want := range map[uint32][2]time.Duration{
		0x02600082:            {0, 0},
		250<<9 | 1<<20:        {250 * time.Microsecond, 0},
		250<<9 | 1<<19:        {250 * time.Microsecond, 0},
		100<<9 | 1<<18:        {0, 100 * time.Microsecond},
		100<<9 | 1<<17:        {0, 100 * time.Microsecond},
		255<<9 | 0xf<<17:      {255 * time.Microsecond, 255 * time.Microsecond},
		255<<9 | 1<<21 | 1<<8: {0, 0},
	} {
		if r, w := guardTimes(capability); r != want[0] || w != want[1] {
			t.Errorf("%#x: %v, %v", capability, r, w)
		}
	}
}

// FuzzChip has a chip say anything in its registers and its FIFO.
func FuzzChip(f *testing.F) {
	f.Add([]byte{}, true)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0xff}, false)
	f.Add(bytes.Repeat([]byte{0xff}, 100), false)
	f.Fuzz(func(t *testing.T, noise []byte, onI2C bool) {
		synctest.Test(t, func(t *testing.T) {
			chip := tpmtest.NewChip((&answers{size: 40}).answer, tpmtest.Faults{Burst: 8, Wire: func(_ tpmtest.Register, _ bool, b []byte) {
				n := min(len(b), len(noise))
				for i := range n {
					b[i] ^= noise[i]
				}
				noise = noise[n:]
			}})
			var c *Chip
			var err error
			if onI2C {
				c, err = NewI2C(chip.I2C(), tpmtest.I2CAddress, Options{})
			} else {
				c, err = NewSPI(chip.SPI(), Options{})
			}
			if err != nil {
				return
			}
			for range 3 {
				start := time.Now()
				response, err := c.Send(anyCommand)
				if err == nil && len(response) < headerLen {
					t.Errorf("%x", response)
				}
				if took := time.Since(start); took > 2*time.Minute { // of the bubble's clock
					t.Errorf("it took %v", took)
				}
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	})
}
