package tis

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"periph.io/x/conn/v3/physic"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]address{
		"spi:/dev/spidev0.1":                                        {scheme: "spi", path: "/dev/spidev0.1", chipSelect: 1, speed: 10 * physic.MegaHertz, target: 0x2e},
		"spi:/dev/spidev12.0?speed=500kHz":                          {scheme: "spi", path: "/dev/spidev12.0", bus: 12, speed: 500 * physic.KiloHertz, target: 0x2e},
		"spi:/dev/spidev0.0?transfer=single&speed=33MHz":            {scheme: "spi", path: "/dev/spidev0.0", speed: 33 * physic.MegaHertz, single: true, target: 0x2e},
		"i2c:/dev/i2c-1":                                            {scheme: "i2c", path: "/dev/i2c-1", speed: 10 * physic.MegaHertz, target: 0x2e},
		"i2c:/dev/i2c-10?addr=0x50&reset=/dev/gpiochip0:17":         {scheme: "i2c", path: "/dev/i2c-10", speed: 10 * physic.MegaHertz, target: 0x50, gpio: "/dev/gpiochip0", line: 17},
		"spi:/dev/spidev0.0?reset=/dev/gpiochip1:4&transfer=single": {scheme: "spi", path: "/dev/spidev0.0", speed: 10 * physic.MegaHertz, single: true, target: 0x2e, gpio: "/dev/gpiochip1", line: 4},
	} {
		if got, err := parseAddress(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                                   "not an address",
		"/dev/spidev0.0":                     "not an address",
		"spi:":                               "not a SPI device",
		"spi:/dev/spidev0":                   "not a SPI device",
		"spi:/dev/spidev0.256":               "not a SPI device",
		"spi:/dev/spidev0.0.0":               "not a SPI device",
		"spi:/dev/spidev00.0":                "not a SPI device",
		"spi:/dev/spidev-1.0":                "not a SPI device",
		"spi:/tmp/../dev/spidev0.0":          "not a SPI device",
		"i2c:/dev/i2c-":                      "not an I2C bus",
		"i2c:/dev/i2c-x":                     "not an I2C bus",
		"i2c:/dev/i2c-1/../mem":              "not an I2C bus",
		"i2c:/dev/i2c-1?addr=0x07":           "addr",
		"i2c:/dev/i2c-1?addr=0x78":           "addr",
		"i2c:/dev/i2c-1?addr=":               "addr",
		"i2c:/dev/i2c-1?addr=8&addr=9":       "2 times",
		"i2c:/dev/i2c-1?speed=10MHz":         "no such parameter of i2c",
		"i2c:/dev/i2c-1?%zz":                 "invalid URL escape",
		"spi:/dev/spidev0.0?addr=0x2e":       "no such parameter of spi",
		"spi:/dev/spidev0.0?speed=fast":      "speed",
		"spi:/dev/spidev0.0?speed=1Hz":       "speed",
		"spi:/dev/spidev0.0?speed=1GHz":      "speed",
		"spi:/dev/spidev0.0?transfer=double": "transfer",
		"spi:/dev/spidev0.0?reset=17":        "reset",
		"spi:/dev/spidev0.0?reset=/dev/x:17": "reset",
	} {
		if _, err := Open(text, Options{}); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("spi:/dev/spidev0.1?speed=10MHz&transfer=single")
	f.Add("i2c:/dev/i2c-1?addr=0x2e&reset=/dev/gpiochip0:17")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(text)
		if err == nil && (a.path != filepath.Clean(a.path) || !strings.HasPrefix(a.path, "/dev/") || a.target < 8 || a.target > 0x77) {
			t.Errorf("%q: %+v", text, a)
		}
	})
}

func TestOpenAbsent(t *testing.T) {
	for _, address := range []string{"spi:/dev/spidev99.99", "i2c:/dev/i2c-9999"} {
		if _, err := Open(address, Options{}); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "device tree") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestKernelHasTPM(t *testing.T) {
	kernelTPM := filepath.Join(t.TempDir(), "tpm0")
	if err := os.WriteFile(kernelTPM, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openUnless(kernelTPM, "spi:/dev/spidev99.99", Options{}); err == nil || errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), "give /dev/tpmrm0") {
		t.Errorf("%v", err)
	}
	// I2C asks the bus itself.
	if _, err := openUnless(kernelTPM, "i2c:/dev/i2c-9999", Options{}); !errors.Is(err, ErrAbsent) {
		t.Errorf("%v", err)
	}
	if err := refusal(syscall.EBUSY); !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "give /dev/tpmrm0") {
		t.Errorf("%v", err)
	}
}

func TestClaim(t *testing.T) {
	first, err := claim("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim("/dev/null"); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v", err)
	}
	if _, err := newI2CFile(first, 0x2e); !errors.Is(err, syscall.ENOTTY) || !strings.Contains(err.Error(), "not an I2C bus") {
		t.Errorf("%v", err)
	}
	first.Close()
	second, err := claim("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(file); err == nil || !strings.Contains(err.Error(), "not a character device") {
		t.Errorf("%v", err)
	}
	if _, err := claim("/dev"); err == nil {
		t.Error("a directory was claimed")
	}
}

// Each write and each read of the file is one message.
func TestI2CFile(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	host, target := os.NewFile(uintptr(fds[0]), "host"), os.NewFile(uintptr(fds[1]), "target")
	defer host.Close()
	defer target.Close()
	f := &i2cFile{host, 0x2e}
	if err := f.Tx(0x2e, []byte{1, 2, 3}, nil); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if n, err := target.Read(got); err != nil || !bytes.Equal(got[:n], []byte{1, 2, 3}) {
		t.Errorf("%x, %v", got[:n], err)
	}
	target.Write([]byte{4, 5})
	target.Write([]byte{6})
	if err := f.Tx(0x2e, nil, got[:2]); err != nil || got[0] != 4 || got[1] != 5 {
		t.Errorf("%x, %v", got, err)
	}
	if err := f.Tx(0x2e, nil, got[:2]); err == nil || !strings.Contains(err.Error(), "1 of 2 bytes") {
		t.Errorf("a message that was too short: %v", err)
	}
	if err := f.Tx(0x2f, []byte{1}, nil); err == nil {
		t.Error("a message to another target was sent")
	}
}

func TestLine(t *testing.T) {
	if n := unsafe.Sizeof(lineRequest{}); n != ioctlGetLine>>16&0x3fff {
		t.Errorf("%d bytes of a request", n)
	}
	if n := unsafe.Sizeof(lineValues{}); n != ioctlSetValues>>16&0x3fff {
		t.Errorf("%d bytes of values", n)
	}
	if at := unsafe.Offsetof(lineRequest{}.flags); at != 288 {
		t.Errorf("flags at %d", at)
	}
	if at := unsafe.Offsetof(lineRequest{}.lines); at != 560 {
		t.Errorf("number of lines at %d", at)
	}
	if at := unsafe.Offsetof(lineRequest{}.fd); at != 588 {
		t.Errorf("file descriptor at %d", at)
	}
	for _, chip := range []string{"/dev/null", "/dev/gpiochip9999", filepath.Join(t.TempDir(), "x")} {
		if _, err := openLine(chip, 1); err == nil {
			t.Errorf("%s has lines", chip)
		}
	}
}
