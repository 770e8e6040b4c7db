package check

import (
	"context"
	"iter"
	"math/big"
	"sync"
)

// The bounds of the small factors that are looked for: in every modulus, and in
// those that are put to the costly attacks.
const (
	SmallFactors  = 1 << 16
	largerFactors = 1 << 20
)

// Prepare makes what checks need and takes time to make. [Run] does it otherwise.
func Prepare() { smallPrimes(); largerPrimes() }

// The products of the odd primes below each bound.
var (
	smallPrimes = sync.OnceValue(func() []*big.Int {
		all := big.NewInt(1) // as one, since each modulus is held against it
		for _, some := range productsOfPrimes(3, SmallFactors) {
			all.Mul(all, some)
		}
		return []*big.Int{all}
	})
	largerPrimes = sync.OnceValue(func() []*big.Int { return productsOfPrimes(SmallFactors, largerFactors) })
)

// productsOfPrimes returns products, of about 8192 bits each, of the primes from
// one number to another: a product of all would be no faster to reduce, and much
// slower to make.
func productsOfPrimes(from, to uint32) (products []*big.Int) {
	product, next, word := big.NewInt(1), new(big.Int), new(big.Int)
	factor := uint64(1)
	multiply := func() {
		next.Mul(product, word.SetUint64(factor)) // two buffers: none is allocated for each step
		product, next, factor = next, product, 1
	}
	for p := range oddPrimes(to) {
		if p < from {
			continue
		}
		if factor *= uint64(p); factor < 1<<44 { // another fits
			continue
		}
		if multiply(); product.BitLen() >= 8192 {
			products = append(products, new(big.Int).Set(product))
			product.SetUint64(1)
		}
	}
	multiply()
	return append(products, product)
}

// oddPrimes yields the odd primes below a bound of at most 2^20, by the sieve of
// Eratosthenes.
func oddPrimes(bound uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		composite := make([]bool, bound/2) // of 2i+1
		for p := uint32(3); p < bound; p += 2 {
			if composite[p/2] {
				continue
			}
			if !yield(p) {
				return
			}
			if p >= 1<<10 { // its multiples up to 2^20 have been crossed out, and p² need not fit in 32 bits
				continue
			}
			for i := p * p / 2; i < uint32(len(composite)); i += p {
				composite[i] = true
			}
		}
	}
}

// smallFactor finds the smallest prime factor below the lower bound.
func smallFactor(_ context.Context, t target) *broken {
	return factorAmong(t.n, smallPrimes(), SmallFactors)
}

// largerFactor finds the smallest prime factor below the upper bound.
func largerFactor(_ context.Context, t target) *broken {
	return factorAmong(t.n, largerPrimes(), largerFactors)
}

// factorAmong finds the smallest prime factor of n that the products have and
// that is below the bound.
func factorAmong(n *big.Int, products []*big.Int, bound uint32) *broken {
	common, rest, quotient := big.NewInt(1), new(big.Int), new(big.Int)
	for _, some := range products {
		quotient.QuoRem(some, n, rest)
		quotient.QuoRem(rest.Mul(common, rest), n, common)
	}
	if common.GCD(nil, nil, common, n).Cmp(one) == 0 {
		return nil
	}
	for p := range oddPrimes(bound) {
		if remainder(common, uint(p)) == 0 {
			prime := new(big.Int).SetUint64(uint64(p))
			return &broken{smallFactorFound, "", prime, prime.Text(10) + " divides it"}
		}
	}
	return nil
}
