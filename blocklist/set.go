package blocklist

import (
	"fmt"
	"slices"
	"strings"
)

// Algorithm is a kind of public key.
type Algorithm uint8

// The numbers stand in the file.
const (
	RSA   Algorithm = 1
	ECDSA Algorithm = 2
)

// Origin is where a set's weak keys come from: a machine on which Debian's
// OpenSSL ran, and the way its pool was seeded (design of CVE-2008-0166).
type Origin struct {
	Architecture string // le32, le64 or be32
	Variant      string // rnd, noreadrnd, nornd or ssh
}

func (o Origin) String() string { return o.Architecture + "-" + o.Variant }

var (
	architectures = []string{"le32", "le64", "be32"}
	variants      = []string{"rnd", "noreadrnd", "nornd", "ssh"}
)

// In a file, origins are a uint16 with bit 4·architecture + variant. A set is
// complete with all that openssl's key tools, or all that ssh-keygen made.
const (
	originBits      = 0x0fff
	originsComplete = 0x0777
	originsSSH      = 0x0888
)

func encodeOrigins(all []Origin) (mask uint16, err error) {
	for _, o := range all {
		a, v := slices.Index(architectures, o.Architecture), slices.Index(variants, o.Variant)
		if a < 0 || v < 0 {
			return 0, fmt.Errorf("blocklist: build: unknown origin %s", o)
		}
		mask |= 1 << (4*a + v)
	}
	return mask, nil
}

func decodeOrigins(mask uint16) (all []Origin) {
	for a, arch := range architectures {
		for v, variant := range variants {
			if mask>>(4*a+v)&1 != 0 {
				all = append(all, Origin{arch, variant})
			}
		}
	}
	return all
}

// Set is one group of weak keys in a list: the keys of one algorithm and size.
type Set struct {
	Name      string // "rsa2048"
	Algorithm Algorithm
	Bits      int // length of the modulus, or of the curve's field: 256, 384, 521
	Origins   []Origin
	Keys      int // fingerprints that went in

	// FalsePositiveRate is the chance that a key which is not weak is listed.
	FalsePositiveRate float64
	// Probes and FilterBits are k and m of the Bloom filter.
	Probes     int
	FilterBits uint64
	// Bytes is what the set takes in the file.
	Bytes int
}

// Complete tells whether the set has the keys of every origin, so that a key
// of its size which it does not list is none of Debian's.
func (s *Set) Complete() bool {
	mask, err := encodeOrigins(s.Origins)
	return err == nil && (mask == originsComplete || mask == originsSSH)
}

// String is the set's name, followed by what it covers if that is not all:
// "rsa4096 (le32-rnd, le64-rnd only)".
func (s *Set) String() string {
	if s.Complete() {
		return s.Name
	}
	// A whole architecture is told as one word.
	var words []string
	for _, arch := range architectures {
		var some []string
		for _, o := range s.Origins {
			if o.Architecture == arch {
				some = append(some, o.String())
			}
		}
		if len(some) == 3 && !slices.Contains(some, arch+"-ssh") {
			some = []string{arch}
		}
		words = append(words, some...)
	}
	return s.Name + " (" + strings.Join(words, ", ") + " only)"
}
