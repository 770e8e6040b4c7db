package debian

import (
	"math/big"
	"math/bits"
)

// smallPrimes are the odd ones among the first 2,048 primes.
var smallPrimes = oddPrimes(17863)

// oddPrimes returns the odd primes up to limit.
func oddPrimes(limit int) []uint {
	composite := make([]bool, limit+1)
	var primes []uint
	for p := 3; p <= limit; p += 2 {
		if composite[p] {
			continue
		}
		primes = append(primes, uint(p))
		for m := p * p; m <= limit; m += 2 * p {
			composite[m] = true
		}
	}
	return primes
}

// divisor is a product of consecutive small primes that fits a machine word.
type divisor struct {
	product uint
	primes  []uint
}

var divisors = func() []divisor {
	var all []divisor
	for rest := smallPrimes; len(rest) > 0; {
		product, n := rest[0], 1
		for n < len(rest) {
			hi, lo := bits.Mul(product, rest[n])
			if hi != 0 {
				break
			}
			product = lo
			n++
		}
		all = append(all, divisor{product, rest[:n]})
		rest = rest[n:]
	}
	return all
}()

// mod returns x modulo d, for x not negative.
func mod(x *big.Int, d uint) uint {
	var r uint
	words := x.Bits()
	for i := len(words) - 1; i >= 0; i-- {
		_, r = bits.Div(r, uint(words[i]), d)
	}
	return r
}

// delta returns the smallest even delta for which x + delta, x being odd, is
// neither 0 nor 1 modulo any of the small primes.
func delta(x *big.Int) uint {
	const window = 2048 // even deltas looked at in one go
	residues := make([]uint, 0, len(smallPrimes))
	for _, d := range divisors {
		r := mod(x, d.product)
		for _, p := range d.primes {
			residues = append(residues, r%p)
		}
	}
	for base := uint(0); ; base += 2 * window {
		var out [window]bool // out[i]: base + 2i will not do
		for i, p := range smallPrimes {
			r := (residues[i] + base) % p
			for _, want := range [2]uint{p, p + 1} {
				d := want - r // the next delta from base on that gives 0 or 1
				if d >= p {
					d -= p
				}
				if d&1 == 1 {
					d += p
				}
				for j := d / 2; j < window; j += p {
					out[j] = true
				}
			}
		}
		for i, bad := range out {
			if !bad {
				return base + 2*uint(i)
			}
		}
	}
}
