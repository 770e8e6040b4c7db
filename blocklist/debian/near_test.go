package debian

import (
	"crypto/rand"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"testing"
)

// nearByDivision is what near does, by dividing n by x+2, x+4 and so on.
func nearByDivision(n, x *big.Int) *big.Int {
	p, rest := new(big.Int).Set(x), new(big.Int)
	for range maxDelta / 2 {
		if rest.Rem(n, p).Sign() == 0 {
			return p
		}
		p.Add(p, big.NewInt(2))
	}
	return nil
}

func TestFirst(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for range 20_000 {
		m := 2 + r.Uint64N(500)
		a, low := r.Uint64N(m), r.Uint64N(m)
		high := low + r.Uint64N(m-low)
		last := r.Uint64N(m)
		if r.IntN(2) == 0 {
			last = r.Uint64N(1 + m/16)
		}
		want, there := uint64(0), false
		for k := uint64(0); k <= last; k++ {
			if v := a * k % m; low <= v && v <= high {
				want, there = k, true
				break
			}
		}
		if k, ok := first(a, m, low, high, last); ok != there || ok && k != want {
			t.Fatalf("least k to %d with %d <= %d·k mod %d <= %d: %d, %v; want %d, %v", last, low, a, m, high, k, ok, want, there)
		}
	}
}

// TestNear looks for divisors at every distance, and where there are none, in one
// number of several.
func TestNear(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for _, size := range []int{512, 513, 1000, 1023, 1024, 1536, 2049, 3072, 8192} {
		half := (size + 1) / 2
		for round := range 200 {
			var numbers []*big.Int
			var primes []*big.Int
			for len(numbers) < 4 {
				p, q := randomOdd(t, half), randomOdd(t, size/2)
				if n := new(big.Int).Mul(p, q); n.BitLen() == size {
					numbers, primes = append(numbers, n), append(primes, p)
				}
			}
			at := r.IntN(3)
			numbers[3] = nil
			d := newDivider(half, numbers)
			delta := [...]int64{0, 2, maxDelta - 2, 2 * r.Int64N(maxDelta/2)}[min(round, 3)]
			x := new(big.Int).Sub(primes[at], big.NewInt(delta))
			if x.BitLen() < half || x.Bit(half-2) == 0 {
				continue
			}
			d.set(x)
			for i := range 3 {
				got := d.near(i)
				if got == nil != (i != at) || got != nil && got.Cmp(primes[at]) != 0 {
					t.Fatalf("%d bits, number %d of %d: %v at δ = %d of %v", size, i, at, got, delta, primes[at])
				}
			}
			for _, off := range []int64{1, 2, maxDelta, -2 * maxDelta} {
				d.set(x.Sub(primes[at], big.NewInt(-off)))
				if got := d.near(at); got != nil {
					t.Fatalf("%d bits: %v at δ = %d", size, got, -off)
				}
			}
		}
	}
}

// TestNearByDivision compares with the plain way, on numbers that are short enough
// to have divisors by chance.
func TestNearByDivision(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(3, 4))
	for range 100 {
		p, q := randomOdd(t, 256), randomOdd(t, 256)
		n := new(big.Int).Mul(p, q)
		x := new(big.Int).Sub(p, big.NewInt(2*r.Int64N(2*maxDelta)-maxDelta))
		if x.BitLen() < 256 || x.Bit(254) == 0 || n.BitLen() < 511 {
			continue
		}
		d := newDivider(256, []*big.Int{n})
		d.set(x)
		got, want := d.near(0), nearByDivision(n, x)
		if got == nil != (want == nil) || got != nil && got.Cmp(want) != 0 {
			t.Fatalf("a divisor of %v from %v on: %v, want %v", n, x, got, want)
		}
	}
}

// TestFraction holds the word that stands for the fraction of n/x against the
// division.
func TestFraction(t *testing.T) {
	for _, bits := range []int{256, 257, 319, 320, 321, 1536, 8192} {
		for range 100 {
			n, x := randomOdd(t, 2*bits), randomOdd(t, bits)
			d := newDivider(bits, []*big.Int{n})
			d.set(x)
			want := new(big.Int).Rem(n, x)
			want.Quo(want.Lsh(want, 64), x)
			got := d.fraction(&d.dividends[0])
			if less := want.Uint64() - got; less >= 1<<10 {
				t.Fatalf("%d bits: %x, want %x", bits, got, want)
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
	for _, size := range []int{1024, 2048, 3072, 4096} {
		d := newDivider(size/2, []*big.Int{new(big.Int).Mul(randomOdd(b, size/2), randomOdd(b, size/2))})
		x := randomOdd(b, size/2)
		b.Run(fmt.Sprintf("%d/first", size), func(b *testing.B) {
			for b.Loop() {
				if d.set(x); d.near(0) != nil {
					b.Fatal("a random number divides")
				}
			}
		})
		b.Run(fmt.Sprintf("%d/further", size), func(b *testing.B) {
			for b.Loop() {
				if d.near(0) != nil {
					b.Fatal("a random number divides")
				}
			}
		})
	}
}
