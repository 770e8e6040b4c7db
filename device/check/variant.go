package check

import (
	"context"
	"sync"

	"github.com/keyvet/keyvet/device"
)

var modulusSquares = device.Reason{
	Code: "KEYVET_RSA_ROCA_VARIANT", Status: device.Fail, Severity: device.High,
	Means: "The RSA modulus is a square modulo each of many small primes, as it is where a generator takes primes from a small group. ROCA is such a flaw, with another group. keyvet did not find the factors; others may.",
	Do:    "Replace the key, and the program or chip that made it.",
}

// squarePrimes are the 48 primes modulo which rocaVariant looks for squares, as
// many together as a word of 32 bits takes.
var squarePrimes = sync.OnceValue(func() (all []residues) {
	last := residues{product: 1}
	for _, p := range smallPrimes()[1:49] { // 5 to 229
		if uint64(last.product)*uint64(p) >= 1<<32 {
			all, last = append(all, last), residues{product: 1}
		}
		squares := make([]bool, p)
		for x := range p {
			squares[x*x%p] = true
		}
		last.product *= uint(p)
		last.squares = append(last.squares, squares)
	}
	return append(all, last)
})

// residues are some primes and what is a square modulo each.
type residues struct {
	product uint
	squares [][]bool // by prime, whose number it is long, and residue
}

// rocaVariant finds primes that are powers of one number modulo a product of small
// primes, whatever that number is: if both exponents are even, or both are odd,
// the modulus is a square modulo each of them. A random modulus is one with a
// chance of 2^-48; half the keys of such a generator are (Google's
// paranoid_crypto, CheckROCAVariant).
func rocaVariant(_ context.Context, t target) *broken {
	if t.n.BitLen() < rocaFloor || ROCA(t.n) { // which check roca reports
		return nil
	}
	for _, some := range squarePrimes() {
		rest := remainder(t.n, some.product)
		for _, squares := range some.squares {
			if !squares[rest%uint(len(squares))] {
				return nil
			}
		}
	}
	return &broken{modulusSquares, "https://github.com/google/paranoid_crypto/blob/main/docs/rsa_public_key_tests.md", nil,
		"the modulus is a square modulo each of the 48 primes from 5 to 229: its primes come from a small group, and it may well be factored"}
}
