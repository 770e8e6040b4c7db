package blocklist

import (
	"errors"
	"fmt"
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
	bits part
}

const (
	maxProbes    = 64
	maxBloomBits = maxFileBytes * 8
)

// cut takes the filter's bits off the front of the sections.
func (f *bloom) cut(sections *part) (err error) {
	switch {
	case f.k < 1 || f.k > maxProbes:
		return fmt.Errorf("filter with k = %d", f.k)
	case f.m < 64 || f.m > maxBloomBits || f.m%64 != 0:
		return fmt.Errorf("filter with m = %d bits", f.m)
	case !(f.rate > 0 && f.rate < 1): // a NaN too
		return fmt.Errorf("filter with a rate of %v", f.rate)
	}
	var ok bool
	if f.bits, ok = sections.cut(f.m / 8); !ok {
		return fmt.Errorf("filter of %d bytes where fewer are left", f.m/8)
	}
	return nil
}

// has reports whether every bit of the key is set.
func (f *bloom) has(id KeyID) bool {
	p := probe{id.Low, id.High | 1}
	for range f.k {
		bit := p.next(f.m)
		if f.bits.read(bit>>3, 1)[0]>>(bit&7)&1 == 0 {
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

// The filter lets through one key in four, for 2.9 bits a key. Further bits here
// would settle fewer than check bits of the index do: a Bloom filter takes 1.44
// bits a key to let through half as many, an index 1.01.
const (
	bloomProbes    = 2
	bloomTenthBits = 29 // a key, in tenths
)

// buildBloom makes a filter for the keys, and its bits.
func buildBloom(keys []Key) (bloom, []byte, error) {
	f := bloom{k: bloomProbes, m: (uint64(len(keys))*bloomTenthBits/10 + 63) / 64 * 64}
	if f.m > maxBloomBits {
		return f, nil, errors.New("too many keys")
	}
	set := make([]byte, f.m/8)
	for _, key := range keys {
		p := probe{key.ID.Low, key.ID.High | 1}
		for range f.k {
			bit := p.next(f.m)
			set[bit>>3] |= 1 << (bit & 7)
		}
	}
	ones := 0
	for _, b := range set {
		ones += bits.OnesCount8(b)
	}
	f.rate = 1
	for range f.k { // a product, since math.Pow may differ between machines
		f.rate *= float64(ones) / float64(f.m)
	}
	if f.rate == 1 {
		return f, nil, errors.New("too few keys") // cannot be: a key has fewer bits than 64
	}
	return f, set, nil
}
