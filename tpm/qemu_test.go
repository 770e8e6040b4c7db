package tpm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"periph.io/x/conn/v3"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/conn/v3/spi"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/link"
	"github.com/keyvet/keyvet/tpm/tis"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// qemu is a machine that runs no code: its devices are read and written by
// QEMU's qtest protocol.
type qemu struct {
	conn  net.Conn
	lines *bufio.Scanner
}

// runQEMU starts a machine whose TPM has that state.
func runQEMU(t *testing.T, program, state string, args ...string) *qemu {
	t.Helper()
	dir := t.TempDir()
	control, socket := filepath.Join(dir, "control"), filepath.Join(dir, "qtest")
	background := func(ready, name string, args ...string) {
		ctx, cancel := context.WithCancel(context.Background())
		cmd := exec.CommandContext(ctx, name, args...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		t.Cleanup(func() { cancel(); <-ended })
		for !listens(t, ready) {
			select {
			case <-ended:
				t.Fatalf("%s: %s", name, out.String())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	background(control, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+control)
	background(socket, program, append([]string{"-accel", "tcg", "-S", "-nodefaults", "-display", "none",
		"-qtest", "unix:" + socket + ",server=on,wait=off", "-chardev", "socket,id=chip,path=" + control, "-tpmdev", "emulator,id=tpm0,chardev=chip"}, args...)...)
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &qemu{c, bufio.NewScanner(c)}
}

// listens reports whether there is a listening socket at path: that there is a
// socket is too early.
func listens(t *testing.T, path string) bool {
	t.Helper()
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sockets)) {
		const listening = "00010000" // __SO_ACCEPTCON
		if f := strings.Fields(line); len(f) == 8 && f[7] == path && f[3] == listening {
			return true
		}
	}
	return false
}

// do is one command of the qtest protocol.
func (q *qemu) do(format string, args ...any) (uint32, error) {
	if err := q.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	if _, err := fmt.Fprintf(q.conn, format+"\n", args...); err != nil {
		return 0, err
	}
	if !q.lines.Scan() {
		return 0, errors.New("QEMU has ended")
	}
	answer, ok := strings.CutPrefix(q.lines.Text(), "OK")
	if !ok {
		return 0, errors.New(q.lines.Text())
	}
	if answer == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(strings.TrimSpace(answer), 0, 64)
	return uint32(v), err
}

// strictBurst is the burst count that the driver is told and has to keep: QEMU
// itself offers the whole FIFO.
const strictBurst = 8

// qemuSPI decodes the SPI frames for registers in memory: QEMU has no TPM on SPI.
type qemuSPI struct {
	*qemu
	frame []byte // since the chip was selected
}

func (q *qemuSPI) String() string       { return "QEMU" }
func (q *qemuSPI) Duplex() conn.Duplex  { return conn.Full }
func (q *qemuSPI) Tx(w, r []byte) error { return q.TxPackets([]spi.Packet{{W: w, R: r}}) }

func (q *qemuSPI) TxPackets(packets []spi.Packet) (err error) {
	const base = 0x0c000000 // of the machine virt
	for _, p := range packets {
		for i, b := range p.W {
			q.frame = append(q.frame, b)
			at := len(q.frame) - 5
			if p.R[i] = 1; at < 0 {
				continue
			}
			size, register := int(q.frame[0]&0x3f)+1, uint32(q.frame[2])<<8|uint32(q.frame[3])
			if at >= size || q.frame[1] != 0xd4 || register == 0x24 && at >= strictBurst {
				return fmt.Errorf("frame % x", q.frame)
			}
			address := base + register
			if register != 0x24 {
				address += uint32(at)
			}
			if q.frame[0]&0x80 == 0 {
				_, err = q.do("writeb %#x %#x", address, b)
			} else {
				var v uint32
				v, err = q.do("readb %#x", address)
				p.R[i] = strict(register == 0x18, at, byte(v))
			}
			if err != nil {
				return err
			}
		}
		if !p.KeepCS {
			q.frame = nil
		}
	}
	return nil
}

// strict caps the burst count, in bytes 1 and 2 of STS.
func strict(status bool, at int, b byte) byte {
	switch {
	case status && at == 1:
		return strictBurst
	case status && at == 2:
		return 0
	}
	return b
}

// qemuI2C speaks to the I2C controller of a BCM2835, which has the TPM on it.
type qemuI2C struct {
	*qemu
	register byte
}

func (q *qemuI2C) String() string                  { return "QEMU" }
func (q *qemuI2C) SetSpeed(physic.Frequency) error { return nil }

func (q *qemuI2C) Tx(target uint16, w, r []byte) error {
	const (
		controller = 0x3f804000
		start      = 0x8080 // C: I2CEN, ST; and READ, 1
	)
	n := len(w) + len(r)
	if len(w) > 0 && len(r) > 0 || n > 32 {
		return fmt.Errorf("message of %d and %d bytes", len(w), len(r))
	}
	var control uint32 = start
	if len(r) > 0 {
		control |= 1
	}
	for _, v := range [][2]uint32{{0x04, 0x302}, {0x0c, uint32(target)}, {0x08, uint32(n)}, {0x00, control}} {
		if _, err := q.do("writel %#x %#x", controller+v[0], v[1]); err != nil {
			return err
		}
	}
	for _, b := range w {
		if _, err := q.do("writel %#x %#x", controller+0x10, b); err != nil {
			return err
		}
	}
	for i := range r {
		v, err := q.do("readl %#x", controller+0x10)
		if err != nil {
			return err
		}
		r[i] = strict(q.register == 0x18, i, byte(v))
	}
	if len(w) > 0 {
		if q.register = w[0]; q.register == 0x24 && len(w) > 1+strictBurst {
			return errors.New("beyond the burst count")
		}
	}
	if q.register == 0x24 && len(r) > strictBurst {
		return errors.New("beyond the burst count")
	}
	s, err := q.do("readl %#x", controller+0x04)
	if err == nil && s&0x100 != 0 {
		err = errors.New("NACK")
	}
	return err
}

// QEMU's own models of the registers, which nobody here wrote, give the very
// inventory that the TPM gives over its socket.
func TestQEMU(t *testing.T) {
	dir := t.TempDir()
	emulator, err := tpmtest.Start(context.Background(), tpmtest.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	direct, err := Open(emulator.Address(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := inventoryText(direct.Inventory())
	direct.Close()
	if err := emulator.Stop(); err != nil {
		t.Fatal(err)
	}
	same := func(t *testing.T, chip *tis.Chip, err error) {
		if err != nil {
			t.Fatal(err)
		}
		c := over(link.OverBus(chip), DefaultTimeout)
		defer c.Close()
		if got := inventoryText(c.Inventory()); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if _, err := c.Quote([32]byte{1}); err != nil {
			t.Error(err)
		}
		if err := c.withPrimary(storageRootKey, func(tpm2.NamedHandle, tpm2.TPM2BPublic) error { return nil }); err != nil {
			t.Error(err)
		}
	}
	t.Run("spi", func(t *testing.T) {
		q := runQEMU(t, "qemu-system-arm", filepath.Join(dir, "state"), "-M", "virt", "-device", "tpm-tis-device,tpmdev=tpm0")
		c, err := tis.NewSPI(&qemuSPI{qemu: q}, tis.Options{})
		same(t, c, err)
	})
	// Debian bookworm's QEMU has no TPM on I2C; QEMU 9 or later does.
	if program := os.Getenv("KEYVET_QEMU_I2C"); program != "" {
		t.Run("i2c", func(t *testing.T) {
			q := runQEMU(t, program, filepath.Join(dir, "state"), "-M", "raspi3b", "-device", "tpm-tis-i2c,tpmdev=tpm0,bus=i2c-bus.1,address=0x2e")
			bus := &qemuI2C{qemu: q}
			if err := bus.Tx(0x2e, []byte{0x00, 1}, nil); err != nil { // another locality is selected
				t.Fatal(err)
			}
			c, err := tis.NewI2C(bus, 0x2e, tis.Options{})
			same(t, c, err)
		})
	}
}
