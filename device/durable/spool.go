package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Spool keeps reports that the cloud has not acknowledged, one file each. It
// is bounded in bytes: the oldest that may be dropped go first, and those that
// must be kept are never dropped, even past the bound. A file counts as whole
// blocks, as on the disk, so that the bound holds for their number, too.
type Spool struct {
	Disk     Disk
	Dir      string
	MaxBytes int64 // 0 means 4 MiB
}

// Entry is one report in the spool.
type Entry struct {
	ID   string // the report's id
	Keep bool   // never dropped for room
	Size int64
	age  int64 // what its name sorts by
	path string
}

// room is what an entry of so many bytes takes of the disk.
func room(size int64) int64 { return (size + blockBytes - 1) / blockBytes * blockBytes }

const (
	defaultSpoolBytes = 4 << 20
	maxEntryBytes     = 1 << 20 // what Put and Read take; reports are at most 128 KB
	blockBytes        = 4 << 10
)

// Names sort by age: <nanoseconds, 20 digits>-<keep|drop>-<id>.json. Where the
// clock was set back, an entry counts as a nanosecond younger than the last.
const (
	keepMark = "keep"
	dropMark = "drop"
)

// Put stores data under id, durably. What is already there under id is not
// stored twice. When the disk is full, entries that may be dropped make room
// for one that must be kept; whatever else fails drops nothing.
func (s *Spool) Put(id string, keep bool, data []byte) error {
	if id == "" || strings.ContainsAny(id, "/.") {
		return fmt.Errorf("durable: spool: bad id %q", id)
	}
	if len(data) > maxEntryBytes {
		return fmt.Errorf("durable: spool: %s has %d bytes, more than %d", id, len(data), maxEntryBytes)
	}
	if err := s.Disk.Dir(s.Dir, 0o700); err != nil {
		return err
	}
	entries, err := s.List()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.ID == id }) {
		return nil
	}
	age := max(time.Now().UnixNano(), 0)
	if len(entries) > 0 {
		age = max(age, entries[len(entries)-1].age+1)
	}
	mark := dropMark
	if keep {
		mark = keepMark
	}
	name := filepath.Join(s.Dir, fmt.Sprintf("%020d-%s-%s.json", age, mark, id))
	droppable := slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Keep })
	for err = s.Disk.WriteFile(name, data, 0o600); err != nil; err = s.Disk.WriteFile(name, data, 0o600) {
		full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
		if !keep || !full || len(droppable) == 0 || s.Remove(droppable[0]) != nil {
			return err
		}
		droppable = droppable[1:]
	}
	return s.trim(id)
}

// trim drops the oldest entries until the spool keeps to its bound, but for the
// one named, which has just come.
func (s *Spool) trim(except string) error {
	entries, err := s.List()
	if err != nil {
		return err
	}
	limit := s.MaxBytes
	if limit == 0 {
		limit = defaultSpoolBytes
	}
	total := int64(0)
	for _, e := range entries {
		total += room(e.Size)
	}
	for _, e := range entries {
		if total <= limit {
			break
		}
		if e.Keep || e.ID == except {
			continue
		}
		if err := s.Remove(e); err != nil {
			return err
		}
		total -= room(e.Size)
	}
	return nil
}

// List gives what waits, oldest first. A spool that was never written to is empty.
func (s *Spool) List() ([]Entry, error) {
	files, err := s.Disk.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, f := range files { // ReadDir sorts by name
		base, isJSON := strings.CutSuffix(f.Name(), ".json")
		parts := strings.SplitN(base, "-", 3)
		if !isJSON || len(parts) != 3 || !f.Type().IsRegular() {
			continue
		}
		age, err := strconv.ParseInt(parts[0], 10, 64)
		if err != nil {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("durable: spool: %w", err)
		}
		entries = append(entries, Entry{ID: parts[2], Keep: parts[1] == keepMark, Size: info.Size(), age: age, path: filepath.Join(s.Dir, f.Name())})
	}
	return entries, nil
}

// Read gives the bytes that were stored.
func (s *Spool) Read(e Entry) ([]byte, error) {
	b, err := s.Disk.ReadFile(e.path, maxEntryBytes)
	if err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b), nil
}

// Remove takes an entry out, once the cloud has acknowledged it.
func (s *Spool) Remove(e Entry) error { return s.Disk.Remove(e.path) }
