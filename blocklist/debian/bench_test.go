package debian

import (
	"crypto/elliptic"
	"fmt"
	"testing"
)

// On one core of an AMD EPYC (Zen 5, 4 GHz, shared with others), per key:
//
//	         math/big's Exp    this     replay
//	RSA-1024         5.4 ms    3.3 ms   0.3 ms
//	RSA-2048          37 ms     21 ms   0.5 ms
//	RSA-4096         480 ms    330 ms   0.7 ms
//
// A test of 1,024 bits takes 0.24 ms of squarings, math/big's Exp 0.35 ms.
func BenchmarkRSA(b *testing.B) {
	for _, bits := range []int{1024, 2048, 3072, 4096} {
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			var pid uint16
			for b.Loop() {
				if _, err := RSA(b.Context(), bits, 65537, Seed{LE64, Rnd, pid}); err != nil {
					b.Fatal(err)
				}
				pid++
			}
		})
	}
}

func BenchmarkReplay(b *testing.B) {
	for _, bits := range []int{1024, 2048, 4096} {
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			seed := Seed{LE32, Rnd, 4096}
			k, err := RSA(b.Context(), bits, 65537, seed)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(k.BeforeP+k.BeforeQ+2), "candidates")
			for b.Loop() {
				if _, err := Replay(b.Context(), bits, 65537, seed, k.Failed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEC(b *testing.B) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		b.Run(curve.Params().Name, func(b *testing.B) {
			for b.Loop() {
				if _, err := EC(curve, Seed{LE64, Rnd, 4096}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
