package blocklist

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/url"
	"runtime/debug"
	"sync/atomic"

	"github.com/keyvet/keyvet/blocklist/debian"
)

// A list file (.kvf) is, every number little-endian:
//
//	header     magic (8), version (uint16), sets (uint16), directory bytes (uint32), where the sections end (uint64)
//	directory  a record for each set, in ascending order of the names
//	sections   of the first set, then of the second, … without a gap
//	digests    of each page of the sections the first 16 bytes of its SHA-256
//	digest     SHA-256 of header, directory and digests
//
// A record is name (length uint8, bytes), kind (uint8), keys (uint32), then
// for Debian's keys
//
//	algorithm (uint8: 1 RSA, 2 EC), bits (uint16), origins (uint16), exponent (uint32), candidates (uint16),
//	of the filter: k (uint8), m (uint64), the rate at which other keys pass (float64);
//	of the index: the hash's seed (uint32), slots (uint32). The section is the filter's bits and the slots.
//
// and for the other kinds
//
//	title, reason (each length uint8, bytes), and of the kind Compromised cite (the same);
//	bytes of the section (uint64): the fingerprints in ascending order, and of the kind Compromised
//	for each of them where its name begins (uint32), and the names (each length uint8, bytes).
//
// and for the kind Named
//
//	title, reason, cite, licence (each length uint8, bytes), fingerprints (uint32), bytes of the section (uint64):
//	the fingerprints in ascending order, the place of each in the order of the names, as many bits as the
//	last place has, three zero bytes, the length of each block of 512 names (uint32), and the blocks.
//
// A kind that a reader does not know means that the list says something it
// cannot understand: it is refused, like a newer version.
const (
	magic   = "\x89KVF\r\n\x1a\n" // as PNG's: broken by a transfer as text, and seen
	version = 3

	headerBytes = 24
	digestBytes = sha256.Size

	maxFileBytes = 256 << 20
	maxSets      = 64
	maxNameBytes = 64
)

// parse reads what a list is made of, and keeps b, which must not change. What
// the sections hold is checked when it is read.
func parse(b []byte, name string) (l *List, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer returnFault(&err)
	p, err := checkHeader(b)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write(b[:p.start])
	h.Write(p.digests)
	if string(h.Sum(nil)) != string(b[len(b)-digestBytes:]) {
		return nil, errors.New("damaged: its SHA-256 does not match")
	}
	l = &List{name: name, file: b}
	if err := l.parseSets(p); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	return l, nil
}

// checkHeader holds a file to the format's mark, version and length.
func checkHeader(b []byte) (*pages, error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, errors.New("not a keyvet blocklist")
	}
	if len(b) < headerBytes+digestBytes {
		return nil, fmt.Errorf("truncated: %d bytes", len(b))
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v > version {
		return nil, fmt.Errorf("format version %d is newer than the %d this keyvet reads", v, version)
	} else if v < version {
		return nil, fmt.Errorf("format version %d is no longer read; build the list again", v)
	}
	p := &pages{file: b, start: headerBytes + uint64(binary.LittleEndian.Uint32(b[12:])), end: binary.LittleEndian.Uint64(b[16:])}
	if p.end > maxFileBytes || p.start > p.end {
		return nil, fmt.Errorf("damaged: a directory to %d and sections to %d", p.start, p.end)
	}
	length := p.end + pageDigestBytes*pageCount(p.start, p.end) + digestBytes
	if length > uint64(len(b)) {
		return nil, fmt.Errorf("truncated: %d bytes of %d", len(b), length)
	} else if length < uint64(len(b)) {
		return nil, fmt.Errorf("%d bytes follow its end", uint64(len(b))-length)
	}
	p.digests = b[p.end : len(b)-digestBytes]
	p.right = make([]atomic.Bool, pageCount(p.start, p.end))
	return p, nil
}

func (l *List) parseSets(p *pages) error {
	count := int(binary.LittleEndian.Uint16(p.file[10:]))
	if count < 1 || count > maxSets {
		return fmt.Errorf("%d sets", count)
	}
	records := reader{rest: p.file[headerBytes:p.start]}
	sections := part{p, p.start, p.end - p.start}
	for range count {
		record, section := records.rest, sections
		s, err := readSet(&records, &sections)
		if err != nil {
			return err
		}
		s.record = record[:len(record)-len(records.rest)]
		s.section, _ = section.cut(uint64(s.Bytes))
		if n := len(l.sets); n > 0 && l.sets[n-1].Name >= s.Name {
			return fmt.Errorf("set %s after set %s: not in order", s.Name, l.sets[n-1].Name)
		}
		l.sets = append(l.sets, s)
	}
	if n := uint64(len(records.rest)) + sections.n; n > 0 {
		return fmt.Errorf("%d bytes belong to no set", n)
	}
	return nil
}

// readSet reads one record of the directory and the sections it tells of.
func readSet(records *reader, sections *part) (set, error) {
	s := set{Set: Set{Name: records.string(), Kind: Kind(records.uint8())}}
	keys := records.uint32()
	if records.short {
		return set{}, errors.New("directory ends early")
	}
	if err := checkName(s.Name); err != nil {
		return set{}, err
	}
	if keys == 0 || keys > math.MaxInt32 {
		return set{}, fmt.Errorf("set %s has %d keys", s.Name, keys)
	}
	s.Keys = int(keys)
	before := sections.n
	var err error
	switch s.Kind {
	case Debian:
		err = s.readDebian(records, sections)
	case SPKISHA256, OpenSSLBlacklist, Compromised:
		err = s.readEntries(records, sections)
	case Named:
		err = s.readNamed(records, sections)
	default:
		err = fmt.Errorf("kind %d is unknown, made for a newer keyvet", s.Kind)
	}
	if err != nil {
		return set{}, fmt.Errorf("set %s: %w", s.Name, err)
	}
	s.Bytes = int(before - sections.n)
	return s, nil
}

func (s *set) readDebian(records *reader, sections *part) (err error) {
	s.Algorithm, s.Bits = Algorithm(records.uint8()), int(records.uint16())
	mask, exponent := records.uint16(), records.uint32()
	s.Candidates = int(records.uint16())
	s.filter = bloom{k: int(records.uint8()), m: records.uint64(), rate: math.Float64frombits(records.uint64())}
	s.index = index{seed: records.uint32(), slots: uint64(records.uint32())}
	if records.short {
		return errors.New("directory ends early")
	}
	if mask == 0 || mask&^originBits != 0 {
		return fmt.Errorf("origins %#x", mask)
	}
	for _, o := range Origins() {
		if mask&o.bit() != 0 {
			s.Origins = append(s.Origins, o)
		}
	}
	if exponent > math.MaxInt32 {
		return fmt.Errorf("exponent %d", exponent)
	}
	s.Exponent = int(exponent)
	if err := s.checkDebian(); err != nil {
		return err
	}
	if err := s.filter.cut(sections); err != nil {
		return err
	}
	if err := s.index.cut(sections); err != nil {
		return err
	}
	s.FilterRate = s.filter.rate / (1 << checkBits)
	return nil
}

// checkDebian holds a set of Debian's keys to what the generator could make.
func (s *Set) checkDebian() error {
	switch {
	case s.Algorithm == RSA && s.Bits >= debian.MinRSABits && s.Bits <= debian.MaxRSABits:
		if s.Exponent < 3 || s.Exponent%2 == 0 || s.Candidates < 1 {
			return fmt.Errorf("exponent %d, %d candidates", s.Exponent, s.Candidates)
		}
	case s.Curve() != nil:
		if s.Exponent != 0 || s.Candidates != 0 {
			return fmt.Errorf("exponent %d, %d candidates", s.Exponent, s.Candidates)
		}
	default:
		return fmt.Errorf("algorithm %d with %d bits", s.Algorithm, s.Bits)
	}
	return nil
}

func (s *set) readEntries(records *reader, sections *part) error {
	s.Title, s.Reason = records.string(), records.string()
	if s.Kind == Compromised {
		s.Cite = records.string()
	}
	length := records.uint64()
	if records.short {
		return errors.New("directory ends early")
	}
	if err := s.checkWords(); err != nil {
		return err
	}
	size := s.Kind.entryBytes()
	entries, labels := uint64(s.Keys)*uint64(size), uint64(0)
	if s.Kind == Compromised {
		labels = 4 * uint64(s.Keys)
	}
	if length < entries+labels || s.Kind != Compromised && length != entries {
		return fmt.Errorf("%d bytes for %d fingerprints of %d", length, s.Keys, size)
	}
	section, ok := sections.cut(length)
	if !ok {
		return fmt.Errorf("%d bytes of fingerprints where fewer are left", length)
	}
	s.entries, _ = section.cut(entries)
	s.labels, _ = section.cut(labels)
	s.names = section
	if s.Kind == OpenSSLBlacklist {
		s.FalsePositiveRate = float64(s.Keys) / (1 << 40) / (1 << 40)
	}
	return nil
}

// checkName holds a set's name to what is safe to print and to compare.
func checkName(name string) error {
	if name == "" || len(name) > maxNameBytes {
		return fmt.Errorf("set name of %d bytes, want 1 to %d", len(name), maxNameBytes)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("set name %q has other signs than a-z, 0-9 and -", name)
		}
	}
	return nil
}

// CheckWords holds the name of a set, and the words of one that is no set of
// Debian's, to what a list can have, which is safe to print.
func (s *Set) CheckWords() error {
	if err := checkName(s.Name); err != nil || s.Kind == Debian {
		return err
	}
	return s.checkWords()
}

// check holds fingerprints to their order and names to what is safe to read and
// to print.
func (s *set) check() error {
	if s.Kind == Named {
		return s.named.check(s.Keys)
	}
	size := uint64(s.Kind.entryBytes())
	if size == 0 {
		return nil
	}
	entries := s.entries.all()
	for i := size; i < uint64(len(entries)); i += size {
		if bytes.Compare(entries[i-size:i], entries[i:i+size]) >= 0 {
			return errors.New("fingerprints are not in order")
		}
	}
	for at := range s.Keys {
		if _, err := s.entryName(at); err != nil {
			return err
		}
	}
	return nil
}

// checkText holds text to what is safe to print.
func checkText[T string | []byte](what string, text T) error {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return fmt.Errorf("%s %q is not plain ASCII", what, string(text))
		}
	}
	return nil
}

// checkWords holds a list's title, reason code and address to what is safe to
// print.
func (s *Set) checkWords() error {
	title, reason := s.Title, s.Reason
	if title == "" || len(title) > maxNameBytes || reason == "" || len(reason) > maxNameBytes {
		return fmt.Errorf("title of %d bytes and reason code of %d, want 1 to %d", len(title), len(reason), maxNameBytes)
	}
	if err := checkText("title", title); err != nil {
		return err
	}
	if err := checkText("licence", s.Licence); err != nil || len(s.Licence) > math.MaxUint8 {
		return cmp.Or(err, fmt.Errorf("licence of %d bytes, more than %d", len(s.Licence), math.MaxUint8))
	}
	if s.Cite != "" {
		if err := checkText("address", s.Cite); err != nil {
			return err
		}
		if u, err := url.Parse(s.Cite); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(s.Cite) > math.MaxUint8 {
			return fmt.Errorf("address %q is not a URL of https or http of at most %d bytes", s.Cite, math.MaxUint8)
		}
	}
	for _, c := range []byte(reason) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return fmt.Errorf("reason code %q has other signs than A-Z, 0-9, _ and -", reason)
		}
	}
	return nil
}

// reader takes numbers off the front of rest; once that was too short, short
// is set and every number 0.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) bytes(n uint64) []byte {
	if r.short || n > uint64(len(r.rest)) {
		r.short = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) string() string { return string(r.bytes(uint64(r.uint8()))) }

func (r *reader) uint8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}
