package blocklist

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"testing"
)

func benchmarkLookup(b *testing.B, l *List, keys []crypto.PublicKey, listed bool) {
	b.ReportAllocs()
	ctx, i := b.Context(), 0
	for b.Loop() {
		got, err := l.Lookup(ctx, keys[i&(len(keys)-1)])
		if err != nil || got.Listed != listed || !got.Covered {
			b.Fatal(got, err)
		}
		i++
	}
}

// BenchmarkLookup takes another key each time, so that the filter's bits come
// from memory as they would.
func BenchmarkLookup(b *testing.B) {
	l := embeddedList(b)
	random, weak := make([]crypto.PublicKey, 1024), make([]crypto.PublicKey, 16)
	modulus := make([]byte, 256)
	for i := range random {
		rand.Read(modulus)
		modulus[0] |= 0x80
		random[i] = &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}
	}
	for i, pub := range rsaVectors(b, "rsa2048.txt")[:len(weak)] {
		weak[i] = pub
	}
	b.Run("RSA-2048/miss", func(b *testing.B) { benchmarkLookup(b, l, random, false) })
	b.Run("RSA-2048/hit", func(b *testing.B) { benchmarkLookup(b, l, weak, true) })
	mapped, err := Open("embedded.kvf")
	if err != nil {
		b.Fatal(err)
	}
	defer mapped.Close()
	b.Run("RSA-2048/miss/mapped", func(b *testing.B) { benchmarkLookup(b, mapped, random, false) })
	for i := range random {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		random[i] = &key.PublicKey
	}
	b.Run("P-256/miss", func(b *testing.B) { benchmarkLookup(b, l, random, false) })
}

// BenchmarkFingerprint is the part of a look-up that is SHA-256.
func BenchmarkFingerprint(b *testing.B) {
	n := rsaVectors(b, "rsa2048.txt")[0].N
	b.ReportAllocs()
	for b.Loop() {
		_ = fingerprint(n)
	}
}

func BenchmarkEmbedded(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Embedded(); err != nil {
			b.Fatal(err)
		}
	}
}
