package durabletest

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Disk is a file system in memory. Of what was not synced, a power cut may
// leave anything: each change of a directory alone may be there or not, in
// whatever order they were made, and a file may hold all, half or nothing of
// what was written, or zeros. A rename is there as a whole or not at all, as
// the journal of a file system sees to.
//
// It is not for concurrent use. Names are absolute; "/" is there.
type Disk struct {
	Limit    int  // bytes in files; more is ENOSPC. 0 is no limit
	ReadOnly bool // every change is EROFS, as on a mount that is read-only

	root    *node
	pending []change // of directories, oldest first, not synced
}

type node struct {
	mode    fs.FileMode // with its type
	data    []byte      // of a file, or the target of a link
	synced  bool        // of a file: its data
	entries map[string]*node
	durable map[string]*node // the entries that survive
}

// change is atomic: all of its entries survive or none does.
type change []entry

type entry struct {
	dir  *node
	name string
	node *node // nil: the name is gone
}

// New is an empty disk.
func New() *Disk { return &Disk{root: newDir(0o755)} }

func newDir(mode fs.FileMode) *node {
	return &node{mode: mode | fs.ModeDir, entries: map[string]*node{}, durable: map[string]*node{}}
}

func fail(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// find follows links in directories, and in name itself if follow.
func (d *Disk) find(name string, follow bool) (*node, error) { return d.walk(name, follow, 0) }

func (d *Disk) walk(name string, follow bool, depth int) (*node, error) {
	if depth > 8 {
		return nil, syscall.ELOOP
	}
	name = path.Clean(name)
	if name == "/" {
		return d.root, nil
	}
	if !path.IsAbs(name) {
		return nil, fmt.Errorf("%q is not absolute", name)
	}
	dir, err := d.walk(path.Dir(name), true, depth+1)
	if err != nil {
		return nil, err
	}
	if dir.entries == nil {
		return nil, syscall.ENOTDIR
	}
	n := dir.entries[path.Base(name)]
	if n == nil {
		return nil, syscall.ENOENT
	}
	if follow && n.mode&fs.ModeSymlink != 0 {
		target := string(n.data)
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		return d.walk(target, true, depth+1)
	}
	return n, nil
}

// ReadFile implements [durable.FS].
func (d *Disk) ReadFile(name string, most int64) ([]byte, error) {
	n, err := d.find(name, true)
	if err != nil {
		return nil, fail("open", name, err)
	}
	if n.mode.IsDir() {
		return nil, fail("read", name, syscall.EISDIR)
	}
	if int64(len(n.data)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return slices.Clone(n.data), nil
}

// ReadDir implements [durable.FS].
func (d *Disk) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := d.find(name, true)
	if err == nil && !n.mode.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, fail("open", name, err)
	}
	var all []fs.DirEntry
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		all = append(all, fs.FileInfoToDirEntry(info{name, n.entries[name]}))
	}
	return all, nil
}

// Lstat implements [durable.FS].
func (d *Disk) Lstat(name string) (fs.FileInfo, error) {
	n, err := d.find(name, false)
	if err != nil {
		return nil, fail("lstat", name, err)
	}
	return info{path.Base(name), n}, nil
}

// Readlink implements [durable.FS].
func (d *Disk) Readlink(name string) (string, error) {
	n, err := d.find(name, false)
	if err == nil && n.mode&fs.ModeSymlink == 0 {
		err = syscall.EINVAL
	}
	if err != nil {
		return "", fail("readlink", name, err)
	}
	return string(n.data), nil
}

type info struct {
	name string
	node *node
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(len(i.node.data)) }
func (i info) Mode() fs.FileMode  { return i.node.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.node.mode.IsDir() }
func (i info) Sys() any           { return nil }

// Create implements [durable.FS]. On a full disk a part of the file is left.
func (d *Disk) Create(name string, data []byte, mode fs.FileMode) error {
	n := &node{mode: mode.Perm(), data: slices.Clone(data)}
	err := d.add("open", name, n)
	if err != nil || d.Limit == 0 {
		return err
	}
	if over := d.root.size() - d.Limit; over > 0 {
		n.data = n.data[:max(0, len(data)-over)]
		return fail("write", name, syscall.ENOSPC)
	}
	return nil
}

// Size is the bytes in files.
func (d *Disk) Size() int { return d.root.size() }

func (n *node) size() int {
	size := len(n.data)
	for _, e := range n.entries {
		size += e.size()
	}
	return size
}

// Symlink implements [durable.FS].
func (d *Disk) Symlink(target, name string) error {
	return d.add("symlink", name, &node{mode: fs.ModeSymlink | 0o777, data: []byte(target), synced: true})
}

// Mkdir implements [durable.FS].
func (d *Disk) Mkdir(name string, mode fs.FileMode) error {
	if path.Clean(name) == "/" {
		return fail("mkdir", name, syscall.EEXIST)
	}
	return d.add("mkdir", name, newDir(mode.Perm()))
}

func (d *Disk) add(op, name string, n *node) error {
	dir, err := d.dir(name)
	if err == nil && dir.entries[path.Base(name)] != nil {
		err = syscall.EEXIST
	}
	if err == nil && d.ReadOnly {
		err = syscall.EROFS
	}
	if err != nil {
		return fail(op, name, err)
	}
	d.change(change{{dir, path.Base(name), n}})
	return nil
}

// dir is the directory that names name.
func (d *Disk) dir(name string) (*node, error) {
	dir, err := d.find(path.Dir(name), true)
	if err == nil && !dir.mode.IsDir() {
		err = syscall.ENOTDIR
	}
	return dir, err
}

func (d *Disk) change(c change) {
	for _, e := range c {
		set(e.dir.entries, e.name, e.node)
	}
	d.pending = append(d.pending, c)
}

func set(entries map[string]*node, name string, n *node) {
	if n == nil {
		delete(entries, name)
	} else {
		entries[name] = n
	}
}

// Rename implements [durable.FS].
func (d *Disk) Rename(from, to string) error {
	if d.ReadOnly {
		return fail("rename", from, syscall.EROFS)
	}
	fromDir, err := d.dir(from)
	if err != nil {
		return fail("rename", from, err)
	}
	toDir, err := d.dir(to)
	if err != nil {
		return fail("rename", to, err)
	}
	n, old := fromDir.entries[path.Base(from)], toDir.entries[path.Base(to)]
	switch {
	case n == nil:
		return fail("rename", from, syscall.ENOENT)
	case old != nil && old.mode.IsDir() && (!n.mode.IsDir() || len(old.entries) > 0):
		return fail("rename", to, syscall.EEXIST)
	case old != nil && !old.mode.IsDir() && n.mode.IsDir():
		return fail("rename", to, syscall.ENOTDIR)
	}
	d.change(change{{fromDir, path.Base(from), nil}, {toDir, path.Base(to), n}})
	return nil
}

// Remove implements [durable.FS].
func (d *Disk) Remove(name string) error {
	if d.ReadOnly { // even of what is not there
		return fail("remove", name, syscall.EROFS)
	}
	n, err := d.find(name, false)
	if err == nil && len(n.entries) > 0 {
		err = syscall.ENOTEMPTY
	}
	if err != nil {
		return fail("remove", name, err)
	}
	dir, err := d.dir(name)
	if err != nil {
		return fail("remove", name, err)
	}
	d.change(change{{dir, path.Base(name), nil}})
	return nil
}

// Sync implements [durable.FS].
func (d *Disk) Sync(name string) error {
	n, err := d.find(name, true)
	if err != nil {
		return fail("sync", name, err)
	}
	if !n.mode.IsDir() {
		n.synced = true
		return nil
	}
	d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
		touches := slices.ContainsFunc(c, func(e entry) bool { return e.dir == n })
		if touches {
			c.apply(func(n *node) map[string]*node { return n.durable })
		}
		return touches
	})
	return nil
}

func (c change) apply(of func(*node) map[string]*node) {
	for _, e := range c {
		set(of(e.dir), e.name, e.node)
	}
}

// torn are what may be left of data that was not synced.
var torn = []func([]byte) []byte{
	func(b []byte) []byte { return b },
	func([]byte) []byte { return nil },
	func(b []byte) []byte { return b[:len(b)/2] },
	func(b []byte) []byte { return make([]byte, len(b)) },
}

// maxPending keeps the number of subsets in bounds.
const maxPending = 8

// String lists every file with its content, for comparing and for messages.
func (d *Disk) String() string {
	var b strings.Builder
	d.each(func(name string, n *node) {
		fmt.Fprintf(&b, "%v %s", n.mode, name)
		if !n.mode.IsDir() {
			fmt.Fprintf(&b, " %q", n.data)
		}
		b.WriteByte('\n')
	})
	return b.String()
}

func (d *Disk) each(visit func(name string, n *node)) {
	var list func(string, *node)
	list = func(name string, n *node) {
		visit(name, n)
		for _, e := range slices.Sorted(maps.Keys(n.entries)) {
			list(path.Join(name, e), n.entries[e])
		}
	}
	list("/", d.root)
}
