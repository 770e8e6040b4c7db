package debian

import (
	"context"
	"fmt"
	"math/big"
)

// The sizes of [RSA]: below, no key is worth a look-up; above, OpenSSL would
// not use it (OPENSSL_RSA_MAX_MODULUS_BITS).
const (
	MinRSABits = 512
	MaxRSABits = 16384
)

// RSAKey is an RSA key as the generator made it.
type RSAKey struct {
	N    *big.Int // P·Q
	P, Q *big.Int // P was made first; which one is larger is open
	Failed

	// Refused says that the exponent divides a prime that was drawn, less 1, and
	// that this one was passed over: another exponent gives another key.
	Refused bool
}

// Failed counts the candidates that were drawn and found composite before each
// prime was. With it, [Replay] finds the key again without looking for primes.
type Failed struct {
	BeforeP, BeforeQ int
}

// RSA regenerates the key of seed with a modulus of bits bits (MinRSABits to
// MaxRSABits) and the public exponent e. Debian's openssl took 65537 (with -3:
// 3) and its ssh-keygen 35, and e has no say in the key but that no prime may
// be 1 modulo a factor of it: for one key in 30,000, 65537 gives another
// modulus than a small e does.
//
// It takes as long as the search for two primes does. When ctx ends, so does
// the search, within milliseconds, with ctx's error.
func RSA(ctx context.Context, bits, e int, seed Seed) (RSAKey, error) {
	return makeRSA(ctx, bits, e, seed, [2]count{countAhead, countAhead})
}

// Replay makes the same key as [RSA] in a hundredth of the time, given how
// many candidates failed. It believes these counts: given wrong ones, the
// factors that it returns are not prime, and N is not the modulus of a weak
// key. Whoever compares N with the modulus of the key in hand needs no more:
// P and Q are then seen to divide it.
func Replay(ctx context.Context, bits, e int, seed Seed, failed Failed) (RSAKey, error) {
	if failed.BeforeP < 0 || failed.BeforeQ < 0 {
		return RSAKey{}, fmt.Errorf("negative count of candidates in %+v", failed)
	}
	known := func(n int) count { return func(context.Context, *search) (int, error) { return n, nil } }
	return makeRSA(ctx, bits, e, seed, [2]count{known(failed.BeforeP), known(failed.BeforeQ)})
}

// count returns how many candidates of a search fail before the next prime.
type count func(context.Context, *search) (int, error)

func makeRSA(ctx context.Context, bits, e int, seed Seed, counts [2]count) (RSAKey, error) {
	if bits < MinRSABits || bits > MaxRSABits {
		return RSAKey{}, fmt.Errorf("RSA of %d bits: want %d to %d", bits, MinRSABits, MaxRSABits)
	}
	factor, err := largeFactor(e)
	if err != nil {
		return RSAKey{}, err
	}
	if err := seed.check(); err != nil {
		return RSAKey{}, err
	}
	g := newGenerator(seed)
	var k RSAKey
	p, q := newSearch(g, (bits+1)/2, factor), newSearch(g, bits/2, factor)
	if k.P, k.BeforeP, err = p.find(ctx, counts[0]); err == nil {
		k.Q, k.BeforeQ, err = q.find(ctx, counts[1])
	}
	if err != nil {
		return RSAKey{}, fmt.Errorf("RSA-%d key of %v: %w", bits, seed, err)
	}
	k.N = new(big.Int).Mul(k.P, k.Q)
	k.Refused = p.passed || q.passed
	return k, nil
}

// largeFactor returns what is left of the exponent e without the factors that
// the sieve keeps out of p-1 anyway: a prime, or 0 if nothing is left.
func largeFactor(e int) (uint, error) {
	primes := smallPrimes()
	largest := primes[len(primes)-1]
	if e < 3 || e%2 == 0 || uint64(e) > uint64(largest)*uint64(largest) {
		return 0, fmt.Errorf("public exponent %d: want an odd one of 3 to %d", e, uint64(largest)*uint64(largest))
	}
	rest := uint(e)
	for _, p := range primes {
		for rest%p == 0 {
			rest /= p
		}
	}
	if rest == 1 {
		return 0, nil
	}
	return rest, nil
}
