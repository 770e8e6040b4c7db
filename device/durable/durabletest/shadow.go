package durabletest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device/durable"
)

// Shadow is a directory of the machine's own file system that can be left as a
// power cut would: what a kill of the process leaves is whole, since the kernel
// lives on. It is for tests that kill a real program.
//
// What is done to the directory past the Shadow stays as it is.
type Shadow struct {
	durable.OS
	root string
	disk *Disk
}

// NewShadow takes what is in root for synced.
func NewShadow(root string) (*Shadow, error) {
	s := &Shadow{root: filepath.Clean(root), disk: New()}
	err := filepath.WalkDir(s.root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == s.root {
			return err
		}
		inner, _ := s.inner(name)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			err = s.disk.Mkdir(inner, info.Mode())
		case e.Type()&fs.ModeSymlink != 0:
			var target string
			if target, err = os.Readlink(name); err == nil {
				err = s.disk.Symlink(target, inner)
			}
		case e.Type().IsRegular():
			var data []byte
			if data, err = os.ReadFile(name); err == nil {
				err = s.disk.Create(inner, data, info.Mode())
			}
		}
		if err == nil {
			err = s.disk.Sync(filepath.Dir(inner))
		}
		if err == nil && e.Type().IsRegular() {
			err = s.disk.Sync(inner)
		}
		return err
	})
	return s, err
}

// inner is the name on the disk in memory.
func (s *Shadow) inner(name string) (string, bool) {
	rel, err := filepath.Rel(s.root, name)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	return filepath.Join("/", rel), true
}

// both does a change on the machine's file system and then in memory.
func (s *Shadow) both(real error, name string, shadow func(inner string) error) error {
	inner, below := s.inner(name)
	if real != nil || !below {
		return real
	}
	if err := shadow(inner); err != nil {
		return fmt.Errorf("the directory was changed past its shadow: %w", err)
	}
	return nil
}

// Create implements [durable.FS].
func (s *Shadow) Create(name string, data []byte, mode fs.FileMode) error {
	return s.both(s.OS.Create(name, data, mode), name, func(inner string) error { return s.disk.Create(inner, data, mode) })
}

// Symlink implements [durable.FS].
func (s *Shadow) Symlink(target, name string) error {
	return s.both(s.OS.Symlink(target, name), name, func(inner string) error { return s.disk.Symlink(target, inner) })
}

// Mkdir implements [durable.FS].
func (s *Shadow) Mkdir(name string, mode fs.FileMode) error {
	return s.both(s.OS.Mkdir(name, mode), name, func(inner string) error { return s.disk.Mkdir(inner, mode) })
}

// Rename implements [durable.FS].
func (s *Shadow) Rename(from, to string) error {
	innerTo, _ := s.inner(to)
	return s.both(s.OS.Rename(from, to), from, func(inner string) error { return s.disk.Rename(inner, innerTo) })
}

// Remove implements [durable.FS].
func (s *Shadow) Remove(name string) error {
	return s.both(s.OS.Remove(name), name, s.disk.Remove)
}

// Sync implements [durable.FS].
func (s *Shadow) Sync(name string) error {
	return s.both(s.OS.Sync(name), name, s.disk.Sync)
}

// String lists the directory as it is known here.
func (s *Shadow) String() string { return s.disk.String() }

// Leave makes the directory what a power cut now may leave of it: one of
// [Disk.Cut], by number modulo how many there are. The first is what is there.
func (s *Shadow) Leave(n int) error {
	all := s.disk.Cut()
	return s.become(all[n%len(all)])
}

func (s *Shadow) become(left *Disk) error {
	now, then := map[string]*node{}, map[string]*node{}
	s.disk.each(func(name string, n *node) { now[name] = n })
	left.each(func(name string, n *node) { then[name] = n })
	same := func(name string) bool {
		a, b := now[name], then[name]
		return a != nil && b != nil && a.mode == b.mode && string(a.data) == string(b.data)
	}
	names := slices.Sorted(maps.Keys(now))
	for _, name := range slices.Backward(names) { // what is in a directory before the directory
		if !same(name) {
			if err := os.Remove(filepath.Join(s.root, name)); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(then)) {
		if same(name) {
			continue
		}
		n, real := then[name], filepath.Join(s.root, name)
		var err error
		switch {
		case n.mode.IsDir():
			err = s.OS.Mkdir(real, n.mode.Perm())
		case n.mode&fs.ModeSymlink != 0:
			err = s.OS.Symlink(string(n.data), real)
		default:
			err = s.OS.Create(real, n.data, n.mode.Perm())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
