package blocklist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/keyvet/keyvet/blocklist/debian"
)

// index is a static function from a key of the set to the packed seed that
// makes it, in 1.09 times the bits of the seed. It stores no keys: of a key
// that is not in the set it names some seed or none.
//
// It is a 4-wise binary fuse construction (Graf, Lemire: Binary Fuse Filters,
// ACM JEA 27, 2022) that holds a value where a filter holds a fingerprint: a
// key has a slot in each of four consecutive segments, and the XOR of the four
// is its value.
type index struct {
	seed        uint64 // of the hash
	segmentBits int    // a segment is 1<<segmentBits slots
	segments    uint64 // in which the first slot of a key can be
	slots       []byte // of valueBits bits, little-endian, and slotPad bytes after them
}

// An index section is the hash's seed (uint64), segments (uint32),
// segmentBits (uint8), valueBits (uint8) and the slots.
const indexHeader = 8 + 4 + 1 + 1

const (
	arity     = 4
	valueBits = debian.SeedBits
	slotPad   = 3 // so that a slot is read as four bytes

	minSegmentBits = 2
	maxSegmentBits = 18
)

func parseIndex(b []byte) (index, error) {
	if len(b) < indexHeader {
		return index{}, fmt.Errorf("index of %d bytes is too short", len(b))
	}
	x := index{
		seed:        binary.LittleEndian.Uint64(b),
		segments:    uint64(binary.LittleEndian.Uint32(b[8:])),
		segmentBits: int(b[12]),
		slots:       b[indexHeader:],
	}
	switch {
	case b[13] != valueBits:
		return index{}, fmt.Errorf("index of %d bits a key, want %d", b[13], valueBits)
	case x.segmentBits < minSegmentBits || x.segmentBits > maxSegmentBits || x.segments < 1 || x.segments > maxFileBytes:
		return index{}, fmt.Errorf("index of %d segments of 2^%d slots", x.segments, x.segmentBits)
	case uint64(len(x.slots)) != slotBytes(x.count()):
		return index{}, fmt.Errorf("index of %d segments of 2^%d slots in %d bytes", x.segments, x.segmentBits, len(b))
	}
	return x, nil
}

// count is the number of slots.
func (x *index) count() uint64 { return (x.segments + arity - 1) << x.segmentBits }

func slotBytes(count uint64) uint64 { return (count*valueBits+7)/8 + slotPad }

// get is the value of a key of the set.
func (x *index) get(id KeyID) (value uint32) {
	for _, slot := range x.places(id) {
		bit := slot * valueBits
		value ^= binary.LittleEndian.Uint32(x.slots[bit>>3:]) >> (bit & 7)
	}
	return value & (1<<valueBits - 1)
}

// put sets an empty slot.
func (x *index) put(slot uint64, value uint32) {
	bit := slot * valueBits
	at := x.slots[bit>>3:]
	binary.LittleEndian.PutUint32(at, binary.LittleEndian.Uint32(at)|value<<(bit&7))
}

// places are the four slots of a key, all different.
func (x *index) places(id KeyID) [arity]uint64 {
	h := mix(id.Low ^ mix(id.High+x.seed*0x9e3779b97f4a7c15))
	first, _ := bits.Mul64(h, x.segments<<x.segmentBits)
	size := uint64(1) << x.segmentBits
	h = mix(h)
	return [arity]uint64{
		first,
		(first + size) ^ h&(size-1),
		(first + 2*size) ^ h>>20&(size-1),
		(first + 3*size) ^ h>>40&(size-1),
	}
}

// buildIndex makes the section of an index; no two keys may have the same ID.
// Most of the time the first sizes are too small, or a seed of the hash does
// not work out: the next is tried.
func buildIndex(keys []Key) ([]byte, error) {
	n := uint64(len(keys))
	x := index{segmentBits: min(max(bits.Len64(n)*13/20-1, minSegmentBits), maxSegmentBits)}
	size := uint64(1) << x.segmentBits
	for x.segments = max((n+n/16)/size, arity) - arity + 1; ; x.segments++ {
		if slotBytes(x.count()) > maxFileBytes || x.count() > 4*n+64*size {
			return nil, errors.New("the index does not work out")
		}
		for x.seed = range uint64(3) {
			order, ok := x.peel(keys)
			if !ok {
				continue
			}
			section := make([]byte, indexHeader+int(slotBytes(x.count())))
			binary.LittleEndian.PutUint64(section, x.seed)
			binary.LittleEndian.PutUint32(section[8:], uint32(x.segments))
			section[12], section[13] = byte(x.segmentBits), valueBits
			x.slots = section[indexHeader:]
			for i := len(order) - 1; i >= 0; i-- {
				key := keys[order[i].key]
				x.put(order[i].slot, key.Seed.Pack()^x.get(key.ID)) // its own slot is empty still
			}
			return section, nil
		}
	}
}

// peeled is a key and a slot that no key after it in the order has.
type peeled struct {
	key  uint32
	slot uint64
}

// peel orders the keys so that each has a slot of its own, given those before
// it are gone; it is not ok if that cannot be.
func (x *index) peel(keys []Key) (order []peeled, ok bool) {
	count := make([]uint32, x.count())
	xor := make([]uint32, x.count()) // of the keys that have the slot
	for i, key := range keys {
		for _, slot := range x.places(key.ID) {
			count[slot]++
			xor[slot] ^= uint32(i)
		}
	}
	var alone []uint64
	for slot, c := range count {
		if c == 1 {
			alone = append(alone, uint64(slot))
		}
	}
	for len(alone) > 0 {
		slot := alone[len(alone)-1]
		alone = alone[:len(alone)-1]
		if count[slot] != 1 {
			continue
		}
		key := xor[slot]
		order = append(order, peeled{key, slot})
		for _, other := range x.places(keys[key].ID) {
			count[other]--
			xor[other] ^= key
			if count[other] == 1 {
				alone = append(alone, other)
			}
		}
	}
	return order, len(order) == len(keys)
}
