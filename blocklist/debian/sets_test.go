//go:build longtest

package debian

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// sample is how many seeds of each RSA set are looked at.
var sample = flag.Int("sample", 2000, "random seeds to make again of each RSA set; 0: all of them")

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

func TestSetsRSA(t *testing.T) {
	openssl := []Variant{Rnd, NoReadRnd, NoRnd}
	for _, tt := range []struct {
		name     string
		bits     int
		variants []Variant
	}{
		{"rsa1024", 1024, openssl},
		{"rsa2048", 2048, openssl},
		{"rsa2048", 2048, []Variant{SSH}},
		{"rsa4096", 4096, openssl},
	} {
		t.Run(fmt.Sprint(tt.name, tt.variants), func(t *testing.T) {
			rows := readSet(t, tt.name, 40, tt.variants...)
			seeds := make([]Seed, 0, len(rows))
			for seed := range rows {
				seeds = append(seeds, seed)
			}
			rand.Shuffle(len(seeds), func(i, j int) { seeds[i], seeds[j] = seeds[j], seeds[i] })
			if *sample > 0 {
				seeds = seeds[:min(*sample, len(seeds))]
			}
			e := exponent(tt.variants[0])
			start, replayed := time.Now(), time.Duration(0)
			n := 0
			for k, err := range Generate(t.Context(), slices.Values(seeds), func(ctx context.Context, s Seed) (RSAKey, error) {
				return RSA(ctx, tt.bits, e, s)
			}) {
				if err != nil {
					t.Fatal(err)
				}
				seed := seeds[n]
				n++
				row, sum := rows[seed], Fingerprint(k.N)
				failed := Failed{int(binary.LittleEndian.Uint16(row[32:])), int(binary.LittleEndian.Uint16(row[34:]))}
				if !bytes.Equal(sum[:], row[:32]) || k.Failed != failed {
					t.Errorf("%v: got %x after %+v, want %x after %+v", seed, sum, k.Failed, row[:32], failed)
				}
				begin := time.Now()
				r, err := Replay(t.Context(), tt.bits, e, seed, failed)
				replayed += time.Since(begin)
				if err != nil || r.N.Cmp(k.N) != 0 {
					t.Errorf("%v: a replay of %+v makes another key (%v)", seed, failed, err)
				}
			}
			t.Logf("%d of %d keys in %v, their replays %v", n, len(rows), time.Since(start).Round(time.Second), replayed.Round(time.Millisecond))
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
