package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/attempts"
	"github.com/keyvet/keyvet/tpm/link"
	"github.com/keyvet/keyvet/tpm/tis"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// buses are the two ways to a chip.
var buses = map[string]func(*tpmtest.Chip, tis.Options) (*tis.Chip, error){
	"spi": func(c *tpmtest.Chip, o tis.Options) (*tis.Chip, error) { return tis.NewSPI(c.SPI(), o) },
	"i2c": func(c *tpmtest.Chip, o tis.Options) (*tis.Chip, error) {
		return tis.NewI2C(c.I2C(), tpmtest.I2CAddress, o)
	},
}

// headerLen is that of commands and responses, in bytes.
const headerLen = 10

// over is the TPM behind a connection.
func over(conn io.ReadWriteCloser, timeout time.Duration) *TPM {
	return &TPM{address: "test", link: link.New("test", conn, timeout), opts: Options{Timeout: timeout, Attempts: new(attempts.Memory)}}
}

// onBus is the TPM at address behind a chip on a bus. Call it in a bubble of
// synctest, where waiting takes no time.
func onBus(address, bus string, faults tpmtest.Faults) (t *TPM, chip *tpmtest.Chip, end func(), err error) {
	answer, hangUp, err := tpmtest.Dial(address)
	if err != nil {
		return nil, nil, nil, err
	}
	chip = tpmtest.NewChip(answer, faults)
	driver, err := buses[bus](chip, tis.Options{})
	if err != nil {
		hangUp()
		return nil, chip, nil, err
	}
	t = over(link.OverBus(driver), DefaultTimeout)
	return t, chip, func() { t.Close(); hangUp() }, nil
}

// inventoryText is an inventory to the last byte.
func inventoryText(info device.TPM, keys []device.Key, gaps []device.Gap) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%+v %+v", info, gaps)
	for _, k := range keys {
		fmt.Fprintf(&out, "\n%s %s %s %x", k.ID, k.Role, k.Source, k.SPKI)
		for _, cert := range k.Chain {
			fmt.Fprintf(&out, " %x", cert.Raw)
		}
	}
	return out.String()
}

func TestInventoryOnBuses(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	direct, err := Open(emulator.Address(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := inventoryText(direct.Inventory())
	direct.Close() // the emulator has one client at a time
	if len(want) < 4000 {
		t.Fatalf("that is no inventory: %s", want)
	}
	run := func(bus string, faults tpmtest.Faults) {
		t.Run(fmt.Sprintf("%s %+v", bus, faults), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, chip, end, err := onBus(emulator.Address(), bus, faults)
				if err != nil {
					t.Fatal(err)
				}
				defer end()
				if got := inventoryText(c.Inventory()); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
				if _, err := c.Quote([32]byte{1}); err != nil {
					t.Error(err)
				}
				if v := chip.Violations(); len(v) != 0 || !chip.AtRest() {
					t.Errorf("violations: %q, at rest: %v", v, chip.AtRest())
				}
			})
		})
	}
	for _, burst := range []int{1, 7, 32, 64} {
		for waits := range 4 {
			run("spi", tpmtest.Faults{WaitStates: waits, Burst: burst})
		}
		run("i2c", tpmtest.Faults{Burst: burst})
	}
	run("i2c", tpmtest.Faults{GuardTime: 250 * time.Microsecond, NACKs: 3, BadSums: 3, Duration: 20 * time.Second})
}

// A mute chip, and one that stops, end the inventory as undecided.
func TestFaultyChips(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	for bus := range buses {
		for name, faults := range map[string]tpmtest.Faults{
			"mute":         {Mute: true},
			"stops":        {StopAfter: 12},
			"bad checksum": {BadSums: 1 << 30},
		} {
			if bus == "spi" && name == "bad checksum" {
				continue
			}
			t.Run(bus+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c, chip, end, err := onBus(emulator.Address(), bus, faults)
					if err != nil {
						t.Fatal(err)
					}
					defer end()
					start := time.Now()
					info, keys, gaps := c.Inventory()
					if info.State != device.TPMAbsent || info.Problem == "" || len(keys) != 0 || len(gaps) != 1 || gaps[0].Minor {
						t.Errorf("%+v %v %v", info, keys, gaps)
					}
					if took := time.Since(start); took > DefaultTimeout { // of the bubble's clock
						t.Errorf("it took %v", took)
					}
					if _, err := c.Info(); errors.Is(err, ErrTimeout) != (name != "bad checksum") || err == nil {
						t.Errorf("%v", err)
					}
					if !chip.AtRest() {
						t.Error("the chip is not at rest")
					}
				})
			})
		}
		synctest.Test(t, func(t *testing.T) {
			if _, _, _, err := onBus(emulator.Address(), bus, tpmtest.Faults{Absent: true}); !errors.Is(err, ErrAbsent) {
				t.Errorf("%s: %v", bus, err)
			}
		})
	}
}

// randomFaults is a chip on a bad day, and what its TPM answers then. On SPI,
// which has no checksum, the FIFO is spared.
func randomFaults(r *rand.Rand, bus string, answer func([]byte) ([]byte, error)) (tpmtest.Faults, func([]byte) ([]byte, error)) {
	once := func(n int) bool { return r.IntN(n) == 0 }
	f := tpmtest.Faults{
		WaitStates: r.IntN(4),
		Burst:      1 + r.IntN(64),
		GuardTime:  time.Duration(r.IntN(251)) * time.Microsecond,
		Duration:   time.Duration(r.IntN(100)) * time.Millisecond,
		Unstarted:  once(10),
		Mute:       once(50),
		Absent:     once(50),
	}
	if once(5) {
		f.NACKs = r.IntN(60)
	}
	if once(5) {
		f.BadSums = r.IntN(10)
	}
	if once(10) {
		f.StopAfter = 1 + r.IntN(2000)
	}
	// A damaged frame slips through the checksum once in 65,536 times if two
	// of its parts are damaged, so that has to be rare.
	fifo, registers := 0.003*r.Float64(), 0.03*r.Float64()*float64(r.IntN(2))
	if bus == "spi" {
		fifo = 0
	}
	f.Wire = func(reg tpmtest.Register, _ bool, b []byte) {
		rate := registers
		if reg == tpmtest.FIFO {
			rate = fifo
		}
		if r.Float64() < rate {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
	}
	truncate := 0.01 * r.Float64() * float64(r.IntN(2))
	return f, func(command []byte) ([]byte, error) {
		response, err := answer(command)
		if err == nil && r.Float64() < truncate {
			response = response[:r.IntN(len(response))]
		}
		return response, err
	}
}

// A thousand runs on chips with faults end in the right inventory, or say what
// is missing.
func TestRandomFaults(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	answer, hangUp, err := tpmtest.Dial(emulator.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hangUp() })
	var want string
	right := make(map[string]string) // key by key
	outcomes := make(map[string]int)
	run := func(t *testing.T, seed uint64, bus string) {
		r := rand.New(rand.NewPCG(seed, 0))
		faults, damaged := tpmtest.Faults{}, answer
		if seed > 0 {
			faults, damaged = randomFaults(r, bus, answer)
		}
		driver, err := buses[bus](tpmtest.NewChip(damaged, faults), tis.Options{})
		if err != nil {
			outcomes["not opened"]++
			return
		}
		c := over(link.OverBus(driver), DefaultTimeout)
		defer c.Close()
		start := time.Now()
		info, keys, gaps := c.Inventory()
		if took := time.Since(start); took > 10*time.Minute { // of the bubble's clock
			t.Errorf("%s, seed %d: it took %v", bus, seed, took)
		}
		got := inventoryText(info, keys, gaps)
		if seed == 0 {
			want = got
		}
		for _, k := range keys {
			one := inventoryText(device.TPM{}, []device.Key{k}, nil)
			if seed == 0 {
				right[k.ID] = one
			} else if one != right[k.ID] && !(len(k.Chain) == 0 && strings.HasPrefix(right[k.ID], one)) {
				t.Errorf("%s, seed %d: a wrong key:\n%s\nnot\n%s", bus, seed, one, right[k.ID])
			}
		}
		switch {
		case got == want:
			outcomes["right"]++
		case len(gaps) == 0:
			t.Errorf("%s, seed %d: nothing is said to be missing from\n%s\nbut it is not\n%s", bus, seed, got, want)
		default:
			outcomes["gaps"]++
		}
	}
	for seed := range uint64(1001) {
		for _, handle := range []uint32{0x80000000, 0x80000001, 0x80000002} { // TPM2_FlushContext of what a lost response has left
			if _, err := answer(binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65}, handle)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Test(t, func(t *testing.T) { run(t, seed, []string{"i2c", "spi"}[seed%2]) })
	}
	t.Log(outcomes)
	if outcomes["right"] < 200 || outcomes["gaps"] < 100 || outcomes["not opened"] < 10 {
		t.Errorf("the faults are too rare or too frequent: %v", outcomes)
	}
}
