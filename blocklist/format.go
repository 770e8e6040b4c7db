package blocklist

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
)

// A list file (.kvf) is, every number little-endian:
//
//	header     magic (8), version (uint16), sets (uint16), directory bytes (uint32), file bytes (uint64)
//	directory  a record for each set, in ascending order of the names:
//	           name (length uint8, bytes), source (uint8, 1 = Debian's generator), algorithm (uint8: 1 RSA, 2 EC),
//	           bits (uint16), origins (uint16), keys (uint32), sections (uint8), and for each: kind (uint8), bytes (uint64)
//	sections   of the first set, then of the second, … without a gap; kind 1 is a Bloom filter
//	digest     SHA-256 of all before it
//
// A source or a kind of section that a reader does not know means that the
// list says something it cannot understand: it is refused, like a newer version.
const (
	magic   = "\x89KVF\r\n\x1a\n" // as PNG's: broken by a transfer as text, and seen
	version = 1

	headerBytes = 24

	maxFileBytes = 256 << 20
	maxSets      = 64
	maxNameBytes = 32
	maxRSABits   = 16384
	sourceDebian = 1
	sectionBloom = 1
	digestBytes  = sha256.Size
)

// parse reads a whole list and keeps slices of b, which must not change.
func parse(b []byte) (*List, error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, errors.New("not a keyvet blocklist")
	}
	if len(b) < headerBytes+digestBytes {
		return nil, fmt.Errorf("truncated: %d bytes", len(b))
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v != version {
		if v > version {
			return nil, fmt.Errorf("format version %d is newer than the %d this keyvet reads", v, version)
		}
		return nil, fmt.Errorf("format version %d is unknown", v)
	}
	if length := binary.LittleEndian.Uint64(b[16:]); length > uint64(len(b)) {
		return nil, fmt.Errorf("truncated: %d bytes of %d", len(b), length)
	} else if length < uint64(len(b)) {
		return nil, fmt.Errorf("%d bytes follow its end", uint64(len(b))-length)
	}
	body, digest := b[:len(b)-digestBytes], b[len(b)-digestBytes:]
	h := sha256.New()
	h.Write(body)
	if string(h.Sum(nil)) != string(digest) {
		return nil, errors.New("damaged: its SHA-256 does not match")
	}
	h.Write(digest)

	l := &List{bytes: len(b), sha256: hex.EncodeToString(h.Sum(nil))}
	if err := l.parseSets(body); err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	return l, nil
}

func (l *List) parseSets(body []byte) error {
	count := int(binary.LittleEndian.Uint16(body[10:]))
	directory := binary.LittleEndian.Uint32(body[12:])
	if count < 1 || count > maxSets {
		return fmt.Errorf("%d sets", count)
	}
	if uint64(directory) > uint64(len(body)-headerBytes) {
		return fmt.Errorf("directory of %d bytes", directory)
	}
	r := reader{body[headerBytes : headerBytes+int(directory)]}
	rest := body[headerBytes+int(directory):]
	for range count {
		s, err := readSet(&r, &rest)
		if err != nil {
			return err
		}
		if n := len(l.sets); n > 0 && l.sets[n-1].Name >= s.Name {
			return fmt.Errorf("set %s after set %s: not in order", s.Name, l.sets[n-1].Name)
		}
		l.sets = append(l.sets, s)
	}
	if len(r.rest) > 0 || len(rest) > 0 {
		return fmt.Errorf("%d bytes belong to no set", len(r.rest)+len(rest))
	}
	return nil
}

// readSet reads one record of the directory and takes its sections off rest.
func readSet(r *reader, rest *[]byte) (set, error) {
	name := string(r.bytes(int(r.uint8())))
	source := r.uint8()
	s := set{Set: Set{Name: name, Algorithm: Algorithm(r.uint8()), Bits: int(r.uint16())}}
	mask := r.uint16()
	keys := r.uint32()
	sections := int(r.uint8())
	if r.rest == nil {
		return set{}, errors.New("directory ends early")
	}
	if err := checkName(name); err != nil {
		return set{}, err
	}
	switch {
	case source != sourceDebian:
		return set{}, fmt.Errorf("set %s is of kind %d, made for a newer keyvet", name, source)
	case !validSize(s.Algorithm, s.Bits):
		return set{}, fmt.Errorf("set %s is of algorithm %d with %d bits", name, s.Algorithm, s.Bits)
	case mask == 0 || mask&^originBits != 0:
		return set{}, fmt.Errorf("set %s has origins %#x", name, mask)
	case keys == 0 || keys > math.MaxInt32:
		return set{}, fmt.Errorf("set %s has %d keys", name, keys)
	case sections != 1:
		return set{}, fmt.Errorf("set %s has %d sections", name, sections)
	}
	s.Origins, s.Keys = decodeOrigins(mask), int(keys)

	kind, length := r.uint8(), r.uint64()
	switch {
	case r.rest == nil:
		return set{}, errors.New("directory ends early")
	case kind != sectionBloom:
		return set{}, fmt.Errorf("set %s has a section of kind %d, made for a newer keyvet", name, kind)
	case length > uint64(len(*rest)):
		return set{}, fmt.Errorf("set %s has a section of %d bytes where %d are left", name, length, len(*rest))
	}
	var err error
	if s.filter, err = parseBloom((*rest)[:length]); err != nil {
		return set{}, fmt.Errorf("set %s: %w", name, err)
	}
	*rest = (*rest)[length:]
	s.Bytes = int(length)
	s.FalsePositiveRate, s.Probes, s.FilterBits = s.filter.rate, s.filter.k, s.filter.m
	return s, nil
}

func validSize(a Algorithm, bits int) bool {
	switch a {
	case RSA:
		return bits >= 512 && bits <= maxRSABits
	case ECDSA:
		return bits == 256 || bits == 384 || bits == 521
	}
	return false
}

// checkName holds a set's name to what is safe to print and to compare.
func checkName(name string) error {
	if name == "" || len(name) > maxNameBytes {
		return fmt.Errorf("set name of %d bytes", len(name))
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("set name %q", name)
		}
	}
	return nil
}

// reader takes numbers off the front of rest; once that is too short, rest is
// nil and every number 0.
type reader struct{ rest []byte }

func (r *reader) bytes(n int) []byte {
	if n > len(r.rest) {
		r.rest = nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

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
