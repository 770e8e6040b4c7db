package tpmtest

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"
)

// Faults are what is wrong with a [Chip], and how it is within what the
// interface allows. The zero value is a good chip.
type Faults struct {
	WaitStates  int           // SPI: bytes before the data of each transfer
	Burst       int           // how many bytes the FIFO has room for, or gives, at a time: 1 to 64; zero is 64
	GuardTime   time.Duration // I2C: pause that each message needs before it, up to 250 µs; INTF_CAP states it
	Duration    time.Duration // of each command
	NACKs       int           // I2C: so many NACKs before each read or write of a register is taken
	BadSums     int           // I2C: so many wrong checksums, the first ones
	Prompt      bool          // every flag is right at once, and the FIFO never full or empty for a while
	Unstarted   bool          // nobody has sent TPM2_Startup
	Mute        bool          // it never answers a command
	StopAfter   int           // each response stops after so many bytes, if not zero
	Absent      bool          // no chip
	DeselectAll bool          // SPI: the controller cannot keep the chip selected from one call to the next
	// Wire changes what goes over the wire: the bytes read from or written to
	// a register.
	Wire func(r Register, write bool, b []byte)
}

// Register is one of the interface.
type Register string

// The registers of the TCG PC Client Platform TPM Profile's FIFO interface that the chip has.
const (
	Access         Register = "ACCESS"
	Status         Register = "STS"
	FIFO           Register = "DATA_FIFO"
	Vendor         Register = "DID_VID"
	Capability     Register = "INTF_CAP"
	Locality       Register = "LOC_SEL"
	ChecksumEnable Register = "CSUM_ENABLE"
	Checksum       Register = "CSUM"
)

// VendorID is what DID_VID says.
const VendorID = 0x001d15d1

// Chip is a model of a TPM chip, register by register, in front of a TPM that
// executes the commands. It is as strict as the specification lets a chip be:
// flags are wrong while stsValid is not set, the burst count is zero for a
// while, what is written beyond it is lost, and commandReady leads from the end
// of a command to idle, not to ready.
type Chip struct {
	answer func(command []byte) ([]byte, error)
	faults Faults

	mu         sync.Mutex
	violations []string

	started           bool
	requested, active bool // locality 0
	exchange
	i2cOnly
}

// exchange is a command and its response on their way through the FIFO.
type exchange struct {
	state             chipState
	command, response []byte
	at                int // bytes of the response that were read
	room              int // bytes before the burst count is zero
	settled           bool
	due               time.Time // when the response is there
}

// i2cOnly is what a chip on an I2C bus has besides.
type i2cOnly struct {
	onI2C    bool
	locality byte
	summing  bool
	badSums  int
}

type chipState int

const (
	idle      chipState = iota
	ready               // for a command
	reception           // of a command
	execution
	completion // the response is there
)

// NewChip is a chip whose commands answer executes.
func NewChip(answer func(command []byte) ([]byte, error), faults Faults) *Chip {
	if faults.Burst == 0 {
		faults.Burst = 64
	}
	return &Chip{answer: answer, faults: faults, started: !faults.Unstarted, i2cOnly: i2cOnly{locality: 1}}
}

// Dial connects to the TPM at a unix: address, to be the one behind a [Chip].
func Dial(address string) (answer func(command []byte) ([]byte, error), hangUp func() error, err error) {
	var conn net.Conn
	if conn, err = dial(address); err != nil {
		return nil, nil, err
	}
	return client{conn}.Send, conn.Close, nil
}

// Violations are what the driver did that it may not do.
func (c *Chip) Violations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.violations
}

// AtRest reports whether no command is under way and no locality is taken.
func (c *Chip) AtRest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state <= ready && !c.active && !c.requested
}

func (c *Chip) violation(format string, args ...any) {
	if len(c.violations) < 10 {
		c.violations = append(c.violations, fmt.Sprintf(format, args...))
	}
}

// read gives what is in a register.
func (c *Chip) read(r Register, b []byte) {
	switch r {
	case Access:
		b[0] = 0x81 // valid, establishment
		switch {
		case c.active:
			b[0] |= 0x20
		case c.requested:
			b[0] |= 0x02
			c.requested, c.active = false, true // from the next time on
		}
	case Status:
		c.readStatus(b)
	case FIFO:
		c.readFIFO(b)
	case Vendor:
		copy(b, binary.LittleEndian.AppendUint32(nil, VendorID))
	case Capability:
		copy(b, binary.LittleEndian.AppendUint32(nil, 0x82|uint32(c.faults.GuardTime/time.Microsecond)<<9|0xf<<17))
	case Locality:
		b[0] = c.locality
	case ChecksumEnable:
		if c.summing {
			b[0] = 1
		}
	case Checksum:
		c.readChecksum(b)
	}
}

func (c *Chip) readStatus(b []byte) {
	if !c.active {
		c.violation("STS read without a locality")
		copy(b, []byte{0xff, 0xff, 0xff, 0xff})
		if c.onI2C {
			copy(b, []byte{0xdd, 0xff, 0xff, 0x00})
		}
		return
	}
	if c.state == execution && !c.faults.Mute && !time.Now().Before(c.due) {
		c.state, c.settled = completion, true
	}
	var flags byte
	switch c.state {
	case ready:
		flags = 0x40 // stsValid is not set with it
	case reception:
		if more := !c.complete(); more == c.settled {
			flags = 0x08
		}
	case completion:
		if more := c.at < len(c.response) && !c.stopped(); more == c.settled {
			flags = 0x10
		}
	}
	if c.state != ready && c.state != execution && c.settled && !(c.state == completion && c.stopped()) {
		flags |= 0x80
	}
	copy(b, []byte{flags, byte(c.room), 0, 0x08})
	c.settled = true
	if c.room == 0 {
		c.room = c.faults.Burst
	}
}

func (c *Chip) stopped() bool { return c.faults.StopAfter > 0 && c.at >= c.faults.StopAfter }

// complete reports whether the command has the length that its header says.
func (c *Chip) complete() bool {
	return len(c.command) >= 6 && uint64(len(c.command)) >= uint64(binary.BigEndian.Uint32(c.command[2:]))
}

func (c *Chip) readFIFO(b []byte) {
	for i := range b {
		b[i] = 0xff
		switch {
		case !c.active || c.state != completion || c.at >= len(c.response) || c.stopped():
			c.violation("FIFO read without data in it")
		case c.room == 0:
			c.violation("FIFO read beyond the burst count")
		default:
			b[i] = c.response[c.at]
			c.at++
			c.room--
		}
	}
	c.settle()
}

func (c *Chip) readChecksum(b []byte) {
	frame := c.command
	if c.state == completion {
		frame = c.response
	}
	if !c.summing {
		c.violation("CSUM read while it is off")
		return
	}
	sum := kermit(frame)
	if c.badSums < c.faults.BadSums {
		c.badSums++
		sum ^= 0x0100
	}
	copy(b, binary.BigEndian.AppendUint16(nil, sum))
}

// kermit is CRC-16/KERMIT, by the byte.
func kermit(b []byte) (sum uint16) {
	for _, v := range b {
		x := byte(sum) ^ v
		x ^= x << 4
		sum = sum>>8 ^ uint16(x)<<8 ^ uint16(x)<<3 ^ uint16(x)>>4
	}
	return sum
}

// write puts something into a register.
func (c *Chip) write(r Register, b []byte) {
	switch r {
	case Access:
		switch {
		case b[0] == 0x02:
			c.requested = !c.active
			if c.faults.Prompt {
				c.requested, c.active = false, true
			}
		case b[0] == 0x20:
			c.active, c.requested = false, false
			c.reset(idle)
		}
	case Status:
		if !c.active {
			return
		}
		switch b[0] {
		case 0x40:
			if c.state == idle || c.state == ready {
				c.reset(ready)
			} else {
				c.reset(idle)
			}
		case 0x20:
			if c.state == reception && c.complete() {
				c.execute()
			}
		case 0x02:
			if c.state == completion {
				c.at, c.room = 0, 0
				c.settle()
			}
		}
	case FIFO:
		if c.active && (c.state == ready || c.state == reception) {
			c.writeFIFO(b)
		}
	case Locality:
		c.locality = b[0]
	case ChecksumEnable:
		c.summing = b[0]&1 != 0
	}
}

func (c *Chip) reset(s chipState) {
	c.state, c.command, c.response, c.at, c.room, c.settled = s, nil, nil, 0, c.faults.Burst, true
}

func (c *Chip) writeFIFO(b []byte) {
	c.state = reception
	for _, v := range b {
		switch {
		case c.complete():
			c.violation("FIFO written after the end of the command")
		case c.room == 0:
			c.violation("FIFO written beyond the burst count")
		case len(c.command) < 4096:
			c.command = append(c.command, v)
			c.room--
		}
	}
	c.settle()
}

// execute has the TPM execute the command. It is done at once, and the
// response comes when it is due.
func (c *Chip) execute() {
	c.state, c.due = execution, time.Now().Add(c.faults.Duration)
	if c.faults.Mute {
		return
	}
	isStartup := len(c.command) == 12 && binary.BigEndian.Uint32(c.command[6:]) == 0x144
	switch {
	case len(c.command) < 10, uint64(len(c.command)) != uint64(binary.BigEndian.Uint32(c.command[2:])):
		c.response = failure(0x142) // TPM_RC_COMMAND_SIZE
	case !c.started && isStartup:
		c.started = true
		c.response = failure(0)
	case !c.started:
		c.response = failure(0x100) // TPM_RC_INITIALIZE
	default:
		var err error
		if c.response, err = c.answer(c.command); err != nil {
			c.response = failure(0x101) // TPM_RC_FAILURE
		}
	}
	c.room = c.faults.Burst
}

// failure is a response of that code alone.
func failure(code uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, code)
}

// settle has the flags take a moment after data went through the FIFO, unless
// the chip is prompt.
func (c *Chip) settle() {
	c.settled = c.faults.Prompt
	if c.faults.Prompt {
		c.room = c.faults.Burst
	}
}

// wire is the way of bytes between register and driver.
func (c *Chip) wire(r Register, write bool, b []byte) {
	if c.faults.Wire != nil && r != "" {
		c.faults.Wire(r, write, b)
	}
}
