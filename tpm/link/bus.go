package link

import (
	"io"
	"time"

	"github.com/keyvet/keyvet/tpm/tis"
)

// Chip is what of a [tis.Chip] is needed.
type Chip interface {
	Send(command []byte) ([]byte, error)
	Close() error
}

// OverBus returns the connection to a TPM on a bare SPI or I2C bus.
func OverBus(chip Chip) io.ReadWriteCloser { return &busChip{chip: chip} }

func openBus(address string, timeout time.Duration) (io.ReadWriteCloser, error) {
	chip, err := tis.Open(address, tis.Options{Timeout: timeout})
	if err != nil {
		return nil, err
	}
	return OverBus(chip), nil
}

// busChip makes a chip a connection: what is written is a command, and the first
// read has it executed.
type busChip struct {
	chip              Chip
	command, response []byte
}

func (b *busChip) Write(command []byte) (int, error) {
	b.command, b.response = command, nil
	return len(command), nil
}

func (b *busChip) Read(p []byte) (int, error) {
	if b.command != nil {
		response, err := b.chip.Send(b.command)
		b.command = nil
		if err != nil {
			return 0, err
		}
		b.response = response
	}
	if len(b.response) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.response)
	b.response = b.response[n:]
	return n, nil
}

func (b *busChip) Close() error { return b.chip.Close() }
