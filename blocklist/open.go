package blocklist

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Open maps a list file for reading and checks what it is made of: magic,
// version, every size, and the SHA-256 of directory and digests. What a look-up
// reads is held to these digests when it is first read; [List.Check] reads all
// at once. An error that is an [*fs.PathError] says that the file could not be
// read; any other, that it is not a whole list.
//
// A list file is replaced by renaming another over it, as keyvet-blocklist
// does; the mapping then keeps the old one. If it is written in place instead,
// look-ups see the new bytes unchecked, so it must be root's alone to write.
// If it is cut short, a page that is gone raises SIGBUS, which look-ups turn
// into an error.
func Open(path string) (l *List, err error) {
	// Not blocking, so that a FIFO is refused and not waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", path)
	case info.Size() == 0:
		return nil, fmt.Errorf("%s: empty file", path)
	case info.Size() > maxFileBytes:
		return nil, fmt.Errorf("%s: %d bytes are more than a list may have, %d MB", path, info.Size(), maxFileBytes>>20)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "mmap", Path: path, Err: err}
	}
	if l, err = parse(b, path); err != nil {
		_ = syscall.Munmap(b) // what went wrong is told already
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l.mapped = true
	return l, nil
}

// Close gives a list's memory back; the list must not be in use, and covers
// nothing afterwards.
func (l *List) Close() error {
	b, mapped := l.file, l.mapped
	l.sets, l.file, l.mapped = nil, nil, false
	if !mapped {
		return nil
	}
	if err := syscall.Munmap(b); err != nil {
		return fmt.Errorf("unmap list: %w", err)
	}
	return nil
}

// returnFault, deferred, returns damage or a memory fault as an error.
func returnFault(err *error) {
	if fault := asFault(recover()); fault != nil {
		*err = fault
	}
}

// asFault is the error for a recovered memory fault, or for damage. Any other
// panic goes on.
func asFault(recovered any) error {
	if recovered == nil || recovered == errDamaged {
		err, _ := recovered.(error)
		return err
	}
	if _, ok := recovered.(interface{ Addr() uintptr }); ok { // as debug.SetPanicOnFault says
		return errors.New("the list's file was cut short while in use; put a whole one in its place and start again")
	}
	panic(recovered)
}
