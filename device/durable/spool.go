package durable

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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
// is bounded in bytes and in the number of failing reports, so that neither a
// device that is offline for years nor one that restarts for ever fills its
// disk. Of the reports on one fault the first and the last are kept, when it
// began and how it stands, and how many there were between them. A file counts as whole blocks, as on the disk, so
// that the bound in bytes holds for their number, too.
type Spool struct {
	Dir      string
	Disk     Disk
	MaxBytes int64 // of all reports; 0 means 4 MiB
	MaxKept  int   // failing reports; 0 means 64
}

// Entry is one report in the spool.
type Entry struct {
	ID   string // the report's id
	Keep bool   // it reports a fault: dropped for room only after those that do not
	Size int64
	// Folded is how many reports on the same fault, between the first and this one,
	// it took the place of.
	Folded int

	age   int64  // what its name sorts by
	fault string // the digest of the fault; "" of an entry without, or of an earlier version
	path  string
}

// room is what an entry of so many bytes takes of the disk.
func room(size int64) int64 { return (size + blockBytes - 1) / blockBytes * blockBytes }

const (
	defaultSpoolBytes = 4 << 20
	defaultSpoolKept  = 64
	maxEntryBytes     = 1 << 20 // what Put and Read take; reports are at most 128 KB
	blockBytes        = 4 << 10
)

// Names sort by age: <nanoseconds, 20 digits>-<mark>-<id>.json. Where the
// clock was set back, an entry counts as a nanosecond younger than the last.
const (
	keepMark = "keep" // of an earlier version, which did not name the fault
	dropMark = "drop"

	faultDigits = 16  // the mark of an entry that reports a fault: hex of its SHA-256
	foldedMark  = "x" // and how many it took the place of, if any
)

func markOf(fault string) string {
	if fault == "" {
		return dropMark
	}
	sum := sha256.Sum256([]byte(fault))
	return hex.EncodeToString(sum[:])[:faultDigits]
}

// Put stores data under id, durably. fault names what the report fails for, and
// is the same for reports that fail for the same; "" is a report that passes.
// What is already there under id is not stored twice.
//
// A report on a fault takes the place of the last one on it, unless that was the
// first. When the disk is full it pushes out those that pass, then the one that
// it takes the place of; whatever else fails drops nothing.
func (s *Spool) Put(id, fault string, data []byte) error {
	if id == "" || strings.ContainsAny(id, "/.") {
		return fmt.Errorf("spool: bad id %q", id)
	}
	if len(data) > maxEntryBytes {
		return fmt.Errorf("spool: %s has %d bytes, more than %d", id, len(data), maxEntryBytes)
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
	mark := markOf(fault)
	var inTheWay []Entry
	if fault != "" {
		inTheWay = slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Keep })
		again := repeats(entries, func(e Entry) bool { return e.fault == mark })
		inTheWay = append(inTheWay, again...)
		if len(again) > 0 {
			mark += foldedMark + strconv.Itoa(again[len(again)-1].Folded+1)
		}
	}
	name := filepath.Join(s.Dir, fmt.Sprintf("%020d-%s-%s.json", age, mark, id))
	for err = s.Disk.WriteFile(name, data, 0o600); err != nil; err = s.Disk.WriteFile(name, data, 0o600) {
		full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
		if !full || len(inTheWay) == 0 || s.Remove(inTheWay[0]) != nil {
			return err
		}
		inTheWay = inTheWay[1:]
	}
	return s.trim(id)
}

// repeats are those of the entries, oldest first, on whose fault there is an
// older one.
func repeats(entries []Entry, of func(Entry) bool) []Entry {
	var all []Entry
	seen := map[string]bool{}
	for _, e := range entries {
		if e.fault == "" || !of(e) {
			continue
		}
		if seen[e.fault] {
			all = append(all, e)
		}
		seen[e.fault] = true
	}
	return all
}

// trim drops what lies between the first and the last on each fault, and then
// keeps the spool to its bounds. The one named, which has just come, stays.
func (s *Spool) trim(just string) error {
	entries, err := s.List()
	if err != nil {
		return err
	}
	var total int64
	kept := 0
	last := map[string]string{} // by fault
	for _, e := range entries {
		total += room(e.Size)
		if e.Keep {
			kept++
		}
		last[e.fault] = e.ID
	}
	gone := map[string]bool{just: true}
	drop := func(e Entry) error {
		if gone[e.ID] {
			return nil
		}
		if err := s.Remove(e); err != nil {
			return err
		}
		gone[e.ID] = true
		total -= room(e.Size)
		if e.Keep {
			kept--
		}
		return nil
	}
	again := repeats(entries, func(Entry) bool { return true })
	for _, e := range again {
		if last[e.fault] != e.ID {
			if err := drop(e); err != nil {
				return err
			}
		}
	}
	maxBytes, maxKept := s.MaxBytes, s.MaxKept
	if maxBytes == 0 {
		maxBytes = defaultSpoolBytes
	}
	if maxKept == 0 {
		maxKept = defaultSpoolKept
	}
	// The first report on a fault says most: those that pass go before repeats,
	// these before firsts, and of each the oldest.
	passing := slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Keep })
	for _, e := range slices.Concat(passing, again, entries) {
		if total <= maxBytes && (kept <= maxKept || !e.Keep) {
			continue
		}
		if err := drop(e); err != nil {
			return err
		}
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
			return nil, fmt.Errorf("spool: %w", err)
		}
		e := Entry{ID: parts[2], Keep: parts[1] != dropMark, Size: info.Size(), age: age, path: filepath.Join(s.Dir, f.Name())}
		if fault, folded, _ := strings.Cut(parts[1], foldedMark); len(fault) == faultDigits {
			e.fault = fault
			e.Folded, _ = strconv.Atoi(folded) // else none
		}
		entries = append(entries, e)
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
