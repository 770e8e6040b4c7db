package check

import (
	"context"
	"math/big"

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
		Do:    "Replace the key, and the program that made it; `keyvet rotate` replaces the device's.",
	}
	modulusSquare = device.Reason{
		Code: "KEYVET_RSA_MODULUS_SQUARE", Status: device.Fail, Severity: device.Critical,
		Means: "The RSA modulus is a square.",
		Do:    "Replace the key, and the program that made it; `keyvet rotate` replaces the device's.",
	}
	factorsClose = device.Reason{
		Code: "KEYVET_RSA_FACTORS_CLOSE", Status: device.Fail, Severity: device.Critical,
		Means: "The two primes of the RSA modulus are so close that Fermat's method finds them.",
		Do:    "Replace the key, and the program that made it; `keyvet rotate` replaces the device's.",
	}
)

var factors = Check{
	ID:      "factors",
	Cite:    "https://eprint.iacr.org/2023/026",
	Asks:    "Can the RSA modulus be factored easily?",
	Applies: isRSA,
	Reasons: []device.Reason{
		modulusEven, smallFactorFound, primeShared, modulusPrime, modulusSquare, modulusPower, factorsClose,
		privateExponentSmall, factorsPattern, modulusPattern, modulusSquares, modulusInvalid, rsaTooLong,
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

// attacks are the ways to factor a modulus that are tried on each, the cheapest
// first. Each returns nil if it does not work.
var attacks = []attack{smallFactor, closeFactors, perfectPower, wiener, nearFraction, shortSleeve, rocaVariant}

// costly are further attacks, each of which takes longer than all others together.
// Of many keys in files only some are put to them, see [Moduli].
var costly = []attack{largerFactor, prime}

type attack func(context.Context, target) *broken

func runFactors(ctx context.Context, k device.Key, env *Env) []device.Finding {
	n, e, _ := k.RSA()
	if n.Sign() <= 0 {
		return give(modulusInvalid, "the modulus is not positive")
	}
	if n.BitLen() > factorsCeiling {
		return giveAs(device.Undecided, "", rsaTooLong, "a modulus of %d bits is too long to look for factors", n.BitLen())
	}
	if n.Bit(0) == 0 {
		return told(&broken{modulusEven, "", two, "it is even"})
	}
	a := env.Moduli.of(k.Role, target{n, e})
	a.run(ctx)
	switch {
	case a.err != nil:
		return give(notChecked, "not checked: %v", a.err)
	case a.broken != nil:
		return told(a.broken)
	case !a.wholly:
		return passed("no factor below %d, and none by the methods of Fermat and Wiener or by a pattern; so many moduli of files were tested before that larger small factors were not looked for, nor whether it is a prime", SmallFactors)
	}
	return passed("no factor below %d, and none by the methods of Fermat and Wiener or by a pattern", largerFactors)
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

// These are not to be changed.
var one, two = big.NewInt(1), big.NewInt(2)

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
	b, square := new(big.Int), new(big.Int)
	b2 := new(big.Int).Mul(a, a)
	b2.Sub(b2, n)
	step := new(big.Int).Lsh(a, 1) // from a² to (a+1)²
	step.Add(step, one)
	for steps = 1; steps <= fermatSteps; steps++ {
		b2.Add(b2, step)
		step.Add(step, two)
		if !maybeSquare(b2) {
			continue
		}
		if b.Sqrt(b2); square.Mul(b, b).Cmp(b2) == 0 {
			a.Add(a, big.NewInt(int64(steps)))
			return a.Sub(a, b), steps
		}
	}
	return nil, 0
}
