package blocklist

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
)

// embeddedList is the list that is embedded, from its file where it is left out.
func embeddedList(t testing.TB) *List {
	t.Helper()
	l, err := Embedded()
	if errors.Is(err, ErrNotEmbedded) {
		l, err = Open("embedded.kvf")
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// vectors reads the lines of a file in testdata, split into words.
func vectors(t testing.TB, name string) (all [][]string) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		all = append(all, strings.Fields(lines.Text()))
	}
	if len(all) < 6 {
		t.Fatalf("%s has %d vectors", name, len(all))
	}
	return all
}

func number(t testing.TB, hex string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(hex, 16)
	if !ok {
		t.Fatalf("not a number: %q", hex)
	}
	return n
}

func rsaVectors(t testing.TB, name string) (all []*rsa.PublicKey) {
	for _, v := range vectors(t, name) {
		all = append(all, &rsa.PublicKey{N: number(t, v[6]), E: 65537})
	}
	return all
}

func ecVectors(t testing.TB, name string, curve elliptic.Curve) (all []*ecdsa.PublicKey) {
	for _, v := range vectors(t, name) {
		x, y := strings.TrimPrefix(v[5], "x="), strings.TrimPrefix(v[6], "y=")
		all = append(all, &ecdsa.PublicKey{Curve: curve, X: number(t, x), Y: number(t, y)})
	}
	return all
}

func lookup(t testing.TB, l interface {
	Lookup(context.Context, crypto.PublicKey) (device.Listing, error)
}, pub crypto.PublicKey) device.Listing {
	t.Helper()
	listing, err := l.Lookup(t.Context(), pub)
	if err != nil {
		t.Fatal(err)
	}
	return listing
}

func compromised(t testing.TB, l interface {
	Compromised(device.Key) ([]device.Compromised, bool, error)
}, pub crypto.PublicKey) []device.Compromised {
	t.Helper()
	entries, asked, err := l.Compromised(device.Key{Public: pub})
	if err != nil || !asked {
		t.Fatal(asked, err)
	}
	return entries
}

// TestCoverage holds what is said of a key of each size against the sets that
// the lists have.
func TestCoverage(t *testing.T) {
	l := embeddedList(t)
	rest, _ := oneKey(t) // the groups that the embedded list lacks, by their names
	rest.Bits, rest.Origins = 4096, []Origin{
		{debian.LE64, debian.Rnd}, {debian.BE32, debian.Rnd}, {debian.BE32, debian.NoReadRnd}, {debian.BE32, debian.NoRnd}, {debian.LE64, debian.SSH},
	}
	rest.Name = "rest"
	ssh := rest
	ssh.Name, ssh.Origins = "ssh", []Origin{{debian.LE64, debian.Rnd}, {debian.LE32, debian.SSH}, {debian.BE32, debian.SSH}}
	modulus := func(bits uint) crypto.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), int(bits)-1, 1), E: 65537}
	}
	point := func(c elliptic.Curve) crypto.PublicKey { return ecVectors(t, "p256.txt", c)[0] }
	for _, tt := range []struct {
		lists           Lists
		pub             crypto.PublicKey
		covered         bool
		looked, missing string
	}{
		{Lists{l}, modulus(2048), true, "le32, le64, be32, ssh-keygen", ""},
		{Lists{l}, modulus(4096), false, "le32, le64", "be32, ssh-keygen"},
		{Lists{l, buildList(t, rest)}, modulus(4096), false, "le32, le64, be32, ssh-keygen on le64", "ssh-keygen on le32, ssh-keygen on be32"},
		{Lists{l, buildList(t, rest), buildList(t, ssh)}, modulus(4096), true, "le32, le64, be32, ssh-keygen", ""},
		{Lists{l, buildList(t, rest, ssh)}, modulus(4096), true, "le32, le64, be32, ssh-keygen", ""},
		{Lists{l}, modulus(3072), false, "", "le32, le64, be32, ssh-keygen"},
		{Lists{l}, point(elliptic.P384()), true, "le32, le64, be32", ""},
		{Lists{l}, point(elliptic.P521()), false, "", "le32, le64, be32"},
		{Lists{l}, point(elliptic.P224()), false, "", "le32, le64, be32"},
		{nil, modulus(2048), false, "", "le32, le64, be32, ssh-keygen"},
	} {
		got := lookup(t, tt.lists, tt.pub)
		if got.Covered != tt.covered || got.Looked != tt.looked || got.Missing != tt.missing {
			t.Errorf("%d lists, %s: covered %v, looked up %q, missing %q", len(tt.lists), (device.Key{Public: tt.pub}).Algorithm(), got.Covered, got.Looked, got.Missing)
		}
	}
	want := []Coverage{
		{"ECDSA-P256", "le32, le64, be32", ""}, {"ECDSA-P384", "le32, le64, be32", ""},
		{"RSA-2048", "le32, le64, be32, ssh-keygen", ""}, {"RSA-4096", "le32, le64", "be32, ssh-keygen"},
	}
	if got := l.Coverage(); !slices.Equal(got, want) {
		t.Errorf("the list covers %+v", got)
	}
	want = []Coverage{{"RSA-4096", "le64-rnd, be32, ssh-keygen", "le32, le64-noreadrnd, le64-nornd"}}
	if got := buildList(t, ownSource(2), rest, ssh).Coverage(); !slices.Equal(got, want) {
		t.Errorf("the list covers %+v", got)
	}
}

func TestWeakKeysAreListed(t *testing.T) {
	l := embeddedList(t)
	check := func(pub crypto.PublicKey, name string, vector []string) {
		t.Helper()
		got := lookup(t, l, pub)
		if !got.Listed || !got.Exact || got.Set != name || got.Name != "Debian weak keys" || got.Covered == (name == "rsa4096") {
			t.Errorf("%s: %+v", name, got)
		}
		if fmt.Sprint(got.Proof["architecture"], " ", got.Proof["variant"], " ", got.Proof["pid"]) != strings.Join(vector[1:4], " ") {
			t.Errorf("%s: proof %v of key %v", name, got.Proof, vector[:4])
		}
		factor, _ := got.Proof["factor"].(string)
		switch pub.(type) {
		case *ecdsa.PublicKey:
			if factor != "" {
				t.Errorf("%s: proof %v", name, got.Proof)
			}
		default:
			if !strings.EqualFold(factor, vector[7]) && !strings.EqualFold(factor, vector[8]) {
				t.Errorf("%s: factor %s is none of %s", name, factor, vector[7:])
			}
		}
	}
	for name, file := range map[string]string{"rsa2048": "rsa2048.txt", "rsa2048-ssh": "rsa2048-ssh.txt", "rsa4096": "rsa4096.txt"} {
		vectors := vectors(t, file)
		for i, pub := range rsaVectors(t, file) {
			check(pub, name, vectors[i])
			check(&device.LargeRSA{N: pub.N, E: new(big.Int).Lsh(big.NewInt(1), 40)}, name, vectors[i])
		}
	}
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384()} {
		vectors := vectors(t, name+".txt")
		for i, pub := range ecVectors(t, name+".txt", curve) {
			check(pub, name, vectors[i])
			check(&ecdsa.PublicKey{Curve: curve, X: pub.X, Y: big.NewInt(1)}, name, vectors[i]) // off the curve
		}
	}
}

// randomModulus is a number of size bits such as two primes could make.
func randomModulus(size int) *big.Int {
	b := make([]byte, size/8)
	rand.Read(b)
	b[0] |= 0x80
	b[len(b)-1] |= 1
	return new(big.Int).SetBytes(b)
}

// TestOtherKeysAreNotListed takes random keys, a hundredth of which passes the
// filter.
func TestOtherKeysAreNotListed(t *testing.T) {
	l := embeddedList(t)
	passed := make(map[string]int)
	check := func(pub crypto.PublicKey, name string) {
		t.Helper()
		if got := lookup(t, l, pub); !got.Covered || got.Listed || got.Set != "" {
			t.Fatalf("%s: %+v %v", name, got, pub)
		}
		n, err := identify(pub)
		if err != nil {
			t.Fatal(err)
		}
		passes, err := l.Passes(name, NewKeyID(n.Int))
		if err != nil {
			t.Fatal(err)
		}
		if passes {
			passed[name]++
		}
	}
	const tries = 10000
	for range tries {
		check(&rsa.PublicKey{N: randomModulus(2048), E: 65537}, "rsa2048")
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		check(&key.PublicKey, "p256")
	}
	for _, s := range l.Sets() {
		sigma := math.Sqrt(tries * s.FilterRate)
		if n := passed[s.Name]; (s.Name == "rsa2048" || s.Name == "p256") && math.Abs(float64(n)-tries*s.FilterRate) > 6*sigma {
			t.Errorf("%s: %d of %d keys passed the filter, whose rate is %v", s.Name, n, tries, s.FilterRate)
		}
	}
}

// TestMadeForTheFilter has keys with the low 128 bits of a weak one: they pass
// the filter and the index names a seed, which does not make them.
func TestMadeForTheFilter(t *testing.T) {
	l := embeddedList(t)
	for _, pub := range rsaVectors(t, "rsa2048.txt") {
		n := new(big.Int).Xor(pub.N, new(big.Int).Lsh(big.NewInt(5), 1500))
		if NewKeyID(n) != NewKeyID(pub.N) {
			t.Fatal("other low bits")
		}
		if got := lookup(t, l, &rsa.PublicKey{N: n, E: 65537}); !got.Covered || got.Listed {
			t.Errorf("%+v", got)
		}
	}
	for _, pub := range ecVectors(t, "p256.txt", elliptic.P256()) {
		x := new(big.Int).Xor(pub.X, new(big.Int).Lsh(big.NewInt(5), 200))
		if got := lookup(t, l, &ecdsa.PublicKey{Curve: elliptic.P256(), X: x, Y: pub.Y}); !got.Covered || got.Listed {
			t.Errorf("%+v", got)
		}
	}
}

// TestHitNotConfirmed lets the deadline pass between the filter and the
// confirmation, and has the context cancelled there.
func TestHitNotConfirmed(t *testing.T) {
	l := embeddedList(t)
	vector := vectors(t, "rsa2048.txt")[0]
	weak := rsaVectors(t, "rsa2048.txt")[0]
	got, err := l.Lookup(&lateContext{t.Context(), context.DeadlineExceeded, 1}, weak)
	if err != nil || !got.Listed || got.Exact || got.Proof["note"] != "hit, not confirmed" || fmt.Sprint(got.Proof["pid"]) != vector[3] {
		t.Errorf("deadline: %+v, %v", got, err)
	}
	got, err = l.Lookup(&lateContext{t.Context(), context.Canceled, 1}, weak)
	if !errors.Is(err, context.Canceled) || got.Listed || got.Covered {
		t.Errorf("cancelled: %+v, %v", got, err)
	}
}

// lateContext ends after it was asked a few times.
type lateContext struct {
	context.Context
	end  error
	left int
}

func (c *lateContext) Err() error {
	if c.left == 0 {
		return c.end
	}
	c.left--
	return nil
}

func (c *lateContext) Done() <-chan struct{} {
	ended := make(chan struct{})
	if c.left == 0 {
		close(ended)
	}
	return ended
}

func TestNotCovered(t *testing.T) {
	l := embeddedList(t)
	secp256k1 := &elliptic.CurveParams{Name: "secp256k1", BitSize: 256, P: big.NewInt(7), N: big.NewInt(7), B: big.NewInt(7)}
	weak := ecVectors(t, "p256.txt", secp256k1)[0]
	for name, pub := range map[string]crypto.PublicKey{
		"a size without a set":       rsaVectors(t, "rsa1024.txt")[0],
		"2047 bits":                  &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 3},
		"a curve without a set":      &ecdsa.PublicKey{Curve: elliptic.P521(), X: weak.X, Y: weak.Y},
		"another curve of that size": weak,
		"Ed25519":                    ed25519.PublicKey(make([]byte, 32)),
		"an algorithm by name":       &device.OtherKey{Algorithm: "DSA-1024"},
		"no key":                     nil,
	} {
		if got := lookup(t, l, pub); got.Covered || got.Listed {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestLookupUndecided(t *testing.T) {
	l := embeddedList(t)
	for name, pub := range map[string]crypto.PublicKey{
		"RSA without a modulus":     &rsa.PublicKey{},
		"a negative modulus":        &rsa.PublicKey{N: big.NewInt(-5)},
		"large RSA without modulus": &device.LargeRSA{},
		"EC without a curve":        &ecdsa.PublicKey{},
		"EC without a point":        &ecdsa.PublicKey{Curve: elliptic.P256()},
		"x outside the field":       &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int).Lsh(big.NewInt(1), 256)},
		"negative x":                &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(-1)},
	} {
		if got, err := l.Lookup(t.Context(), pub); err == nil || got.Covered {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := l.Lookup(ctx, rsaVectors(t, "rsa2048.txt")[0]); err == nil || got.Listed {
		t.Errorf("context done: %+v, %v", got, err)
	}
}

func TestKeyID(t *testing.T) {
	mask := new(big.Int).SetUint64(1<<64 - 1)
	for _, size := range []int{0, 1, 31, 32, 33, 63, 64, 65, 96, 97, 127, 128, 129, 192, 2048} {
		n := new(big.Int).Lsh(big.NewInt(1), uint(size))
		n.Sub(n, big.NewInt(0x1234567))
		n.Abs(n)
		want := KeyID{
			Low:  new(big.Int).And(n, mask).Uint64(),
			High: new(big.Int).And(new(big.Int).Rsh(n, 64), mask).Uint64(),
		}
		if got := NewKeyID(n); got != want {
			t.Errorf("%d bits: %x, want %x", size, got, want)
		}
	}
}

func TestInfo(t *testing.T) {
	l := embeddedList(t)
	info := l.Info()
	file, err := os.ReadFile("embedded.kvf")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(file)
	if info.SHA256 != hex.EncodeToString(sum[:]) || l.Bytes() != len(file) {
		t.Errorf("info tells SHA-256 %s of %d bytes", info.SHA256, l.Bytes())
	}
	if !slices.Equal(info.Sets, []string{"firmware-keys", "p256", "p384", "rsa2048", "rsa2048-ssh", "rsa4096 (le32, le64 only)"}) {
		t.Errorf("sets %v", info.Sets)
	}
	if info.FalsePositiveRate <= 0 || info.FalsePositiveRate > 1.0/(1<<60) {
		t.Errorf("false-positive rate %v", info.FalsePositiveRate)
	}
	total, bytes := 0, 0
	for _, s := range l.Sets() {
		if s.Kind != Debian {
			continue
		}
		total, bytes = total+s.Keys, bytes+s.Bytes
		want := len(s.Origins) * 32768
		switch s.Name { // and the keys that are others for a small exponent
		case "rsa2048":
			want += 8
		case "rsa4096":
			want += 5
		}
		if s.Keys != want || s.Complete() != (s.Name != "rsa4096") || !s.Exact() || s.FalsePositiveRate != 0 {
			t.Errorf("%+v", s)
		}
	}
	if bitsPerKey := 8 * float64(bytes) / float64(total); bitsPerKey > 26.5 {
		t.Errorf("%.1f bits a key", bitsPerKey)
	}
}

// smallSource is a set of n made-up keys, which no seed makes.
func smallSource(name string, n int) Source {
	s := Source{Set: Set{
		Name: name, Kind: Debian, Algorithm: RSA, Bits: 3072, Exponent: 65537, Candidates: 5,
		Origins: []Origin{{debian.LE32, debian.Rnd}, {debian.LE64, debian.Rnd}, {debian.LE64, debian.NoRnd}, {debian.LE64, debian.NoReadRnd}},
	}}
	for i := range n {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		s.Keys = append(s.Keys, Key{
			ID:   NewKeyID(new(big.Int).SetBytes(sum[:])),
			Seed: debian.Seed{Arch: debian.LE64, Variant: debian.NoRnd, PID: uint16(i & debian.MaxPID)},
		})
	}
	return s
}

func buildList(t testing.TB, sources ...Source) *List {
	t.Helper()
	b, err := Build(sources)
	if err != nil {
		t.Fatal(err)
	}
	l, err := parseWhole(b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// oneKey is a set of the first weak RSA-1024 key of the vectors.
func oneKey(t testing.TB) (Source, *rsa.PublicKey) {
	weak, vector := rsaVectors(t, "rsa1024.txt")[0], vectors(t, "rsa1024.txt")[0]
	if strings.Join(vector[1:4], " ") != "le64 rnd 0" {
		t.Fatalf("another vector: %v", vector[:4])
	}
	return Source{
		Set: Set{
			Name: "rsa1024", Kind: Debian, Algorithm: RSA, Bits: 1024, Exponent: 65537, Candidates: 300,
			Origins: []Origin{{debian.LE64, debian.Rnd}},
		},
		Keys: []Key{{NewKeyID(weak.N), debian.Seed{Arch: debian.LE64, Variant: debian.Rnd, PID: 0}}},
	}, weak
}

func TestLists(t *testing.T) {
	own, weak := oneKey(t)
	other := smallSource("rsa1024", 100) // covers the size, does not list the key
	other.Bits = 1024
	lists := Lists{embeddedList(t), buildList(t, other), buildList(t, own)}

	if got := lookup(t, lists, weak); !got.Listed || got.Set != "rsa1024" {
		t.Errorf("listed by the last: %+v", got)
	}
	if got := lookup(t, lists[:2], weak); got.Covered || got.Looked != "le32-rnd, le64" || got.Missing != "le32-noreadrnd, le32-nornd, be32, ssh-keygen" || got.Listed {
		t.Errorf("covered by the second: %+v", got)
	}
	if got := lookup(t, lists[:1], weak); got.Covered || got.Looked != "" {
		t.Errorf("covered by none: %+v", got)
	}
	if got := lookup(t, lists, rsaVectors(t, "rsa2048.txt")[0]); !got.Listed || got.Set != "rsa2048" {
		t.Errorf("listed by the first: %+v", got)
	}
	if got := lookup(t, Lists(nil), weak); got.Covered {
		t.Errorf("no lists: %+v", got)
	}
	if _, err := lists.Lookup(t.Context(), &rsa.PublicKey{}); err == nil {
		t.Error("no error for a key without a modulus")
	}
	info := lists.Info()
	want := append(lists[0].Info().Sets, "rsa1024 (le32-rnd, le64 only)", "rsa1024 (le64-rnd only)")
	if !slices.Equal(info.Sets, want) || info.SHA256 != lists[0].Info().SHA256 || info.FalsePositiveRate != lists[0].Info().FalsePositiveRate {
		t.Errorf("%+v", info)
	}
}

func TestSSHSetIsComplete(t *testing.T) {
	s := Set{Name: "rsa2048-ssh", Kind: Debian, Origins: []Origin{{debian.LE32, debian.SSH}, {debian.LE64, debian.SSH}, {debian.BE32, debian.SSH}}}
	if !s.Complete() || s.String() != "rsa2048-ssh" {
		t.Errorf("%s, complete %v", s.String(), s.Complete())
	}
	s.Origins = s.Origins[:2]
	if s.Complete() || s.String() != "rsa2048-ssh (ssh-keygen on le32, ssh-keygen on le64 only)" {
		t.Errorf("%s, complete %v", s.String(), s.Complete())
	}
}

// TestOwnLists has keys of every type on an operator's list, and an RSA key on
// one of Debian's old format.
func TestOwnLists(t *testing.T) {
	modulus := randomModulus(1536)
	point, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edwards, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]crypto.PublicKey{
		"RSA": &rsa.PublicKey{N: modulus, E: 3}, "EC": &point.PublicKey, "Ed25519": edwards,
		"a large exponent": &device.LargeRSA{N: modulus, E: new(big.Int).Lsh(big.NewInt(1), 33)},
	}
	own := Source{Set: Set{Name: "compromised", Kind: Compromised, Title: "leaked in 2024", Reason: "KEYVET_COMPROMISED_KEY", Cite: "https://example.com/leaked"}}
	for name, pub := range listed {
		spki, err := marshalSPKI(pub)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(spki)
		own.Fingerprints = append(own.Fingerprints, sum[:], sum[:])
		own.Names = append(own.Names, "", name+" in a router") // of two the one with a name stays
	}
	first := own // as keyvet 0.1 wrote it
	first.Kind, first.Name, first.Cite, first.Names = SPKISHA256, "spki-sha256", "", nil
	l, plain := buildList(t, own), buildList(t, first)
	for name, pub := range listed {
		want := device.Compromised{Name: name + " in a router", List: "leaked in 2024", Cite: "https://example.com/leaked", Reason: "KEYVET_COMPROMISED_KEY"}
		if got := compromised(t, l, pub); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %+v", name, got)
		}
		want.Name, want.Cite = "", ""
		if got := compromised(t, Lists{embeddedList(t), plain}, pub); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %+v", name, got)
		}
		if got := compromised(t, Lists{plain, l}, pub); len(got) != 2 {
			t.Errorf("%s: on two lists: %+v", name, got)
		}
		if got := lookup(t, l, pub); got.Listed || got.Looked != "" { // such a list has none of Debian's
			t.Errorf("%s: %+v", name, got)
		}
	}
	// A key that only its SPKI is known of, and one whose SPKI says it otherwise.
	spki := []byte("a key of an algorithm that keyvet does not know")
	fingerprint := sha256.Sum256(spki)
	dsa := buildList(t, Source{Fingerprints: [][]byte{fingerprint[:]}, Set: own.Set})
	for want, k := range map[int]device.Key{
		1: {Public: &device.OtherKey{Algorithm: "DSA-1024"}, SPKI: spki},
		0: {Public: edwards, SPKI: spki[1:]},
	} {
		if got, asked, err := dsa.Compromised(k); len(got) != want || !asked || err != nil {
			t.Errorf("%s: %+v, %v, %v", k.Algorithm(), got, asked, err)
		}
	}
	if got, asked, err := l.Compromised(device.Key{Public: edwards, SPKI: []byte("odd")}); len(got) != 1 || !asked || err != nil {
		t.Errorf("an odd SPKI: %+v, %v", got, err)
	}
	if _, asked, err := buildList(t, smallSource("a", 1)).Compromised(device.Key{Public: edwards}); asked || err != nil {
		t.Errorf("a list of Debian's keys: asked %v, %v", asked, err)
	}
	for name, pub := range map[string]crypto.PublicKey{
		"another RSA key":          &rsa.PublicKey{N: randomModulus(1536), E: 3},
		"another exponent":         &rsa.PublicKey{N: modulus, E: 5},
		"another Ed25519 key":      ed25519.PublicKey(make([]byte, 32)),
		"a point not on the curve": &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)},
	} {
		if got := compromised(t, l, pub); len(got) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if s := l.Sets()[0]; s.Keys != len(listed) || s.FalsePositiveRate != 0 {
		t.Errorf("%+v", s)
	}

	vector := vectors(t, "rsa1024.txt")[0]
	sum, err := hex.DecodeString(vector[4])
	if err != nil {
		t.Fatal(err)
	}
	old := Source{Fingerprints: [][]byte{sum[10:], make([]byte, 10)}, Set: Set{
		Name: "openssl-blacklist", Kind: OpenSSLBlacklist, Title: "openssl-blacklist", Reason: device.ReasonDebian,
	}}
	l = buildList(t, old)
	if got := lookup(t, l, rsaVectors(t, "rsa1024.txt")[0]); !got.Listed || got.Exact || got.Name != "openssl-blacklist" {
		t.Errorf("80 bits: %+v", got)
	}
	for _, pub := range []crypto.PublicKey{rsaVectors(t, "rsa1024.txt")[1], &point.PublicKey} {
		if got := lookup(t, l, pub); got.Listed || got.Covered {
			t.Errorf("80 bits of another key: %+v", got)
		}
	}
	// A set that is sure goes before one that is not, wherever it stands.
	exact, weak := oneKey(t)
	both := buildList(t, old, exact)
	if got := lookup(t, both, weak); !got.Exact || got.Set != "rsa1024" || got.Proof == nil {
		t.Errorf("in two sets: %+v", got)
	}
	if got := lookup(t, Lists{l, both}, weak); !got.Exact || got.Set != "rsa1024" {
		t.Errorf("in two lists: %+v", got)
	}
	if rate := l.Info().FalsePositiveRate; rate != 2*math.Pow(2, -80) {
		t.Errorf("rate %v", rate)
	}
}

// TestMarshalSPKI holds the encoding of large exponents against x509's.
func TestMarshalSPKI(t *testing.T) {
	n := randomModulus(2048)
	got, err := marshalSPKI(&device.LargeRSA{N: n, E: big.NewInt(65537)})
	if err != nil {
		t.Fatal(err)
	}
	want, err := marshalSPKI(&rsa.PublicKey{N: n, E: 65537})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, want %x (%v)", got, want, err)
	}
}

// TestRealKeys has keys that a real Debian machine made, i386 with a .rnd file
// that was read: the 2048-bit one is in the embedded list; for the 1024-bit one
// a list is made of the first process ids; 512 bits no list covers.
func TestRealKeys(t *testing.T) {
	s, _ := oneKey(t)
	s.Origins, s.Keys = []Origin{{debian.LE32, debian.Rnd}}, nil
	for seed := range debian.Seeds(debian.LE32, debian.Rnd, 0, 20) {
		key, err := debian.RSA(t.Context(), 1024, 65537, seed)
		if err != nil {
			t.Fatal(err)
		}
		s.Keys = append(s.Keys, Key{NewKeyID(key.N), seed})
	}
	lists := Lists{embeddedList(t), buildList(t, s)}
	for _, tt := range []struct{ bits, pid int }{{2048, 13}, {1024, 10}, {512, -1}} {
		name := fmt.Sprintf("debian-openssl-0.9.8c-x86-prng-bug-%d.key", tt.bits)
		text, err := os.ReadFile(filepath.Join("debian", "testdata", "real", name))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatalf("%s: no PEM", name)
		}
		var parts []asn1.RawValue // RSAPrivateKey (RFC 8017, section A.1.2), of which crypto/x509 refuses small ones
		if _, err := asn1.Unmarshal(block.Bytes, &parts); err != nil || len(parts) < 2 {
			t.Fatalf("%s: %v", name, err)
		}
		var n *big.Int
		if _, err := asn1.Unmarshal(parts[1].FullBytes, &n); err != nil {
			t.Fatal(err)
		}
		got := lookup(t, lists, &rsa.PublicKey{N: n, E: 65537})
		if tt.pid < 0 {
			if got.Covered || got.Listed {
				t.Errorf("%d bits: %+v", tt.bits, got)
			}
		} else if !got.Exact || got.Proof["pid"] != tt.pid || got.Proof["architecture"] != "le32" || got.Proof["variant"] != "rnd" {
			t.Errorf("%d bits: %+v", tt.bits, got)
		}
	}
}
