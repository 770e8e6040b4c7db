package check

import (
	"context"
	"iter"
	"math/big"

	"github.com/keyvet/keyvet/device"
)

var factorsPattern = device.Reason{
	Code: "KEYVET_RSA_FACTORS_PATTERN", Status: device.Fail, Severity: device.Critical,
	Means: "The primes of the RSA modulus repeat a pattern or are mostly zeros, which factors the modulus.",
	Do:    "Replace the key, and the program or the random-number generator that made it.",
}

// convergent is a fraction that continues another: above/below.
type convergent struct {
	above, below *big.Int
	next         *big.Int // the partial quotient after it: the larger, the closer the fraction; nil at the end
}

// convergents yields those of the continued fraction of a/b, both positive. The
// numbers are valid until the next.
func convergents(a, b *big.Int) iter.Seq[convergent] {
	return func(yield func(convergent) bool) {
		a, b := new(big.Int).Set(a), new(big.Int).Set(b)
		above, below := big.NewInt(1), big.NewInt(0)
		lastAbove, lastBelow := big.NewInt(0), big.NewInt(1)
		quotient, product := new(big.Int), new(big.Int)
		for first := true; b.Sign() > 0; first = false {
			rest := new(big.Int)
			quotient.QuoRem(a, b, rest)
			a, b = b, rest
			if !first && !yield(convergent{above, below, quotient}) {
				return
			}
			lastAbove.Add(lastAbove, product.Mul(quotient, above))
			lastBelow.Add(lastBelow, product.Mul(quotient, below))
			above, lastAbove = lastAbove, above
			below, lastBelow = lastBelow, below
		}
		yield(convergent{above, below, nil})
	}
}

// unlikely is a partial quotient, in bits, that one convergent in 16 million has.
const unlikely = 24

// nearFraction finds primes that are near a fraction of a power of 2, as those
// are in which a pattern is repeated: p·v = a·x + c with x = 2^k and small a, c
// and v. Of two such primes with the same k the product is near such a fraction
// too, u/v, which a continued fraction finds; and n·v = A·x² + B·x + C then has
// small coefficients and factors as a polynomial (Bernstein et al., Factoring
// RSA keys from certified smart cards, ASIACRYPT 2013, appendix A, lists such
// primes; Google's paranoid_crypto, CheckContinuedFraction).
func nearFraction(ctx context.Context, t target) *broken {
	size := uint(t.n.BitLen())
	for c := range convergents(t.n, new(big.Int).Lsh(one, size)) {
		if ctx.Err() != nil || uint(c.below.BitLen()) > size/2 {
			return nil
		}
		if c.next == nil || c.next.BitLen() <= unlikely {
			continue
		}
		if p := splitQuadratic(t.n, c.below, (size+1)/2); p != nil {
			return &broken{factorsPattern, "https://smartfacts.cr.yp.to/smartfacts-20130916.pdf", p, "its factors repeat a pattern"}
		}
	}
	return nil
}

// splitQuadratic writes n·v as A·x² + B·x + C with x = 2^k and looks for roots
// of that polynomial; it returns a factor of n, or nil.
func splitQuadratic(n, v *big.Int, k uint) *big.Int {
	rest, c := divideRounded(new(big.Int).Mul(n, v), k)
	a, b := divideRounded(rest, k)
	if a.Sign() == 0 || c.Sign() == 0 {
		return nil
	}
	square := new(big.Int).Mul(b, b)
	square.Sub(square, c.Mul(c, a).Lsh(c, 2)) // B² - 4AC
	if square.Sign() < 0 || !maybeSquare(square) {
		return nil
	}
	root := new(big.Int).Sqrt(square)
	if new(big.Int).Mul(root, root).Cmp(square) != 0 {
		return nil
	}
	middle := a.Lsh(a, k+1)
	middle.Add(middle, b) // 2Ax + B
	if p := properFactor(n, new(big.Int).Add(middle, root)); p != nil {
		return p
	}
	return properFactor(n, middle.Sub(middle, root))
}

// divideRounded divides by 2^k so that the rest lies between -2^(k-1) and 2^(k-1).
func divideRounded(a *big.Int, k uint) (quotient, rest *big.Int) {
	quotient = new(big.Int).Lsh(one, k-1)
	quotient.Add(quotient, a).Rsh(quotient, k)
	return quotient, new(big.Int).Sub(a, new(big.Int).Lsh(quotient, k))
}
