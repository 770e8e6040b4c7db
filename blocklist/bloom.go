package blocklist

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// KeyID is what a list knows a weak key by: the low 128 bits of the modulus,
// or of the affine x coordinate. They are as random as any hash of a key that
// a generator made, and cost nothing. Whoever makes a key with the same ones
// on purpose reaches the confirmation, which compares all of it.
type KeyID struct{ Low, High uint64 }

// bloom is a Bloom filter over the keys of a set, which settles nearly all
// that are not in it. Its bits are used where they lie, mapped or embedded;
// bit i is bit i%8 of byte i/8.
type bloom struct {
	k    int
	m    uint64 // bits, a multiple of 64
	rate float64
	bits []byte
}

// A Bloom section is k (uint32), m (uint64), the rate at which other keys pass
// (float64) and m/8 bytes of bits; little-endian.
const bloomHeader = 4 + 8 + 8

const (
	maxProbes    = 64
	maxBloomBits = maxFileBytes * 8
)

func parseBloom(b []byte) (bloom, error) {
	if len(b) < bloomHeader {
		return bloom{}, fmt.Errorf("filter of %d bytes is too short", len(b))
	}
	k := binary.LittleEndian.Uint32(b)
	m := binary.LittleEndian.Uint64(b[4:])
	rate := math.Float64frombits(binary.LittleEndian.Uint64(b[12:]))
	switch {
	case k < 1 || k > maxProbes:
		return bloom{}, fmt.Errorf("filter with k = %d", k)
	case m < 64 || m > maxBloomBits || m%64 != 0 || m/8 != uint64(len(b)-bloomHeader):
		return bloom{}, fmt.Errorf("filter of %d bytes with m = %d bits", len(b), m)
	case !(rate > 0 && rate < 1): // a NaN too
		return bloom{}, fmt.Errorf("filter with a rate of %v", rate)
	}
	return bloom{k: int(k), m: m, rate: rate, bits: b[bloomHeader:]}, nil
}

// has reports whether every bit of the key is set.
func (f *bloom) has(id KeyID) bool {
	p := probe{id.Low, id.High | 1}
	for range f.k {
		bit := p.next(f.m)
		if f.bits[bit>>3]>>(bit&7)&1 == 0 {
			return false
		}
	}
	return true
}

// probe yields the bits of one key. Usual double hashing, h1 + i·h2 mod m, has
// patterns that overlap; each step of this sequence is mixed instead.
type probe struct{ state, step uint64 }

func (p *probe) next(m uint64) uint64 {
	p.state += p.step
	bit, _ := bits.Mul64(mix(p.state), m) // z·m/2^64, below m without a division
	return bit
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood: Fast
// Splittable Pseudorandom Number Generators, OOPSLA 2014).
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// The filter lets through one key in a hundred, for 9.6 bits a key: with the
// index that makes 30 bits, and a look-up in a hundred takes a millisecond.
const (
	bloomProbes    = 7
	bloomTenthBits = 96 // a key, in tenths
)

// buildBloom makes the section of a filter for the keys.
func buildBloom(keys []Key) ([]byte, error) {
	m := (uint64(len(keys))*bloomTenthBits/10 + 63) / 64 * 64
	if m > maxBloomBits {
		return nil, errors.New("too many keys")
	}
	section := make([]byte, bloomHeader+int(m/8))
	set := section[bloomHeader:]
	for _, key := range keys {
		p := probe{key.ID.Low, key.ID.High | 1}
		for range bloomProbes {
			bit := p.next(m)
			set[bit>>3] |= 1 << (bit & 7)
		}
	}
	ones := 0
	for _, b := range set {
		ones += bits.OnesCount8(b)
	}
	rate := 1.0
	for range bloomProbes { // a product, since math.Pow may differ between machines
		rate *= float64(ones) / float64(m)
	}
	if rate == 1 {
		return nil, errors.New("too few keys") // cannot be: a key has fewer bits than 64
	}
	binary.LittleEndian.PutUint32(section, bloomProbes)
	binary.LittleEndian.PutUint64(section[4:], m)
	binary.LittleEndian.PutUint64(section[12:], math.Float64bits(rate))
	return section, nil
}
