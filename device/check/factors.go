package check

import (
	"context"
	"math/big"
	"slices"
	"sync"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	modulusEven = device.Reason{
		Code: "KEYVET_RSA_MODULUS_EVEN", Status: device.Fail, Severity: device.Critical,
		Means: "The RSA modulus is even.",
		Do:    "Replace the key.",
	}
	smallFactorFound = device.Reason{
		Code: "KEYVET_RSA_SMALL_FACTOR", Status: device.Fail, Severity: device.Critical,
		Means: "A small prime divides the RSA modulus.",
		Do:    "Replace the key, and the program that made it.",
	}
	modulusSquare = device.Reason{
		Code: "KEYVET_RSA_MODULUS_SQUARE", Status: device.Fail, Severity: device.Critical,
		Means: "The RSA modulus is a square.",
		Do:    "Replace the key, and the program that made it.",
	}
	factorsClose = device.Reason{
		Code: "KEYVET_RSA_FACTORS_CLOSE", Status: device.Fail, Severity: device.Critical,
		Means: "The two primes of the RSA modulus are so close that Fermat's method finds them.",
		Do:    "Replace the key, and the program that made it.",
	}
)

var factors = Check{
	ID:      "factors",
	Cite:    "https://eprint.iacr.org/2023/026",
	Asks:    "Can the RSA modulus be factored easily?",
	Applies: isRSA,
	Reasons: []device.Reason{modulusEven, smallFactorFound, modulusSquare, factorsClose, modulusInvalid, rsaTooLong},
	Run:     runFactors,
}

const (
	// factorsCeiling bounds the time that a modulus can take. It is the
	// largest that OpenSSL works with (OPENSSL_RSA_MAX_MODULUS_BITS).
	factorsCeiling = 16384
	// fermatSteps finds primes of one key that were searched for from the same
	// start, which is what flawed generators did (Böck, Fermat Factorization in
	// the Wild, 2023): their difference is tiny next to the root of their size.
	fermatSteps = 100
	// smallFactor is the bound of the small factors looked for.
	smallFactor = 1 << 16
)

func runFactors(_ context.Context, k device.Key, _ *Env) []device.Finding {
	n, _, _ := k.RSA()
	if n.Sign() <= 0 {
		return give(modulusInvalid, "the modulus is not positive")
	}
	if n.BitLen() > factorsCeiling {
		return giveAs(device.Undecided, "", rsaTooLong, "a modulus of %d bits is too long to look for factors", n.BitLen())
	}
	found := func(r device.Reason, factor *big.Int, how string) []device.Finding {
		f := give(r, "the modulus is factored: %s", how)
		f[0].Proof = map[string]any{"factor": factor.Text(16)} // hexadecimal
		return f
	}
	if n.Bit(0) == 0 {
		return found(modulusEven, big.NewInt(2), "it is even")
	}
	if p := smallestFactor(n); p != nil {
		return found(smallFactorFound, p, p.Text(10)+" divides it")
	}
	switch p, steps := fermat(n); {
	case p == nil:
	case steps == 0:
		return found(modulusSquare, p, "it is a square")
	default:
		return found(factorsClose, p, "its two factors are close to each other")
	}
	return passed("no factor below %d, and none by %d steps of Fermat's method", smallFactor, fermatSteps)
}

// Prepare makes what checks need and takes time to make. [Run] does it otherwise.
func Prepare() { oddPrimes() }

// oddPrimes are those below smallFactor, and their product.
var oddPrimes = sync.OnceValues(func() (primes []uint32, product *big.Int) {
	var composite [smallFactor]bool
	for p := 3; p < smallFactor; p += 2 {
		if composite[p] {
			continue
		}
		primes = append(primes, uint32(p))
		for m := p * 3; m < smallFactor; m += 2 * p {
			composite[m] = true
		}
	}
	return primes, multiply(primes)
})

func multiply(factors []uint32) *big.Int {
	if len(factors) <= 256 { // so small a product grows in place
		product, word := big.NewInt(1), new(big.Int)
		for some := range slices.Chunk(factors, 4) { // of 16 bits each
			four := uint64(1)
			for _, f := range some {
				four *= uint64(f)
			}
			product.Mul(product, word.SetUint64(four))
		}
		return product
	}
	half := len(factors) / 2
	return new(big.Int).Mul(multiply(factors[:half]), multiply(factors[half:]))
}

// smallestFactor is the smallest odd prime below the bound that divides n, or nil.
func smallestFactor(n *big.Int) *big.Int {
	primes, product := oddPrimes()
	common := new(big.Int).Mod(product, n)
	if common.GCD(nil, nil, common, n).Cmp(big.NewInt(1)) == 0 {
		return nil
	}
	for _, p := range primes {
		prime := new(big.Int).SetUint64(uint64(p))
		if new(big.Int).Mod(common, prime).Sign() == 0 {
			return prime
		}
	}
	return nil
}

// fermat looks for two factors of the odd n near its square root: for a ≥ √n
// such that a² − n is a square b², n = (a−b)·(a+b). It gives up after
// fermatSteps; steps is how far a was from √n, 0 for a square.
func fermat(n *big.Int) (factor *big.Int, steps int) {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) == 0 {
		return a, 0
	}
	one := big.NewInt(1)
	b, b2, square := new(big.Int), new(big.Int), new(big.Int)
	for steps = 1; steps <= fermatSteps; steps++ {
		a.Add(a, one)
		b2.Mul(a, a).Sub(b2, n)
		if !maybeSquare(b2) {
			continue
		}
		if b.Sqrt(b2); square.Mul(b, b).Cmp(b2) == 0 {
			return new(big.Int).Sub(a, b), steps
		}
	}
	return nil, 0
}

// maybeSquare spares most square roots: squares have only 12 residues modulo 64.
func maybeSquare(n *big.Int) bool {
	const squares = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 | 1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57
	var low uint
	for i := range 6 {
		low |= n.Bit(i) << i
	}
	return uint64(squares)>>low&1 == 1
}
