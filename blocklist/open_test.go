package blocklist

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func writeList(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list.kvf")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readEmbedded(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("embedded.kvf")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpen(t *testing.T) {
	l, err := Open("embedded.kvf")
	if err != nil {
		t.Fatal(err)
	}
	weak := rsaVectors(t, "rsa2048.txt")[0]
	if got := lookup(t, l, weak); !got.Listed {
		t.Errorf("%+v", got)
	}
	if l.Info().SHA256 != embeddedList(t).Info().SHA256 {
		t.Error("mapped and embedded differ")
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if got, err := l.Lookup(t.Context(), weak); err == nil && got.Covered {
		t.Errorf("a closed list answered %+v", got)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"empty": 0, "large": maxFileBytes + 1, "zeros": 10 << 20} {
		f, err := os.Create(at(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	good := readEmbedded(t)
	damaged := append([]byte(nil), good...)
	damaged[len(damaged)-100] ^= 0x10
	for _, tt := range []struct {
		path, want string
		unreadable bool
	}{
		{at("none"), "no such file", true},
		{dir, "not a regular file", false},
		{at("fifo"), "not a regular file", false},
		{at("empty"), "empty file", false},
		{at("large"), "256 MB", false},
		{at("zeros"), "not a keyvet blocklist", false},
		{writeList(t, damaged), "SHA-256", false},
		{writeList(t, good[:len(good)/2]), "truncated", false},
	} {
		l, err := Open(tt.path)
		if err == nil || l != nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: %v, want %q", tt.path, err, tt.want)
		}
		var path *fs.PathError
		if errors.As(err, &path) != tt.unreadable {
			t.Errorf("%s: unreadable or bad is told wrongly: %v", tt.path, err)
		}
	}
}

// TestShrunkFile cuts a list's file short under the mapping. Without care the
// look-up would raise SIGBUS and end the program.
func TestShrunkFile(t *testing.T) {
	path := writeList(t, readEmbedded(t))
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	weak := rsaVectors(t, "rsa2048.txt")[0]
	if got := lookup(t, l, weak); !got.Listed {
		t.Fatalf("%+v", got)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	got, err := l.Lookup(t.Context(), weak)
	if err == nil || got.Covered || got.Listed || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("look-up: %+v, %v", got, err)
	}
	if passes, err := l.Passes("rsa2048", NewKeyID(weak.N)); err == nil || passes {
		t.Errorf("passes: %v, %v", passes, err)
	}
	// Another list that has the key still answers; one that has not, does not.
	if got := lookup(t, Lists{l, embeddedList(t)}, weak); !got.Listed {
		t.Errorf("two lists, one cut short: %+v", got)
	}
	if _, err := (Lists{l, buildList(t, smallSource("a", 1))}).Lookup(t.Context(), weak); err == nil {
		t.Error("a list that could not answer was passed over")
	}
}

func TestOtherPanicsGoOn(t *testing.T) {
	defer func() {
		if recover() != "other" {
			t.Error("a panic that is no fault was swallowed")
		}
	}()
	_ = asFault("other")
}

// TestDamage flips a bit of every few bytes of a list: a look-up of each of its
// keys, and of others, either is an error or answers as that of the whole list.
func TestDamage(t *testing.T) {
	own, weak := oneKey(t)
	for range 3 { // so that filter and index have a page or two
		own.Keys = append(own.Keys, smallSource("", 4000).Keys...)
	}
	own.Origins = append(own.Origins, smallSource("", 1).Origins...)
	slices.SortFunc(own.Origins, func(a, b Origin) int { return int(a.bit()) - int(b.bit()) })
	own.Origins = slices.Compact(own.Origins)
	named := namedSource(t, readPublished(t, "testdata/published.tsv"))
	plain := ownSource(300)
	plain.Name, plain.Kind, plain.Cite, plain.Names = "own", Compromised, "https://x.y", slices.Repeat([]string{"ours"}, 300)
	file, err := Build([]Source{own, named, plain})
	if err != nil {
		t.Fatal(err)
	}
	var sums keySums
	for i := 0; i < len(named.Named); i += 50 {
		sums.number = append(sums.number, [sha256.Size]byte(named.Named[i].SHA256[0]), [sha256.Size]byte(file[i:]))
	}
	for i := 0; i < len(plain.Fingerprints); i += 50 {
		sums.spki = append(sums.spki, [sha256.Size]byte(plain.Fingerprints[i]), [sha256.Size]byte(file[i:]))
	}
	moduli := []crypto.PublicKey{weak}
	for range 5 {
		moduli = append(moduli, &rsa.PublicKey{N: randomModulus(1024), E: 65537})
	}
	answers := func(b []byte) (all []string, failed int, whole error) {
		l, err := parse(b, "damaged.kvf")
		if err != nil {
			return nil, 0, err
		}
		for _, pub := range moduli {
			got, err := l.Lookup(t.Context(), pub)
			if err != nil {
				failed++
				all = append(all, "")
				continue
			}
			all = append(all, fmt.Sprint(got))
		}
		entries, _, err := l.compromised(sums)
		if err != nil {
			failed++
			return append(all, ""), failed, l.Check()
		}
		var names []string
		for _, e := range entries {
			if e.Name == "" {
				failed++
			}
			names = append(names, e.List+": "+e.Name)
		}
		return append(all, strings.Join(names, "; ")), failed, l.Check()
	}
	want, failed, err := answers(file)
	if failed > 0 || err != nil || !strings.Contains(want[0], "le64") || strings.Count(want[len(want)-1], "; ") < 3 {
		t.Fatalf("%q, %d failed, %v", want, failed, err)
	}
	found := 0
	for at := 0; at < len(file); at += 61 {
		b := bytes.Clone(file)
		b[at] ^= 1 << (at % 8)
		got, failed, err := answers(b)
		if err == nil {
			t.Errorf("byte %d: all is fine", at)
		}
		if failed > 0 {
			found++
		}
		for i := range got {
			if got[i] != want[i] && got[i] != "" && i < len(moduli) {
				t.Errorf("byte %d: %q, want %q", at, got[i], want[i])
			}
		}
		// A name that cannot be read is left out; the key is listed all the same.
		if last := len(moduli); got != nil && got[last] != "" && strings.Count(got[last], "; ") != strings.Count(want[last], "; ") {
			t.Errorf("byte %d: %q, want %q", at, got[last], want[last])
		}
	}
	if found < 100 {
		t.Errorf("a look-up met only %d of the flipped bits", found)
	}
}

// TestUnread damages a page that a look-up does not need: the answer counts, and
// Check finds the damage.
func TestUnread(t *testing.T) {
	b := readEmbedded(t)
	l, err := Open(writeList(t, b))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	weak := rsaVectors(t, "rsa2048.txt")[0]
	read := 0
	if got := lookup(t, l, weak); !got.Listed {
		t.Errorf("%+v", got)
	}
	p := l.sets[0].section.pages
	unread := -1
	for i := range p.right {
		if p.right[i].Load() {
			read++
		} else {
			unread = i
		}
	}
	if read == 0 || read > 4 {
		t.Errorf("%d of %d pages were read for a key", read, len(p.right))
	}
	from, _ := p.bounds(unread)
	b[from] ^= 1
	if l, err = Open(writeList(t, b)); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := lookup(t, l, weak); !got.Listed {
		t.Errorf("%+v", got)
	}
	if err := l.Check(); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("check: %v", err)
	}
}
