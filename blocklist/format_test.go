package blocklist

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"testing"
)

// seal makes length and digest of a tampered list right again, so that what
// lies behind them is reached.
func seal(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < headerBytes+digestBytes {
		return b
	}
	binary.LittleEndian.PutUint64(b[16:], uint64(len(b)))
	body := b[:len(b)-digestBytes]
	sum := sha256.Sum256(body)
	copy(b[len(body):], sum[:])
	return b
}

func TestParseRefuses(t *testing.T) {
	good, err := Build([]Source{smallSource("rsa3072", 1000), smallSource("rsa3073", 10)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(good); err != nil {
		t.Fatal(err)
	}
	// The first record: name length and "rsa3072" at 24, then source 32,
	// algorithm 33, bits 34, origins 36, keys 38, sections 42, kind 43, length 44.
	// The second: 52, with "rsa3073" at 53. The first section: 80.
	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want string // in the error
	}{
		{"empty", nil, "not a keyvet blocklist"},
		{"foreign", bytes.Repeat([]byte("foreign "), 100), "not a keyvet blocklist"},
		{"sent as text", bytes.Replace(good, []byte("\r\n"), []byte("\n"), 1), "not a keyvet blocklist"},
		{"magic alone", good[:8], "truncated"},
		{"half", good[:len(good)/2], "truncated"},
		{"one byte short", good[:len(good)-1], "truncated"},
		{"one byte more", append(bytes.Clone(good), 0), "1 bytes follow"},
		{"newer", change(8, version+1), "newer"},
		{"version 0", change(8, 0), "unknown"},
		{"a bit flipped", change(len(good)-40, good[len(good)-40]^1), "SHA-256"},
		{"digest flipped", change(len(good)-1, good[len(good)-1]^1), "SHA-256"},

		{"no sets", seal(change(10, 0)), "0 sets"},
		{"too many sets", seal(change(10, 65)), "65 sets"},
		{"more sets than records", seal(change(10, 3)), "directory ends early"},
		{"fewer sets than records", seal(change(10, 1)), "belong to no set"},
		{"directory beyond the end", seal(change(12, 0xff, 0xff, 0xff, 0xff)), "directory of"},
		{"directory cut", seal(change(12, 10)), "directory ends early"},
		{"no name", seal(change(24, 0)), "set name"},
		{"name beyond the directory", seal(change(24, 0xff)), "directory ends early"},
		{"name with a line break", seal(change(25, '\n')), "set name"},
		{"sets in the wrong order", seal(change(25, 'z')), "not in order"},
		{"two sets of a name", seal(change(53, []byte("rsa3072")...)), "not in order"},
		{"unknown source", seal(change(32, 9)), "newer keyvet"},
		{"unknown algorithm", seal(change(33, 9)), "algorithm 9"},
		{"RSA of 24 bits", seal(change(34, 24, 0)), "24 bits"},
		{"EC of 3072 bits", seal(change(33, 2)), "algorithm 2"},
		{"no origins", seal(change(36, 0, 0)), "origins"},
		{"unknown origins", seal(change(36, 0, 0x10)), "origins"},
		{"no keys", seal(change(38, 0, 0, 0, 0)), "0 keys"},
		{"too many keys", seal(change(38, 0, 0, 0, 0x80)), "keys"},
		{"no sections", seal(change(42, 0)), "0 sections"},
		{"unknown section", seal(change(43, 2)), "newer keyvet"},
		{"section beyond the end", seal(change(44, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), "are left"},
		{"empty section", seal(change(44, 0, 0)), "too short"},
		{"no probes", seal(change(80, 0)), "k = 0"},
		{"too many probes", seal(change(80, 65)), "k = 65"},
		{"no bits", seal(change(84, 0, 0, 0, 0)), "m = 0"},
		{"more bits than bytes", seal(change(84, 0, 0xff)), "m = "},
		{"bits beyond all", seal(change(84, 0, 0, 0, 0, 0, 0, 0, 0x80)), "m = "},
		{"rate of 1", seal(change(92, binary.LittleEndian.AppendUint64(nil, math.Float64bits(1))...)), "rate of 1"},
		{"rate not a number", seal(change(92, binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.NaN()))...)), "rate of NaN"},
	} {
		l, err := parse(tt.b)
		if err == nil || l != nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

const wantSmallList = "4d783e8bb5af2de5" // the first 8 bytes of the SHA-256

func TestBuildIsDeterministic(t *testing.T) {
	a, b := smallSource("a", 2000), smallSource("b", 300)
	one, err := Build([]Source{a, b})
	if err != nil {
		t.Fatal(err)
	}
	a.Fingerprints = slices.Clone(a.Fingerprints)
	slices.Reverse(a.Fingerprints)
	a.Origins = slices.Clone(a.Origins)
	slices.Reverse(a.Origins)
	two, err := Build([]Source{b, a})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("another order of the same sources gave other bytes")
	}
	// So that another machine's floating point would show.
	if sum := sha256.Sum256(one); hex.EncodeToString(sum[:8]) != wantSmallList {
		t.Errorf("SHA-256 %x, want %s…", sum, wantSmallList)
	}
}

func TestBuildRefuses(t *testing.T) {
	change := func(f func(*Source)) []Source {
		s := smallSource("rsa3072", 3)
		f(&s)
		return []Source{s}
	}
	for name, sources := range map[string][]Source{
		"nothing":           nil,
		"two of a name":     {smallSource("a", 1), smallSource("a", 1)},
		"a name with space": {smallSource("a b", 1)},
		"no keys":           {smallSource("a", 0)},
		"algorithm":         change(func(s *Source) { s.Algorithm = 0 }),
		"size":              change(func(s *Source) { s.Bits = 100 }),
		"no origins":        change(func(s *Source) { s.Origins = nil }),
		"unknown origin":    change(func(s *Source) { s.Origins = []Origin{{"vax", "rnd"}} }),
		"rate 0":            change(func(s *Source) { s.FalsePositiveRate = 0 }),
		"rate 1":            change(func(s *Source) { s.FalsePositiveRate = 1 }),
		"rate NaN":          change(func(s *Source) { s.FalsePositiveRate = math.NaN() }),
	} {
		if b, err := Build(sources); err == nil || b != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestRate measures the false positives of filters whose rate is high enough
// to be seen, against the rate that they state.
func TestRate(t *testing.T) {
	for _, rate := range []float64{0.1, 1e-2, 1e-3} {
		s := smallSource("a", 20000)
		s.FalsePositiveRate = rate
		l := buildList(t, s)
		stated := l.Sets()[0].FalsePositiveRate
		if stated > rate || stated < rate*0.7 {
			t.Errorf("a rate of %v was asked for, %v is stated", rate, stated)
		}
		for _, f := range s.Fingerprints {
			if has, err := l.Has("a", f); err != nil || !has {
				t.Fatalf("a fingerprint that went in is not found: %v", err)
			}
		}
		const tries = 300000
		hits := 0
		for i := range tries {
			has, err := l.Has("a", sha256.Sum256([]byte{1, byte(i), byte(i >> 8), byte(i >> 16)}))
			if err != nil {
				t.Fatal(err)
			}
			if has {
				hits++
			}
		}
		if got := float64(hits) / tries; math.Abs(got-stated) > 5*math.Sqrt(stated/tries) {
			t.Errorf("measured rate %v, stated %v", got, stated)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, sources := range [][]Source{
		{smallSource("rsa3072", 1)},
		{smallSource("a", 3), smallSource("b", 2)},
		{{Name: "p521", Algorithm: ECDSA, Bits: 521, Origins: []Origin{{"be32", "ssh"}}, FalsePositiveRate: 0.5, Fingerprints: make([][32]byte, 9)}},
	} {
		b, err := Build(sources)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parse(b) // as it comes
		l, err := parse(seal(b))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
			return
		}
		for _, s := range l.Sets() {
			if _, err := l.Has(s.Name, sha256.Sum256(b)); err != nil {
				t.Errorf("set %s of a good list: %v", s.Name, err)
			}
		}
		if len(l.Info().Sets) == 0 {
			t.Error("a good list without sets")
		}
	})
}
