package blocklist

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/blocklist/debian"
)

// reseal makes the digests of a tampered list right again, so that what lies
// behind them is reached.
func reseal(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < headerBytes {
		return b
	}
	directory, end := uint64(binary.LittleEndian.Uint32(b[12:])), binary.LittleEndian.Uint64(b[16:])
	if end > uint64(len(b)) || headerBytes+directory > end {
		return b
	}
	return seal(b[:end:end], int(directory))
}

// parseWhole is parse and all of the list's own checks.
func parseWhole(b []byte) (*List, error) {
	l, err := parse(b, "the list")
	if err == nil {
		err = l.Check()
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

func TestParseRefuses(t *testing.T) {
	good, err := Build([]Source{smallSource("rsa3072", 1000), smallSource("rsa3073", 10)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseWhole(good); err != nil {
		t.Fatal(err)
	}
	// The first record: name length and "rsa3072" at 24, then kind 32, keys 33,
	// algorithm 37, bits 38, origins 40, exponent 42, candidates 46, of the filter k
	// 48, m 49 and rate 57, of the index seed 65 and slots 69. The second: 73, with
	// "rsa3073" at 74. Sections: 122.
	const sections = 122
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
		{"older", change(8, 1), "no longer read"},
		{"a digest flipped", change(len(good)-40, good[len(good)-40]^1), "SHA-256"},
		{"a bit of the directory flipped", change(57, good[57]^1), "SHA-256"},
		{"a bit of the sections flipped", change(sections, good[sections]^1), "SHA-256"},
		{"digest flipped", change(len(good)-1, good[len(good)-1]^1), "SHA-256"},

		{"no sets", reseal(change(10, 0)), "0 sets"},
		{"too many sets", reseal(change(10, 65)), "65 sets"},
		{"more sets than records", reseal(change(10, 3)), "directory ends early"},
		{"fewer sets than records", reseal(change(10, 1)), "belong to no set"},
		{"directory beyond the end", change(12, 0xff, 0xff, 0xff, 0xff), "a directory to 4294967319"},
		{"sections beyond all", change(16, 0, 0, 0, 0x20), "sections to 536870912"},
		{"directory cut", reseal(change(12, 10)), "directory ends early"},
		{"no name", reseal(change(24, 0)), "set name"},
		{"name beyond the directory", reseal(change(24, 0xff)), "directory ends early"},
		{"name with a line break", reseal(change(25, '\n')), "set name"},
		{"sets in the wrong order", reseal(change(25, 'z')), "not in order"},
		{"two sets of a name", reseal(change(74, []byte("rsa3072")...)), "not in order"},
		{"unknown kind", reseal(change(32, 9)), "newer keyvet"},
		{"no keys", reseal(change(33, 0, 0, 0, 0)), "0 keys"},
		{"too many keys", reseal(change(33, 0, 0, 0, 0x80)), "keys"},
		{"unknown algorithm", reseal(change(37, 9)), "algorithm 9"},
		{"RSA of 24 bits", reseal(change(38, 24, 0)), "24 bits"},
		{"EC of 3072 bits", reseal(change(37, 2)), "algorithm 2"},
		{"EC with an exponent", reseal(change(37, 2, 0, 1)), "exponent 65537"},
		{"no origins", reseal(change(40, 0, 0)), "origins"},
		{"unknown origins", reseal(change(40, 0, 0x10)), "origins"},
		{"exponent 1", reseal(change(42, 1, 0, 0)), "exponent 1"},
		{"even exponent", reseal(change(42, 2)), "exponent 65538"},
		{"large exponent", reseal(change(42, 1, 0, 0, 0x80)), "exponent"},
		{"no candidates", reseal(change(46, 0, 0)), "0 candidates"},
		{"filter beyond the end", reseal(change(49, 0, 0, 0, 2)), "fewer are left"},
		{"no probes", reseal(change(48, 0)), "k = 0"},
		{"too many probes", reseal(change(48, 65)), "k = 65"},
		{"no bits", reseal(change(49, 0, 0, 0, 0)), "m = 0"},
		{"bits of no word", reseal(change(49, 1)), "m = "},
		{"bits beyond all", reseal(change(49, 0, 0, 0, 0, 0, 0, 0, 0x80)), "m = "},
		{"rate of 1", reseal(change(57, binary.LittleEndian.AppendUint64(nil, math.Float64bits(1))...)), "rate of 1"},
		{"rate not a number", reseal(change(57, binary.LittleEndian.AppendUint64(nil, math.Float64bits(math.NaN()))...)), "rate of NaN"},
		{"few slots", reseal(change(69, rowBits-1, 0, 0, 0)), "191 slots"},
		{"too many slots", reseal(change(69, 0xff, 0xff, 0xff, 0xff)), "4294967295 slots"},
		{"slots beyond the end", reseal(change(69, 0, 0, 1, 0)), "fewer bytes are left"},
		{"another number of slots", reseal(change(69, good[69]-8)), "belong to no set"},
	} {
		l, err := parseWhole(tt.b)
		if err == nil || l != nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// ownSource is a set of n made-up fingerprints.
func ownSource(n int) Source {
	s := Source{Set: Set{Name: "spki-sha256", Kind: SPKISHA256, Title: "ours", Reason: "KEYVET_X"}}
	for i := range n {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		s.Fingerprints = append(s.Fingerprints, sum[:])
	}
	return s
}

func TestParseRefusesOwnLists(t *testing.T) {
	good, err := Build([]Source{ownSource(3)})
	if err != nil {
		t.Fatal(err)
	}
	// Name length and "spki-sha256" at 24, kind 36, keys 37, title 41 with
	// "ours" at 42, reason 46 with "KEYVET_X" at 47, bytes 55, section 63.
	change := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return reseal(b)
	}
	if _, err := parseWhole(change(42, []byte("OURS")...)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"title beyond the directory", change(41, 0xff), "directory ends early"},
		{"title with a line break", change(42, '\n'), "plain ASCII"},
		{"reason with a space", change(47, ' '), "reason code"},
		{"another number of keys", change(37, 2), "96 bytes for 2 fingerprints"},
		{"another kind", change(36, 3), "96 bytes for 3 fingerprints of 10"},
		{"more keys than there are", change(37, 4, 0, 0, 0, 4, 'o', 'u', 'r', 's', 8, 'K', 'E', 'Y', 'V', 'E', 'T', '_', 'X', 128), "fewer are left"},
		{"not in order", change(63, 0xff), "not in order"},
	} {
		if l, err := parseWhole(tt.b); err == nil || l != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestParseRefusesNames(t *testing.T) {
	s := ownSource(2)
	s.Name, s.Kind, s.Cite, s.Names = "compromised", Compromised, "https://x.y", []string{"cd", "ab"}
	good, err := Build([]Source{s})
	if err != nil {
		t.Fatal(err)
	}
	section := bytes.LastIndex(good, append([]byte{2}, "ab"...)) // the names end the section; before them are two numbers
	if names := good[section : len(good)-digestBytes-pageDigestBytes]; len(names) != 6 {
		t.Fatalf("names %q", names)
	}
	cite := bytes.Index(good, []byte("https://x.y"))
	for _, tt := range []struct {
		at   int
		to   string
		want string
	}{
		{section - 8, "\x06", "outside"},
		{section - 4, "\x00\x00\x00\x80", "outside"},
		{section, "\x06", "outside"},
		{section + 1, "\x1b", "plain ASCII"},
		{cite, "gopher", "not a URL"},
		{cite + 8, "\n", "plain ASCII"},
	} {
		b := bytes.Clone(good)
		copy(b[tt.at:], tt.to)
		if l, err := parseWhole(reseal(b)); err == nil || l != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q at %d: error %v, want %q", tt.to, tt.at, err, tt.want)
		}
	}
}

const wantSmallList = "881822659eebd48a" // the first 8 bytes of the SHA-256

func TestBuildIsDeterministic(t *testing.T) {
	a, b := smallSource("a", 2000), smallSource("b", 300)
	one, err := Build([]Source{a, ownSource(9), b})
	if err != nil {
		t.Fatal(err)
	}
	a.Keys = append(slices.Clone(a.Keys), a.Keys[7]) // one twice
	slices.Reverse(a.Keys)
	a.Origins = slices.Clone(a.Origins)
	slices.Reverse(a.Origins)
	own := ownSource(9)
	slices.Reverse(own.Fingerprints)
	two, err := Build([]Source{b, a, own})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("another order of the same sources gave other bytes")
	}
	// So that another machine's arithmetic would show.
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
	own := func(f func(*Source)) []Source {
		s := ownSource(2)
		f(&s)
		return []Source{s}
	}
	for name, sources := range map[string][]Source{
		"nothing":             nil,
		"two of a name":       {smallSource("a", 1), smallSource("a", 1)},
		"a name with space":   {smallSource("a b", 1)},
		"no keys":             {smallSource("a", 0)},
		"kind":                change(func(s *Source) { s.Kind = 0 }),
		"algorithm":           change(func(s *Source) { s.Algorithm = 0 }),
		"size":                change(func(s *Source) { s.Bits = 100 }),
		"exponent":            change(func(s *Source) { s.Exponent = 4 }),
		"candidates":          change(func(s *Source) { s.Candidates = 0 }),
		"too many candidates": change(func(s *Source) { s.Candidates = 1 << 16 }),
		"no origins":          change(func(s *Source) { s.Origins = nil }),
		"a key of none":       change(func(s *Source) { s.Origins = s.Origins[:1] }),
		"no fingerprints":     own(func(s *Source) { s.Fingerprints = nil }),
		"a short fingerprint": own(func(s *Source) { s.Fingerprints[1] = s.Fingerprints[1][:31] }),
		"no title":            own(func(s *Source) { s.Title = "" }),
		"a small reason":      own(func(s *Source) { s.Reason = "keyvet" }),
		"a long name":         own(func(s *Source) { s.Names = []string{strings.Repeat("a", 256), ""} }),
		"a name with a bell":  own(func(s *Source) { s.Names = []string{"\a", ""} }),
		"a name too few":      own(func(s *Source) { s.Names = []string{"a"} }),
		"an address of none":  own(func(s *Source) { s.Cite = "ours" }),
	} {
		if b, err := Build(sources); err == nil || b != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestBuildSizes looks up every key of sets of all sizes: each has its seed.
func TestBuildSizes(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 16, 33, 100, 1000, 5000, 20000} {
		s := smallSource("a", n)
		l := buildList(t, s)
		for _, key := range s.Keys {
			if got, ok := l.sets[0].passes(key.ID); !ok || got != key.Seed.Pack() {
				t.Fatalf("%d keys: %v has the value %d, %v", n, key, got, ok)
			}
		}
		if got := 8 * float64(l.sets[0].Bytes) / float64(n); n >= 20000 && got > 27 {
			t.Errorf("%d keys take %.1f bits each", n, got)
		}
	}
}

// TestFilterRate measures what passes the filter against the rate it states.
func TestFilterRate(t *testing.T) {
	l := buildList(t, smallSource("a", 20000))
	stated := l.Sets()[0].FilterRate
	const tries = 300000
	passed := 0
	for i := range tries {
		sum := sha256.Sum256([]byte{1, byte(i), byte(i >> 8), byte(i >> 16)})
		passes, err := l.Passes("a", NewKeyID(new(big.Int).SetBytes(sum[:])))
		if err != nil {
			t.Fatal(err)
		}
		if passes {
			passed++
		}
	}
	if got := float64(passed) / tries; math.Abs(got-stated) > 6*math.Sqrt(stated/tries) || stated > 0.02 {
		t.Errorf("measured rate %v, stated %v", got, stated)
	}
	if _, err := l.Passes("b", KeyID{}); err == nil {
		t.Error("no error for a set that is not there")
	}
}

func FuzzParse(f *testing.F) {
	for _, sources := range [][]Source{
		{smallSource("rsa3072", 1)},
		{smallSource("a", 3), ownSource(2)},
		{{Set: Set{
			Name: "p521", Kind: Debian, Algorithm: ECDSA, Bits: 521, Origins: []Origin{{debian.BE32, debian.NoRnd}},
		}, Keys: []Key{{KeyID{1, 2}, debian.Seed{Arch: debian.BE32, Variant: debian.NoRnd, PID: 3}}}}},
		{{Set: Set{
			Name: "openssl-blacklist", Kind: OpenSSLBlacklist, Title: "x", Reason: "X",
		}, Fingerprints: [][]byte{make([]byte, 10)}}},
		{{Set: Set{
			Name: "compromised", Kind: Compromised, Title: "x", Reason: "X", Cite: "https://x",
		}, Fingerprints: [][]byte{make([]byte, 32), append(make([]byte, 31), 1)}, Names: []string{"a", ""}}},
		{namedSource(f, readPublished(f, "testdata/published.tsv")[:3])},
	} {
		b, err := Build(sources)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(magic))
	n := new(big.Int).Lsh(big.NewInt(3), 3070)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parse(b, "") // as it comes
		l, err := parseWhole(reseal(b))
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
			return
		}
		for i := range l.sets {
			s := &l.sets[i]
			switch s.Kind {
			case Debian:
				s.filter.has(KeyID{1, 2})
				s.index.get(NewKeyID(n))
				s.passes(NewKeyID(n))
			case Named:
				s.findNamed(keySums{number: [][sha256.Size]byte{{}, [sha256.Size]byte(b[:sha256.Size])}})
				for _, err := range l.Entries(s.Name) {
					if err != nil {
						break
					}
				}
			default:
				s.find(make([]byte, s.Kind.entryBytes()))
				for at := range s.Keys {
					s.entryName(at)
				}
			}
		}
		if len(l.Info().Sets) == 0 {
			t.Error("a good list without sets")
		}
	})
}
