package debian

import (
	"math/big"
	"math/bits"
)

// maxDelta is more than any delta: they are 230 on average, and fewer than one
// in e^35 comes this far.
const maxDelta = 1 << 13

// divider looks for divisors near a number x. What takes long is 1/x, which is
// the same for all numbers that are to be divided.
type divider struct {
	dividends []dividend
	scale     big.Int  // a power of 2^64: one word more than the longest dividend has
	x         *big.Int // its first two bits are ones
	inverse   []uint64 // scale/x, the least significant word first
	square    uint64   // the first 64 bits of the square of inverse

	quotient, remainder, p big.Int // scratch
}

// dividend is a number of twice the length of x, or a bit less.
type dividend struct {
	n     *big.Int // nil: it need not be looked at any more
	words []uint64 // the most significant first, as many as twice x has
	first uint64   // its first 64 bits
	shift int      // by which the product of first and square is a fraction of 1
}

// newDivider returns a divider by numbers x of that many bits. Each number has
// twice as many or one less; those that are nil divide by nothing.
func newDivider(bits int, numbers []*big.Int) *divider {
	size := 2 * ((bits + 63) / 64)
	d := &divider{dividends: make([]dividend, len(numbers))}
	d.scale.Lsh(big.NewInt(1), uint(64*(size+1)))
	for i, n := range numbers {
		if n == nil {
			continue
		}
		words := appendWords(make([]uint64, 0, size), n, size)
		for i, j := 0, size-1; i < j; i, j = i+1, j-1 {
			words[i], words[j] = words[j], words[i]
		}
		d.dividends[i] = dividend{n, words, word64(n, n.BitLen()-64), n.BitLen() - 2*bits + 2}
	}
	return d
}

// set sets x, which stays as it is until the next call.
func (d *divider) set(x *big.Int) {
	d.x = x
	inverse, _ := d.quotient.QuoRem(&d.scale, x, &d.remainder)
	d.inverse = appendWords(d.inverse[:0], inverse, (inverse.BitLen()+63)/64)
	first := word64(inverse, inverse.BitLen()-64)
	d.square, _ = bits.Mul64(first, first)
}

// near returns the divisor of the i-th number n among x, x+2, …, x+maxDelta-2, or
// nil.
//
// If n = (x+δ)·q, then n/x = q + δ·q/x, so that the fraction of n/x is that of
// δ·q/x; and q/x is n/x² but for δ·q/x², which is nothing. So δ solves a congruence
// of two numbers below 1, each of which is known to 48 bits; what solves it is
// tried in full.
func (d *divider) near(i int) *big.Int {
	n := &d.dividends[i]
	// A wrong one in a million numbers comes to be tried.
	const m = 1 << 48
	const tolerance = 3 * maxDelta // each δ is two units of the ratio's error, and some
	high, _ := bits.Mul64(n.first, d.square)
	step := 2 * (high << n.shift) >> 16
	want := d.fraction(n) >> 16
	k, ok := uint64(0), true
	if want >= tolerance && want+tolerance < m { // else all are tried
		k, ok = first(step, m, want-tolerance, want+tolerance, maxDelta/2-1)
	}
	if !ok {
		return nil
	}
	for ; k < maxDelta/2; k++ {
		if (step*k-want+tolerance)&(m-1) > 2*tolerance {
			continue
		}
		p := d.p.SetUint64(2 * k)
		p.Add(p, d.x)
		if d.remainder.Rem(n.n, p).Sign() == 0 {
			return new(big.Int).Set(p)
		}
	}
	return nil
}

// fraction is that of n/x in units of 2^-64, and fewer than 2^10 of them less. Of
// the product n·inverse it takes the word after the point, and of the one after
// that what it carries: so it takes the place of a long division.
func (d *divider) fraction(n *dividend) (f uint64) {
	words := n.words[:len(d.inverse)]
	before := uint64(0)
	for j, v := range d.inverse {
		carry, _ := bits.Mul64(words[j], v)
		f += before*v + carry
		before = words[j]
	}
	return f
}

// appendWords appends n words of v, the least significant first.
func appendWords(b []uint64, v *big.Int, n int) []uint64 {
	at := len(b)
	for range n {
		b = append(b, 0)
	}
	for i, w := range v.Bits() {
		b[at+i*bits.UintSize/64] |= uint64(w) << (i * bits.UintSize % 64)
	}
	return b
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

// first returns the least k, at most last, for which low <= a·k mod m <= high, by
// Euclid's steps. It takes low <= high < m, a < m <= 2^63, and a·last below 2^64.
func first(a, m, low, high, last uint64) (k uint64, ok bool) {
	if low == 0 {
		return 0, true
	}
	if 2*a > m { // the mirror image
		a, low, high = m-a, m-high, m-low
	}
	if a == 0 {
		return 0, false
	}
	k = (low + a - 1) / a
	if k > last {
		return 0, false
	}
	if k*a <= high {
		return k, true
	}
	// No multiple of a is in between: k is the one that comes in after y times m.
	turns := a * last / m
	if turns == 0 {
		return 0, false
	}
	y, ok := first((a-m%a)%a, a, low%a, high%a, turns)
	if !ok {
		return 0, false
	}
	over, sum := bits.Mul64(m, y)
	sum, carry := bits.Add64(sum, low+a-1, 0)
	k, _ = bits.Div64(over+carry, sum, a) // below m, since y < a
	return k, k <= last
}
