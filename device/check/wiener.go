package check

import (
	"context"
	"iter"
	"math/big"

	"github.com/keyvet/keyvet/device"
)

var privateExponentSmall = device.Reason{
	Code: "KEYVET_RSA_PRIVATE_EXPONENT_SMALL", Status: device.Fail, Severity: device.Critical,
	Means: "The private exponent of the RSA key is so small that Wiener's method finds it.",
	Do:    "Replace the key, and the program that made it.",
}

// wiener finds the factors if the private exponent is less than a third of the
// fourth root of n (Wiener, Cryptanalysis of Short RSA Secret Exponents, IEEE
// Transactions on Information Theory 36, 1990). Then the public exponent is
// nearly as long as n or longer, and e/n has a convergent k/d with
// e·d = k·φ(n) + g, where g is small.
func wiener(ctx context.Context, t target) *broken {
	if t.e.Sign() <= 0 || t.e.BitLen() < t.n.BitLen()*3/4-2 {
		return nil // e·d is above φ(n)
	}
	for c := range convergents(t.e, t.n) {
		if ctx.Err() != nil || c.below.BitLen() > t.n.BitLen()/2 {
			return nil
		}
		if c.above.Sign() == 0 {
			continue
		}
		phi := new(big.Int).Mul(t.e, c.below)
		phi.Quo(phi, c.above)
		sum := phi.Sub(t.n, phi) // p + q = n + 1 - φ(n)
		if p := splitBySum(t.n, sum.Add(sum, one)); p != nil {
			return &broken{privateExponentSmall, "https://doi.org/10.1109/18.54902", p, "its private exponent is small"}
		}
	}
	return nil
}

// convergent is one of the fractions above/below that come ever closer to a number.
type convergent struct{ above, below *big.Int }

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
			if !first && !yield(convergent{above, below}) {
				return
			}
			lastAbove.Add(lastAbove, product.Mul(quotient, above))
			lastBelow.Add(lastBelow, product.Mul(quotient, below))
			above, lastAbove = lastAbove, above
			below, lastBelow = lastBelow, below
		}
		yield(convergent{above, below})
	}
}

// splitBySum is one of two factors of n whose sum is given, or nil.
func splitBySum(n, sum *big.Int) *big.Int {
	if sum.Sign() <= 0 || sum.Bit(0) != 0 {
		return nil
	}
	half := new(big.Int).Rsh(sum, 1)
	difference := new(big.Int).Mul(half, half)
	difference.Sub(difference, n)
	if difference.Sign() < 0 || !maybeSquare(difference) {
		return nil
	}
	root := new(big.Int).Sqrt(difference)
	if new(big.Int).Mul(root, root).Cmp(difference) != 0 {
		return nil
	}
	return properFactor(n, half.Sub(half, root))
}

// properFactor is the common divisor of n and x if it is neither 1 nor n, or nil.
func properFactor(n, x *big.Int) *big.Int {
	g := new(big.Int).GCD(nil, nil, new(big.Int).Abs(x), n)
	if g.Cmp(one) <= 0 || g.Cmp(n) >= 0 {
		return nil
	}
	return g
}
