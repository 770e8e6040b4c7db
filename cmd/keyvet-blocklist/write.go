package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// writeFile writes a whole file or leaves what was there. Its errors name the file,
// not the one under another name that is written first.
func writeFile(path string, b []byte) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return &fs.PathError{Op: "write", Path: path, Err: syscall.EISDIR}
	}
	err := replace(path, b)
	if cause := errors.Unwrap(err); cause != nil {
		return &fs.PathError{Op: "write", Path: path, Err: cause}
	}
	return err
}
