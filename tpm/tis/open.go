package tis

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/conn/v3/spi"
	"periph.io/x/host/v3/sysfs"
)

// defaultSpeed is what every chip meant takes, over wires of some length.
const defaultSpeed = 10 * physic.MegaHertz

// kernelTPM is there while a driver of the kernel has a TPM.
const kernelTPM = "/dev/tpm0"

// Open finds the TPM at an address:
//
//	spi:/dev/spidevB.C[?speed=10MHz][&transfer=single][&reset=/dev/gpiochipN:LINE]
//	i2c:/dev/i2c-N[?addr=0x2e][&reset=/dev/gpiochipN:LINE]
//
// transfer=single is Options.SingleTransfer, reset is Options.Reset. Open refuses
// a bus that another process has opened by this package, and a TPM that the
// kernel drives: two masters break each other's commands midway. The error wraps
// ErrAbsent if there is no such bus or no TPM on it.
func Open(address string, opts Options) (*Chip, error) {
	return openUnless(kernelTPM, address, opts)
}

// openUnless is Open on a machine whose kernel has that TPM, if it is there.
func openUnless(kernelTPM, address string, opts Options) (*Chip, error) {
	a, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	opts.SingleTransfer = opts.SingleTransfer || a.single
	if a.scheme == "spi" {
		// The kernel does not tell which chip select its TPM has.
		if _, err := os.Lstat(kernelTPM); err == nil {
			return nil, errors.New(kernelTPM + " is there: the kernel drives a TPM; give /dev/tpmrm0, or unbind its driver")
		}
	}
	f, err := claim(a.path)
	if err != nil {
		return nil, err
	}
	host := []io.Closer{f}
	c, err := open(a, f, opts, &host)
	if err != nil {
		_ = closeAll(host)
		return nil, err
	}
	c.host = host
	return c, nil
}

func closeAll(host []io.Closer) (err error) {
	for i := range host {
		err = errors.Join(err, host[len(host)-1-i].Close())
	}
	return err
}

// address is a parsed one.
type address struct {
	scheme, path    string
	bus, chipSelect int // of spi
	speed           physic.Frequency
	single          bool
	target          uint16 // of i2c
	gpio            string // chip of the reset line, if any
	line            uint32
}

// CheckAddress returns nil if text can be an address for [Open]; it opens nothing.
func CheckAddress(text string) error {
	_, err := parseAddress(text)
	return err
}

func parseAddress(text string) (a address, err error) {
	scheme, rest, _ := strings.Cut(text, ":")
	path, query, _ := strings.Cut(rest, "?")
	a = address{scheme: scheme, path: path, speed: defaultSpeed, target: DefaultI2CAddress}
	values, err := url.ParseQuery(query)
	if err != nil {
		return a, fmt.Errorf("%q: %w", query, err)
	}
	number := func(s string) int {
		n, numErr := strconv.ParseUint(s, 10, 16)
		if numErr != nil || strconv.FormatUint(n, 10) != s {
			err = errors.New("not an address: give spi:/dev/spidevB.C or i2c:/dev/i2c-N")
		}
		return int(n)
	}
	switch scheme {
	case "spi":
		name, ok := strings.CutPrefix(path, "/dev/spidev")
		b, cs, ok2 := strings.Cut(name, ".")
		if a.bus, a.chipSelect = number(b), number(cs); err != nil || !ok || !ok2 || a.chipSelect > 255 {
			return a, fmt.Errorf("%q: not a SPI device: give spi:/dev/spidevB.C", path)
		}
	case "i2c":
		name, ok := strings.CutPrefix(path, "/dev/i2c-")
		if number(name); err != nil || !ok {
			return a, fmt.Errorf("%q: not an I2C bus: give i2c:/dev/i2c-N", path)
		}
	default:
		return a, fmt.Errorf("%q: not an address: give spi:/dev/spidevB.C or i2c:/dev/i2c-N", text)
	}
	for name, v := range values {
		if len(v) != 1 {
			return a, fmt.Errorf("%s is given %d times", name, len(v))
		}
		switch scheme + " " + name {
		case "spi speed":
			if err := a.speed.Set(v[0]); err != nil || a.speed < 10*physic.KiloHertz || a.speed > 100*physic.MegaHertz {
				return a, fmt.Errorf("speed %q: give 10kHz to 100MHz", v[0])
			}
		case "spi transfer":
			if a.single = v[0] == "single"; !a.single {
				return a, fmt.Errorf("transfer %q: only single is known", v[0])
			}
		case "i2c addr":
			n, err := strconv.ParseUint(v[0], 0, 16)
			if err != nil || n < 0x08 || n > 0x77 {
				return a, fmt.Errorf("addr %q: give 0x08 to 0x77", v[0])
			}
			a.target = uint16(n)
		case "spi reset", "i2c reset":
			chip, line, ok := strings.Cut(v[0], ":")
			n, err := strconv.ParseUint(line, 10, 16)
			if !ok || err != nil || !strings.HasPrefix(chip, "/dev/gpiochip") {
				return a, fmt.Errorf("reset %q: give /dev/gpiochipN:LINE", v[0])
			}
			a.gpio, a.line = chip, uint32(n)
		default:
			return a, fmt.Errorf("%s: no such parameter of %s", name, scheme)
		}
	}
	return a, nil
}

// claim opens a bus for this process alone, among those that ask.
func claim(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return nil, fmt.Errorf("%w: %v: are %s and its bus enabled in the kernel and the device tree?", ErrAbsent, err, filepath.Base(path))
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: run as root or as a member of the device's group", err)
	case err != nil:
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		f.Close()
		return nil, fmt.Errorf("%s: not a character device", path)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: another process talks to a TPM there", path)
		}
		return nil, fmt.Errorf("%s: lock: %w", path, err)
	}
	return f, nil
}

// open finds the TPM at a, whose bus f has, and adds to host what it opens.
func open(a address, f *os.File, opts Options, host *[]io.Closer) (*Chip, error) {
	var conn spi.Conn
	var bus *i2cFile
	if a.scheme == "i2c" {
		var err error
		if bus, err = newI2CFile(f, a.target); err != nil {
			return nil, err
		}
	} else {
		port, err := sysfs.NewSPI(a.bus, a.chipSelect)
		if err != nil {
			return nil, err
		}
		*host = append(*host, port)
		if conn, err = port.Connect(a.speed, spi.Mode0, 8); err != nil {
			return nil, err
		}
	}
	if a.gpio != "" { // only now, since nobody else has the TPM
		line, err := openLine(a.gpio, a.line)
		if err != nil {
			return nil, fmt.Errorf("reset line: %w", err)
		}
		*host = append(*host, line)
		opts.Reset = line
	}
	if bus != nil {
		return NewI2C(bus, a.target, opts)
	}
	return NewSPI(conn, opts)
}

// i2cFile is the target of an I2C bus that /dev/i2c-N was told of: each read
// and each write is a message of its own. It takes the place of periph's
// sysfs.I2C, which gives the kernel addresses of a goroutine's stack as
// numbers, by ioctl(I2C_RDWR), and tells no refusal by a kernel driver.
type i2cFile struct {
	*os.File
	target uint16
}

// newI2CFile sets the target. The kernel refuses that while a driver of its
// own has the target; to overrule it is I2C_SLAVE_FORCE, never used here.
func newI2CFile(f *os.File, target uint16) (*i2cFile, error) {
	const ioctlSlave = 0x703 // I2C_SLAVE of linux/i2c-dev.h, on every architecture
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), ioctlSlave, uintptr(target)); errno != 0 {
		return nil, fmt.Errorf("%s at %#02x: %w", f.Name(), target, refusal(errno))
	}
	return &i2cFile{f, target}, nil
}

// refusal returns what an error of ioctl(I2C_SLAVE) means.
func refusal(errno syscall.Errno) error {
	if errno == syscall.EBUSY {
		return fmt.Errorf("%w: the kernel drives it; give /dev/tpmrm0, or unbind its driver", errno)
	}
	return fmt.Errorf("%w: not an I2C bus", errno)
}

func (f *i2cFile) String() string { return f.Name() }

func (f *i2cFile) Tx(target uint16, w, r []byte) error {
	if target != f.target {
		return fmt.Errorf("%v is for target %#02x", f, f.target)
	}
	if len(w) > 0 {
		if _, err := f.Write(w); err != nil {
			return err
		}
	}
	if len(r) > 0 {
		if n, err := f.Read(r); err != nil || n != len(r) {
			return fmt.Errorf("%d of %d bytes, %v", n, len(r), err)
		}
	}
	return nil
}

func (f *i2cFile) SetSpeed(physic.Frequency) error {
	return errors.New("the speed of an I2C bus is set in the device tree")
}
