package debian

import (
	"math/big"
	"math/rand"
	"testing"
)

// canTest reports whether this machine has the instructions. The tests of them
// come to nothing where it does not.
func canTest(t *testing.T) bool {
	if !hasEight {
		t.Log("not tested: this processor has no AVX-512 IFMA")
	}
	return hasEight
}

// TestSquareEight holds squares against math/big, for x as large as they may be
// and moduli as long as their limbs from the edge.
func TestSquareEight(t *testing.T) {
	if !canTest(t) {
		return
	}
	r := rand.New(rand.NewSource(3))
	for _, bits := range []int{254, 255, 256, 512, 514, 1024, 1536, 2048, 8192} {
		k := limbs(bits)
		x, m, mod := make([]vector, k), make([]vector, k), make([]vector, k)
		var n, xs [8]*big.Int
		var inverse vector
		top := new(big.Int).Lsh(big.NewInt(1), uint(bits))
		for i := range n {
			n[i] = new(big.Int).Rand(r, top)
			if i == 0 {
				n[i].Sub(top, big.NewInt(1)) // all ones
			}
			n[i].SetBit(n[i], bits-1, 1).SetBit(n[i], 0, 1)
			xs[i] = new(big.Int).Lsh(n[i], 2)
			if xs[i].Sub(xs[i], big.NewInt(1)); i%2 == 1 {
				xs[i].Rand(r, xs[i])
			}
			setLane(mod, i, n[i])
			setLane(x, i, xs[i])
			setLane(m, i, new(big.Int).Rand(r, n[i])) // left by the square before
			inverse[i] = negatedInverse(mod[0][i])
		}
		const double = 0b10110001
		squareEight(&x[0], &m[0], &mod[0], &inverse, k, double)
		for i := range n {
			// The square times R is x², or 2x².
			got := lane(m, i)
			if got.Cmp(new(big.Int).Lsh(n[i], 2)) >= 0 {
				t.Errorf("%d bits, number %d: the square is not below 4n", bits, i)
			}
			got.Lsh(got, uint(limbBits*k))
			want := new(big.Int).Mul(xs[i], xs[i])
			want.Lsh(want, uint(double>>i&1))
			if got.Sub(got, want).Mod(got, n[i]).Sign() != 0 {
				t.Errorf("%d bits, number %d: not the square of %x modulo %x", bits, i, xs[i], n[i])
			}
		}
	}
}

// TestFermatEight has the Go code as its reference.
func TestFermatEight(t *testing.T) {
	if !canTest(t) {
		return
	}
	r := rand.New(rand.NewSource(4))
	for _, bits := range []int{256, 257, 300, 512, 515, 1024} {
		top := new(big.Int).Lsh(big.NewInt(1), uint(bits))
		for round := range 4 {
			var n [8]*big.Int
			var want uint8
			for i := range n {
				n[i] = new(big.Int).Rand(r, top)
				n[i].SetBit(n[i], bits-1, 1).SetBit(n[i], 0, 1)
				for (i+round)%4 == 0 && !n[i].ProbablyPrime(0) {
					n[i].Add(n[i], big.NewInt(2))
				}
				prime, err := fermat(t.Context(), n[i])
				if err != nil {
					t.Fatal(err)
				}
				if prime {
					want |= 1 << i
				}
			}
			got, err := fermatEight(t.Context(), &n)
			if err != nil || got != want || want == 0 {
				t.Errorf("%d bits: primes %08b, %v, want %08b", bits, got, err, want)
			}
		}
	}
}

// TestOneByOne makes the same keys without the vectors.
func TestOneByOne(t *testing.T) {
	if !canTest(t) {
		return
	}
	defer func() { hasEight = true }()
	for pid := range uint16(4) {
		for _, exponent := range []int{35, 65537, 65539 * 3} {
			seed := Seed{LE64, Rnd, 77 + pid}
			hasEight = true
			a, err := RSA(t.Context(), 1024, exponent, seed)
			if err != nil {
				t.Fatal(err)
			}
			hasEight = false
			b, err := RSA(t.Context(), 1024, exponent, seed)
			if err != nil {
				t.Fatal(err)
			}
			if a.N.Cmp(b.N) != 0 || a.Failed != b.Failed {
				t.Errorf("%v, exponent %d: %v and %v", seed, exponent, a.Failed, b.Failed)
			}
		}
	}
}

// BenchmarkOneByOne is BenchmarkRSA without the vectors.
func BenchmarkOneByOne(b *testing.B) {
	eight := hasEight
	defer func() { hasEight = eight }()
	hasEight = false
	BenchmarkRSA(b)
}
