package tpm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
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
		return nil, chip, nil, busError(err)
	}
	t = &TPM{address: bus, timeout: DefaultTimeout, conn: &busChip{chip: driver}}
	return t, chip, func() { t.Close(); hangUp() }, nil
}

// inventoryText is an inventory to the last byte.
func inventoryText(t *testing.T, c *TPM) string {
	t.Helper()
	info, keys, gaps := c.Inventory()
	encoded, err := json.Marshal(struct {
		Info device.TPM
		Gaps []device.Gap
	}{info, gaps})
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.NewBuffer(encoded)
	for _, k := range keys {
		fmt.Fprintf(out, "\n%s %s %s %x", k.ID, k.Role, k.Source, k.SPKI)
		for _, cert := range k.Chain {
			fmt.Fprintf(out, " %x", cert.Raw)
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
	want := inventoryText(t, direct)
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
				if got := inventoryText(t, c); got != want {
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
