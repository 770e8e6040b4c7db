package durable

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// FS is what a [Disk] needs of a file system. A change is certain to survive a
// power cut only after Sync: of the file for what is in it, of the directory
// for what it is called. Tests put one in place that loses the rest.
type FS interface {
	// ReadFile reads a file of at most most bytes.
	ReadFile(name string, most int64) ([]byte, error)
	ReadDir(name string) ([]fs.DirEntry, error) // sorted by name
	Lstat(name string) (fs.FileInfo, error)
	Readlink(name string) (string, error)

	Create(name string, data []byte, mode fs.FileMode) error // that does not exist yet
	Symlink(target, name string) error
	Mkdir(name string, mode fs.FileMode) error
	Rename(from, to string) error
	Remove(name string) error
	Sync(name string) error
}

// OS is the machine's own file system.
type OS struct{}

// System is what a [Disk] without an FS is on. A test of a whole program puts
// another in its place before the program begins.
var System FS = OS{}

// ReadFile implements [FS].
func (OS) ReadFile(name string, most int64) ([]byte, error) { return ReadBounded(name, most) }

// ReadBounded reads a file of at most most bytes.
func ReadBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// ReadDir implements [FS].
func (OS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

// Lstat implements [FS].
func (OS) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(name) }

// Readlink implements [FS].
func (OS) Readlink(name string) (string, error) { return os.Readlink(name) }

// Create implements [FS]. The umask does not count.
func (OS) Create(name string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Symlink implements [FS].
func (OS) Symlink(target, name string) error { return os.Symlink(target, name) }

// Mkdir implements [FS].
func (OS) Mkdir(name string, mode fs.FileMode) error { return os.Mkdir(name, mode) }

// Rename implements [FS].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements [FS].
func (OS) Remove(name string) error { return os.Remove(name) }

// Sync implements [FS].
func (OS) Sync(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
