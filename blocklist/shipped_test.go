package blocklist

import (
	"bytes"
	"compress/flate"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/blocklist/debian"
)

// TestShippedBytes builds the set of named keys of the built-in list again, of the
// fingerprints and names that it has: the file is what this code makes. The other
// sets are taken over as they are; what those are made of takes minutes, and is for
// make blocklist.
func TestShippedBytes(t *testing.T) {
	want, err := os.ReadFile("embedded.kvf")
	if err != nil {
		t.Fatal(err)
	}
	l, err := parseWhole(want)
	if err != nil {
		t.Fatal(err)
	}
	sources := l.Sources()
	again := 0
	for i, s := range l.sets {
		if s.Kind != Named {
			continue
		}
		sources[i] = Source{Set: s.Set, Named: namedKeys(t, &s), Deflate: func(text []byte) ([]byte, error) { return deflate(t, text, flate.BestCompression), nil }}
		again++
	}
	if again != 1 {
		t.Errorf("%d sets of named keys", again)
	}
	if got, err := Build(sources); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes come out of its fingerprints and names, not the %d that it has; %v", len(got), len(want), err)
	}
}

// TestShippedBlocks packs a sample of the names in the packages' list again.
func TestShippedBlocks(t *testing.T) {
	l, err := Open("compromised.kvf")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	names := &l.sets[0].named
	count := int(names.lengths.n / 4)
	for i := 0; i < count; i += 20 {
		block, err := names.block(i)
		if err != nil {
			t.Fatal(err)
		}
		var keys []NamedKey
		for e, err := range blockEntries(block) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, NamedKey{Entry: e})
		}
		if got := deflate(t, blockText(keys), flate.BestCompression); !bytes.Equal(got, block) {
			t.Errorf("block %d of %d: %d bytes come out of its names, not the %d that it has", i, count, len(got), len(block))
		}
	}
}

// namedKeys are the keys of a set, in another order than theirs.
func namedKeys(t *testing.T, s *set) (keys []NamedKey) {
	for e, err := range s.named.all() {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, NamedKey{Entry: e})
	}
	for i := range s.named.count() {
		sum := append(slices.Clone(s.named.fingerprint(i)), make([]byte, sha256.Size-fingerprintBytes)...)
		key := &keys[s.named.place(i)]
		key.SHA256 = append(key.SHA256, sum)
	}
	slices.Reverse(keys)
	return keys
}

// TestDebianBytes holds what a list of given keys of Debian's is: if it changes,
// make blocklist and make further-lists have to be run.
func TestDebianBytes(t *testing.T) {
	source := Source{Set: Set{Name: "p256", Kind: Debian, Algorithm: ECDSA, Bits: 256}}
	for arch := debian.LE32; arch <= debian.BE32; arch++ {
		for variant := debian.Rnd; variant < debian.SSH; variant++ {
			source.Origins = append(source.Origins, Origin{arch, variant})
		}
	}
	for _, o := range source.Origins {
		for seed := range debian.Seeds(o.Arch, o.Variant, 0, 99) {
			k, err := debian.EC(elliptic.P256(), seed)
			if err != nil {
				t.Fatal(err)
			}
			source.Keys = append(source.Keys, Key{ID: NewKeyID(k.X), Seed: seed})
		}
	}
	b, err := Build([]Source{source})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	if got, want := hex.EncodeToString(sum[:]), "790739399c17e7d5160b29056af739464c832ac082a850a4cab4a317d6cdfaba"; got != want {
		t.Errorf("a list of %d keys of P-256: SHA-256 %s, want %s", len(source.Keys), got, want)
	}
}

// TestFurther looks keys up that the further list has and the built-in one has not.
func TestFurther(t *testing.T) {
	further, err := Open("further.kvf")
	if err != nil {
		t.Fatal(err)
	}
	defer further.Close()
	built := embeddedList(t)
	look := func(key crypto.PublicKey, set, origin string) {
		t.Helper()
		if got := lookup(t, built, key); got.Listed || got.Covered {
			t.Errorf("%s %s is in the built-in list: %+v", set, origin, got)
		}
		got := lookup(t, Lists{built, further}, key)
		if !got.Listed || got.Set != set || fmt.Sprint(got.Proof["architecture"], " ", got.Proof["variant"], " ", got.Proof["pid"]) != origin {
			t.Errorf("%s %s: %+v", set, origin, got)
		}
	}
	for set, file := range map[string]string{
		"rsa1024": "rsa1024.txt", "rsa3072": "../debian/testdata/rsa3072.txt",
		"rsa4096": "../debian/testdata/rsa4096.txt", "p521": "../debian/testdata/p521.txt",
	} {
		var keys []crypto.PublicKey
		var other crypto.PublicKey
		if set == "p521" {
			for _, pub := range ecVectors(t, file, elliptic.P521()) {
				keys = append(keys, pub)
			}
			x := randomModulus(521)
			other = &ecdsa.PublicKey{Curve: elliptic.P521(), X: x, Y: x}
		} else {
			var n *big.Int
			for _, pub := range rsaVectors(t, file) {
				keys = append(keys, pub)
				n = randomModulus(pub.N.BitLen())
			}
			other = &rsa.PublicKey{N: n, E: 65537}
		}
		looked := 0
		for i, v := range vectors(t, file) {
			if set == "rsa4096" && v[1] != "be32" {
				continue // is in the built-in list
			}
			looked++
			look(keys[i], set, strings.Join(v[1:4], " "))
		}
		if looked == 0 {
			t.Errorf("no vector of %s", set)
		}
		if got := lookup(t, Lists{built, further}, other); got.Listed || !strings.HasPrefix(got.Looked, "le32, le64, be32") {
			t.Errorf("a random key for %s: %+v", set, got)
		}
	}
	for bits, set := range map[int]string{1024: "rsa1024-ssh", 3072: "rsa3072-ssh"} {
		for arch := debian.LE32; arch <= debian.BE32; arch++ {
			if bits == 3072 && arch != debian.LE64 {
				continue // one is enough where the machine is emulated
			}
			seed := debian.Seed{Arch: arch, Variant: debian.SSH, PID: 4711}
			key, err := debian.RSA(t.Context(), bits, 35, seed)
			if err != nil {
				t.Fatal(err)
			}
			look(&rsa.PublicKey{N: key.N, E: 35}, set, fmt.Sprint(arch, " ", debian.SSH, " ", seed.PID))
		}
	}
	want := []Coverage{{"ECDSA-P521", "le32, le64, be32", ""}, {"RSA-1024", "le32, le64, be32, ssh-keygen", ""},
		{"RSA-3072", "le32, le64, be32, ssh-keygen", ""}, {"RSA-4096", "be32", "le32, le64, ssh-keygen"}}
	if got := further.Coverage(); !slices.Equal(got, want) {
		t.Errorf("the list covers %+v", got)
	}
}
