package keyfile_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/keyvet/keyvet/device/keyfile"
)

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big.pem")
	if err := os.WriteFile(big, bytes.Repeat([]byte("x"), 10<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "missing"): "no such file or directory",
		dir:                           "a directory, not a file",
		fifo:                          "not a regular file",
		link:                          "not a regular file",
		loop:                          "too many levels of symbolic links",
		"/dev/zero":                   "not a regular file",
		big:                           "too large for a key file: 10485760 bytes, at most 1048576 are read",
		"":                            "no such file or directory",
	} {
		keys, gaps := keyfile.Read(path)
		if len(keys) != 0 || len(gaps) != 1 || gaps[0].What != path || gaps[0].Why != want {
			t.Errorf("%s: %d keys, gaps %v, want %q", path, len(keys), gaps, want)
		}
	}
}

// endless counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestReadFromIsBounded(t *testing.T) {
	e := new(endless)
	if keys, gaps := keyfile.ReadFrom(e, "-"); len(keys) != 0 || len(gaps) != 1 || !strings.HasPrefix(gaps[0].Why, "too large") {
		t.Errorf("%d keys, gaps %v", len(keys), gaps)
	}
	if e.read > 1<<20+1 {
		t.Errorf("%d bytes were read", e.read)
	}
	broken := io.MultiReader(strings.NewReader("-----BEGIN"), iotest.ErrReader(errors.New("input/output error")))
	if keys, gaps := keyfile.ReadFrom(broken, "-"); len(keys) != 0 || len(gaps) != 1 || gaps[0].Why != "input/output error" {
		t.Errorf("%d keys, gaps %v", len(keys), gaps)
	}
}

func TestModeAndSource(t *testing.T) {
	text, err := os.ReadFile("testdata/good/key-and-chain.pem")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	keys, gaps := keyfile.Read(path)
	if len(keys) != 2 || len(gaps) != 0 {
		t.Fatalf("%d keys, gaps %v", len(keys), gaps)
	}
	k := keys[0]
	if k.ID != path+"#2" || k.Source != "file:"+path || k.Private == nil || k.Private.Path != path || k.Private.Mode != 0o640 {
		t.Errorf("%+v, private %+v", k, k.Private)
	}
}

func TestTooManyObjects(t *testing.T) {
	block, err := os.ReadFile("testdata/good/ed25519-spki.pem")
	if err != nil {
		t.Fatal(err)
	}
	for count, wantGaps := range map[int]int{1000: 0, 1001: 1, 5000: 1} {
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(bytes.Repeat(block, count)), "-")
		if len(keys) != 1000 || len(gaps) != wantGaps {
			t.Errorf("%d blocks: %d keys, %d gaps", count, len(keys), len(gaps))
		}
	}
	line, err := os.ReadFile("testdata/good/ssh-ed25519-256.pub")
	if err != nil {
		t.Fatal(err)
	}
	strays := append(bytes.Clone(line), bytes.Repeat([]byte("no key\n"), 5000)...)
	if keys, gaps := keyfile.ReadFrom(bytes.NewReader(strays), "-"); len(keys) != 1 || len(gaps) != 1001 {
		t.Errorf("strays: %d keys, %d gaps", len(keys), len(gaps))
	}
}

// TestNoPrivateBytesInGaps damages private keys in many ways and looks for
// their text in what is said of them.
func TestNoPrivateBytesInGaps(t *testing.T) {
	for _, name := range []string{"rsa-pkcs1.pem", "rsa-pkcs8.pem", "ec-p256-sec1.pem", "ed25519-pkcs8.pem", "ssh-ed25519-256", "ssh-rsa-2048"} {
		data, err := os.ReadFile("testdata/good/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(data)
		lines := strings.Split(text, "\n")
		damaged := []string{
			strings.ReplaceAll(text, "\n", " "), strings.ReplaceAll(text, "\n", ""), strings.ReplaceAll(text, "-----\n", "-----"),
			strings.ReplaceAll(text, "-----\n", "\n"), strings.ReplaceAll(text, "\n", `\n`), strings.ReplaceAll(text, "-----", "----"),
			strings.ReplaceAll(text, "\n", "\nssh-rsa "), strings.ReplaceAll(text, "\n", "\nssh-"), strings.Join(lines[1:], "\n"), strings.ReplaceAll(text, "=", ""),
		}
		for i := range len(text) {
			damaged = append(damaged, text[:i], text[i:], text[:i]+"?"+text[i+1:])
		}
		gapsSeen := 0
		for _, d := range damaged {
			_, gaps := keyfile.ReadFrom(strings.NewReader(d), "-")
			for _, g := range gaps {
				gapsSeen++
				for _, line := range lines {
					if strings.Contains(line, "-----") {
						continue
					}
					for i := 0; i+12 <= len(line); i += 6 {
						if strings.Contains(g.What+g.Why, line[i:i+12]) {
							t.Fatalf("%s: key text in the gap %q: %q", name, g.What, g.Why)
						}
					}
				}
			}
		}
		if gapsSeen < len(text) {
			t.Errorf("%s: only %d gaps", name, gapsSeen)
		}
	}
}
