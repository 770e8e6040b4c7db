package debian

import (
	"math/big"
	"math/bits"
)

// maxDelta is more than any delta: they are 230 on average, and fewer than one
// in e^35 comes this far.
const maxDelta = 1 << 13

// dividing finds divisors near a number; its fields are scratch.
type dividing struct{ quotient, remainder, less, p, modulo big.Int }

// near returns the divisor of n among x, x+2, …, x+maxDelta, or nil. x has as
// many bits as a half of n, and its first two are ones.
//
// If n = (x+δ)·q, then division of n by x leaves r = δ·q mod x, so that r/x is
// the fraction of δ·q/x. The quotient n/x is q and at most δ·q/x more, which
// is nothing against x. So δ solves a congruence of two numbers below 1, each of
// which is known to 48 bits; what solves it is tried in full.
func (d *dividing) near(n, x *big.Int) *big.Int {
	q := &d.quotient
	q.QuoRem(n, x, &d.remainder)
	for q.Cmp(x) >= 0 {
		q = d.less.Sub(q, x)
	}
	const m = 1 << 48
	const tolerance = 3 * maxDelta // each δ is two units of the ratio's error, and some
	step := 2 * fraction(q, x) >> 16
	want := fraction(&d.remainder, x) >> 16
	low, high := want-tolerance, want+tolerance
	if want < tolerance {
		low = 0
	}
	high = min(high, m-1)
	k, ok := first(step, m, low, high)
	if !ok {
		return nil
	}
	for ; k < maxDelta/2; k++ {
		if (step*k-want+tolerance)&(m-1) > 2*tolerance {
			continue
		}
		p := d.p.SetUint64(2 * k)
		p.Add(p, x)
		if d.modulo.Rem(n, p).Sign() == 0 {
			return new(big.Int).Set(p)
		}
	}
	return nil
}

// fraction is a/x, which is below 1, in units of 2^-64, and a few of them off. x
// has more than 64 bits.
func fraction(a, x *big.Int) uint64 {
	at := x.BitLen() - 64
	high, low, by := word64(a, at), uint64(0), word64(x, at)
	if at >= 64 {
		low = word64(a, at-64)
	}
	if high >= by {
		return 1<<64 - 1
	}
	q, _ := bits.Div64(high, low, by)
	return q
}

// word64 is v, shifted right by that many bits, modulo 2^64.
func word64(v *big.Int, by int) (w uint64) {
	words := v.Bits()
	for i, at := by/bits.UintSize, -(by % bits.UintSize); at < 64 && i < len(words); i, at = i+1, at+bits.UintSize {
		if at < 0 {
			w |= uint64(words[i]) >> -at
		} else {
			w |= uint64(words[i]) << at
		}
	}
	return w
}

// first returns the least k for which low <= a·k mod m <= high, by Euclid's
// steps. It takes low <= high < m and a < m <= 2^63.
func first(a, m, low, high uint64) (k uint64, ok bool) {
	if low == 0 {
		return 0, true
	}
	if 2*a > m { // the mirror image
		a, low, high = m-a, m-high, m-low
	}
	if a == 0 {
		return 0, false
	}
	if k = (low + a - 1) / a; k*a <= high {
		return k, true
	}
	// No multiple of a is in between: k is the one that comes in after y times m.
	y, ok := first((a-m%a)%a, a, low%a, high%a)
	if !ok {
		return 0, false
	}
	over, sum := bits.Mul64(m, y)
	sum, carry := bits.Add64(sum, low+a-1, 0)
	k, _ = bits.Div64(over+carry, sum, a) // below m, since y < a
	return k, true
}
