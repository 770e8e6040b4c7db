package check

import (
	"encoding/csv"
	"math/big"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// slowPowers is what the tests are held against: n is a power of g = 65537
// modulo each of the primes alone, and modulo their product.
//
// The order of g modulo the product is the least common multiple of its orders,
// so n is a power of g only if n to that order is 1 …, which is necessary but
// not sufficient: the discrete logarithm itself is found by Pohlig-Hellman.
func slowPowers(n *big.Int) (fast, exact bool) {
	if n.Sign() <= 0 || n.BitLen() < 256 {
		return false, false
	}
	g := big.NewInt(65537)
	m, order := big.NewInt(1), big.NewInt(1)
	fast = true
	for p := int64(2); p <= 167; p++ {
		prime := big.NewInt(p)
		if !prime.ProbablyPrime(0) {
			continue
		}
		m.Mul(m, prime)
		// The order of g by counting, and whether n is among its powers.
		o, x, member := int64(0), new(big.Int).Mod(big.NewInt(1), prime), false
		r := new(big.Int).Mod(n, prime)
		for {
			member = member || x.Cmp(r) == 0
			x.Mul(x, g).Mod(x, prime)
			o++
			if x.Cmp(new(big.Int).Mod(big.NewInt(1), prime)) == 0 {
				break
			}
		}
		if p <= 157 && o < p-1 {
			fast = fast && member
		}
		gcd := new(big.Int).GCD(nil, nil, order, big.NewInt(o))
		order.Mul(order, big.NewInt(o)).Div(order, gcd)
	}
	if !fast || new(big.Int).GCD(nil, nil, n, m).Cmp(big.NewInt(1)) != 0 {
		return fast, false
	}
	// Pohlig-Hellman: in the subgroup of each prime power of the order, look
	// for the logarithm by trying all.
	rest := new(big.Int).Set(order)
	for q := int64(2); q <= 167; q++ {
		power := int64(1)
		for new(big.Int).Mod(rest, big.NewInt(q)).Sign() == 0 {
			rest.Div(rest, big.NewInt(q))
			power *= q
		}
		if power == 1 {
			continue
		}
		cofactor := new(big.Int).Div(order, big.NewInt(power))
		gq, nq := new(big.Int).Exp(g, cofactor, m), new(big.Int).Exp(n, cofactor, m)
		x, found := big.NewInt(1), false
		for range power {
			found = found || x.Cmp(nq) == 0
			x.Mul(x, gq).Mod(x, m)
		}
		if !found {
			return fast, false
		}
	}
	return fast, rest.Cmp(big.NewInt(1)) == 0
}

func random(seed uint64) *rand.ChaCha8 {
	var s [32]byte
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(s)
}

// randomOdd is an odd number of exactly that many bits.
func randomOdd(r *rand.ChaCha8, bits int) *big.Int {
	b := make([]byte, (bits+7)/8)
	r.Read(b)
	n := new(big.Int).SetBytes(b)
	n.SetBit(n.Rsh(n, uint(8*len(b)-bits)), bits-1, 1)
	return n.SetBit(n, 0, 1)
}

func primorial(primes int) *big.Int {
	m := big.NewInt(1)
	for p, seen := int64(2), 0; seen < primes; p++ {
		if prime := big.NewInt(p); prime.ProbablyPrime(0) {
			m.Mul(m, prime)
			seen++
		}
	}
	return m
}

// rocaFactor is a number of the form of a ROCA prime, with the two top bits
// set; the tests of the structure do not care whether it is prime.
func rocaFactor(r *rand.ChaCha8, bits, primes int) *big.Int {
	m := primorial(primes)
	a := new(big.Int).Exp(big.NewInt(65537), randomOdd(r, 64), m)
	for {
		p := randomOdd(r, bits)
		p.SetBit(p, bits-2, 1)
		p.Sub(p, new(big.Int).Mod(p, m)).Add(p, a)
		if p.BitLen() == bits && p.Bit(bits-2) == 1 {
			return p
		}
	}
}

// syntheticWeak is a modulus as the flawed generator makes it for that size.
func syntheticWeak(r *rand.ChaCha8, bits int) *big.Int {
	primes := 39
	switch {
	case bits >= 3968:
		primes = 225
	case bits >= 1984:
		primes = 126
	case bits >= 992:
		primes = 71
	}
	return new(big.Int).Mul(rocaFactor(r, (bits+1)/2, primes), rocaFactor(r, bits/2, primes))
}

type published struct {
	name        string
	n           *big.Int
	fast, exact bool
}

func publishedModuli(tb testing.TB) []published {
	tb.Helper()
	f, err := os.Open("testdata/roca/moduli.csv")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	var all []published
	for _, row := range rows[1:] {
		n, ok := new(big.Int).SetString(row[9], 16)
		if !ok || strconv.Itoa(n.BitLen()) != row[3] {
			tb.Fatalf("%s: not a modulus of %s bits", row[0], row[3])
		}
		all = append(all, published{row[0], n, row[5] == "1", row[6] == "1"})
	}
	return all
}

// publishedModulus is the first of that size that is weak or not.
func publishedModulus(tb testing.TB, bits int, weak bool) *big.Int {
	tb.Helper()
	for _, p := range publishedModuli(tb) {
		if p.n.BitLen() == bits && p.exact == weak && p.fast == weak {
			return p.n
		}
	}
	tb.Fatalf("no published modulus of %d bits", bits)
	return nil
}

func TestROCAPublished(t *testing.T) {
	weak, fakes := 0, 0
	for _, p := range publishedModuli(t) {
		if got := fingerprint(p.n); got != p.fast {
			t.Errorf("%s: fingerprint %v, want %v", p.name, got, p.fast)
		}
		if got := isPower(p.n); got != p.exact {
			t.Errorf("%s: exact test %v, want %v", p.name, got, p.exact)
		}
		if got := ROCA(p.n); got != p.exact {
			t.Errorf("%s: ROCA %v, want %v", p.name, got, p.exact)
		}
		if fast, exact := slowPowers(p.n); fast != p.fast || exact != p.exact {
			t.Errorf("%s: the reference of these tests says %v, %v", p.name, fast, exact)
		}
		if p.exact {
			weak++
		} else if p.fast {
			fakes++
		}
	}
	if weak < 12 || fakes < 5 {
		t.Errorf("only %d weak moduli and %d that pass the fingerprint alone were seen", weak, fakes)
	}
}

func TestROCASynthetic(t *testing.T) {
	r := random(1)
	// onlyThree is divisible by 3, and 1 modulo each of the selective primes.
	onlyThree := big.NewInt(1)
	for _, s := range subgroups[:selective] {
		onlyThree.Mul(onlyThree, new(big.Int).SetUint64(uint64(s.prime)))
	}
	onlyThree.Mul(onlyThree, onlyThree).Mul(onlyThree, big.NewInt(2)).Add(onlyThree, big.NewInt(1))
	for bits := 512; bits <= 4096; bits += 31 {
		n := syntheticWeak(r, bits)
		if n.BitLen() != bits {
			t.Fatalf("made %d bits instead of %d", n.BitLen(), bits)
		}
		if !fingerprint(n) || !ROCA(n) {
			t.Errorf("a weak modulus of %d bits was not recognised", bits)
		}
		// One more factor of 3 or 97 takes it out of the subgroup; one of 65537 does not.
		if ROCA(new(big.Int).Mul(n, big.NewInt(3))) || ROCA(new(big.Int).Mul(n, big.NewInt(97))) {
			t.Errorf("%d bits: a multiple of 3 or 97 is taken for weak", bits)
		}
		if three := new(big.Int).Mul(n, onlyThree); !fingerprint(three) || ROCA(three) {
			t.Errorf("%d bits: the fingerprint goes by 3, which says nothing, or the exact test does not", bits)
		}
		if !ROCA(new(big.Int).Mul(n, big.NewInt(65537))) {
			t.Errorf("%d bits: 65537·n was not recognised", bits)
		}
		if ROCA(new(big.Int).Neg(n)) || ROCA(new(big.Int).Add(n, big.NewInt(2))) {
			t.Errorf("%d bits: -n or n+2 is taken for weak", bits)
		}
	}
}

func TestROCAEdges(t *testing.T) {
	for _, n := range []*big.Int{
		new(big.Int), big.NewInt(1), big.NewInt(-1), big.NewInt(65537), big.NewInt(65537 * 65537), big.NewInt(2),
		new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)),
		primorial(39), new(big.Int).Mul(primorial(39), primorial(39)),
		new(big.Int).Lsh(big.NewInt(1), 16384),
	} {
		if fingerprint(n) || ROCA(n) {
			t.Errorf("%v is taken for weak", n)
		}
	}
	// k·M + 1 is the smallest that counts, whatever its size.
	for _, bits := range []int{256, 2047, 2048, 2049, 2050, 8192, 16384} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits))
		n.Sub(n, new(big.Int).Mod(n, primorial(39))).Add(n, big.NewInt(1))
		if !ROCA(n) {
			t.Errorf("k·M + 1 of %d bits was not recognised", n.BitLen())
		}
	}
}

// TestROCAStructured tries numbers that are powers of 65537 modulo every prime
// but with logarithms that do not fit each other: the fingerprint takes them,
// the exact test must not.
func TestROCAStructured(t *testing.T) {
	r := random(2)
	m := primorial(39)
	for range 200 {
		n := new(big.Int)
		e := randomOdd(r, 64)
		for _, s := range subgroups {
			p := new(big.Int).SetUint64(uint64(s.prime))
			cofactor := new(big.Int).Div(m, p)
			inverse := new(big.Int).ModInverse(cofactor, p)
			if r.Uint64()%39 == 0 { // now and then another logarithm, which may by chance fit
				e = randomOdd(r, 64)
			}
			x := new(big.Int).Exp(big.NewInt(65537), e, p)
			n.Add(n, x.Mul(x, cofactor).Mul(x, inverse))
		}
		n.Mod(n, m).Add(n, new(big.Int).Mul(m, randomOdd(r, 800)))
		fast, exact := slowPowers(n)
		if !fast {
			t.Fatal("the number is not what this test wants")
		}
		if fingerprint(n) != fast || ROCA(n) != exact {
			t.Errorf("%x: fingerprint %v, ROCA %v, want %v, %v", n, fingerprint(n), ROCA(n), fast, exact)
		}
	}
}

func TestROCARandom(t *testing.T) {
	r := random(3)
	for range 20000 {
		n := randomOdd(r, 256+int(r.Uint64()%3900))
		if ROCA(n) {
			t.Fatalf("random %x is taken for weak", n)
		}
	}
}

func TestROCAAllocatesNothing(t *testing.T) {
	for _, weak := range []bool{false, true} {
		n := publishedModulus(t, 2048, weak)
		if allocs := testing.AllocsPerRun(100, func() { ROCA(n) }); allocs != 0 {
			t.Errorf("weak %v: %v allocations", weak, allocs)
		}
	}
}

func FuzzROCA(f *testing.F) {
	for _, p := range publishedModuli(f) {
		f.Add(p.n.Bytes(), uint16(0))
		f.Add(p.n.Bytes(), uint16(1))
	}
	f.Add([]byte{1}, uint16(300))
	f.Fuzz(func(t *testing.T, b []byte, exponent uint16) {
		if len(b) > 3000 {
			return
		}
		// b as it stands, and the nearest that is a true power.
		n := new(big.Int).SetBytes(b)
		m := primorial(39)
		power := new(big.Int).Sub(n, new(big.Int).Mod(n, m))
		power.Add(power, new(big.Int).Exp(big.NewInt(65537), big.NewInt(int64(exponent)), m))
		for _, n := range []*big.Int{n, power} {
			fast, exact := slowPowers(n)
			if fingerprint(n) != fast || ROCA(n) != exact {
				t.Errorf("%x: fingerprint %v, ROCA %v, want %v, %v", n, fingerprint(n), ROCA(n), fast, exact)
			}
		}
	})
}
