package blocklist

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

var keysFile = flag.String("keys", "testdata/published.tsv", "published keys in `FILE`, all of which make the lists that are built: make verify-published")

// readPublished reads a file of keys: first the SHA-256 of the number, if there
// is one, then that of the SubjectPublicKeyInfo.
func readPublished(tb testing.TB, path string) (all []NamedKey) {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		c := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if line[0] == '#' {
			continue
		}
		key := NamedKey{Entry: Entry{Name: c[2], Source: c[3], Class: c[4]}}
		for _, digits := range []string{c[5], c[0]} {
			if digits == "" {
				continue
			}
			sum, err := hex.DecodeString(digits)
			if err != nil {
				tb.Fatal(err)
			}
			key.SHA256 = append(key.SHA256, sum)
		}
		all = append(all, key)
	}
	return all
}

func namedSource(tb testing.TB, keys []NamedKey) Source {
	tb.Helper()
	return Source{
		Set:   Set{Name: "published", Kind: Named, Title: "published keys", Reason: "KEYVET_X", Cite: "https://x.y", Licence: "facts"},
		Named: keys, Deflate: func(text []byte) ([]byte, error) { return deflate(tb, text, flate.BestCompression), nil },
	}
}

// namedList is a set of named keys with all names unpacked once.
type namedList struct {
	set   *set
	names []Entry
}

func openNames(t *testing.T, lists ...*List) (all []namedList) {
	t.Helper()
	for _, l := range lists {
		for i := range l.sets {
			n := namedList{set: &l.sets[i]}
			if n.set.Kind != Named {
				continue
			}
			for e, err := range n.set.named.all() {
				if err != nil {
					t.Fatal(err)
				}
				n.names = append(n.names, e)
			}
			all = append(all, n)
		}
	}
	return all
}

// entriesOf are the entries of a SHA-256.
func entriesOf(sum []byte, lists ...namedList) (all []Entry) {
	for _, n := range lists {
		for _, place := range n.set.named.find(fingerprint(sum)) {
			all = append(all, n.names[place])
		}
	}
	return all
}

// TestPublished builds a list of all keys of a file: each is found by either
// SHA-256, with name, class and source, and by no SHA-256 of which a bit differs.
// The lists that are shipped have each by the first of the two.
func TestPublished(t *testing.T) {
	keys := readPublished(t, *keysFile)
	built := buildList(t, namedSource(t, keys))
	l, shipped := openNames(t, built)[0], openNames(t, shippedLists(t)...)
	r := rand.New(rand.NewPCG(1, 2))
	for _, key := range keys {
		for i, sum := range key.SHA256 {
			if got := entriesOf(sum, l); !slices.Contains(got, key.Entry) || len(got) > 2 {
				t.Fatalf("%x: %v, want %v", sum, got, key.Entry)
			}
			if got := entriesOf(sum, shipped...); i == 0 && !slices.Contains(got, key.Entry) {
				t.Fatalf("the shipped lists have %v of %x, want %v", got, sum, key.Entry)
			}
			other := bytes.Clone(sum)
			bit := r.IntN(8 * fingerprintBytes)
			other[bit/8] ^= 1 << (bit % 8)
			if got := entriesOf(other, append(shipped, l)...); got != nil {
				t.Fatalf("%x, a bit off, is %v", other, got)
			}
		}
	}
	random := 20_000
	if len(keys) > 10_000 {
		random = 1_000_000
	}
	for i := range random {
		sum := sha256.Sum256(fmt.Appendf(nil, "random %d", i))
		if got := entriesOf(sum[:], append(shipped, l)...); got != nil {
			t.Fatalf("%x is %v", sum, got)
		}
	}
	set := built.Sets()[0]
	t.Logf("%d keys found, each by its %.2f fingerprints, in %d bytes; none a bit off, none of %d at random", len(keys), float64(set.Fingerprints)/float64(set.Keys), set.Bytes, random)
}

// shippedLists are the one of the binary and the one of the packages.
func shippedLists(t *testing.T) (lists []*List) {
	t.Helper()
	for _, name := range []string{"embedded.kvf", "compromised.kvf"} {
		l, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		lists = append(lists, l)
	}
	return lists
}

// TestShippedNames reads every name of the lists that are shipped.
func TestShippedNames(t *testing.T) {
	classes := make(map[string]int)
	for _, l := range shippedLists(t) {
		for _, s := range l.Sets() {
			if s.Kind != Named {
				continue
			}
			for e, err := range l.Entries(s.Name) {
				if err != nil {
					t.Fatal(err)
				}
				classes[e.Class]++
			}
			if s.Licence == "" || s.FalsePositiveRate > 1.0/(1<<60) {
				t.Errorf("set %s: licence %q, rate %v", s.Name, s.Licence, s.FalsePositiveRate)
			}
			if s.Name == "firmware-keys" && s.Bytes > 110_000 {
				t.Errorf("set %s takes %d bytes in the binary, more than 110,000", s.Name, s.Bytes)
			}
		}
	}
	want := map[string]int{
		"uefi-pk": 6, "intel-leak": 40, "firmware-dev": 207, "firmware-image": 3657, "ssh-default": 61,
		"test-suite": 123, "rfc": 35, "web": 818, "package": 9231, "git": 70881,
	}
	for class, n := range want {
		if classes[class] != n {
			t.Errorf("%d keys of the class %s, want %d", classes[class], class, n)
		}
	}
	if len(classes) != len(want) {
		t.Errorf("classes %v", classes)
	}
}

// TestGoodCertificates looks up the CAs that Debian trusts: none is published.
// Where there are none, only a run over all keys fails.
func TestGoodCertificates(t *testing.T) {
	files, err := filepath.Glob("/usr/share/ca-certificates/*/*.crt")
	if err != nil || *keysFile != flag.Lookup("keys").DefValue && len(files) == 0 {
		t.Fatal("no certificates: install ca-certificates", err)
	}
	lists := Lists(shippedLists(t))
	for _, name := range files {
		c := readCertificate(t, name)
		k := device.Key{Public: c.PublicKey, SPKI: c.RawSubjectPublicKeyInfo}
		if got, asked, err := lists.Compromised(k); len(got) > 0 || !asked || err != nil {
			t.Errorf("%s: %v, asked %v, %v", name, got, asked, err)
		}
	}
	t.Logf("none of %d certificates", len(files))
}

func TestParseRefusesNamed(t *testing.T) {
	keys := readPublished(t, "testdata/published.tsv")[:3]
	for i := range keys {
		keys[i].SHA256 = keys[i].SHA256[:1]
		keys[i].Entry = Entry{Name: "name", Class: "class", Source: "source"}
	}
	good, err := Build([]Source{namedSource(t, keys)})
	if err != nil {
		t.Fatal(err)
	}
	// Name length and "published" at 24, kind 34, keys 35, then title and its
	// kin; fingerprints and bytes are the last 12 of the directory.
	section := headerBytes + int(binary.LittleEndian.Uint32(good[12:]))
	places := section + 3*fingerprintBytes
	lengths := places + 1 + placePad
	for _, tt := range []struct {
		name string
		at   int
		to   []byte
		want string
	}{
		{"no fingerprint of a key", section - 12, []byte{2}, "2 fingerprints of 3 keys"},
		{"fingerprints beyond all", section - 12, []byte{0, 0, 0, 0x80}, "fingerprints of 3 keys"},
		{"fingerprints beyond the section", section - 12, []byte{100}, "bytes for 100 fingerprints"},
		{"keys beyond all", 35, []byte{0, 0, 0, 0x7f}, "fingerprints of"},
		{"section beyond the end", section - 8, []byte{0, 0, 0, 0, 1}, "fewer are left"},
		{"section of nothing", section - 8, []byte{0, 0}, "bytes for 3 fingerprints"},
		{"not in order", section, []byte{0xff}, "not in order"},
		{"place beyond the keys", places, []byte{0xff}, "of the key 3 of 3"},
		{"block beyond the end", lengths, []byte{0xff, 0xff}, "do not fit"},
		{"block before the end", lengths, []byte{1, 0}, "do not fit"},
	} {
		b := bytes.Clone(good)
		copy(b[tt.at:], tt.to)
		if l, err := parseWhole(reseal(b)); err == nil || l != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}

	// What only a hit reads: the key is listed without its name.
	b := bytes.Clone(good)
	b[lengths+4] ^= 0x07 // a block of no type that there is
	l, err := parseWhole(reseal(b))
	if err != nil {
		t.Fatal(err)
	}
	got, asked, err := l.compromised(keySums{number: [][sha256.Size]byte{[sha256.Size]byte(keys[0].SHA256[0])}})
	if len(got) != 1 || got[0].Name != "" || got[0].List != "published keys" || !asked || err != nil {
		t.Errorf("%v, asked %v, %v", got, asked, err)
	}
	for _, err := range l.Entries("published") {
		if err == nil {
			t.Error("a damaged block has a name")
		}
	}
	for _, err := range l.Entries("none") {
		if err == nil {
			t.Error("a set that is not there has names")
		}
	}
}

func TestBuildRefusesNamed(t *testing.T) {
	for name, change := range map[string]func(*Source){
		"no keys":        func(s *Source) { s.Named = nil },
		"nothing packs":  func(s *Source) { s.Deflate = nil },
		"no sums":        func(s *Source) { s.Named[0].SHA256 = nil },
		"a short sum":    func(s *Source) { s.Named[0].SHA256 = [][]byte{make([]byte, 20)} },
		"no name":        func(s *Source) { s.Named[0].Name = "" },
		"no class":       func(s *Source) { s.Named[0].Class = "" },
		"a tab":          func(s *Source) { s.Named[0].Source = "a\tb" },
		"a line break":   func(s *Source) { s.Named[0].Name = "a\nb" },
		"a long name":    func(s *Source) { s.Named[0].Name = strings.Repeat("a", 256) },
		"a long licence": func(s *Source) { s.Licence = strings.Repeat("a", 256) },
		"licence bell":   func(s *Source) { s.Licence = "\a" },
	} {
		s := namedSource(t, readPublished(t, "testdata/published.tsv"))
		change(&s)
		if b, err := Build([]Source{s}); err == nil || b != nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestTakeOver builds a list of two others: the sets stay as they are, in any
// order, and so do bytes.
func TestTakeOver(t *testing.T) {
	keys := readPublished(t, "testdata/published.tsv")
	one, two := smallSource("a", 50), namedSource(t, keys)
	slices.Reverse(keys)
	both, err := Build([]Source{one, two})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(append(buildList(t, namedSource(t, keys)).Sources(), buildList(t, one).Sources()...))
	if err != nil || !bytes.Equal(both, again) {
		t.Errorf("other bytes, %v", err)
	}
	if _, err := Build(append(buildList(t, one).Sources(), one)); err == nil {
		t.Error("two sets of a name")
	}
}
