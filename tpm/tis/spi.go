package tis

import (
	"errors"
	"fmt"

	"periph.io/x/conn/v3/spi"
)

// maxWaits is how many bytes are clocked for a chip that asks to wait.
const maxWaits = 50

// NewSPI finds the TPM on a SPI connection of mode 0 and 8 bits, whose chip
// select is the TPM's. conn stays the caller's to close. The error wraps
// ErrAbsent if no TPM answers.
func NewSPI(conn spi.Conn, opts Options) (*Chip, error) {
	c, err := start(&spiBus{conn, opts.SingleTransfer}, opts)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", conn, err)
	}
	return c, nil
}

// spiBus speaks the SPI bus protocol (PTP, section 7.4.6).
type spiBus struct {
	conn   spi.Conn
	single bool
}

// burst is less than the 64 bytes of a frame: ST33 wants no more than 32.
func (s *spiBus) burst() int { return 32 }

func (s *spiBus) setUp() error { return nil }

func (s *spiBus) checksum() (uint16, bool, error) { return 0, false, nil }

func (s *spiBus) read(r register, b []byte) error {
	out := make([]byte, len(b)) // the chip does not look at it
	return s.transfer(0x80, r, out, b)
}

func (s *spiBus) write(r register, b []byte) error {
	return s.transfer(0, r, b, make([]byte, len(b)))
}

// transfer is one frame: a header of four bytes, then the data. In the lowest
// bit of the last byte that comes with the header, and of each byte after it,
// the chip says whether the data may follow.
func (s *spiBus) transfer(direction byte, r register, w, in []byte) error {
	header := []byte{direction | byte(len(w)-1), 0xd4, byte(r.spi >> 8), byte(r.spi)}
	if s.single {
		return s.transferAtOnce(header, w, in)
	}
	answer := make([]byte, len(header))
	if err := s.conn.TxPackets([]spi.Packet{{W: header, R: answer, KeepCS: true}}); err != nil {
		return s.abort(err)
	}
	for waits := 0; answer[len(answer)-1]&1 == 0; waits++ {
		if waits == maxWaits {
			return s.abort(fmt.Errorf("%w: the chip asks to wait for more than %d bytes", ErrTimeout, maxWaits))
		}
		answer = answer[:1]
		if err := s.conn.TxPackets([]spi.Packet{{W: []byte{0}, R: answer, KeepCS: true}}); err != nil {
			return s.abort(err)
		}
	}
	if err := s.conn.TxPackets([]spi.Packet{{W: w, R: in}}); err != nil {
		return s.abort(err)
	}
	return nil
}

func (s *spiBus) transferAtOnce(header, w, in []byte) error {
	out := append(header, w...)
	answer := make([]byte, len(out))
	if err := s.conn.Tx(out, answer); err != nil {
		return err
	}
	if answer[3]&1 == 0 {
		return errors.New("the chip inserts wait states, which single transfers cannot do")
	}
	copy(in, answer[4:])
	return nil
}

// abort ends a frame in its midst: the chip select is still active.
func (s *spiBus) abort(err error) error {
	_ = s.conn.TxPackets([]spi.Packet{{W: []byte{0}, R: []byte{0}}}) // err says more than a second one would
	return err
}
