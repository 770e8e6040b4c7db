package blocklist

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// bloom is a Bloom filter over SHA-256 fingerprints. Its bits are used where
// they lie, mapped or embedded; bit i is bit i%8 of byte i/8.
type bloom struct {
	k    int
	m    uint64 // bits, a multiple of 8
	rate float64
	bits []byte
}

// A Bloom section is k (uint32), m (uint64), the false-positive rate (float64)
// and m/8 bytes of bits; little-endian.
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
	case m < 8 || m > maxBloomBits || m%8 != 0 || m/8 != uint64(len(b)-bloomHeader):
		return bloom{}, fmt.Errorf("filter of %d bytes with m = %d bits", len(b), m)
	case !(rate > 0 && rate < 1): // a NaN too
		return bloom{}, fmt.Errorf("filter with a false-positive rate of %v", rate)
	}
	return bloom{k: int(k), m: m, rate: rate, bits: b[bloomHeader:]}, nil
}

// has tells whether every bit of the fingerprint is set.
func (f *bloom) has(fingerprint *[32]byte) bool {
	p := probes(fingerprint)
	for range f.k {
		bit := p.next(f.m)
		if f.bits[bit>>3]>>(bit&7)&1 == 0 {
			return false
		}
	}
	return true
}

// probe yields the bits of one fingerprint. Usual double hashing, h1 + i·h2
// mod m, has no more than m² patterns: at m = 12 million that alone is a
// false-positive rate of 4e-9. Each step of this sequence is mixed instead
// (SplitMix64, Steele et al., OOPSLA 2014), with 127 bits of seed.
type probe struct{ state, step uint64 }

func probes(fingerprint *[32]byte) probe {
	return probe{binary.LittleEndian.Uint64(fingerprint[:]), binary.LittleEndian.Uint64(fingerprint[8:]) | 1}
}

func (p *probe) next(m uint64) uint64 {
	p.state += p.step
	z := p.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	z ^= z >> 31
	bit, _ := bits.Mul64(z, m) // z·m/2^64, below m without a division
	return bit
}

// buildBloom makes the section of a filter for the fingerprints. It takes the
// fewest bits in theory, n·log2(1/rate)/ln 2, and some more if the bits as they
// came out do not keep to the rate.
func buildBloom(fingerprints [][32]byte, rate float64) ([]byte, error) {
	if !(rate >= 1e-15 && rate <= 0.5) {
		return nil, fmt.Errorf("blocklist: build: a false-positive rate of %v is not between 1e-15 and 0.5", rate)
	}
	k := int(math.Round(-math.Log2(rate)))
	best := float64(len(fingerprints)) * -math.Log(rate) / (math.Ln2 * math.Ln2)
	for words := uint64(best/64) + 1; ; words += words/512 + 1 {
		if words > maxBloomBits/64 {
			return nil, fmt.Errorf("blocklist: build: %d keys need a filter of more than %d MB", len(fingerprints), maxFileBytes>>20)
		}
		section, got := fillBloom(fingerprints, k, words*64)
		if got <= rate {
			return section, nil
		}
	}
}

// fillBloom makes a section of k probes and m bits; rate is what it has.
func fillBloom(fingerprints [][32]byte, k int, m uint64) (section []byte, rate float64) {
	section = make([]byte, bloomHeader+int(m/8))
	set := section[bloomHeader:]
	for i := range fingerprints {
		p := probes(&fingerprints[i])
		for range k {
			bit := p.next(m)
			set[bit>>3] |= 1 << (bit & 7)
		}
	}
	ones := 0
	for _, b := range set {
		ones += bits.OnesCount8(b)
	}
	rate = 1
	for range k { // a product, since math.Pow may differ between machines
		rate *= float64(ones) / float64(m)
	}
	binary.LittleEndian.PutUint32(section, uint32(k))
	binary.LittleEndian.PutUint64(section[4:], m)
	binary.LittleEndian.PutUint64(section[12:], math.Float64bits(rate))
	return section, rate
}
