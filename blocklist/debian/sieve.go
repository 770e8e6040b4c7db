package debian

import (
	"math/big"
	"math/bits"
	"slices"
	"sync"
)

// smallPrimes are the odd ones among the first 2,048 primes.
var smallPrimes = sync.OnceValue(func() []uint {
	const last = 17863
	var composite [last + 1]bool
	var primes []uint
	for p := 3; p <= last; p += 2 {
		if composite[p] {
			continue
		}
		primes = append(primes, uint(p))
		for m := p * p; m <= last; m += 2 * p {
			composite[m] = true
		}
	}
	return primes
})

// divisors are the small primes, as many at a time as a word will hold, and then
// 1 up to a multiple of four.
var divisors = sync.OnceValue(func() []divisor {
	var all []divisor
	for rest := smallPrimes(); len(rest) > 0; {
		product, n := rest[0], 1
		for n < len(rest) {
			hi, lo := bits.Mul(product, rest[n])
			if hi != 0 {
				break
			}
			product = lo
			n++
		}
		all = append(all, newDivisor(product, rest[:n]))
		rest = rest[n:]
	}
	for len(all)%4 != 0 { // for modFour
		all = append(all, newDivisor(1, nil))
	}
	return all
})

// divisor is a word to divide long numbers by, without a division.
type divisor struct {
	d       uint // times the power of 2 that makes its first bit a 1
	inverse uint
	primes  []uint // that divide it
}

func newDivisor(d uint, primes []uint) divisor {
	d <<= bits.LeadingZeros(d)
	inverse, _ := bits.Div(^d, ^uint(0), d)
	return divisor{d, inverse, primes}
}

// mod returns x, not negative, modulo d.d: the right residue for every factor
// of d.
func (d *divisor) mod(x *big.Int) uint {
	var r uint
	words := x.Bits()
	for i := len(words) - 1; i >= 0; i-- {
		r = d.step(r, uint(words[i]))
	}
	return r
}

// modFour is mod of four divisors. Each step waits for the one before it, and
// while one divisor waits, the others go on.
func modFour(d *[4]divisor, x *big.Int) (r [4]uint) {
	words := x.Bits()
	var r0, r1, r2, r3 uint
	for i := len(words) - 1; i >= 0; i-- {
		w := uint(words[i])
		r0 = d[0].step(r0, w)
		r1 = d[1].step(r1, w)
		r2 = d[2].step(r2, w)
		r3 = d[3].step(r3, w)
	}
	return [4]uint{r0, r1, r2, r3}
}

// step returns what is left of the two words r and w, r being below d.d, modulo
// d.d (Möller, Granlund, Improved Division by Invariant Integers, 2011,
// algorithm 4).
func (d *divisor) step(r, w uint) uint {
	q1, q0 := bits.Mul(d.inverse, r)
	q0, carry := bits.Add(q0, w, 0)
	q1, _ = bits.Add(q1, r, carry)
	r = w - (q1+1)*d.d
	if r > q0 {
		r += d.d
	}
	if r >= d.d {
		r -= d.d
	}
	return r
}

// window is the number of even deltas that are looked at in one go. The mean
// delta is about 230.
const window = 512

// delta returns the smallest even delta for which x + delta, x being odd, is
// neither 0 nor 1 modulo any of the small primes.
func delta(x *big.Int) uint {
	residues := make([]uint, 0, len(smallPrimes()))
	for four := range slices.Chunk(divisors(), 4) {
		for i, r := range modFour((*[4]divisor)(four), x) {
			for _, p := range four[i].primes {
				residues = append(residues, r%p)
			}
		}
	}
	for base := uint(0); ; base += 2 * window {
		var bad [window]bool // of base + 2i
		for i, p := range smallPrimes() {
			r := residues[i]
			if base > 0 {
				r = (r + base) % p
			}
			mark(&bad, p-r, p)
			mark(&bad, p-r+1, p)
		}
		for i, b := range bad {
			if !b {
				return base + 2*uint(i)
			}
		}
	}
}

// mark sets bad for the even ones of d modulo p and every p from there.
func mark(bad *[window]bool, d, p uint) {
	if d >= p {
		d -= p
	}
	if d&1 == 1 {
		d += p
	}
	for i := d / 2; i < window; i += p {
		bad[i] = true
	}
}

// sifted reports whether x + d is 0 or 1 modulo one of the small primes, so that d
// cannot be the delta of x.
func sifted(x *big.Int, d uint) bool {
	for _, by := range divisors() {
		r := by.mod(x)
		for _, p := range by.primes {
			if (r%p+d%p)%p <= 1 {
				return true
			}
		}
	}
	return false
}
