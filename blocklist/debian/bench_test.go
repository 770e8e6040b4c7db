package debian

import (
	"crypto/elliptic"
	"fmt"
	"testing"
)

// docs/figures.md has what comes of it.
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
