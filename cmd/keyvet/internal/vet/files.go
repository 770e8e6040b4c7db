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

// files are tested some at a time, and little is remembered of each.
type files struct {
	ctx     context.Context
	env     *check.Env
	report  *device.Report
	ids     ids
	numbers []device.Key               // of all keys, for the checks that compare keys
	cas     map[[sha256.Size]byte]bool // those above keys, of which one is enough
	search  *search                    // of keys that no list covers; nil: none

	waiting []*tested
	bytes   int64 // the size of those that wait
}

// Of the files that are tested at a time, on all processors, there are at most as
// many and, but for one that is larger by itself, as large. They bound the memory.
const (
	maxWaiting      = 64
	maxWaitingBytes = 256 << 10
)

// tested is a file and what came of testing it.
type tested struct {
	read  func() []part
	parts []part
	then  func([]part) // when all before it are in the report; nil: nothing
}

// part is what is tested of a file at a time: all, or some of its many keys.
type part struct {
	keys     []device.Key
	gaps     []device.Gap
	whole    bool // whether it was searched to its end
	findings []device.Finding
}

// wait has a file tested when there are enough of them.
func (f *files) wait(t *tested, size int64) {
	f.waiting = append(f.waiting, t)
	if f.bytes += size; len(f.waiting) >= maxWaiting || f.bytes >= maxWaitingBytes {
		f.flush()
	}
}

// flush tests the files that wait. Their order is that of the report.
func (f *files) flush() {
	waiting := f.waiting
	f.waiting, f.bytes = nil, 0
	check.Parallel(len(waiting), func(i int) { waiting[i].parts = waiting[i].read() })
	var all []*part
	for _, t := range waiting {
		for i := range t.parts {
			p := &t.parts[i]
			f.ids.unique(p.keys)
			f.env.Moduli.Expect(p.keys)
			all = append(all, p)
		}
	}
	check.Parallel(len(all), func(i int) { all[i].findings = check.OfKeys(f.ctx, all[i].keys, f.env) })
	for _, t := range waiting {
		for _, p := range t.parts {
			f.report.Add(p.keys, p.findings)
			f.report.Gaps = append(f.report.Gaps, p.gaps...)
			f.remember(p.keys)
		}
		if t.then != nil {
			t.then(t.parts)
		}
	}
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
	f.search.expect(f.ctx, keys)
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

// gap adds what could not be checked.
func (f *files) gap(what, why string) {
	f.wait(&tested{read: func() []part { return []part{{gaps: []device.Gap{{What: what, Why: why}}}} }}, 0)
}

// pattern tests the files of check.files that fit a pattern.
func (f *files) pattern(pattern string) {
	gap := func(why string) { f.gap("check.files "+pattern, why) }
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
	info, err := os.Stat(name)
	if err == nil && info.Size() <= maxWaitingBytes {
		f.wait(&tested{read: func() (parts []part) {
			for keys, gaps := range keyfile.Batches(name) {
				parts = append(parts, part{keys: keys, gaps: gaps})
			}
			return parts
		}}, info.Size())
		return
	}
	for keys, gaps := range keyfile.Batches(name) { // which may be many
		f.flush()
		f.wait(&tested{read: func() []part { return []part{{keys: keys, gaps: gaps}} }}, 0)
		f.flush()
	}
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// dir tests the regular files of a directory and of those below it. It follows no
// links: where one leads to a file below, that has its own turn. Directories of
// the kernel's, such as /proc, are left out.
func (f *files) dir(name string) {
	f.flush()
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
			f.gap(shown, err.Error())
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir() && isKernels(path):
			return fs.SkipDir
		case d.Type()&fs.ModeSymlink != 0:
			found.Links++
		case d.Type().IsRegular():
			f.any(shown, d, &found)
		}
		return nil
	})
	if err != nil {
		f.gap(name, "not searched to its end: "+err.Error())
	}
	f.flush()
	found.Last = len(f.report.Keys)
	f.report.Searched = append(f.report.Searched, found)
}

// any tests a file that need not hold a key.
func (f *files) any(path string, d fs.DirEntry, found *device.Searched) {
	var size int64
	if info, err := d.Info(); err == nil {
		size = info.Size()
	}
	found.Files++
	f.wait(&tested{
		read: func() []part {
			var p part
			p.keys, p.gaps, p.whole = keyfile.ReadAny(path)
			return []part{p}
		},
		then: func(parts []part) {
			if p := parts[0]; len(p.keys)+len(p.gaps) > 0 {
				found.Keyed++
			}
			if !parts[0].whole {
				found.Large++
			}
		},
	}, size)
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
