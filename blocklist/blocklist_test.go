package blocklist

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

func TestWeakKeysAreListed(t *testing.T) {
	l := embeddedList(t)
	check := func(pub crypto.PublicKey, name string) {
		t.Helper()
		got := lookup(t, l, pub)
		if !got.Covered || !got.Listed || got.Set != name || got.Reason != device.ReasonDebian || got.Name != "Debian weak keys" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, pub := range rsaVectors(t, "rsa2048.txt") {
		check(pub, "rsa2048")
		check(&device.LargeRSA{N: pub.N, E: new(big.Int).Lsh(big.NewInt(1), 40)}, "rsa2048")
	}
	for _, pub := range rsaVectors(t, "rsa2048-ssh.txt") {
		check(pub, "rsa2048-ssh")
	}
	for _, pub := range ecVectors(t, "p256.txt", elliptic.P256()) {
		check(pub, "p256")
		check(&ecdsa.PublicKey{Curve: elliptic.P256(), X: pub.X, Y: big.NewInt(1)}, "p256") // off the curve
	}
}

// TestOtherKeysAreNotListed takes 10,000 random keys of each kind.
func TestOtherKeysAreNotListed(t *testing.T) {
	l := embeddedList(t)
	check := func(pub crypto.PublicKey, name string) {
		t.Helper()
		if got := lookup(t, l, pub); !got.Covered || got.Listed || got.Set != name || got.Reason != "" {
			t.Fatalf("%s: %+v %v", name, got, pub)
		}
	}
	modulus := make([]byte, 256)
	for range 10000 {
		rand.Read(modulus)
		modulus[0] |= 0x80
		modulus[255] |= 1
		check(&rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: 65537}, "rsa2048")
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		check(&key.PublicKey, "p256")
	}
}

func TestNotCovered(t *testing.T) {
	l := embeddedList(t)
	secp256k1 := &elliptic.CurveParams{Name: "secp256k1", BitSize: 256, P: big.NewInt(7), N: big.NewInt(7), B: big.NewInt(7)}
	weak := ecVectors(t, "p256.txt", secp256k1)[0]
	for name, pub := range map[string]crypto.PublicKey{
		"a size without a set":       rsaVectors(t, "rsa1024.txt")[0],
		"2047 bits":                  &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 3},
		"a curve without a set":      &ecdsa.PublicKey{Curve: elliptic.P384(), X: weak.X, Y: weak.Y},
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

// TestFingerprint holds it against the numbers' own bytes, at every length
// about a word's and about the buffer's.
func TestFingerprint(t *testing.T) {
	for _, size := range slices.Concat([]int{0, 1, 8, 31, 32, 33, 63, 64, 65, 255, 256, 257, 2040, 2047, 2048}, []int{4095, 4096, 4097, 8192}) {
		n := new(big.Int).Lsh(big.NewInt(1), uint(size))
		n.Sub(n, big.NewInt(0x1234567))
		n.Abs(n)
		if got, want := fingerprint(n), sha256.Sum256(n.Bytes()); got != want {
			t.Errorf("%d bits: %x, want %x", n.BitLen(), got, want)
		}
	}
	for _, v := range vectors(t, "rsa2048.txt") {
		if got := fingerprint(number(t, v[6])); hex.EncodeToString(got[:]) != v[5] {
			t.Errorf("pid %s: %x, want %s", v[3], got, v[5])
		}
	}
	for _, v := range vectors(t, "p256.txt") {
		if got := fingerprint(number(t, strings.TrimPrefix(v[5], "x="))); hex.EncodeToString(got[:]) != v[4] {
			t.Errorf("pid %s: %x, want %s", v[3], got, v[4])
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
	if !slices.Equal(info.Sets, []string{"p256", "rsa2048", "rsa2048-ssh"}) {
		t.Errorf("sets %v", info.Sets)
	}
	if r := info.FalsePositiveRate; r > 1e-9 || r < 1e-10 {
		t.Errorf("false-positive rate %v", r)
	}
	for _, s := range l.Sets() {
		if s.Keys != 32768*len(s.Origins) || !s.Complete() || s.FalsePositiveRate > info.FalsePositiveRate {
			t.Errorf("%+v", s)
		}
	}
}

// smallSource is a set of n made-up fingerprints.
func smallSource(name string, n int) Source {
	s := Source{
		Name: name, Algorithm: RSA, Bits: 3072, FalsePositiveRate: 1e-3,
		Origins: []Origin{{"le32", "rnd"}, {"le64", "rnd"}, {"le64", "nornd"}, {"le64", "noreadrnd"}},
	}
	for i := range n {
		s.Fingerprints = append(s.Fingerprints, sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	return s
}

func buildList(t testing.TB, sources ...Source) *List {
	t.Helper()
	b, err := Build(sources)
	if err != nil {
		t.Fatal(err)
	}
	l, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLists(t *testing.T) {
	weak := rsaVectors(t, "rsa1024.txt")[0]
	own := Source{
		Name: "rsa1024", Algorithm: RSA, Bits: 1024, FalsePositiveRate: 1e-6, Origins: []Origin{{"le32", "rnd"}},
		Fingerprints: [][32]byte{fingerprint(weak.N)},
	}
	other := smallSource("rsa1024", 100) // covers the size, does not list the key
	other.Bits = 1024
	lists := Lists{embeddedList(t), buildList(t, other), buildList(t, own)}

	if got := lookup(t, lists, weak); !got.Listed || got.Set != "rsa1024" {
		t.Errorf("listed by the last: %+v", got)
	}
	if got := lookup(t, lists[:2], weak); !got.Covered || got.Listed {
		t.Errorf("covered by the second: %+v", got)
	}
	if got := lookup(t, lists[:1], weak); got.Covered {
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
	if !slices.Equal(info.Sets, []string{"p256", "rsa2048", "rsa2048-ssh", "rsa1024 (le32-rnd, le64 only)", "rsa1024 (le32-rnd only)"}) ||
		info.SHA256 != lists[0].Info().SHA256 || info.FalsePositiveRate != lists[1].Info().FalsePositiveRate {
		t.Errorf("%+v", info)
	}
}

func TestSSHSetIsComplete(t *testing.T) {
	s := Set{Name: "rsa2048-ssh", Origins: []Origin{{"le32", "ssh"}, {"le64", "ssh"}, {"be32", "ssh"}}}
	if !s.Complete() || s.String() != "rsa2048-ssh" {
		t.Errorf("%s, complete %v", s.String(), s.Complete())
	}
	s.Origins = s.Origins[:2]
	if s.Complete() || s.String() != "rsa2048-ssh (le32-ssh, le64-ssh only)" {
		t.Errorf("%s, complete %v", s.String(), s.Complete())
	}
}
