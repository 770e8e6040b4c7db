package debian

import (
	"context"
	"errors"
	"math/big"
	"math/rand"
	"testing"
)

// TestOddSizes has what no vector has: primes that end within a byte, a word
// or a block, and two of different length.
func TestOddSizes(t *testing.T) {
	for _, bits := range []int{513, 527, 1000, 1023, 1029, 1536} {
		seed := Seed{BE32, NoRnd, 31337}
		k, err := RSA(t.Context(), bits, 65537, seed)
		if err != nil {
			t.Fatal(err)
		}
		if p, q := k.P.BitLen(), k.Q.BitLen(); k.N.BitLen() != bits || p != (bits+1)/2 || q != bits/2 {
			t.Errorf("RSA-%d: N has %d bits, P %d and Q %d", bits, k.N.BitLen(), p, q)
		}
		for _, p := range []*big.Int{k.P, k.Q} {
			if !p.ProbablyPrime(20) {
				t.Errorf("RSA-%d: %d is not prime", bits, p)
			}
		}
		r, err := Replay(t.Context(), bits, 65537, seed, k.Failed)
		if err != nil {
			t.Fatal(err)
		}
		if r.N.Cmp(k.N) != 0 {
			t.Errorf("RSA-%d: a replay makes another key", bits)
		}
	}
}

func TestFermat(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	primes := 0
	for _, bits := range []int{65, 128, 256, 300, 511, 512, 513, 1000, 1024, 1500} {
		top := new(big.Int).Lsh(big.NewInt(1), uint(bits))
		numbers := []*big.Int{new(big.Int).Sub(top, big.NewInt(1))} // all ones
		for range 20 {
			n := new(big.Int).Rand(r, top)
			n.SetBit(n, bits-1, 1)
			numbers = append(numbers, n.SetBit(n, 0, 1))
		}
		p := new(big.Int).Set(numbers[1])
		for !p.ProbablyPrime(0) {
			p.Add(p, big.NewInt(2))
		}
		for _, n := range append(numbers, p) {
			got, err := fermat(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			want := n.ProbablyPrime(20)
			if got != want {
				t.Errorf("fermat(%x) = %t", n, got)
			}
			if want {
				primes++
			}
		}
	}
	if primes < 10 {
		t.Errorf("only %d primes were seen", primes)
	}
}

// TestSquare holds squares and doubles against math/big, for moduli as long as
// their blocks from the edge: x just below R, which is more than n.
func TestSquare(t *testing.T) {
	r := rand.New(rand.NewSource(2))
	for _, bits := range []int{65, 512, 513, 1024, 2048} {
		n := new(big.Int).Rand(r, new(big.Int).Lsh(big.NewInt(1), uint(bits)))
		n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
		m := newModulus(n)
		m.set(big.NewInt(3))
		if bits == m.bits() {
			for i := range m.x {
				for j := range m.x[i] {
					m.x[i][j] = ^uint(0)
				}
			}
		}
		radix := new(big.Int).Lsh(big.NewInt(1), uint(m.bits()))
		inverse := new(big.Int).ModInverse(radix, n)
		for i := range 200 {
			want := m.form()
			if i%3 == 0 {
				m.double()
				want.Lsh(want, 1)
			} else {
				m.square()
				want.Mul(want, want).Mul(want, inverse)
			}
			if want.Mod(want, n); m.form().Cmp(want) != 0 {
				t.Fatalf("%d bits, step %d: got %x, want %x", bits, i, m.form(), want)
			}
		}
	}
}

func TestFermatCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := new(big.Int).Lsh(big.NewInt(3), 1000)
	if _, err := fermat(ctx, n.SetBit(n, 0, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestDelta holds the sieve against the rule itself.
func TestDelta(t *testing.T) {
	r := rand.New(rand.NewSource(3))
	far := 0
	for range 600 {
		x := new(big.Int).Rand(r, new(big.Int).Lsh(big.NewInt(1), 512))
		x.SetBit(x, 0, 1)
		var want uint
		p := new(big.Int).Set(x)
		for !passes(p) {
			p.Add(p, big.NewInt(2))
			want += 2
		}
		if got := delta(x); got != want {
			t.Errorf("delta(%x) = %d, want %d", x, got, want)
		}
		if want > 2*window {
			far++
		}
		if sifted(x, want) {
			t.Errorf("sifted(%x, %d), which is its delta", x, want)
		}
	}
	if far == 0 {
		t.Error("no delta was beyond the first window")
	}
}

func passes(x *big.Int) bool {
	for _, p := range smallPrimes() {
		if new(big.Int).Mod(x, big.NewInt(int64(p))).Cmp(big.NewInt(1)) <= 0 {
			return false
		}
	}
	return true
}

func TestSmallPrimes(t *testing.T) {
	primes := smallPrimes()
	if n := len(primes); n != 2047 || primes[0] != 3 || primes[n-1] != 17863 {
		t.Fatalf("%d primes, %d to %d", n, primes[0], primes[n-1])
	}
	for _, p := range primes {
		if !big.NewInt(int64(p)).ProbablyPrime(0) {
			t.Errorf("%d is not prime", p)
		}
	}
}
