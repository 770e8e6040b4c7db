package blocklist

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
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
	damaged[1<<20] ^= 0x10
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
