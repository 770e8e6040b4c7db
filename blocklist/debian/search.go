package debian

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/big"
)

// search is BN_generate_prime with the draws of its tests: every draw moves
// the generator on, so that their number must be right even where their
// outcome is known beforehand.
type search struct {
	g      *generator
	bits   int
	rounds int
	factor uint // an odd number that must not divide p-1; 0 if there is none

	raw     []byte  // the candidate as drawn, big-endian
	x       big.Int // the same
	p       big.Int // x and its delta; valid if sieved
	sieved  bool
	minus1  []byte // p-1, big-endian
	witness []byte
}

// rounds is the number of Miller-Rabin rounds for a random number of n bits:
// Handbook of Applied Cryptography, table 4.4, for an error of 2^-80.
func rounds(n int) int {
	for _, row := range [...]struct{ bits, rounds int }{
		{1300, 2}, {850, 3}, {650, 4}, {550, 5}, {450, 6}, {400, 7}, {350, 8}, {300, 9},
	} {
		if n >= row.bits {
			return row.rounds
		}
	}
	return 12 // down to 250 bits
}

func newSearch(g *generator, bits int, factor uint) *search {
	size := (bits + 7) / 8
	return &search{
		g: g, bits: bits, rounds: rounds(bits), factor: factor,
		raw: make([]byte, size), minus1: make([]byte, size), witness: make([]byte, size),
	}
}

// find returns the next prime that factor allows and the number of
// candidates that came before it. Where replay is set, the candidate after
// the first failed ones is taken for that prime.
func (s *search) find(ctx context.Context, replay bool, failed int) (*big.Int, int, error) {
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		s.draw()
		last := replay && n == failed
		prime := last
		if !replay || !last && s.refused() {
			var err error
			if prime, err = fermat(ctx, s.prime()); err != nil {
				return nil, 0, err
			}
		}
		s.drawWitness() // a composite fails its first
		if !prime {
			continue
		}
		for range s.rounds - 1 {
			s.drawWitness()
		}
		if last || !s.refused() {
			return new(big.Int).Set(s.prime()), n, nil
		}
	}
}

// draw draws the next candidate.
func (s *search) draw() {
	s.g.number(s.raw, s.bits)
	last := len(s.raw) - 1
	for _, bit := range [...]int{s.bits - 1, s.bits - 2, 0} {
		s.raw[last-bit/8] |= 1 << (bit % 8)
	}
	s.x.SetBytes(s.raw)
	s.sieved = false
}

// prime returns the number that is tested for being prime.
func (s *search) prime() *big.Int {
	if !s.sieved {
		s.p.SetUint64(uint64(delta(&s.x)))
		s.p.Add(&s.p, &s.x) // never longer than x: delta is some hundreds
		s.sieved = true
	}
	return &s.p
}

// refused reports whether factor divides p-1: then p will not do even if it is
// prime.
func (s *search) refused() bool {
	if s.factor == 0 {
		return false
	}
	by := newDivisor(s.factor, nil)
	if !s.sieved {
		// Only one even delta below 2·factor makes it so. Mostly that is
		// too large, or plainly not the delta of x, and there is no need
		// to find it.
		d := (s.factor + 1 - by.mod(&s.x)%s.factor) % s.factor
		if d%2 == 1 {
			d += s.factor
		}
		if d >= maxDelta || sifted(&s.x, d) {
			return false
		}
	}
	return by.mod(s.prime())%s.factor == 1
}

// drawWitness draws a witness: a random number below p-1, and then 1 more.
func (s *search) drawWitness() {
	for {
		s.g.number(s.witness, s.bits)
		// The first 64 bits tell, without p, unless they are those of x or
		// the number after it.
		w, x := binary.BigEndian.Uint64(s.witness), binary.BigEndian.Uint64(s.raw)
		if w < x {
			return
		}
		if w-x > 1 {
			continue
		}
		s.prime().FillBytes(s.minus1)
		s.minus1[len(s.minus1)-1]-- // p is odd
		if bytes.Compare(s.witness, s.minus1) < 0 {
			return
		}
	}
}
