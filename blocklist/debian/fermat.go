package debian

import (
	"context"
	"math/big"
	"math/bits"
)

// fermat reports whether n, odd and greater than 2^64, divides 2^(n-1) - 1:
// whether n is prime, for any number met here. Of random composites of 256
// bits about one in 10^22 passes (R. Rivest, Finding Four Million Large Random
// Primes, CRYPTO '90), of longer ones fewer. So the generator's own tests, with
// random witnesses, come to the same answer. When ctx ends, so does the test.
func fermat(ctx context.Context, n *big.Int) (bool, error) {
	m := newModulus(n)
	// The first bits of the exponent say how far to shift a 1.
	const first = 8
	at := n.BitLen() - first
	shift := new(big.Int).Rsh(n, uint(at)).Uint64()
	m.set(new(big.Int).Lsh(big.NewInt(1), uint(shift)))
	for at--; at >= 0; at-- {
		if at%16 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		m.square()
		if at > 0 && n.Bit(at) == 1 { // of n-1, the last bit is 0
			m.double()
		}
	}
	power := m.form()
	m.set(big.NewInt(1))
	return power.Cmp(m.form()) == 0, nil
}

// firstPrime returns the index of the first prime among as many numbers of the
// same length as [atOnce] says, or -1.
func firstPrime(ctx context.Context, numbers []*big.Int) (int, error) {
	if hasEight {
		primes, err := fermatEight(ctx, (*[8]*big.Int)(numbers))
		if primes == 0 {
			return -1, err
		}
		return bits.TrailingZeros8(primes), err
	}
	for i, n := range numbers {
		if prime, err := fermat(ctx, n); prime || err != nil {
			return i, err
		}
	}
	return -1, nil
}

// atOnce returns how many numbers [firstPrime] wants.
func atOnce() int {
	if hasEight {
		return 8
	}
	return 1
}

// modulus is an odd number n and a number x, to be squared over and over modulo
// n. Both are blocks, the least significant first. x is in Montgomery's form,
// that is, times R = 2^(the bits of all blocks). It is below R and below a few n.
//
// For 1,024 bits it squares 1.5 times as fast as math/big's Exp, which
// multiplies by a general product, and it can be interrupted.
type modulus struct {
	n, x []block
	m    []block // of the last reduction, and then the new x
	inv  uint    // the negated inverse of n modulo a word
	big  *big.Int
}

func newModulus(n *big.Int) *modulus {
	k := (len(n.Bits()) + blockWords - 1) / blockWords
	blocks := make([]block, 3*k)
	m := &modulus{n: blocks[:k], x: blocks[k : 2*k], m: blocks[2*k:], big: n}
	setBlocks(m.n, n)
	// Newton's iteration doubles the number of right bits, 3 to begin with.
	inverse := m.n[0][0]
	for range 5 {
		inverse *= 2 - m.n[0][0]*inverse
	}
	m.inv = -inverse
	return m
}

// setBlocks sets b to v, which is not too long for it.
func setBlocks(b []block, v *big.Int) {
	clear(b)
	for i, w := range v.Bits() {
		b[i/blockWords][i%blockWords] = uint(w)
	}
}

// bits is the length of all blocks, and R is 2 to the power of it.
func (m *modulus) bits() int { return len(m.n) * blockWords * bits.UintSize }

// set sets x to v modulo n.
func (m *modulus) set(v *big.Int) {
	form := new(big.Int).Lsh(v, uint(m.bits()))
	setBlocks(m.x, form.Mod(form, m.big))
}

// form returns x, in Montgomery's form, modulo n.
func (m *modulus) form() *big.Int {
	words := make([]big.Word, 0, len(m.x)*blockWords)
	for i := range m.x {
		for _, w := range m.x[i] {
			words = append(words, big.Word(w))
		}
	}
	x := new(big.Int).SetBits(words)
	return x.Mod(x, m.big)
}

// square sets x to x² modulo n: Montgomery's reduction, column of blocks by
// column (Koç, Acar, Kaliski, Analyzing and Comparing Montgomery
// Multiplication Algorithms, 1996, the method FIPS), with each product of two
// different blocks of x taken once and doubled.
func (m *modulus) square() {
	k := len(m.n)
	var s sum
	for c := range 2*k - 1 {
		low := max(0, c-k+1)
		for i := low; i < c-i; i++ {
			addTwice(&s, &m.x[i], &m.x[c-i])
		}
		if c%2 == 0 {
			addSquare(&s, &m.x[c/2])
		}
		for i := low; i < min(c, k); i++ {
			addProduct(&s, &m.m[i], &m.n[c-i])
		}
		if c < k {
			reduce(&s, &m.m[c], &m.n[0], m.inv)
		} else {
			m.m[c-k] = block(s[:blockWords])
		}
		*(*block)(s[:]) = block(s[blockWords:])
		s[blockWords] = s[2*blockWords]
		*(*block)(s[blockWords+1:]) = block{}
	}
	m.m[k-1] = block(s[:blockWords])
	m.x, m.m = m.m, m.x
	if s[blockWords] != 0 {
		m.subtract() // x < R gave less than R + n
	}
}

// double sets x to 2x modulo n.
func (m *modulus) double() {
	var carry uint
	for i := range m.x {
		b := &m.x[i]
		for j, w := range b {
			b[j] = w<<1 | carry
			carry = w >> (bits.UintSize - 1)
		}
	}
	for carry != 0 {
		carry -= m.subtract()
	}
}

// subtract takes n from x and returns the borrow.
func (m *modulus) subtract() (borrow uint) {
	for i := range m.x {
		x, n := &m.x[i], &m.n[i]
		for j := range x {
			x[j], borrow = bits.Sub(x[j], n[j], borrow)
		}
	}
	return borrow
}
