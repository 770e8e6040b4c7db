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
		return nil, fmt.Errorf("RSA of %d bits: want %d to %d", bits, MinRSABits, MaxRSABits)
	}
	factor, err := largeFactor(e)
	if err != nil {
		return nil, err
	}
	if err := seed.check(); err != nil {
		return nil, err
	}
	var found *big.Int
	err = walk(ctx, seed, (bits+1)/2, factor, newDivider((bits+1)/2, []*big.Int{n}), 0, candidates, func(_ int, p *big.Int) bool {
		found = p
		return false
	})
	if err != nil {
		return nil, fmt.Errorf("factor of RSA-%d by %v: %w", bits, seed, err)
	}
	return found, nil
}

// walk draws the candidates of the seed for a first prime of that many bits, and
// tries those from the first-th to before the last-th on each number of the
// divider. A number that has been hit is not tried again, and the walk ends when
// hit, which gets the place of the number and its divisor, returns false. Factor is
// as in newSearch.
func walk(ctx context.Context, seed Seed, bits int, factor uint, by *divider, first, last int, hit func(i int, p *big.Int) bool) error {
	s := newSearch(newGenerator(seed), bits, factor)
	for c := range last {
		if err := ctx.Err(); err != nil {
			return err
		}
		s.draw()
		if c >= first {
			by.set(&s.x)
			for i := range by.dividends {
				if by.dividends[i].n == nil {
					continue
				}
				if p := by.near(i); p != nil {
					by.dividends[i].n = nil
					if !hit(i, p) {
						return nil
					}
				}
			}
		}
		s.drawWitness()
		if s.refused() { // a prime that did not do had all its witnesses drawn
			prime, err := fermat(ctx, s.prime())
			if err != nil {
				return err
			}
			if prime {
				for range s.rounds - 1 {
					s.drawWitness()
				}
			}
		}
	}
	return nil
}
