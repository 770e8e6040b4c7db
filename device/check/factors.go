package check

import (
	"context"
	"iter"
	"math/big"
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
	Reasons: []device.Reason{
		modulusEven, smallFactorFound, primeShared, modulusPrime, modulusSquare, modulusPower, factorsClose,
		privateExponentSmall, factorsPattern, modulusPattern, modulusInvalid, rsaTooLong,
	},
	Run:    runFactors,
	RunAll: runSharedPrimes,
}

const (
	// factorsCeiling bounds the time that a modulus can take. It is the
	// largest that OpenSSL works with (OPENSSL_RSA_MAX_MODULUS_BITS).
	factorsCeiling = 16384
	// fermatSteps finds primes of one key that were searched for from the same
	// start, which is what flawed generators did (Böck, Fermat Factorization in
	// the Wild, 2023): their difference is tiny next to the root of their size.
	fermatSteps = 100
)

// target is a modulus to be factored.
type target struct {
	n, e *big.Int // n is odd
}

// broken is what came of an attack that worked.
type broken struct {
	reason device.Reason
	cite   string   // URL of the attack's source; "" is that of the check
	factor *big.Int // nil if the attack only shows that there is one to be found
	how    string   // ends "the modulus is factored: "
}

// attacks are the ways to factor a modulus that are tried, the cheapest first.
// Each returns nil if it does not work.
var attacks = []func(context.Context, target) *broken{
	smallFactor, closeFactors, perfectPower, wiener, nearFraction, shortSleeve, prime,
}

func runFactors(ctx context.Context, k device.Key, _ *Env) []device.Finding {
	n, e, _ := k.RSA()
	if n.Sign() <= 0 {
		return give(modulusInvalid, "the modulus is not positive")
	}
	if n.BitLen() > factorsCeiling {
		return giveAs(device.Undecided, "", rsaTooLong, "a modulus of %d bits is too long to look for factors", n.BitLen())
	}
	if n.Bit(0) == 0 {
		return told(&broken{modulusEven, "", big.NewInt(2), "it is even"})
	}
	for _, try := range attacks {
		if err := ctx.Err(); err != nil {
			return give(notChecked, "not checked: %v", err)
		}
		if b := try(ctx, target{n, e}); b != nil {
			return told(b)
		}
	}
	return passed("no factor below %d, and none by the methods of Fermat and Wiener or by a pattern", smallFactors)
}

func told(b *broken) []device.Finding {
	if b.factor == nil {
		found := give(b.reason, "%s", b.how)
		found[0].Citation = b.cite
		return found
	}
	found := give(b.reason, "the modulus is factored: %s", b.how)
	found[0].Citation = b.cite
	found[0].Proof = map[string]any{"factor": b.factor.Text(16)} // hexadecimal
	return found
}

// Prepare makes what checks need and takes time to make. [Run] does it otherwise.
func Prepare() { smallPrimes() }

// smallFactors is the bound of the small factors that are looked for.
const smallFactors = 1 << 20

// smallPrimes are products of the odd primes below the bound, of about 2048 bits
// each: their product would be no faster to reduce, and much slower to make.
var smallPrimes = sync.OnceValue(productsOfPrimes)

func productsOfPrimes() (products []*big.Int) {
	product, word := big.NewInt(1), uint64(1)
	for p := range oddPrimes() {
		if word *= uint64(p); word < 1<<44 { // another fits
			continue
		}
		product.Mul(product, new(big.Int).SetUint64(word))
		word = 1
		if product.BitLen() >= 2048 {
			products, product = append(products, product), big.NewInt(1)
		}
	}
	return append(products, product.Mul(product, new(big.Int).SetUint64(word)))
}

// oddPrimes yields the odd primes below the bound, by the sieve of Eratosthenes.
func oddPrimes() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		composite := make([]bool, smallFactors/2) // of 2i+1
		for p := 3; p < smallFactors; p += 2 {
			if composite[p/2] {
				continue
			}
			if !yield(uint32(p)) {
				return
			}
			if p >= 1<<10 { // its multiples up to smallFactors have been crossed out, and p² need not fit in 32 bits
				continue
			}
			for m := p * p; m < smallFactors; m += 2 * p {
				composite[m/2] = true
			}
		}
	}
}

// smallFactor finds the smallest prime factor below the bound.
func smallFactor(_ context.Context, t target) *broken {
	common, product, quotient := big.NewInt(1), new(big.Int), new(big.Int)
	for _, some := range smallPrimes() {
		quotient.QuoRem(product.Mul(common, some), t.n, common)
	}
	if common.GCD(nil, nil, common, t.n).Cmp(one) == 0 {
		return nil
	}
	for p := range oddPrimes() {
		prime := new(big.Int).SetUint64(uint64(p))
		if new(big.Int).Mod(common, prime).Sign() == 0 {
			return &broken{smallFactorFound, "", prime, prime.Text(10) + " divides it"}
		}
	}
	return nil
}

// one is not to be changed.
var one = big.NewInt(1)

// closeFactors finds the factors of a square, and those near each other.
func closeFactors(_ context.Context, t target) *broken {
	switch p, steps := fermat(t.n); {
	case p == nil:
		return nil
	case steps == 0:
		return &broken{modulusSquare, "", p, "it is a square"}
	default:
		return &broken{factorsClose, "", p, "its two factors are close to each other"}
	}
}

// fermat looks for two factors of the odd n near its square root: for a ≥ √n
// such that a² − n is a square b², n = (a−b)·(a+b). It gives up after
// fermatSteps; steps is how far a was from √n, 0 for a square.
func fermat(n *big.Int) (factor *big.Int, steps int) {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) == 0 {
		return a, 0
	}
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
