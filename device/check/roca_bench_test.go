package check

import (
	"crypto/rsa"
	"testing"

	"github.com/titanous/rocacheck"
)

// BenchmarkROCA holds the test against github.com/titanous/rocacheck, which
// certificate authorities use (the fast fingerprint alone), in one run, over
// all published RSA-2048 moduli. Both begin at a *big.Int. How far either has
// to look at a good key differs from key to key, hence several.
func BenchmarkROCA(b *testing.B) {
	for _, weak := range []bool{false, true} {
		name := map[bool]string{false: "good", true: "weak"}[weak]
		var keys []*rsa.PublicKey
		for _, p := range publishedModuli(b) {
			if p.n.BitLen() == 2048 && p.exact == weak {
				keys = append(keys, &rsa.PublicKey{N: p.n, E: 65537})
			}
		}
		for _, way := range []struct {
			name string
			test func(*rsa.PublicKey) bool
		}{
			{"keyvet", func(k *rsa.PublicKey) bool { return ROCA(k.N) }},
			{"keyvet-fingerprint", func(k *rsa.PublicKey) bool { return fingerprint(k.N) }},
			{"rocacheck", rocacheck.IsWeak},
		} {
			b.Run(name+"/"+way.name, func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					if way.test(keys[i]) != weak {
						b.Fatal("wrong answer")
					}
					if i++; i == len(keys) {
						i = 0
					}
				}
			})
		}
	}
}
