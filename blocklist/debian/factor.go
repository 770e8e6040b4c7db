package debian

import (
	"context"
	"fmt"
	"math/big"
)

// Factor returns the first prime that the generator makes of seed if it divides
// the modulus n, else nil. A modulus that it divides is weak, and factored. Factor
// needs no test for primes, and so takes about a hundredth of the time of [RSA]: a candidate that does not divide n cannot be
// the prime in question. The size is that of n, e is as for [RSA], and at most
// candidates candidates are tried: 1 + [Failed.BeforeP] reaches the prime.
func Factor(ctx context.Context, n *big.Int, e int, seed Seed, candidates int) (*big.Int, error) {
	bits := n.BitLen()
	if bits < MinRSABits || bits > MaxRSABits {
		return nil, fmt.Errorf("debian: RSA of %d bits: want %d to %d", bits, MinRSABits, MaxRSABits)
	}
	factor, err := largeFactor(e)
	if err != nil {
		return nil, err
	}
	if err := seed.check(); err != nil {
		return nil, err
	}
	s := newSearch(newGenerator(seed), (bits+1)/2, factor)
	var d dividing
	for range candidates {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("debian: factor of RSA-%d by %v: %w", bits, seed, err)
		}
		s.draw()
		if p := d.near(n, &s.x); p != nil {
			return p, nil
		}
		s.drawWitness()
		if s.refused() { // a prime that did not do had all its witnesses drawn
			prime, err := fermat(ctx, s.prime())
			if err != nil {
				return nil, fmt.Errorf("debian: factor of RSA-%d by %v: %w", bits, seed, err)
			}
			if prime {
				for range s.rounds - 1 {
					s.drawWitness()
				}
			}
		}
	}
	return nil, nil
}

// maxDelta is more than any delta: they are 230 on average, and fewer than one
// in e^35 comes this far.
const maxDelta = 1 << 13

// dividing finds divisors near a number; its fields are scratch.
type dividing struct{ quotient, remainder, shifted, fraction, modulo big.Int }

// near returns the divisor of n among x, x+2, …, x+maxDelta, or nil.
//
// If n = (x+δ)·q, then division of n by x leaves r = δ·q mod x, so that r/x is
// the fraction of δ·q/x. The quotient n/x is q and at most δ·q/x more, which
// is nothing against x. To 64 bits after the point, a δ is then tried by one
// addition; what fits is tried in full.
func (d *dividing) near(n, x *big.Int) *big.Int {
	d.quotient.QuoRem(n, x, &d.remainder)
	ratio, want := d.fixed(&d.quotient, x), d.fixed(&d.remainder, x)
	const tolerance = 2 * maxDelta // each δ is a unit of ratio's error, and some
	sum := uint64(0)
	for delta := uint64(0); delta < maxDelta; delta += 2 {
		if sum-want+tolerance <= 2*tolerance {
			p := new(big.Int).SetUint64(delta)
			p.Add(p, x)
			if d.modulo.Rem(n, p).Sign() == 0 {
				return p
			}
		}
		sum += 2 * ratio
	}
	return nil
}

// fixed is a/x modulo 1, in units of 2^-64.
func (d *dividing) fixed(a, x *big.Int) uint64 {
	d.fraction.QuoRem(d.shifted.Lsh(a, 64), x, &d.modulo)
	return low64(&d.fraction)
}

// low64 is v modulo 2^64.
func low64(v *big.Int) uint64 {
	words := v.Bits()
	switch {
	case len(words) == 0:
		return 0
	case wordBits == 64 || len(words) == 1:
		return uint64(words[0])
	}
	return uint64(words[1])<<32 | uint64(words[0])
}

const wordBits = 32 << (^big.Word(0) >> 63)
