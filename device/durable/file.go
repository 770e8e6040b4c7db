// Package durable writes files that are whole after a power cut, and keeps the
// spool of reports that wait for the cloud.
//
// A file is written beside its final place, synced, renamed over it, and the
// directory synced: whoever reads it finds the old content or the new, never
// a part. Nothing here locks; one process owns a state directory.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempPrefix marks files that a power cut may leave behind; [Dir] removes them.
const tempPrefix = ".keyvet-tmp-"

// WriteFile puts data at path with the given mode, durably. On an error the
// file that was there before is untouched.
func WriteFile(path string, data []byte, mode fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempPrefix+"*") // 0600
	if err != nil {
		return fmt.Errorf("durable: write %s: %w", path, cause(err))
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("durable: write %s: %w", path, cause(err))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// Remove removes the file at path durably. That it is not there is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("durable: remove: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("durable: remove %s: %w", path, err)
	}
	return nil
}

// Dir makes the directory, and those above it, if they are not there, and
// removes what an interrupted [WriteFile] left in it. The mode, less the
// umask, is for directories that it makes.
func Dir(path string, mode fs.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(path, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("durable: %w", err)
			}
		}
	}
	return syncDir(filepath.Dir(path))
}

// cause is err without the operation and the temporary path.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
