package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Spool keeps reports that the cloud has not acknowledged, one file each. It
// is bounded in bytes: the oldest that may be dropped go first, and those that
// must be kept are never dropped, even past the bound.
type Spool struct {
	Dir      string
	MaxBytes int64 // 0 means 4 MiB
}

// Entry is one report in the spool.
type Entry struct {
	ID   string // the report's id
	Keep bool   // never dropped for room
	Size int64
	path string
}

const (
	defaultSpoolBytes = 4 << 20
	maxEntryBytes     = 1 << 20 // what Read takes; reports are at most 128 KB
)

// Names sort by age: <nanoseconds, 20 digits>-<keep|drop>-<id>.json.
const (
	keepMark = "keep"
	dropMark = "drop"
)

// Put stores data under id, durably. What is already there under id is not
// stored twice. When the disk is full, entries that may be dropped make room
// for one that must be kept.
func (s *Spool) Put(id string, keep bool, data []byte) error {
	if id == "" || strings.ContainsAny(id, "/.") {
		return fmt.Errorf("durable: spool: bad id %q", id)
	}
	if err := Dir(s.Dir, 0o700); err != nil {
		return err
	}
	entries, err := s.List()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.ID == id }) {
		return nil
	}
	mark := dropMark
	if keep {
		mark = keepMark
	}
	name := filepath.Join(s.Dir, fmt.Sprintf("%020d-%s-%s.json", time.Now().UnixNano(), mark, id))
	limit := s.MaxBytes
	if limit == 0 {
		limit = defaultSpoolBytes
	}
	total := int64(len(data))
	for _, e := range entries {
		total += e.Size
	}
	for _, e := range entries {
		if total <= limit {
			break
		}
		if !e.Keep {
			if err := s.Remove(e); err != nil {
				return err
			}
			total -= e.Size
		}
	}
	err = WriteFile(name, data, 0o600)
	for i := 0; err != nil && keep && i < len(entries); i++ {
		if entries[i].Keep {
			continue
		}
		if s.Remove(entries[i]) == nil {
			err = WriteFile(name, data, 0o600)
		}
	}
	return err
}

// List gives what waits, oldest first. A spool that was never written to is empty.
func (s *Spool) List() ([]Entry, error) {
	files, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("durable: spool: %w", err)
	}
	var entries []Entry
	for _, f := range files { // ReadDir sorts by name
		base, isJSON := strings.CutSuffix(f.Name(), ".json")
		parts := strings.SplitN(base, "-", 3)
		if !isJSON || len(parts) != 3 || !f.Type().IsRegular() {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("durable: spool: %w", err)
		}
		entries = append(entries, Entry{ID: parts[2], Keep: parts[1] == keepMark, Size: info.Size(), path: filepath.Join(s.Dir, f.Name())})
	}
	return entries, nil
}

// Read gives the bytes that were stored.
func (s *Spool) Read(e Entry) ([]byte, error) {
	if e.Size > maxEntryBytes {
		return nil, fmt.Errorf("durable: spool: %s has %d bytes", e.ID, e.Size)
	}
	b, err := os.ReadFile(e.path)
	if err != nil {
		return nil, fmt.Errorf("durable: spool: %w", err)
	}
	return bytes.TrimSpace(b), nil
}

// Remove takes an entry out, once the cloud has acknowledged it.
func (s *Spool) Remove(e Entry) error { return Remove(e.path) }
