package blocklist

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Source is what one set of a new list is made of.
type Source struct {
	Name      string
	Algorithm Algorithm
	Bits      int
	Origins   []Origin
	// Fingerprints are the SHA-256 of the big-endian modulus, or of the affine
	// x coordinate; leading zero bytes stripped. Their order does not matter.
	Fingerprints [][sha256.Size]byte
	// FalsePositiveRate is the highest that will do, 1e-15 to 0.5.
	FalsePositiveRate float64
}

// Build makes the bytes of a list file. The same sources, in any order, give
// the same bytes.
func Build(sources []Source) ([]byte, error) {
	sources = slices.SortedFunc(slices.Values(sources), func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	if len(sources) < 1 || len(sources) > maxSets {
		return nil, fmt.Errorf("blocklist: build: %d sets, want 1 to %d", len(sources), maxSets)
	}
	var directory, sections []byte
	for i, s := range sources {
		if i > 0 && sources[i-1].Name == s.Name {
			return nil, fmt.Errorf("blocklist: build: two sets named %s", s.Name)
		}
		if err := checkName(s.Name); err != nil {
			return nil, fmt.Errorf("blocklist: build: %w", err)
		}
		if !validSize(s.Algorithm, s.Bits) {
			return nil, fmt.Errorf("blocklist: build: set %s: algorithm %d with %d bits", s.Name, s.Algorithm, s.Bits)
		}
		mask, err := encodeOrigins(s.Origins)
		if err != nil {
			return nil, err
		}
		if mask == 0 || len(s.Fingerprints) == 0 || len(s.Fingerprints) > math.MaxInt32 {
			return nil, fmt.Errorf("blocklist: build: set %s: %d keys of %d origins", s.Name, len(s.Fingerprints), len(s.Origins))
		}
		filter, err := buildBloom(s.Fingerprints, s.FalsePositiveRate)
		if err != nil {
			return nil, err
		}
		directory = append(directory, byte(len(s.Name)))
		directory = append(directory, s.Name...)
		directory = append(directory, sourceDebian, byte(s.Algorithm))
		directory = binary.LittleEndian.AppendUint16(directory, uint16(s.Bits))
		directory = binary.LittleEndian.AppendUint16(directory, mask)
		directory = binary.LittleEndian.AppendUint32(directory, uint32(len(s.Fingerprints)))
		directory = append(directory, 1, sectionBloom)
		directory = binary.LittleEndian.AppendUint64(directory, uint64(len(filter)))
		sections = append(sections, filter...)
	}
	length := headerBytes + len(directory) + len(sections) + digestBytes
	if length > maxFileBytes {
		return nil, fmt.Errorf("blocklist: build: %d bytes are more than a list may have, %d MB", length, maxFileBytes>>20)
	}
	b := make([]byte, 0, length)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(sources)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(directory)))
	b = binary.LittleEndian.AppendUint64(b, uint64(length))
	b = append(b, directory...)
	b = append(b, sections...)
	digest := sha256.Sum256(b)
	return append(b, digest[:]...), nil
}
