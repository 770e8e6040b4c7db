package tis

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"periph.io/x/conn/v3/gpio"
)

// gpioLine is one line of a GPIO character device, held low or high until it
// is closed (version 2 of the interface, linux/gpio.h; Linux 5.10 or later).
// periph's sysfs pins are of the older interface, which kernels leave out.
type gpioLine struct{ *os.File }

// lineRequest is struct gpio_v2_line_request, for one line.
type lineRequest struct {
	offsets  [64]uint32
	consumer [32]byte
	flags    uint64 // of struct gpio_v2_line_config, as far as attrs
	_        [4 + 20 + 240]byte
	lines    uint32
	_        [4 + 20]byte
	fd       int32
}

// lineValues is struct gpio_v2_line_values.
type lineValues struct{ bits, mask uint64 }

const (
	ioctlGetLine   = 0xc250b407 // GPIO_V2_GET_LINE_IOCTL, the same on all architectures
	ioctlSetValues = 0xc010b40f // GPIO_V2_LINE_SET_VALUES_IOCTL
	flagOutput     = 1 << 3     // GPIO_V2_LINE_FLAG_OUTPUT
)

// openLine makes a line an output, low at first.
func openLine(chip string, line uint32) (*gpioLine, error) {
	f, err := os.OpenFile(chip, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		return nil, fmt.Errorf("%s: not a character device", chip)
	}
	r := &lineRequest{flags: flagOutput, lines: 1}
	r.offsets[0] = line
	copy(r.consumer[:], "keyvet")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), ioctlGetLine, uintptr(unsafe.Pointer(r))); errno != 0 {
		return nil, fmt.Errorf("%s: line %d: %w", chip, line, errno)
	}
	if r.fd < 0 {
		return nil, errors.New("no line from " + chip)
	}
	return &gpioLine{os.NewFile(uintptr(r.fd), fmt.Sprintf("%s:%d", chip, line))}, nil
}

// Out sets the line.
func (l *gpioLine) Out(level gpio.Level) error {
	v := &lineValues{mask: 1}
	if level == gpio.High {
		v.bits = 1
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, l.Fd(), ioctlSetValues, uintptr(unsafe.Pointer(v))); errno != 0 {
		return fmt.Errorf("%s: %w", l.Name(), errno)
	}
	return nil
}
