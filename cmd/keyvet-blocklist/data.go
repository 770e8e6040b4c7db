package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
)

// kind is what can be known of a set by its name alone.
type kind struct {
	name      string
	algorithm blocklist.Algorithm
	bits      int
	variants  []string
}

var byTools, bySSH = []string{"rnd", "noreadrnd", "nornd"}, []string{"ssh"}

var kinds = []kind{
	{"rsa1024", blocklist.RSA, 1024, byTools},
	{"rsa2048", blocklist.RSA, 2048, byTools},
	{"rsa2048-ssh", blocklist.RSA, 2048, bySSH},
	{"rsa3072", blocklist.RSA, 3072, byTools},
	{"rsa4096", blocklist.RSA, 4096, byTools},
	{"p256", blocklist.ECDSA, 256, byTools},
	{"p384", blocklist.ECDSA, 384, byTools},
	{"p521", blocklist.ECDSA, 521, byTools},
}

func kindNamed(name string) (kind, bool) {
	i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if i < 0 {
		return kind{}, false
	}
	return kinds[i], true
}

// file is where a folder of sets has the keys of one origin.
func (k kind) file(o blocklist.Origin) string {
	base, _, _ := strings.Cut(k.name, "-")
	return base + "-" + o.String() + ".bin"
}

// rowBytes is the length of a row: a SHA-256, and for RSA two counts of
// candidates and padding.
func (k kind) rowBytes() int {
	if k.algorithm == blocklist.RSA {
		return 40
	}
	return sha256.Size
}

// Every file has a row for each process id.
const rowsPerFile = 32768

// folder is a directory of sets and what its SHA256SUMS says.
type folder struct {
	dir  string
	sums map[string]string // file name to hex SHA-256
}

func openFolder(dir string) (*folder, error) {
	path := filepath.Join(dir, "SHA256SUMS")
	b, err := readBounded(path, 1<<20)
	if err != nil {
		return nil, err
	}
	f := &folder{dir, make(map[string]string)}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		sum, name, ok := strings.Cut(lines.Text(), "  ")
		if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != sha256.Size || name == "" {
			return nil, fmt.Errorf("%s: line %d is not a SHA-256, two spaces and a file name", path, n)
		}
		f.sums[name] = strings.ToLower(sum)
	}
	return f, lines.Err()
}

// origins lists those of a set that the folder has, and those it lacks.
func (f *folder) origins(k kind) (there, missing []blocklist.Origin) {
	for _, arch := range []string{"le32", "le64", "be32"} {
		for _, variant := range k.variants {
			o := blocklist.Origin{Architecture: arch, Variant: variant}
			if _, ok := f.sums[k.file(o)]; ok {
				there = append(there, o)
			} else {
				missing = append(missing, o)
			}
		}
	}
	return there, missing
}

// fingerprints reads the file of one origin, after its sum.
func (f *folder) fingerprints(k kind, o blocklist.Origin) ([][sha256.Size]byte, error) {
	name := k.file(o)
	path := filepath.Join(f.dir, name)
	size := rowsPerFile * k.rowBytes()
	b, err := readBounded(path, size)
	if err != nil {
		return nil, err
	}
	if len(b) != size {
		return nil, fmt.Errorf("%s: %d bytes, want %d rows of %d", path, len(b), rowsPerFile, k.rowBytes())
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != f.sums[name] {
		return nil, fmt.Errorf("%s: its SHA-256 is not that of SHA256SUMS", path)
	}
	all := make([][sha256.Size]byte, rowsPerFile)
	for i := range all {
		all[i] = [sha256.Size]byte(b[i*k.rowBytes():])
	}
	return all, nil
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int) (b []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if b, err = io.ReadAll(io.LimitReader(f, int64(limit)+1)); err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return b, nil
}

// openList opens a list by its path, or the one inside this program.
func openList(path string) (*blocklist.List, error) {
	if path != "embedded" {
		return blocklist.Open(path)
	}
	l, err := blocklist.Embedded()
	if errors.Is(err, blocklist.ErrNotEmbedded) {
		return nil, errUsage{err}
	}
	return l, err
}
