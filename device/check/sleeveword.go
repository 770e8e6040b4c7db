package check

import (
	"context"
	"math/big"
	"math/bits"
)

// splitFromBelow factors n if the highest word of its primes is not like the
// others, so that only the lower words of n show coefficients: those of the
// product of p and q as polynomials, up to some degree. The lowest is a product
// of two small numbers, each further one has few solutions if those before it are
// known, and of primes whose lower words are known the highest can be computed.
func (s sleeve) splitFromBelow(ctx context.Context, n *big.Int) *big.Int {
	if s.end < s.bits { // by chance, the lowest bits of the words above are zero, too
		s.bits, s.end = s.bits-s.end, s.width
	}
	half := uint(n.BitLen()+1) / 2
	if s.end != s.width || s.words*s.width > half || 3*(s.words+1)*s.width <= 2*half {
		return nil
	}
	words := polynomialIn(n, s.width)
	w := wordSearch{
		ctx: ctx, n: n, sleeve: s, coefficients: words[:s.words+1],
		bound: new(big.Int).Lsh(one, (s.width-s.bits)/2+1), steps: 1 << 14,
	}
	if words[0].BitLen() > 64 {
		return nil // it takes too long to factor
	}
	most := new(big.Int).Lsh(w.bound, 16) // the search for a prime adds to the lowest word
	for _, a := range divisors(words[0].Uint64()) {
		first := new(big.Int).SetUint64(a)
		second := new(big.Int).Quo(words[0], first)
		if first.Cmp(second) > 0 || second.Cmp(most) > 0 {
			continue
		}
		if p := w.next(polynomial{first}, polynomial{second}); p != nil {
			return p
		}
	}
	return nil
}

// wordSearch is a search for the words of two factors, from below.
type wordSearch struct {
	ctx          context.Context
	n            *big.Int
	sleeve       sleeve
	coefficients polynomial // of the product
	bound        *big.Int   // on a word
	steps        int        // that are left
}

// next appends words to p and q that have the next coefficient, and returns a
// factor of n or nil.
func (w *wordSearch) next(p, q polynomial) *big.Int {
	at := len(p)
	if at == len(w.coefficients) {
		return w.finish(p.at(w.sleeve.width), q.at(w.sleeve.width))
	}
	if w.steps--; w.steps < 0 || w.ctx.Err() != nil {
		return nil
	}
	// p[0]·y + q[0]·x is what the words before leave of the coefficient.
	rest, product := new(big.Int).Set(w.coefficients[at]), new(big.Int)
	for i := 1; i < at; i++ {
		rest.Sub(rest, product.Mul(p[i], q[at-i]))
	}
	common := new(big.Int).GCD(nil, nil, p[0], q[0])
	rest, remainder := rest.QuoRem(rest, common, new(big.Int))
	if rest.Sign() < 0 || remainder.Sign() != 0 {
		return nil
	}
	a, b := new(big.Int).Quo(p[0], common), new(big.Int).Quo(q[0], common)
	x := new(big.Int)
	if a.Cmp(one) > 0 {
		x.ModInverse(b, a).Mul(x, rest).Mod(x, a)
	}
	// The least x of which y is below the bound.
	least := new(big.Int).Sub(rest, product.Mul(a, w.bound))
	if least.Quo(least, b); least.Cmp(x) > 0 {
		least.Sub(least, x).Quo(least, a)
		x.Add(x, least.Mul(least, a))
	}
	for ; x.Cmp(w.bound) < 0; x.Add(x, a) {
		y, remainder := new(big.Int).QuoRem(product.Sub(rest, new(big.Int).Mul(b, x)), a, new(big.Int))
		if y.Sign() < 0 {
			return nil
		}
		if y.Cmp(w.bound) >= 0 || remainder.Sign() != 0 {
			continue
		}
		if f := w.next(append(p[:at:at], new(big.Int).Set(x)), append(q[:at:at], y)); f != nil || w.steps < 0 {
			return f
		}
	}
	return nil
}

// finish looks for a factor of n from its residue p and that of the other factor,
// q, modulo M = 2^known. With p + u·M and q + v·M for the factors,
// u·q + v·p = (n-p·q)/M modulo M, and such small u and v are found in a lattice
// of two dimensions.
func (w *wordSearch) finish(p, q *big.Int) *big.Int {
	known := uint(len(w.coefficients)) * w.sleeve.width
	modulus := new(big.Int).Lsh(one, known)
	inverse := new(big.Int).ModInverse(p, modulus)
	if inverse == nil {
		return nil
	}
	ratio := new(big.Int).Mul(q, inverse)
	ratio.Mod(ratio, modulus)
	sum := new(big.Int).Mul(p, q)
	sum.Sub(w.n, sum).Rsh(sum, known).Mul(sum, inverse).Mod(sum, modulus) // v + u·ratio

	// Of (u, v) with v + u·ratio = 0, two short ones by Euclid's algorithm.
	u1, v1 := big.NewInt(0), new(big.Int).Neg(modulus)
	u2, v2 := big.NewInt(1), new(big.Int).Neg(ratio)
	quotient, product := new(big.Int), new(big.Int)
	for v2.Sign() != 0 && uint(v2.BitLen()) > known/2 {
		quotient.Quo(v1, v2)
		u1.Sub(u1, product.Mul(quotient, u2))
		v1.Sub(v1, product.Mul(quotient, v2))
		u1, u2, v1, v2 = u2, u1, v2, v1
	}
	// (0, sum) less the vector of the lattice near it.
	determinant := new(big.Int).Mul(u1, v2)
	determinant.Sub(determinant, product.Mul(u2, v1))
	if determinant.Sign() == 0 {
		return nil
	}
	first := nearest(product.Mul(u2, sum).Neg(product), determinant)
	second := nearest(product.Mul(u1, sum), determinant)
	u := first.Mul(first, u1)
	u.Add(u, second.Mul(second, u2)).Neg(u)
	return properFactor(w.n, u.Lsh(u, known).Add(u, p))
}

// nearest is the integer nearest to a/b.
func nearest(a, b *big.Int) *big.Int {
	if b.Sign() < 0 {
		a, b = new(big.Int).Neg(a), new(big.Int).Neg(b)
	}
	quotient := new(big.Int).Lsh(a, 1)
	quotient.Add(quotient, b)
	return quotient.Div(quotient, new(big.Int).Lsh(b, 1))
}

// divisors returns the divisors of n.
func divisors(n uint64) []uint64 {
	all := []uint64{1}
	if n == 0 {
		return nil
	}
	for n > 1 {
		p, power := primeFactor(n), uint64(1)
		before := len(all)
		for n%p == 0 {
			n /= p
			power *= p
			for _, d := range all[:before] {
				all = append(all, d*power)
			}
		}
	}
	return all
}

// primeFactor is a prime factor of n > 1, by Pollard's rho method.
func primeFactor(n uint64) uint64 {
	for p := uint64(2); p < 1000; p++ {
		if n%p == 0 {
			return p
		}
	}
	number := new(big.Int).SetUint64(n)
	if number.ProbablyPrime(0) { // exact below 2^64
		return n
	}
	step := func(x, c uint64) uint64 {
		high, low := bits.Mul64(x, x)
		low, carry := bits.Add64(low, c, 0)
		return bits.Rem64(high+carry, low, n)
	}
	for c := uint64(1); ; c++ {
		x, y := uint64(2), uint64(2)
		for {
			x, y = step(x, c), step(step(y, c), c)
			d := gcd(max(x, y)-min(x, y), n)
			if d == n {
				break // another c
			}
			if d > 1 {
				return primeFactor(d)
			}
		}
	}
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
