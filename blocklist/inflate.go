package blocklist

import "errors"

// inflate unpacks what RFC 1951 describes, to at most limit bytes. It takes the
// bits one by one, which is slow, and a small part of the code of compress/flate,
// which stays out of the device's binary: names are unpacked only on a hit.
func inflate(packed []byte, limit int) ([]byte, error) {
	d := inflater{rest: packed, limit: limit}
	for last := false; !last && d.err == nil; {
		last = d.bits(1) == 1
		switch d.bits(2) {
		case 0:
			d.stored()
		case 1:
			d.block(&fixedLiterals, &fixedDistances)
		case 2:
			d.dynamic()
		default:
			d.fail()
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	return d.out, nil
}

// errPacked means that bytes are not what RFC 1951 describes.
var errPacked = errors.New("damaged")

type inflater struct {
	rest  []byte
	held  uint32 // bits that were taken from rest and not used
	count uint   // of them
	out   []byte
	limit int
	err   error
}

//go:noinline // for its size, as below
func (d *inflater) fail() {
	if d.err == nil {
		d.err = errPacked
	}
}

// bits returns the next n bits, at most 16, the first of them the lowest. After
// an error they are 0.
//
//go:noinline
func (d *inflater) bits(n uint) int {
	for d.count < n {
		if len(d.rest) == 0 {
			d.fail()
			return 0
		}
		d.held |= uint32(d.rest[0]) << d.count
		d.rest, d.count = d.rest[1:], d.count+8
	}
	value := d.held & (1<<n - 1)
	d.held, d.count = d.held>>n, d.count-n
	return int(value)
}

//go:noinline
func (d *inflater) put(b ...byte) {
	if len(d.out)+len(b) > d.limit {
		d.fail()
		return
	}
	d.out = append(d.out, b...)
}

// stored copies a block that is not packed (section 3.2.4).
func (d *inflater) stored() {
	d.held, d.count = 0, 0
	n := d.bits(16)
	if d.bits(16) != n^0xffff || n > len(d.rest) {
		d.fail()
		return
	}
	d.put(d.rest[:n]...)
	d.rest = d.rest[n:]
}

// code is a Huffman code (section 3.2.2): the number of symbols of each length,
// and the symbols in the order of their codes.
type code struct {
	counts  [16]int
	symbols [288]uint16
}

// set makes the code of the lengths of all symbols. One that is not complete is
// fine: what it does not have cannot be read.
func (c *code) set(lengths []byte) (ok bool) {
	*c = code{}
	for _, n := range lengths {
		c.counts[n]++
	}
	c.counts[0] = 0
	left := 1
	var next [16]int
	for n := 1; n < len(c.counts); n++ {
		left = 2*left - c.counts[n]
		if left < 0 {
			return false
		}
		next[n] = next[n-1] + c.counts[n-1]
	}
	for symbol, n := range lengths {
		if n > 0 {
			c.symbols[next[n]] = uint16(symbol)
			next[n]++
		}
	}
	return true
}

// symbol reads a symbol: codes of a length are consecutive numbers.
func (d *inflater) symbol(c *code) int {
	value, first, before := 0, 0, 0
	for n := 1; n < len(c.counts); n++ {
		if d.count == 0 {
			value |= d.bits(1)
		} else {
			value |= int(d.held & 1)
			d.held, d.count = d.held>>1, d.count-1
		}
		if at := value - first; at < c.counts[n] {
			return int(c.symbols[before+at])
		}
		before += c.counts[n]
		first = (first + c.counts[n]) << 1
		value <<= 1
	}
	d.fail()
	return 0
}

// Section 3.2.5: what the length symbols from 257 on and the distances stand
// for, and how many further bits each has.
var (
	lengthBase   = [...]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits   = [...]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBase = [...]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distanceBits = [...]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	lengthOrder  = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// block reads the symbols of a block.
func (d *inflater) block(literals, distances *code) {
	for d.err == nil {
		symbol := d.symbol(literals)
		if symbol < 256 {
			d.put(byte(symbol))
			continue
		}
		if symbol == 256 {
			return
		}
		if symbol -= 257; symbol >= len(lengthBase) {
			d.fail()
			return
		}
		length := int(lengthBase[symbol]) + d.bits(uint(lengthBits[symbol]))
		if symbol = d.symbol(distances); symbol >= len(distanceBase) {
			d.fail()
			return
		}
		distance := int(distanceBase[symbol]) + d.bits(uint(distanceBits[symbol]))
		if distance > len(d.out) {
			d.fail()
			return
		}
		for range length { // byte by byte: it may run into what it writes
			d.put(d.out[len(d.out)-distance])
		}
	}
}

// dynamic reads a block that brings its codes (section 3.2.7).
func (d *inflater) dynamic() {
	literals, distances, n := d.bits(5)+257, d.bits(5)+1, d.bits(4)+4
	var lengths [288 + 32]byte
	for i := range n {
		lengths[lengthOrder[i]] = byte(d.bits(3))
	}
	var c, other code
	if !c.set(lengths[:len(lengthOrder)]) || literals > 286 {
		d.fail()
		return
	}
	clear(lengths[:])
	for i := 0; i < literals+distances && d.err == nil; {
		symbol, times, value := d.symbol(&c), 1, byte(0)
		switch {
		case symbol < 16:
			value = byte(symbol)
		case symbol == 16 && i > 0:
			value, times = lengths[i-1], 3+d.bits(2)
		case symbol == 17:
			times = 3 + d.bits(3)
		case symbol == 18:
			times = 11 + d.bits(7)
		default:
			d.fail()
		}
		if i+times > literals+distances {
			d.fail()
			return
		}
		for range times {
			lengths[i] = value
			i++
		}
	}
	if !c.set(lengths[:literals]) || !other.set(lengths[literals:literals+distances]) {
		d.fail()
		return
	}
	d.block(&c, &other)
}

// The codes of section 3.2.6.
var fixedLiterals, fixedDistances = fixedCodes()

func fixedCodes() (literals, distances code) {
	var lengths [288]byte
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	literals.set(lengths[:])
	for i := range 30 {
		lengths[i] = 5
	}
	distances.set(lengths[:30])
	return literals, distances
}
