package check

import (
	"context"
	"fmt"
	"math/big"

	"github.com/keyvet/keyvet/device"
)

var modulusPower = device.Reason{
	Code: "KEYVET_RSA_MODULUS_POWER", Status: device.Fail, Severity: device.Critical,
	Means: "The RSA modulus is a cube or a higher power of a number.",
	Do:    "Replace the key, and the program that made it.",
}

var modulusPrime = device.Reason{
	Code: "KEYVET_RSA_MODULUS_PRIME", Status: device.Fail, Severity: device.Critical,
	Means: "The RSA modulus is a prime, so everybody can compute the private key.",
	Do:    "Replace the key, and the program that made it.",
}

// ofModulus is the source of what a modulus must be: a product of two distinct
// odd primes or more (section 3.1).
const ofModulus = "https://www.rfc-editor.org/rfc/rfc8017#section-3.1"

// perfectPower finds the root of a cube or a higher power. Since no factor is
// below the bound of the small ones, no exponent is above 1/16 of n's bits; and
// since a power of a power is one, prime exponents are enough.
func perfectPower(_ context.Context, t target) *broken {
	for k := uint(3); k*16 <= uint(t.n.BitLen()); k += 2 {
		if !isSmallPrime(k) || !maybePower(t.n, k) {
			continue
		}
		if root := floorRoot(t.n, k); new(big.Int).Exp(root, big.NewInt(int64(k)), nil).Cmp(t.n) == 0 {
			return &broken{modulusPower, ofModulus, root, fmt.Sprintf("it is a number to the power of %d", k)}
		}
	}
	return nil
}

func isSmallPrime(k uint) bool {
	for d := uint(3); d*d <= k; d += 2 {
		if k%d == 0 {
			return false
		}
	}
	return true
}

// maybePower reports whether n is a k-th power modulo some primes r of which
// k divides r-1: of those numbers only one in k is.
func maybePower(n *big.Int, k uint) bool {
	found := 0
	for r := 2*k + 1; found < 6; r += 2 * k {
		if !isSmallPrime(r) {
			continue
		}
		found++
		if rest := remainder(n, r); rest != 0 && powerModulo(rest, (r-1)/k, r) != 1 {
			return false
		}
	}
	return true
}

// powerModulo is x^e modulo m, which is below 2^16.
func powerModulo(x, e, m uint) uint {
	power := uint(1)
	for ; e > 0; e >>= 1 {
		if e&1 == 1 {
			power = power * x % m
		}
		x = x * x % m
	}
	return power
}

// floorRoot is the k-th root of the positive n, rounded down, by Newton's method
// from above.
func floorRoot(n *big.Int, k uint) *big.Int {
	x := new(big.Int).Lsh(one, (uint(n.BitLen())+k-1)/k)
	order, less := big.NewInt(int64(k)), big.NewInt(int64(k)-1)
	for {
		power := new(big.Int).Exp(x, less, nil)
		next := new(big.Int).Quo(n, power)
		next.Add(next, power.Mul(less, x)).Quo(next, order)
		if next.Cmp(x) >= 0 {
			return x
		}
		x = next
	}
}

// primeCeiling bounds the size in bits of a modulus that is tested for being
// prime. It takes a power modulo n, so its cost grows with the cube of the size.
const primeCeiling = 8192

// prime finds a modulus that is a prime: then the private exponent is the
// inverse of the public one modulo n-1.
func prime(_ context.Context, t target) *broken {
	if t.n.BitLen() > primeCeiling || t.n.Cmp(one) == 0 {
		return nil
	}
	less := new(big.Int).Sub(t.n, one)
	if new(big.Int).Exp(big.NewInt(2), less, t.n).Cmp(one) != 0 || !t.n.ProbablyPrime(20) {
		return nil
	}
	return &broken{modulusPrime, ofModulus, t.n, "it is a prime"}
}
