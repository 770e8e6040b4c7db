package debian

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
)

func TestFactor(t *testing.T) {
	for _, name := range []string{"rsa1024", "rsa2048", "rsa2048-ssh", "rsa3072", "rsa4096"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := 0
			for _, row := range vectors(t, filepath.Join("testdata", name+".txt"), 9) {
				_, seed := parseRow(t, row)
				n, _ := new(big.Int).SetString(row[6], 16)
				p, err := Factor(t.Context(), n, exponent(seed.Variant), seed, 2000)
				if err != nil {
					t.Fatal(err)
				}
				if p == nil || !strings.EqualFold(p.Text(16), row[7]) && !strings.EqualFold(p.Text(16), row[8]) {
					t.Errorf("%v: factor %X, want %s or %s", seed, p, row[7], row[8])
				}
				found++

				// Neither another modulus nor another seed.
				other := new(big.Int).Add(n, big.NewInt(2))
				seed2 := seed
				seed2.PID ^= 1
				if p, err := Factor(t.Context(), other, exponent(seed.Variant), seed, 50); p != nil || err != nil {
					t.Errorf("%v: another modulus has factor %X, %v", seed, p, err)
				}
				if p, err := Factor(t.Context(), n, exponent(seed.Variant), seed2, 50); p != nil || err != nil {
					t.Errorf("%v: another seed has factor %X, %v", seed, p, err)
				}
			}
			if found == 0 {
				t.Error("no vectors")
			}
		})
	}
}

// TestFactorCandidates tries as many candidates as it takes, and one less.
func TestFactorCandidates(t *testing.T) {
	for pid := range uint16(20) {
		seed := Seed{LE32, NoRnd, pid}
		k, err := RSA(t.Context(), 1024, 65537, seed)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := Factor(t.Context(), k.N, 65537, seed, k.BeforeP+1); err != nil || p == nil || p.Cmp(k.P) != 0 {
			t.Errorf("%v: %X, %v", seed, p, err)
		}
		if p, err := Factor(t.Context(), k.N, 65537, seed, k.BeforeP); err != nil || p != nil {
			t.Errorf("%v: %X, %v with a candidate less", seed, p, err)
		}
	}
}

// TestFactorExponent finds the factor whichever exponent the key was made
// for: the prime that 65537 refuses is tried like all others, and the one
// after it comes after the right number of draws.
func TestFactorExponent(t *testing.T) {
	for _, row := range vectors(t, filepath.Join("testdata", "exponent.txt"), 8) {
		size, seed := parseRow(t, row)
		failed := Failed{parseInt(t, row[6]), parseInt(t, row[7])}
		k, err := Replay(t.Context(), parseInt(t, size), parseInt(t, row[4]), seed, failed)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := Factor(t.Context(), k.N, 65537, seed, failed.BeforeP+1); err != nil || p == nil || p.Cmp(k.P) != 0 {
			t.Errorf("%v, exponent %s: %X, %v", seed, row[4], p, err)
		}
	}
}

func TestFactorRefuses(t *testing.T) {
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	seed := Seed{LE64, Rnd, 1}
	for name, f := range map[string]func() (*big.Int, error){
		"size":     func() (*big.Int, error) { return Factor(t.Context(), big.NewInt(7), 65537, seed, 1) },
		"exponent": func() (*big.Int, error) { return Factor(t.Context(), n, 4, seed, 1) },
		"seed":     func() (*big.Int, error) { return Factor(t.Context(), n, 65537, Seed{3, Rnd, 1}, 1) },
	} {
		if p, err := f(); err == nil || p != nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err := Factor(ctx, n, 65537, seed, 1); !errors.Is(err, context.Canceled) || p != nil {
		t.Errorf("context done: %v, %v", p, err)
	}
}

func BenchmarkFactor(b *testing.B) {
	for _, bits := range []int{1024, 2048, 4096} {
		seed := Seed{LE32, Rnd, 4096}
		k, err := RSA(b.Context(), bits, 65537, seed)
		if err != nil {
			b.Fatal(err)
		}
		for name, n := range map[string]*big.Int{"hit": k.N, "other": new(big.Int).Add(k.N, big.NewInt(2))} {
			b.Run(fmt.Sprintf("%s/%d", name, bits), func(b *testing.B) {
				for b.Loop() {
					p, err := Factor(b.Context(), n, 65537, seed, 500)
					if err != nil || (p != nil) != (name == "hit") {
						b.Fatal(p, err)
					}
				}
				b.ReportMetric(float64(k.BeforeP+1), "candidates")
			})
		}
	}
}
