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
	passed bool // over a prime, for factor

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

// find returns the candidate after as many as count says, which is the next
// prime that factor allows, and how many those were.
func (s *search) find(ctx context.Context, count count) (*big.Int, int, error) {
	failed, err := count(ctx, s)
	if err != nil {
		return nil, 0, err
	}
	for range failed {
		if err := s.drawFailed(ctx); err != nil {
			return nil, 0, err
		}
	}
	s.draw()
	for range s.rounds {
		s.drawWitness()
	}
	return new(big.Int).Set(s.prime()), failed, nil
}

// countAhead is a count that draws what s is about to draw, and tests it. It
// leaves s as it is.
func countAhead(ctx context.Context, s *search) (int, error) {
	g := *s.g
	s = newSearch(&g, s.bits, s.factor)
	candidates := make([]*big.Int, atOnce())
	places := make([]int, len(candidates)) // among all
	for n := 0; ; {
		for i := 0; i < len(candidates); n++ {
			if err := s.drawFailed(ctx); err != nil {
				return 0, err
			}
			if !s.refused() {
				candidates[i], places[i] = new(big.Int).Set(s.prime()), n
				i++
			}
		}
		if first, err := firstPrime(ctx, candidates); err != nil || first >= 0 {
			return places[max(first, 0)], err
		}
	}
}

// drawFailed draws a candidate that is not the prime to be found, and its
// witnesses: one if it is composite, all of them if it is a prime that factor
// refuses.
func (s *search) drawFailed(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.draw()
	s.drawWitness()
	if !s.refused() {
		return nil
	}
	prime, err := fermat(ctx, s.prime())
	if prime {
		s.passed = true
		for range s.rounds - 1 {
			s.drawWitness()
		}
	}
	return err
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
