package blocklist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/keyvet/keyvet/blocklist/debian"
)

// index is a static function from a key of the set to the packed seed that
// makes it, in 1.01 times the bits of the seed and of a check. It stores no
// keys: of a key that is not in the set it names some seed, and one in sixteen
// of these has the right check.
//
// It is a ribbon (Dillinger, Hübschle-Schneider, Sanders, Walzer: Fast Succinct
// Retrieval and Approximate Membership using Ribbon, SEA 2022): a key has a
// window of slots, and the XOR of those that its row picks out is its value.
type index struct {
	seed  uint32 // of the hash
	slots uint64 // how many
	bits  part   // of the slots, valueBits each, little-endian, and slotPad bytes after them
}

const (
	checkBits = 4
	valueBits = debian.SeedBits + checkBits
	slotPad   = 3 // so that a slot is read as four bytes

	rowWords = 3
	rowBits  = 64 * rowWords // the slots of a window

	maxSlots = maxFileBytes * 8 / valueBits
)

// row are the bits of a window, the first of them set.
type row [rowWords]uint64

// cut takes the slots off the front of the sections.
func (x *index) cut(sections *part) error {
	if x.slots < rowBits || x.slots > maxSlots {
		return fmt.Errorf("index of %d slots", x.slots)
	}
	var ok bool
	if x.bits, ok = sections.cut(slotBytes(x.slots)); !ok {
		return fmt.Errorf("index of %d slots where fewer bytes are left", x.slots)
	}
	return nil
}

func slotBytes(slots uint64) uint64 { return (slots*valueBits+7)/8 + slotPad }

// get is the packed seed of a key of the set; of another it is mostly not ok.
func (x *index) get(id KeyID) (packed uint32, ok bool) {
	at, r, check := x.place(id)
	from := at * valueBits / 8
	window := x.bits.read(from, ((at+rowBits)*valueBits+7)/8+slotPad-from)
	value := xor(window, at*valueBits-8*from, r)
	return value & (1<<debian.SeedBits - 1), value>>debian.SeedBits == check
}

// xor is the XOR of slots, of which the first begins at a bit.
func xor(slots []byte, bit uint64, r row) (value uint32) {
	for i, word := range r {
		for ; word != 0; word &= word - 1 {
			at := bit + uint64(64*i+bits.TrailingZeros64(word))*valueBits
			value ^= binary.LittleEndian.Uint32(slots[at>>3:]) >> (at & 7)
		}
	}
	return value & (1<<valueBits - 1)
}

// place is the first slot of a key's window, its row and its check bits.
func (x *index) place(id KeyID) (at uint64, r row, check uint32) {
	const golden = 0x9e3779b97f4a7c15
	h := mix(id.Low ^ mix(id.High+uint64(x.seed)*golden))
	at, _ = bits.Mul64(h, x.slots-rowBits+1)
	for i := range r {
		h = mix(h + golden)
		r[i] = h
	}
	r[0] |= 1
	return at, r, uint32(mix(h+golden) >> (64 - checkBits))
}

// buildIndex makes an index and its slots; no two keys may have the same ID. The
// number of slots begins where it seldom works out, and then grows: for each, a
// few seeds of the hash are tried.
func buildIndex(keys []Key) (index, []byte, error) {
	n := uint64(len(keys))
	x := index{slots: n + n/112 + rowBits}
	for ; x.slots <= maxSlots && x.slots <= 2*n+2*rowBits; x.slots += n/1024 + 1 {
		for x.seed = range uint32(8) {
			if b, ok := x.solve(keys); ok {
				return x, b, nil
			}
		}
	}
	return x, nil, errors.New("the index does not work out")
}

// solve makes the slots by Gauss's elimination, in which a row stays within its
// window; it is not ok if the rows of some keys add up to nothing.
func (x *index) solve(keys []Key) (slots []byte, ok bool) {
	rows, values := make([]row, x.slots), make([]uint32, x.slots)
	for _, key := range keys {
		at, r, check := x.place(key.ID)
		value := key.Seed.Pack() | check<<debian.SeedBits
		for rows[at] != (row{}) {
			for i := range r {
				r[i] ^= rows[at][i]
			}
			value ^= values[at]
			skip, ok := r.normalize()
			if !ok {
				return nil, false
			}
			at += skip
		}
		rows[at], values[at] = r, value
	}
	slots = make([]byte, slotBytes(x.slots)+rowBits*valueBits/8) // rows at the end have no bits beyond it
	for at := len(rows) - 1; at >= 0; at-- {
		bit := uint64(at) * valueBits
		value := values[at] ^ xor(slots[bit>>3:], bit&7, rows[at]) // its own slot is empty still
		b := slots[bit>>3:]
		binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)|value<<(bit&7))
	}
	return slots[:slotBytes(x.slots)], true
}

// normalize shifts a row so that its first bit is set.
func (r *row) normalize() (skip uint64, ok bool) {
	words := 0
	for ; words < rowWords && r[words] == 0; words++ {
	}
	if words == rowWords {
		return 0, false
	}
	shift := bits.TrailingZeros64(r[words])
	for i := range r {
		var low, high uint64
		if i+words < rowWords {
			low = r[i+words]
		}
		if i+words+1 < rowWords {
			high = r[i+words+1]
		}
		r[i] = low>>shift | high<<(64-shift) // of a shift by 64, 0
	}
	return uint64(64*words + shift), true
}
