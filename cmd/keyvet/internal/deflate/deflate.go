// Package deflate writes gzip by the fixed codes alone (RFC 1951, section 3.2.6;
// RFC 1952): what the standard library's writer adds to a program is ten times as
// large, and boot logs, mostly digests and certificates, become hardly smaller by it.
package deflate

import (
	"encoding/binary"
	"math/bits"
)

// Writer writes one member of gzip. Its zero value is one to which nothing was
// written.
type Writer struct {
	out   []byte
	held  uint64 // bits that are no whole byte yet, the first in the lowest
	count uint   // of them
	crc   [256]uint32
	sum   uint32
	size  uint32
}

const (
	piece    = 32 << 10 // no match reaches further back
	hashBits = 12
	shortest = 4 // matches, in bytes
	longest  = 258
)

func (w *Writer) begin() {
	w.out = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255} // deflate, no name, no time, an unknown system
	for i := range w.crc {
		c := uint32(i)
		for range 8 {
			c = c>>1 ^ 0xedb88320&-(c&1)
		}
		w.crc[i] = c
	}
	w.bits(1|1<<1, 3) // the last block, by the fixed codes
}

// Write implements [io.Writer]. It never fails.
func (w *Writer) Write(p []byte) (int, error) {
	if w.out == nil {
		w.begin()
	}
	for left := p; len(left) > 0; {
		n := min(len(left), piece)
		w.write(left[:n])
		left = left[n:]
	}
	return len(p), nil
}

// Len returns how many bytes there are so far.
func (w *Writer) Len() int { return len(w.out) }

// Close returns the whole. Nothing can be written after it.
func (w *Writer) Close() []byte {
	if w.out == nil {
		w.begin()
	}
	w.symbol(256) // end of block
	w.bits(0, (8-w.count)%8)
	w.out = binary.LittleEndian.AppendUint32(w.out, w.sum)
	return binary.LittleEndian.AppendUint32(w.out, w.size)
}

func (w *Writer) write(p []byte) {
	w.size += uint32(len(p))
	w.sum = ^w.sum
	for _, b := range p {
		w.sum = w.sum>>8 ^ w.crc[byte(w.sum)^b]
	}
	w.sum = ^w.sum
	var last [1 << hashBits]uint16 // where four bytes of that hash were last, and 1
	for i := 0; i < len(p); {
		at := -1
		if i+shortest <= len(p) {
			at = w.look(&last, p, i)
		}
		n := 0
		if at >= 0 {
			n = common(p[at:], p[i:])
		}
		if n < shortest {
			w.symbol(int(p[i]))
			i++
			continue
		}
		w.match(n, i-at)
		for end := i + n; i < end; i++ {
			if i+shortest <= len(p) {
				w.look(&last, p, i)
			}
		}
	}
}

// look returns where four bytes like those at i may have been last, or -1, and
// remembers i.
func (w *Writer) look(last *[1 << hashBits]uint16, p []byte, i int) int {
	h := binary.LittleEndian.Uint32(p[i:]) * 2654435761 >> (32 - hashBits)
	at := int(last[h]) - 1
	last[h] = uint16(i + 1)
	return at
}

// common is how many bytes two texts have in common at their start.
func common(a, b []byte) int {
	n := 0
	for n < len(b) && n < longest && a[n] == b[n] {
		n++
	}
	return n
}

// match writes that n bytes are those of some way back.
func (w *Writer) match(n, back int) {
	switch x := uint(n - 3); {
	case n == longest:
		w.symbol(285)
	case x < 8:
		w.symbol(257 + int(x))
	default:
		extra := uint(bits.Len(x)) - 3
		w.symbol(257 + int(4*extra+x>>extra))
		w.bits(uint64(x)&(1<<extra-1), extra)
	}
	x, extra := uint(back-1), uint(0)
	if x >= 4 {
		extra = uint(bits.Len(x)) - 2
	}
	w.code(2*extra+x>>extra, 5)
	w.bits(uint64(x)&(1<<extra-1), extra)
}

// symbol writes a literal, an end of block or a length.
func (w *Writer) symbol(s int) {
	switch {
	case s < 144:
		w.code(0x30+uint(s), 8)
	case s < 256:
		w.code(0x190+uint(s-144), 9)
	case s < 280:
		w.code(uint(s-256), 7)
	default:
		w.code(0xc0+uint(s-280), 8)
	}
}

// code writes a code of n bits, the highest first.
func (w *Writer) code(c, n uint) { w.bits(bits.Reverse64(uint64(c))>>(64-n), n) }

// bits writes n bits, the lowest first.
func (w *Writer) bits(b uint64, n uint) {
	w.held |= b << w.count
	for w.count += n; w.count >= 8; w.count -= 8 {
		w.out = append(w.out, byte(w.held))
		w.held >>= 8
	}
}
