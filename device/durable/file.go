// Package durable writes files that are whole after a power cut, and keeps the
// spool of reports that wait for the cloud.
//
// A file is written beside its final place, synced, renamed over it, and the
// directory synced: whoever reads it finds the old content or the new, never
// a part. Nothing here locks; one process owns a state directory.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// tempPrefix marks files that a power cut may leave behind; [Disk.Dir] removes them.
const tempPrefix = ".keyvet-tmp-"

// Disk changes a file system durably: once a method returns, a power cut does
// not take back what it did. The zero value is the machine's own.
type Disk struct{ FS FS }

// WriteFile is [Disk.WriteFile] on the machine's own file system.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return Disk{}.WriteFile(path, data, mode)
}

// Remove is [Disk.Remove] on the machine's own file system.
func Remove(path string) error { return Disk{}.Remove(path) }

// Dir is [Disk.Dir] on the machine's own file system.
func Dir(path string, mode fs.FileMode) error { return Disk{}.Dir(path, mode) }

func (d Disk) fs() FS {
	if d.FS == nil {
		return System
	}
	return d.FS
}

// ReadFile reads a file of at most most bytes.
func (d Disk) ReadFile(path string, most int64) ([]byte, error) {
	b, err := d.fs().ReadFile(path, most)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// ReadDir lists a directory, sorted by name.
func (d Disk) ReadDir(path string) ([]fs.DirEntry, error) {
	entries, err := d.fs().ReadDir(path)
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// Lstat tells of a file, or of a link itself.
func (d Disk) Lstat(path string) (fs.FileInfo, error) {
	info, err := d.fs().Lstat(path)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// Readlink tells where a link points.
func (d Disk) Readlink(path string) (string, error) {
	target, err := d.fs().Readlink(path)
	if err != nil {
		return "", err
	}
	return target, nil
}

// WriteFile puts data at path with the given mode. On an error the file that
// was there before is untouched.
func (d Disk) WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir, disk := filepath.Dir(path), d.fs()
	temp := filepath.Join(dir, tempPrefix+rand.Text())
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, cause(err))
		}
	}()
	err = disk.Create(temp, data, mode)
	if err == nil {
		err = disk.Sync(temp)
	}
	if err == nil {
		err = disk.Rename(temp, path)
	}
	if err != nil {
		_ = disk.Remove(temp) // the first error tells more
		return err
	}
	return disk.Sync(dir)
}

// Remove removes the file, link or empty directory at path. That it is not
// there is no error.
func (d Disk) Remove(path string) error {
	if err := d.fs().Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := d.fs().Sync(filepath.Dir(path)); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// RemoveDir removes a directory and what is in it. That it is not there is no
// error.
func (d Disk) RemoveDir(path string) error {
	entries, err := d.fs().ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if e.IsDir() {
			if err := d.RemoveDir(name); err != nil {
				return err
			}
		} else if err := d.fs().Remove(name); err != nil {
			return err
		}
	}
	return d.Remove(path)
}

// Rename gives a file, link or directory another name, in the place of the
// file or link that has it.
func (d Disk) Rename(from, to string) error {
	err := d.fs().Rename(from, to)
	if err == nil {
		err = d.fs().Sync(filepath.Dir(to))
	}
	if err == nil && filepath.Dir(from) != filepath.Dir(to) {
		err = d.fs().Sync(filepath.Dir(from))
	}
	if err != nil {
		return err
	}
	return nil
}

// Symlink makes a link to target at path, where nothing is yet.
func (d Disk) Symlink(target, path string) error {
	err := d.fs().Symlink(target, path)
	if err == nil {
		err = d.fs().Sync(filepath.Dir(path))
	}
	if err != nil {
		return err
	}
	return nil
}

// Dir makes the directory, and those above it, if they are not there, and
// removes what an interrupted [Disk.WriteFile] left in it. The mode, less the
// umask, is for directories that it makes.
func (d Disk) Dir(path string, mode fs.FileMode) error {
	if err := d.makeDirs(path, mode); err != nil {
		return err
	}
	entries, err := d.fs().ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) && e.Type().IsRegular() {
			if err := d.fs().Remove(filepath.Join(path, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// makeDirs also syncs the parent of a directory that is there: a cut may have
// come between making it and that.
func (d Disk) makeDirs(path string, mode fs.FileMode) error {
	parent := filepath.Dir(path)
	if parent == path {
		return nil
	}
	err := d.fs().Mkdir(path, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err := d.makeDirs(parent, mode); err != nil {
			return err
		}
		err = d.fs().Mkdir(path, mode)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.fs().Sync(parent)
}

// cause is err without the operation and the temporary path.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
