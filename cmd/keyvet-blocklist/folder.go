package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device/durable"
)

const sumsName = "SHA256SUMS"

// folder is a directory of sets and what its SHA256SUMS says.
type folder struct {
	dir  string
	sums map[string]string // file name to hex SHA-256
}

func openFolder(dir string) (*folder, error) {
	path := filepath.Join(dir, sumsName)
	b, err := durable.ReadBounded(path, 1<<20)
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("%w: `keyvet-blocklist generate -set NAME -out %s` makes such a folder", err, dir)
	}
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
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// add notes the sum of a file that was written.
func (f *folder) add(name string, content []byte) error {
	sum := sha256.Sum256(content)
	f.sums[name] = hex.EncodeToString(sum[:])
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(f.sums)) {
		b = fmt.Appendf(b, "%s  %s\n", f.sums[name], name)
	}
	return writeFile(filepath.Join(f.dir, sumsName), b)
}

// origins lists those of a set that the folder has, and those it lacks.
func (f *folder) origins(k kind) (there, missing []blocklist.Origin) {
	for _, o := range k.origins() {
		if _, ok := f.sums[k.file(o)]; ok {
			there = append(there, o)
		} else {
			missing = append(missing, o)
		}
	}
	return there, missing
}

// rows reads the file of one origin, after its sum.
func (f *folder) rows(k kind, o blocklist.Origin) ([]byte, error) {
	name := k.file(o)
	path := filepath.Join(f.dir, name)
	size := rowsPerFile * k.rowBytes()
	b, err := durable.ReadBounded(path, int64(size))
	if err != nil {
		return nil, err
	}
	if len(b) != size {
		return nil, fmt.Errorf("%s: %d bytes, want %d rows of %d", path, len(b), rowsPerFile, k.rowBytes())
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != f.sums[name] {
		return nil, fmt.Errorf("%s: its SHA-256 is not that of %s", path, sumsName)
	}
	return b, nil
}

// keys makes every key of one origin with the help of its file, those of a
// small exponent as well.
func (f *folder) keys(ctx context.Context, k kind, o blocklist.Origin) iter.Seq2[weakKey, error] {
	return func(yield func(weakKey, error) bool) {
		rows, err := f.rows(k, o)
		if err != nil {
			yield(weakKey{}, err)
			return
		}
		fromRow := func(ctx context.Context, seed debian.Seed) (weakKey, error) {
			key, err := k.fromRow(ctx, seed, rows[int(seed.PID)*k.rowBytes():][:k.rowBytes()])
			if err != nil {
				err = fmt.Errorf("%s: %w", filepath.Join(f.dir, k.file(o)), err)
			}
			return key, err
		}
		k.withSmallExponent(ctx, debian.Generate(ctx, debian.Seeds(o.Arch, o.Variant, 0, debian.MaxPID), fromRow))(yield)
	}
}

// replace puts a whole file in place of what is at path: it is there after
// a power cut, or what was there before is.
func replace(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
