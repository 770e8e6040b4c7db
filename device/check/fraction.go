package check

import (
	"context"
	"iter"
	"math/big"
	"math/bits"

	"github.com/keyvet/keyvet/device"
)

var factorsPattern = device.Reason{
	Code: "KEYVET_RSA_FACTORS_PATTERN", Status: device.Fail, Severity: device.Critical,
	Means: "The primes of the RSA modulus repeat a pattern or are mostly zeros, which factors the modulus.",
	Do:    "Replace the key, and the program or the random-number generator that made it.",
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
	for below := range wideSteps(t.n, size) {
		if ctx.Err() != nil {
			return nil
		}
		if p := splitQuadratic(t.n, below, (size+1)/2); p != nil {
			return &broken{factorsPattern, "https://smartfacts.cr.yp.to/smartfacts-20130916.pdf", p, "its factors repeat a pattern"}
		}
	}
	return nil
}

// wideSteps yields the denominators, up to half the size of n in bits, of those
// convergents of n/2^size after which an unlikely partial quotient comes. Most
// steps of Euclid's algorithm are taken many at a time with the highest words of
// the numbers (Lehmer's method; Collins' condition: Jebelean, A Double-Digit
// Lehmer-Euclid Algorithm, 1995). Those with an unlikely quotient never are.
func wideSteps(n *big.Int, size uint) iter.Seq[*big.Int] {
	return func(yield func(*big.Int) bool) {
		a, b := new(big.Int).Lsh(one, size), new(big.Int).Set(n)
		last, below := new(big.Int), big.NewInt(1)
		var quotient, rest, x, y, word big.Int
		// combine sets z to a·u + b·v.
		combine := func(z, a *big.Int, u uint, b *big.Int, v uint) {
			x.Mul(a, word.SetUint64(uint64(u)))
			y.Mul(b, word.SetUint64(uint64(v)))
			z.Add(&x, &y)
		}
		var nextA, nextB, nextLast, nextBelow big.Int
		for b.Sign() > 0 && uint(below.BitLen()) <= size/2 {
			if m, ok := manySteps(a, b); ok {
				// a and b are less than before: of each pair of terms one is negative.
				combine(&nextA, a, m.u0, nextB.Neg(b), m.v0)
				combine(&nextB, a, m.u1, rest.Neg(b), m.v1)
				a.Abs(&nextA)
				b.Abs(&nextB)
				combine(&nextBelow, below, m.v1, last, m.u1)
				combine(&nextLast, below, m.v0, last, m.u0)
				below.Set(&nextBelow)
				last.Set(&nextLast)
				continue
			}
			quotient.QuoRem(a, b, &rest)
			if quotient.BitLen() > unlikely && !yield(below) {
				return
			}
			a.Set(b)
			b.Set(&rest)
			last.Add(last, x.Mul(&quotient, below))
			last, below = below, last
		}
	}
}

// steps are some steps of Euclid's algorithm: after them the numbers are a·u0 - b·v0
// and a·u1 - b·v1, or the negatives of these.
type steps struct{ u0, u1, v0, v1 uint }

// manySteps takes steps with the highest words of a > b, as long as they are those
// that the whole numbers take and their quotients are likely ones. It reports
// whether there are any.
func manySteps(a, b *big.Int) (s steps, ok bool) {
	words, others := a.Bits(), b.Bits()
	top := len(words) - 1
	if top < 1 || len(others) < top {
		return s, false
	}
	shift := uint(bits.LeadingZeros(uint(words[top])))
	back := bits.UintSize - shift
	high := uint(words[top])<<shift | uint(words[top-1])>>back
	low := uint(others[top-1]) >> back
	if len(others) > top {
		low |= uint(others[top]) << shift
	}
	u2, v2 := uint(0), uint(1)
	s = steps{u1: 1}
	for low >= v2 && high-low >= s.v1+v2 {
		quotient := high / low
		if quotient>>unlikely != 0 {
			break
		}
		high, low = low, high%low
		s.u0, s.u1, u2 = s.u1, u2, s.u1+quotient*u2
		s.v0, s.v1, v2 = s.v1, v2, s.v1+quotient*v2
	}
	return s, s.v0 != 0
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
