package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// writeFile writes a whole file or leaves what was there, which is never a directory
// or a device that would be gone then. Its errors name the file, not the one under
// another name that is written first.
func writeFile(path string, b []byte) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return &fs.PathError{Op: "write", Path: path, Err: syscall.EISDIR}
	} else if err == nil && !info.Mode().IsRegular() {
		return &fs.PathError{Op: "write", Path: path, Err: errors.New("not a regular file")}
	}
	err := replace(path, b)
	if cause := errors.Unwrap(err); cause != nil {
		return &fs.PathError{Op: "write", Path: path, Err: cause}
	}
	return err
}
