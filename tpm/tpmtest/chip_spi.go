package tpmtest

import (
	"errors"

	"periph.io/x/conn/v3"
	"periph.io/x/conn/v3/spi"
)

// SPI is a connection to the chip, of mode 0 and 8 bits.
func (c *Chip) SPI() spi.Conn { return &chipSPI{chip: c} }

// chipSPI decodes SPI frames (PC Client Platform TPM Profile, section 7.4.6).
type chipSPI struct {
	chip   *Chip
	header []byte
	waits  int // bytes that the driver still has to wait
	out    []byte
	in     []byte
	at     int // bytes of data
}

// spiRegisters are those of locality 0.
var spiRegisters = map[uint16]Register{0x0000: Access, 0x0014: Capability, 0x0018: Status, 0x0024: FIFO, 0x0f00: Vendor}

func (s *chipSPI) String() string       { return "chip model" }
func (s *chipSPI) Duplex() conn.Duplex  { return conn.Full }
func (s *chipSPI) Tx(w, r []byte) error { return s.TxPackets([]spi.Packet{{W: w, R: r}}) }

func (s *chipSPI) TxPackets(packets []spi.Packet) error {
	s.chip.mu.Lock()
	defer s.chip.mu.Unlock()
	for i, p := range packets {
		if len(p.W) == 0 || len(p.R) != len(p.W) {
			return errors.New("SPI packet that is not full duplex")
		}
		for j, b := range p.W {
			p.R[j] = s.clock(b)
		}
		if !p.KeepCS || s.chip.faults.DeselectAll && i == len(packets)-1 {
			s.deselect()
		}
	}
	return nil
}

func (s *chipSPI) deselect() {
	if reading := len(s.header) == 4 && s.header[0]&0x80 != 0; reading && s.at > 0 && s.at < s.size() {
		s.chip.violation("SPI frame cut short")
	}
	*s = chipSPI{chip: s.chip}
}

func (s *chipSPI) size() int { return int(s.header[0]&0x3f) + 1 }

func (s *chipSPI) register() Register {
	if s.header[1] != 0xd4 {
		return ""
	}
	return spiRegisters[uint16(s.header[2])<<8|uint16(s.header[3])]
}

// clock exchanges one byte.
func (s *chipSPI) clock(b byte) byte {
	c := s.chip
	if c.faults.Absent {
		return 0xff
	}
	if len(s.header) < 4 {
		s.header = append(s.header, b)
		if len(s.header) < 4 {
			return 0
		}
		s.waits = c.faults.WaitStates
		return s.flow()
	}
	if s.waits > 0 {
		s.waits--
		return s.flow()
	}
	if s.at >= s.size() {
		return 0xff
	}
	r := s.register()
	if s.header[0]&0x80 != 0 {
		if s.at == 0 {
			s.in = make([]byte, s.size())
			c.read(r, s.in)
			c.wire(r, false, s.in)
		}
		s.at++
		return s.in[s.at-1]
	}
	s.out = append(s.out, b)
	s.at++
	if s.at == s.size() {
		c.wire(r, true, s.out)
		c.write(r, s.out)
	}
	return 0
}

// flow returns the byte that says whether the data follows.
func (s *chipSPI) flow() byte {
	if s.waits > 0 {
		return 0
	}
	return 1
}
