package check

import (
	"context"
	"math/big"
	"math/bits"
	"slices"
	"sync"
)

// The bounds of the small factors that are looked for: in every modulus, and in
// those that are put to the costly attacks.
const (
	SmallFactors  = 1 << 16
	largerFactors = 1 << 20
)

// smallPrimes are the odd primes below SmallFactors, in ascending order.
var smallPrimes = sync.OnceValue(func() []uint32 {
	var s sieve
	below256 := slices.Clone(s.primes(0, 256, []uint32{3, 5, 7, 11, 13}))
	return s.primes(0, SmallFactors, below256)
})

// sieve is the room that the sieve of Eratosthenes takes.
type sieve struct {
	composite []bool // of from+2i+1
	found     []uint32
}

// primes returns the odd primes from an even number to another, in ascending
// order. It needs those up to the root of the last. What it returns is good until
// it is called again.
func (s *sieve) primes(from, to uint32, small []uint32) []uint32 {
	s.composite = slices.Grow(s.composite[:0], int(to-from)/2)[:(to-from)/2]
	composite, found := s.composite, s.found[:0]
	clear(composite)
	for _, p := range small {
		first := p * p
		if first >= to {
			break
		}
		if first < from {
			first = (from/p + 1) * p
			first += p * (1 - first%2)
		}
		for i := (first - from) / 2; i < uint32(len(composite)); i += p {
			composite[i] = true
		}
	}
	for i := range composite {
		if p := from + 2*uint32(i) + 1; !composite[i] && p > 1 {
			found = append(found, p)
		}
	}
	s.found = found
	return found
}

// smallFactor finds the smallest prime factor below the lower bound.
func smallFactor(_ context.Context, t target) *broken {
	return factorAmong(t.n, smallPrimes())
}

// largerFactor finds the smallest prime factor between the bounds.
func largerFactor(_ context.Context, t target) *broken {
	const some = 1 << 16 // so many stay in a processor's cache
	var s sieve
	for from := uint32(SmallFactors); from < largerFactors; from += some {
		if found := factorAmong(t.n, s.primes(from, from+some, smallPrimes())); found != nil {
			return found
		}
	}
	return nil
}

// factorAmong finds the smallest of the odd primes that divides n.
func factorAmong(n *big.Int, primes []uint32) *broken {
	for len(primes) > 0 {
		products, count := [4]uint{1, 1, 1, 1}, [4]int{}
		rest := primes
		for i := range products {
			for len(rest) > 0 {
				over, next := bits.Mul(products[i], uint(rest[0]))
				if over != 0 {
					break
				}
				products[i], rest = next, rest[1:]
				count[i]++
			}
		}
		for i, common := range exactRests(n.Bits(), products) {
			for _, p := range primes[:count[i]] {
				if common%uint(p) == 0 {
					prime := new(big.Int).SetUint64(uint64(p))
					return &broken{smallFactorFound, "", prime, prime.Text(10) + " divides it"}
				}
			}
			primes = primes[count[i]:]
		}
	}
	return nil
}

// exactRests returns for each of the odd numbers m one that has the same primes in
// common with m as n has: n, divided by a power of the word, modulo m (Hensel's
// division; Jebelean, An Algorithm for Exact Division, 1993). A step takes two
// multiplications and no division, and those of the four overlap.
func exactRests(n []big.Word, m [4]uint) [4]uint {
	var inverse [4]uint // modulo a word
	for i, m := range m {
		inverse[i] = m // right in three bits, since an odd square is 1 modulo 8
		for right := 3; right < bits.UintSize; right *= 2 {
			inverse[i] *= 2 - m*inverse[i]
		}
	}
	var r0, r1, r2, r3 uint
	for _, word := range n {
		w := uint(word)
		s0, b0 := bits.Sub(w, r0, 0)
		s1, b1 := bits.Sub(w, r1, 0)
		s2, b2 := bits.Sub(w, r2, 0)
		s3, b3 := bits.Sub(w, r3, 0)
		r0, _ = bits.Mul(s0*inverse[0], m[0])
		r1, _ = bits.Mul(s1*inverse[1], m[1])
		r2, _ = bits.Mul(s2*inverse[2], m[2])
		r3, _ = bits.Mul(s3*inverse[3], m[3])
		r0, r1, r2, r3 = r0+b0, r1+b1, r2+b2, r3+b3
	}
	return [4]uint{r0, r1, r2, r3}
}
