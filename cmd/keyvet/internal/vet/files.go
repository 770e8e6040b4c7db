package vet

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/keyfile"
)

// maxWhole is how many files of a command line are compared with each other.
// More are tested one after the other, as those of a directory are.
const maxWhole = 256

const maxSearched = 1_000_000 // files of one directory and those below it

// files are tested one after the other, and little is remembered of each.
type files struct {
	ctx     context.Context
	env     *check.Env
	report  *device.Report
	ids     ids
	numbers []device.Key               // of all keys, for the checks that compare keys
	cas     map[[sha256.Size]byte]bool // those above keys, of which one is enough
}

// ids count the keys of each id.
type ids map[string]int

// unique sees to it that no two keys answer to one id.
func (seen ids) unique(keys []device.Key) {
	for i := range keys {
		id := keys[i].ID
		seen[id]++
		if n := seen[id]; n > 1 {
			keys[i].ID = fmt.Sprintf("%s (%d)", id, n)
		}
	}
}

func (f *files) remember(keys []device.Key) {
	for _, k := range keys {
		for _, n := range check.Numbers(k) {
			if ca := sha256.Sum256(n.SPKI); n.Role == "" {
				if f.cas[ca] {
					continue
				}
				f.cas[ca] = true
			}
			f.numbers = append(f.numbers, n)
		}
	}
}

// add tests the keys of one file.
func (f *files) add(keys []device.Key, gaps []device.Gap) {
	f.ids.unique(keys)
	f.report.Add(keys, check.OfKeys(f.ctx, keys, f.env))
	f.report.Gaps = append(f.report.Gaps, gaps...)
	f.remember(keys)
}

// pattern tests the files of check.files that fit a pattern.
func (f *files) pattern(pattern string) {
	gap := func(why string) {
		f.add(nil, []device.Gap{{What: "check.files " + pattern, Why: why}})
	}
	names, err := []string{pattern}, error(nil)
	if strings.ContainsAny(pattern, `*?[\`) {
		names, err = filepath.Glob(pattern)
	}
	switch {
	case err != nil:
		gap(err.Error())
	case len(names) == 0:
		gap("no file fits")
	case len(names) > maxFiles:
		gap(fmt.Sprintf("%d files fit, more than %d", len(names), maxFiles))
	default:
		for _, name := range names {
			f.name(name)
		}
	}
}

// name tests a file, or those of a directory.
func (f *files) name(name string) {
	if isDir(name) {
		f.dir(name)
		return
	}
	f.add(keyfile.Read(name))
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// dir tests the regular files of a directory and of those below it. It follows no
// links: where one leads to a file below, that has its own turn. Directories of
// the kernel's, such as /proc, are left out.
func (f *files) dir(name string) {
	found := device.Searched{Dir: name, First: len(f.report.Keys)}
	root := name
	if real, err := filepath.EvalSymlinks(name); err == nil { // the directory itself may be a link
		root = real
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		shown := filepath.Join(name, rel)
		switch {
		case f.ctx.Err() != nil:
			return f.ctx.Err()
		case found.Files >= maxSearched:
			return fmt.Errorf("there are more than %d files", maxSearched)
		case err != nil:
			var pathErr *fs.PathError
			if errors.As(err, &pathErr) {
				err = pathErr.Err
			}
			f.add(nil, []device.Gap{{What: shown, Why: err.Error()}})
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir() && isKernels(path):
			return fs.SkipDir
		case d.Type()&fs.ModeSymlink != 0:
			found.Links++
		case d.Type().IsRegular():
			f.any(shown, &found)
		}
		return nil
	})
	if err != nil {
		f.add(nil, []device.Gap{{What: name, Why: "not searched to its end: " + err.Error()}})
	}
	found.Last = len(f.report.Keys)
	f.report.Searched = append(f.report.Searched, found)
}

// any tests a file that need not hold a key.
func (f *files) any(path string, found *device.Searched) {
	keys, gaps, whole := keyfile.ReadAny(path)
	found.Files++
	if len(keys)+len(gaps) > 0 {
		found.Keyed++
		f.add(keys, gaps)
	}
	if !whole {
		found.Large++
	}
}

// isKernels reports whether a directory is of a file system that the kernel makes
// up, in which reading can do something.
func isKernels(dir string) bool {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return false
	}
	return slices.Contains(kernels, uint32(s.Type))
}

// kernels are magic numbers of linux/magic.h: proc, sysfs, cgroup, cgroup2,
// debugfs, tracefs, securityfs, bpf, pstore, configfs, selinuxfs, devpts.
var kernels = []uint32{0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0xcafe4a11, 0x6165676c, 0x62656570, 0xf97cff8c, 0x1cd1}
