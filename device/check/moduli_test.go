package check

import (
	"context"
	"math/big"
	"slices"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// TestWideSteps holds Lehmer's steps against Euclid's, of numbers that have an
// unlikely quotient and of those that do not.
func TestWideSteps(t *testing.T) {
	random := random(21)
	for i := range 300 {
		size := []int{16, 63, 64, 65, 127, 128, 129, 500, 2048}[i%9]
		n := randomOdd(random, size)
		if i%2 == 1 { // n/2^size is near a fraction u/v
			v := new(big.Int).Add(randomOdd(random, 1+size/5), one)
			u := new(big.Int).Rsh(randomOdd(random, 1+size/5), 1)
			n.Lsh(u, uint(size)).Quo(n, v).SetBit(n, size-1, 1)
		}
		var want, got []string
		a, b := new(big.Int).Lsh(one, uint(size)), n
		last, below := big.NewInt(0), big.NewInt(1)
		for b.Sign() > 0 && below.BitLen() <= size/2 {
			quotient, rest := new(big.Int).QuoRem(a, b, new(big.Int))
			if quotient.BitLen() > unlikely {
				want = append(want, below.String())
			}
			last, below = below, new(big.Int).Add(last, new(big.Int).Mul(quotient, below))
			a, b = b, rest
		}
		for below := range wideSteps(n, uint(size)) {
			got = append(got, below.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%x: %v, want %v", n, got, want)
		}
	}
}

// TestMaybeSquare has squares, which all must be, and others, of which few may be.
func TestMaybeSquare(t *testing.T) {
	random := random(22)
	maybe := 0
	for range 3000 {
		x := randomOdd(random, 200)
		x.Rsh(x, uint(random.Uint64()%200))
		if !maybeSquare(x.Mul(x, x)) {
			t.Fatalf("%x", x)
		}
		if maybeSquare(randomOdd(random, 200)) {
			maybe++
		}
	}
	if !maybeSquare(new(big.Int)) || maybe > 60 {
		t.Errorf("%d of 3000 may be squares", maybe)
	}
}

// TestModuli has a prime modulus among those of files that are only put to the
// attacks that cost little, and the same as the device's.
func TestModuli(t *testing.T) {
	random := random(23)
	var m Moduli
	var keys []device.Key
	for range 2 * maxCostly {
		k := rsaKey(randomOdd(random, 1024), 65537) // which has a small factor, most likely
		k.Role = device.RoleFile
		keys = append(keys, k)
	}
	p := weakKeys(t, "rsa-modulus-is-prime.pem")[0]
	shape := func(role device.Role, m *Moduli) device.Finding {
		k := p
		k.Role = role
		return runFactors(t.Context(), k, &Env{Moduli: m})[0]
	}
	if f := shape(device.RoleFile, &m); f.ReasonCode != modulusPrime.Code {
		t.Errorf("among the first: %+v", f)
	}
	m = Moduli{}
	m.Expect(keys)
	if m.spent != maxCostly || m.Spared() != maxCostly {
		t.Errorf("%d were put to the costly attacks, %d were not", m.spent, m.Spared())
	}
	m.Expect(keys) // the same
	if m.Spared() != maxCostly || m.spent != maxCostly {
		t.Errorf("counted again: %d", m.Spared())
	}
	if f := shape(device.RoleFile, &m); f.Status != device.Pass || f.Message == shape(device.RoleFile, nil).Message || m.Spared() != maxCostly+1 {
		t.Errorf("after many: %+v", f)
	}
	for _, role := range []device.Role{device.RoleDevice, device.RoleClaim, device.RoleCA, device.RoleEK, device.RoleAK, device.RoleIDevID} {
		if f := shape(role, &m); f.ReasonCode != modulusPrime.Code {
			t.Errorf("%s: %+v", role, f)
		}
	}
	if f := shape(device.RoleFile, &m); f.ReasonCode != modulusPrime.Code {
		t.Errorf("once it is known: %+v", f)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if f := runFactors(ended, rsaKey(randomOdd(random, 1024), 65537), &Env{Moduli: &m})[0]; f.Status != device.Undecided {
		t.Errorf("interrupted: %+v", f)
	}
}

// TestBatchGCD compares as many moduli with each other as there may be leaves of
// an uneven tree.
func TestBatchGCD(t *testing.T) {
	random := random(24)
	var primes []*big.Int
	for range 400 {
		primes = append(primes, nextPrime(randomOdd(random, 64)))
	}
	compare := func(count, most int) {
		all := make([]owned, count)
		for i := range all {
			p, q := primes[random.Uint64()%uint64(most)], primes[random.Uint64()%uint64(most)]
			all[i].n = new(big.Int).Mul(p, q)
		}
		for i, g := range batchGCD(all) {
			shares := false
			for j, other := range all {
				shares = shares || i != j && new(big.Int).GCD(nil, nil, all[i].n, other.n).Cmp(one) != 0
			}
			if shares != (g.Cmp(one) != 0) || new(big.Int).Rem(all[i].n, g).Sign() != 0 {
				t.Fatalf("%d moduli of %d primes, number %d: %v, which shares a prime: %t", count, most, i, g, shares)
			}
		}
	}
	for count := range 12 {
		for range 40 {
			compare(count, 60)
		}
	}
	for range 4 {
		compare(150, 60)
		compare(150, 400)
	}
}

// BenchmarkBatchGCD compares 5,000 moduli of RSA-2048.
func BenchmarkBatchGCD(b *testing.B) {
	random := random(25)
	all := make([]owned, 5000)
	for i := range all {
		all[i].n = randomOdd(random, 2048)
	}
	for b.Loop() {
		moduli := make([]*big.Int, len(all))
		for i, o := range all {
			moduli[i] = o.n
		}
		commonWithEarlier(moduli) // which is all if there is no prime in common
	}
}

// TestAhead: what was tried ahead is not tried again; what has no modulus, or one
// that no attack takes, is left alone.
func TestAhead(t *testing.T) {
	var m Moduli
	key := func(n *big.Int) device.Key {
		return device.Key{Role: device.RoleEK, Public: &device.LargeRSA{N: n, E: big.NewInt(3)}}
	}
	composite := new(big.Int).Mul(big.NewInt(65537), randomOdd(random(23), 2000))
	m.Ahead(t.Context(), key(composite))
	for _, n := range []*big.Int{big.NewInt(0), big.NewInt(-15), big.NewInt(16), new(big.Int).SetBit(big.NewInt(1), factorsCeiling+1, 1)} {
		m.Ahead(t.Context(), key(n))
	}
	m.Ahead(t.Context(), device.Key{Role: device.RoleEK})
	if len(m.known) != 1 {
		t.Fatalf("%d moduli are known", len(m.known))
	}
	ended, end := context.WithCancel(t.Context())
	end()
	a := m.of(device.RoleEK, target{composite, big.NewInt(3)})
	if a.run(ended); a.err != nil || a.broken == nil {
		t.Errorf("tried again: %v, %v", a.broken, a.err)
	}
}
