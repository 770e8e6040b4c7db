package debian

import (
	"crypto/rand"
	"math/big"
	mathrand "math/rand/v2"
	"testing"
)

func TestFirst(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for range 20_000 {
		m := 2 + r.Uint64N(500)
		a, low := r.Uint64N(m), r.Uint64N(m)
		high := low + r.Uint64N(m-low)
		want, there := uint64(0), false
		for k := uint64(0); k < m; k++ {
			if v := a * k % m; low <= v && v <= high {
				want, there = k, true
				break
			}
		}
		if k, ok := first(a, m, low, high); ok != there || k != want {
			t.Fatalf("least k with %d <= %d·k mod %d <= %d: %d, %v; want %d, %v", low, a, m, high, k, ok, want, there)
		}
	}
}

// TestNear looks for divisors at every distance, and where there are none.
func TestNear(t *testing.T) {
	var d dividing
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for _, size := range []int{512, 513, 1023, 1024, 1536, 2049, 3072, 8192} {
		half := (size + 1) / 2
		for range 200 {
			p, q := randomOdd(t, half), randomOdd(t, size/2)
			n := new(big.Int).Mul(p, q)
			delta := int64(2 * r.IntN(maxDelta/2))
			x := new(big.Int).Sub(p, big.NewInt(delta))
			if got := d.near(n, x); x.BitLen() == half && x.Bit(half-2) == 1 && (got == nil || new(big.Int).Rem(n, got).Sign() != 0) {
				t.Fatalf("%d bits: %v at δ = %d of %v", size, got, delta, p)
			}
			for _, off := range []int64{1, -2, -1 << 20} {
				other := new(big.Int).Add(p, big.NewInt(off))
				if got := d.near(n, other); got != nil && new(big.Int).Rem(n, got).Sign() != 0 {
					t.Fatalf("%d bits: %v does not divide", size, got)
				}
			}
		}
	}
}

// randomOdd is a random odd number whose first two bits are ones.
func randomOdd(t testing.TB, size int) *big.Int {
	t.Helper()
	v, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(size-2)))
	if err != nil {
		t.Fatal(err)
	}
	return v.SetBit(v.SetBit(v.SetBit(v, size-1, 1), size-2, 1), 0, 1)
}

func BenchmarkNear(b *testing.B) {
	var d dividing
	for _, size := range []int{1024, 2048, 3072, 4096} {
		n := new(big.Int).Mul(randomOdd(b, size/2), randomOdd(b, size/2))
		x := randomOdd(b, size/2)
		b.Run(new(big.Int).SetInt64(int64(size)).String(), func(b *testing.B) {
			for b.Loop() {
				if d.near(n, x) != nil {
					b.Fatal("a random number divides")
				}
			}
		})
	}
}
