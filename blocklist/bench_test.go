package blocklist

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"runtime"
	"slices"
	"sort"
	"testing"

	bloomlib "github.com/bits-and-blooms/bloom/v3"

	"github.com/keyvet/keyvet/device"
)

func benchmarkLookup(b *testing.B, l *List, keys []crypto.PublicKey, listed bool) {
	b.ReportAllocs()
	ctx, i := b.Context(), 0
	for b.Loop() {
		got, err := l.Lookup(ctx, keys[i%len(keys)])
		if err != nil || got.Listed != listed || got.Looked == "" {
			b.Fatal(got, err)
		}
		i++
	}
}

// passesAny reports whether a key has to be confirmed.
func passesAny(l *List, a Algorithm, size int, n *big.Int) bool {
	return slices.ContainsFunc(l.sets, func(s set) bool {
		if s.Kind != Debian || s.Algorithm != a || s.Bits != size {
			return false
		}
		_, passes := s.passes(NewKeyID(n))
		return passes
	})
}

// BenchmarkLookup takes another key each time, so that the filter's bits come
// from memory as they would. A miss is a key that filter and index settle.
func BenchmarkLookup(b *testing.B) {
	l := embeddedList(b)
	mapped, err := Open("embedded.kvf")
	if err != nil {
		b.Fatal(err)
	}
	defer mapped.Close()
	further, err := Open("further.kvf")
	if err != nil {
		b.Fatal(err)
	}
	defer further.Close()
	for _, size := range []int{1024, 2048, 4096} {
		name := fmt.Sprintf("rsa%d", size)
		l, mapped := l, mapped
		if size == 1024 {
			l, mapped = further, further
		}
		var misses, passing, random, weak []crypto.PublicKey
		for len(misses) < 1024 || len(passing) < 16 {
			n := randomModulus(size)
			pub := &rsa.PublicKey{N: n, E: 65537}
			if random = append(random, pub); passesAny(l, RSA, size, n) {
				passing = append(passing, pub)
			} else {
				misses = append(misses, pub)
			}
		}
		for _, pub := range rsaVectors(b, name+".txt") {
			weak = append(weak, pub)
		}
		b.Run(name+"/miss", func(b *testing.B) { benchmarkLookup(b, l, misses, false) })
		b.Run(name+"/miss-mapped", func(b *testing.B) { benchmarkLookup(b, mapped, misses, false) })
		b.Run(name+"/passes-filter", func(b *testing.B) { benchmarkLookup(b, l, passing, false) })
		b.Run(name+"/mean-of-random", func(b *testing.B) { benchmarkLookup(b, l, random, false) })
		b.Run(name+"/hit", func(b *testing.B) { benchmarkLookup(b, l, weak, true) })
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		name, file, l := fmt.Sprintf("p%d", curve.Params().BitSize), "", l
		if file = name + ".txt"; name == "p521" {
			l, file = further, "../debian/testdata/"+file
		}
		var misses, weak []crypto.PublicKey
		for len(misses) < 1024 {
			x := randomModulus(curve.Params().BitSize)
			if !passesAny(l, ECDSA, curve.Params().BitSize, x) {
				misses = append(misses, &ecdsa.PublicKey{Curve: curve, X: x, Y: x})
			}
		}
		for _, pub := range ecVectors(b, file, curve) {
			weak = append(weak, pub)
		}
		b.Run(name+"/miss", func(b *testing.B) { benchmarkLookup(b, l, misses, false) })
		b.Run(name+"/hit", func(b *testing.B) { benchmarkLookup(b, l, weak, true) })
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

// BenchmarkOpen is what each list in a file adds to the start of a program.
func BenchmarkOpen(b *testing.B) {
	for _, name := range []string{"embedded.kvf", "compromised.kvf", "further.kvf"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, err := Open(name)
				if err != nil {
					b.Fatal(err)
				}
				_ = l.Close()
			}
		})
	}
}

// BenchmarkSpace is not about time: it shows the bits that a key takes.
func BenchmarkSpace(b *testing.B) {
	for _, name := range []string{"embedded.kvf", "compromised.kvf", "further.kvf"} {
		b.Run(name, func(b *testing.B) {
			l, err := Open(name)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			for b.Loop() {
			}
			for _, s := range l.Sets() {
				b.ReportMetric(8*float64(s.Bytes)/float64(s.Keys), s.Name+"-bits/key")
			}
			b.ReportMetric(float64(l.Bytes()), "B")
		})
	}
}

// BenchmarkPeers looks random RSA-2048 keys up in what others use, of as many
// keys: the sorted list of 16-byte fingerprints of badkeys, a Bloom filter of
// the usual library at 1e-9, and dwklint's map. Their fingerprint is SHA-256
// of the modulus, which is part of the look-up. None can name the seed.
func BenchmarkPeers(b *testing.B) {
	const keys = 294912
	misses := make([][]byte, 1024)
	for i := range misses {
		misses[i] = randomModulus(2048).Bytes()
	}
	fingerprint := func(i int) [32]byte { return sha256.Sum256(binary.LittleEndian.AppendUint32(nil, uint32(i))) }

	sorted := make([][16]byte, keys)
	for i := range sorted {
		sum := fingerprint(i)
		sorted[i] = [16]byte(sum[:16])
	}
	slices.SortFunc(sorted, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	b.Run("sorted-16-bytes", func(b *testing.B) {
		i := 0
		for b.Loop() {
			sum := sha256.Sum256(misses[i%len(misses)])
			if _, found := sort.Find(keys, func(i int) int { return bytes.Compare(sum[:16], sorted[i][:]) }); found {
				b.Fatal("found")
			}
			i++
		}
		b.ReportMetric(8*16, "bits/key")
	})

	filter := bloomlib.NewWithEstimates(keys, 1e-9)
	for i := range keys {
		sum := fingerprint(i)
		filter.Add(sum[:])
	}
	b.Run("bits-and-blooms", func(b *testing.B) {
		i := 0
		for b.Loop() {
			if sum := sha256.Sum256(misses[i%len(misses)]); filter.Test(sum[:]) {
				b.Fatal("found")
			}
			i++
		}
		b.ReportMetric(float64(filter.Cap())/keys, "bits/key")
	})

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	all := make(map[[32]byte]struct{}, keys)
	for i := range keys {
		all[fingerprint(i)] = struct{}{}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Run("map", func(b *testing.B) {
		i := 0
		for b.Loop() {
			if _, found := all[sha256.Sum256(misses[i%len(misses)])]; found {
				b.Fatal("found")
			}
			i++
		}
		b.ReportMetric(8*float64(after.HeapAlloc-before.HeapAlloc)/keys, "bits/key")
	})
}

// BenchmarkPublished looks up a key that is on no list, and one whose name has
// to be unpacked, in the two lists that have such keys.
func BenchmarkPublished(b *testing.B) {
	elsewhere, err := Open("compromised.kvf")
	if err != nil {
		b.Fatal(err)
	}
	defer elsewhere.Close()
	l := Lists{embeddedList(b), elsewhere}
	vagrant := device.Key{Public: ed25519.PublicKey(fromBase64(b, vagrantEd25519)[19:])}
	other := device.Key{Public: ed25519.PublicKey(make([]byte, 32))}
	for name, k := range map[string]device.Key{"hit": vagrant, "miss": other} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				got, _, err := l.Compromised(k)
				if err != nil || (len(got) == 1) != (name == "hit") {
					b.Fatal(got, err)
				}
			}
		})
	}
}
