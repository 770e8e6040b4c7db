package blocklist

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/keyvet/keyvet/blocklist/debian"
)

// Source is what one set of a new list is made of. Of Set, Name, Kind and the
// fields of that kind are read; the rest is what Build finds out. Keys,
// Fingerprints or Named has the keys, in any order; more of the same is fine.
type Source struct {
	Set
	Keys         []Key      // of the kind Debian
	Fingerprints [][]byte   // of the other kinds: 32 or 10 bytes each
	Names        []string   // of the kind Compromised: the name of each, or nil
	Named        []NamedKey // of the kind Named

	// Deflate packs the names of the kind Named by RFC 1951. It is the caller's,
	// since a program that only looks keys up needs no such code.
	Deflate func(text []byte) (packed []byte, err error)

	record  []byte // of a set that another list has
	section part
}

// Key is a weak key and the seed that makes it.
type Key struct {
	ID   KeyID
	Seed debian.Seed
}

// Build makes the bytes of a list file. The same sources, in any order, give
// the same bytes.
func Build(sources []Source) ([]byte, error) {
	sources = slices.SortedFunc(slices.Values(sources), func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	if len(sources) < 1 || len(sources) > maxSets {
		return nil, fmt.Errorf("build: %d sets, want 1 to %d", len(sources), maxSets)
	}
	var directory, sections []byte
	for i, s := range sources {
		err := s.CheckWords()
		if i > 0 && sources[i-1].Name == s.Name {
			err = errors.New("two sets of that name")
		}
		switch {
		case err != nil:
		case s.record != nil:
			directory = append(directory, s.record...)
			sections, err = s.section.appendTo(sections)
		default:
			directory = append(directory, byte(len(s.Name)))
			directory = append(directory, s.Name...)
			directory = append(directory, byte(s.Kind))
			switch s.Kind {
			case Debian:
				directory, sections, err = s.appendDebian(directory, sections)
			case SPKISHA256, OpenSSLBlacklist, Compromised:
				directory, sections, err = s.appendEntries(directory, sections)
			case Named:
				directory, sections, err = s.appendNamed(directory, sections)
			default:
				err = fmt.Errorf("kind %d", s.Kind)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("build set %s: %w", s.Name, err)
		}
	}
	b := make([]byte, 0, headerBytes+len(directory)+len(sections))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(sources)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(directory)))
	b = binary.LittleEndian.AppendUint64(b, uint64(cap(b)))
	b = seal(append(append(b, directory...), sections...), len(directory))
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("build: %d bytes are more than a list may have, %d MB", len(b), maxFileBytes>>20)
	}
	return b, nil
}

// seal appends the digests to what is before them in a file.
func seal(b []byte, directory int) []byte {
	p := pages{file: b, start: uint64(headerBytes + directory), end: uint64(len(b))}
	h := sha256.New()
	h.Write(b[:p.start])
	for i := range int(pageCount(p.start, p.end)) {
		d := p.digest(i)
		h.Write(d)
		b = append(b, d...)
	}
	return h.Sum(b)
}

// Sources returns the sets of a list as a new list can have them, as they are.
// They are good until the list is closed.
func (l *List) Sources() (all []Source) {
	for i := range l.sets {
		s := &l.sets[i]
		all = append(all, Source{Set: s.Set, record: s.record, section: s.section})
	}
	return all
}

func (s *Source) appendDebian(directory, sections []byte) ([]byte, []byte, error) {
	if err := s.checkDebian(); err != nil {
		return nil, nil, err
	}
	mask := originMask(s.Origins)
	if mask == 0 || s.Candidates > math.MaxUint16 || s.Exponent > math.MaxInt32 {
		return nil, nil, fmt.Errorf("%d origins, %d candidates, exponent %d", len(s.Origins), s.Candidates, s.Exponent)
	}
	keys := slices.SortedFunc(slices.Values(s.Keys), func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.ID.High, b.ID.High), cmp.Compare(a.ID.Low, b.ID.Low), cmp.Compare(a.Seed.Pack(), b.Seed.Pack()))
	})
	keys = slices.CompactFunc(keys, func(a, b Key) bool { return a.ID == b.ID })
	if len(keys) == 0 || len(keys) > math.MaxInt32 {
		return nil, nil, fmt.Errorf("%d keys", len(keys))
	}
	for _, key := range keys {
		if !slices.Contains(s.Origins, Origin{key.Seed.Arch, key.Seed.Variant}) {
			return nil, nil, fmt.Errorf("a key of %v, which is none of its origins", key.Seed)
		}
	}
	filter, filterBits, err := buildBloom(keys)
	if err != nil {
		return nil, nil, err
	}
	index, slots, err := buildIndex(keys)
	if err != nil {
		return nil, nil, err
	}
	directory = binary.LittleEndian.AppendUint32(directory, uint32(len(keys)))
	directory = append(directory, byte(s.Algorithm))
	directory = binary.LittleEndian.AppendUint16(directory, uint16(s.Bits))
	directory = binary.LittleEndian.AppendUint16(directory, mask)
	directory = binary.LittleEndian.AppendUint32(directory, uint32(s.Exponent))
	directory = binary.LittleEndian.AppendUint16(directory, uint16(s.Candidates))
	directory = append(directory, byte(filter.k))
	directory = binary.LittleEndian.AppendUint64(directory, filter.m)
	directory = binary.LittleEndian.AppendUint64(directory, math.Float64bits(filter.rate))
	directory = binary.LittleEndian.AppendUint32(directory, index.seed)
	directory = binary.LittleEndian.AppendUint32(directory, uint32(index.slots))
	return directory, slices.Concat(sections, filterBits, slots), nil
}

// entry is a fingerprint with its name.
type entry struct {
	fingerprint []byte
	name        string
}

func (s *Source) appendEntries(directory, sections []byte) ([]byte, []byte, error) {
	if s.Names != nil && len(s.Names) != len(s.Fingerprints) {
		return nil, nil, fmt.Errorf("%d names for %d fingerprints", len(s.Names), len(s.Fingerprints))
	}
	var entries []entry
	for i, f := range s.Fingerprints {
		e := entry{fingerprint: f}
		if s.Names != nil {
			e.name = s.Names[i]
		}
		if len(e.name) > math.MaxUint8 {
			return nil, nil, fmt.Errorf("a name of %d bytes, more than %d", len(e.name), math.MaxUint8)
		}
		if err := checkText("name of a key", e.name); err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(bytes.Compare(a.fingerprint, b.fingerprint), cmp.Compare(a.name, b.name))
	})
	// Of several names of one key the last stays: "" comes first.
	slices.Reverse(entries)
	entries = slices.CompactFunc(entries, func(a, b entry) bool { return bytes.Equal(a.fingerprint, b.fingerprint) })
	slices.Reverse(entries)
	if len(entries) == 0 || len(entries) > math.MaxInt32 {
		return nil, nil, fmt.Errorf("%d keys", len(entries))
	}
	size := s.Kind.entryBytes()
	before := len(sections)
	for _, e := range entries {
		if len(e.fingerprint) != size {
			return nil, nil, fmt.Errorf("a fingerprint of %d bytes, want %d", len(e.fingerprint), size)
		}
		sections = append(sections, e.fingerprint...)
	}
	words := []string{s.Title, s.Reason}
	if s.Kind == Compromised {
		words = append(words, s.Cite)
		sections = appendNames(sections, entries)
	}
	directory = binary.LittleEndian.AppendUint32(directory, uint32(len(entries)))
	for _, text := range words {
		directory = append(directory, byte(len(text)))
		directory = append(directory, text...)
	}
	directory = binary.LittleEndian.AppendUint64(directory, uint64(len(sections)-before))
	return directory, sections, nil
}

// appendNames appends where the name of each entry begins, and the names, each
// of them once.
func appendNames(sections []byte, entries []entry) []byte {
	var names []byte
	begins := make(map[string]uint32)
	for _, e := range entries {
		begin, ok := begins[e.name]
		if !ok {
			begin = uint32(len(names))
			begins[e.name] = begin
			names = append(names, byte(len(e.name)))
			names = append(names, e.name...)
		}
		sections = binary.LittleEndian.AppendUint32(sections, begin)
	}
	return append(sections, names...)
}
