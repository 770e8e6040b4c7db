//go:build longtest

package debian

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests take minutes to hours and compare with complete sets. To run them:
//
//	KEYVET_DEBIAN_DATA=DIR go test -tags longtest -timeout 0 -v -run 'Sets|AllVectors' ./blocklist/debian -sample 2000

// sample is how many seeds of each RSA set are looked at.
var sample = flag.Int("sample", 2000, "random seeds to make again of each RSA set, and ten times as many to replay; 0: all of them")

// data is a path below the directory of the complete sets and vectors, which
// are too large for the tree.
func data(t *testing.T, elem ...string) string {
	dir := os.Getenv("KEYVET_DEBIAN_DATA")
	if dir == "" {
		t.Fatal("KEYVET_DEBIAN_DATA must name the directory that holds sets/ and vectors/")
	}
	return filepath.Join(append([]string{dir}, elem...)...)
}

// readSet reads the files name-ARCH-VARIANT.bin that are there.
func readSet(t *testing.T, name string, rowLen int, variants ...Variant) map[Seed][]byte {
	rows := map[Seed][]byte{}
	for arch := LE32; arch <= BE32; arch++ {
		for _, variant := range variants {
			b, err := os.ReadFile(data(t, "sets", fmt.Sprintf("%s-%v-%v.bin", name, arch, variant)))
			if os.IsNotExist(err) {
				t.Logf("there is no set of %v %v", arch, variant)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(b) != rowLen*(MaxPID+1) {
				t.Fatalf("the set of %v %v has %d bytes", arch, variant, len(b))
			}
			for seed := range Seeds(arch, variant, 0, MaxPID) {
				rows[seed], b = b[:rowLen], b[rowLen:]
			}
		}
	}
	if len(rows) == 0 {
		t.Fatal("no file of the set is there")
	}
	return rows
}

// rsaSets are the complete sets of RSA keys.
var rsaSets = func() []rsaSet {
	openssl := []Variant{Rnd, NoReadRnd, NoRnd}
	return []rsaSet{
		{"rsa1024", 1024, openssl},
		{"rsa2048", 2048, openssl},
		{"rsa2048", 2048, []Variant{SSH}},
		{"rsa4096", 4096, openssl},
	}
}()

type rsaSet struct {
	name     string
	bits     int
	variants []Variant
}

func (s rsaSet) String() string { return fmt.Sprint(s.name, s.variants) }

// parseRow returns the fingerprint and the counts of one row.
func (s rsaSet) parseRow(row []byte) ([]byte, Failed) {
	return row[:32], Failed{int(binary.LittleEndian.Uint16(row[32:])), int(binary.LittleEndian.Uint16(row[34:]))}
}

// check makes n random keys of the set again (all of them if n is 0) and
// holds each against its row.
func (s rsaSet) check(t *testing.T, n int, key func(context.Context, Seed, Failed) (RSAKey, error)) {
	rows := readSet(t, s.name, 40, s.variants...)
	seeds := slices.Collect(maps.Keys(rows))
	rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
	if n > 0 {
		seeds = seeds[:min(n, len(seeds))]
	}
	start, next := time.Now(), 0
	for k, err := range Generate(t.Context(), slices.Values(seeds), func(ctx context.Context, seed Seed) (RSAKey, error) {
		_, failed := s.parseRow(rows[seed])
		return key(ctx, seed, failed)
	}) {
		if err != nil {
			t.Fatal(err)
		}
		want, failed := s.parseRow(rows[seeds[next]])
		if got := Fingerprint(k.N); !bytes.Equal(got[:], want) || k.Failed != failed {
			t.Errorf("%v: got %x after %+v, want %x after %+v", seeds[next], got, k.Failed, want, failed)
		}
		if next++; next%500 == 0 {
			t.Logf("%d keys agree or are told of above", next)
		}
	}
	t.Logf("%d of %d keys in %v", next, len(rows), time.Since(start).Round(time.Second))
}

func TestSetsReplay(t *testing.T) {
	for _, set := range rsaSets {
		t.Run(set.String(), func(t *testing.T) {
			set.check(t, 10**sample, func(ctx context.Context, seed Seed, failed Failed) (RSAKey, error) {
				return Replay(ctx, set.bits, exponent(seed.Variant), seed, failed)
			})
		})
	}
}

func TestSetsRSA(t *testing.T) {
	for _, set := range rsaSets {
		t.Run(set.String(), func(t *testing.T) {
			set.check(t, *sample, func(ctx context.Context, seed Seed, _ Failed) (RSAKey, error) {
				return RSA(ctx, set.bits, exponent(seed.Variant), seed)
			})
		})
	}
}

func TestSetsP256(t *testing.T) {
	rows := readSet(t, "p256", 32, Rnd, NoReadRnd, NoRnd)
	for seed, row := range rows {
		k, err := EC(elliptic.P256(), seed)
		if err != nil {
			t.Fatal(err)
		}
		if sum := Fingerprint(k.X); !bytes.Equal(sum[:], row) {
			t.Errorf("%v: got %x, want %x", seed, sum, row)
		}
	}
	t.Logf("all %d keys", len(rows))
}

func TestAllVectors(t *testing.T) {
	files, err := filepath.Glob(data(t, "vectors", "rsa*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			t.Logf("%d keys", testRSA(t, file))
		})
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		t.Logf("%s: %d keys", curve.Params().Name, testEC(t, data(t, "vectors"), curve))
	}
}
