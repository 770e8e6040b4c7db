package check

import (
	"math/big"
	"math/bits"
)

// remainder is the non-negative n modulo m, faster than [big.Int.Mod] is.
func remainder(n *big.Int, m uint) uint {
	words, r := n.Bits(), uint(0)
	for i := len(words) - 1; i >= 0; i-- {
		r = bits.Rem(r, uint(words[i]), m)
	}
	return r
}

// squareModuli are factors of squareModulus, and of each the bits of what is a
// square modulo it.
var squareModuli = func() (all [6]struct {
	m       uint
	squares [2]uint64
}) {
	for i, m := range [...]uint{63, 65, 11, 17, 19, 23} {
		all[i].m = m
		for x := range m {
			s := x * x % m
			all[i].squares[s/64] |= 1 << (s % 64)
		}
	}
	return all
}()

const squareModulus = 63 * 65 * 11 * 17 * 19 * 23 // below 2^32

// maybeSquare spares most square roots: of numbers that are no squares it
// refuses all but one in 150 or so, three in four of them by the lowest bits.
func maybeSquare(n *big.Int) bool {
	const squares = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 | 1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57 // modulo 64
	if n.Sign() == 0 {
		return true
	}
	if uint64(squares)>>(uint(n.Bits()[0])%64)&1 == 0 {
		return false
	}
	rest := remainder(n, squareModulus)
	for i := range squareModuli {
		s := &squareModuli[i]
		if r := rest % s.m; s.squares[r/64]>>(r%64)&1 == 0 {
			return false
		}
	}
	return true
}
