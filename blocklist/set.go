package blocklist

import (
	"crypto/elliptic"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
)

// Kind is where a set's keys come from, and so what they are known by.
type Kind uint8

// The numbers stand in the file.
const (
	Debian           Kind = 1 // Debian's broken generator: the seed of each key is known
	SPKISHA256       Kind = 2 // an operator's own list: SHA-256 of the DER SubjectPublicKeyInfo
	OpenSSLBlacklist Kind = 3 // Debian's package of that name: 80 bits of a SHA-1 of the modulus
)

// Algorithm is the algorithm of a public key.
type Algorithm uint8

// The numbers stand in the file.
const (
	RSA   Algorithm = 1
	ECDSA Algorithm = 2
)

// Origin is a group of Debian's weak keys: the kind of machine that the
// generator ran on, and what it did before the first draw.
type Origin struct {
	Arch    debian.Arch
	Variant debian.Variant
}

func (o Origin) String() string { return o.Arch.String() + "-" + o.Variant.String() }

// In a file, origins are a uint16 with bit 4·architecture + variant. A set is
// complete with all that openssl's tools made, or all that ssh-keygen made.
const (
	originBits      = 0x0fff
	originsComplete = 0x0777
	originsSSH      = 0x0888
)

func (o Origin) bit() uint16 { return 1 << (4*uint16(o.Arch) + uint16(o.Variant)) }

func originMask(all []Origin) (mask uint16) {
	for _, o := range all {
		mask |= o.bit()
	}
	return mask
}

// Origins lists all origins that there can be, in the order of the files.
func Origins() (all []Origin) {
	for arch := debian.LE32; arch <= debian.BE32; arch++ {
		for variant := debian.Rnd; variant <= debian.SSH; variant++ {
			all = append(all, Origin{arch, variant})
		}
	}
	return all
}

// Set is one group of weak keys in a list.
type Set struct {
	Name  string // "rsa2048"; unique in its list
	Kind  Kind
	Keys  int
	Bytes int // in the file

	// Of a set of Debian's keys:
	Algorithm  Algorithm
	Bits       int // of the modulus, or of the curve's field: 256, 384, 521
	Exponent   int // public exponent the keys were made for; 0 for EC
	Candidates int // highest number of candidates that a first prime took
	Origins    []Origin
	FilterRate float64 // the part of other keys that the filter lets through, to be confirmed

	// Of an operator's list:
	Title  string // reported as [device.Listing.Name]
	Reason string // reason code of the finding

	// FalsePositiveRate is the chance that a key which is not weak is listed:
	// 0, but for 80-bit hashes.
	FalsePositiveRate float64
}

// Compromised is the reason of an operator's list that has no other.
var Compromised = device.Reason{
	Code: "KEYVET_COMPROMISED_KEY", Status: device.Fail, Severity: device.Critical,
	Means: "The key is on a list of compromised keys; the message names the list.",
	Do:    "Replace the key and everything that relied on it.",
}

// Exact reports whether there is no doubt about a key that is listed.
func (s *Set) Exact() bool { return s.Kind != OpenSSLBlacklist }

// Complete reports whether a set of Debian's keys has those of every origin, so
// that a key of its size which it does not list is none of Debian's.
func (s *Set) Complete() bool {
	mask := originMask(s.Origins)
	return mask == originsComplete || mask == originsSSH
}

// String is the set's name, followed by what it covers if that is not all:
// "rsa4096 (le32, le64 only)".
func (s *Set) String() string {
	if s.Kind != Debian || s.Complete() {
		return s.Name
	}
	var words []string
	for arch := debian.LE32; arch <= debian.BE32; arch++ {
		var some []string
		for _, o := range s.Origins {
			if o.Arch == arch {
				some = append(some, o.String())
			}
		}
		if len(some) == 3 && !slices.Contains(s.Origins, Origin{arch, debian.SSH}) {
			some = []string{arch.String()} // all that openssl's tools made there
		}
		words = append(words, some...)
	}
	return s.Name + " (" + strings.Join(words, ", ") + " only)"
}

// Curve is the curve of a set of EC keys, or nil.
func (s *Set) Curve() elliptic.Curve {
	if s.Algorithm == ECDSA {
		switch s.Bits {
		case 256:
			return elliptic.P256()
		case 384:
			return elliptic.P384()
		case 521:
			return elliptic.P521()
		}
	}
	return nil
}

// entryBytes is what a listed fingerprint of the kind takes.
func (k Kind) entryBytes() int {
	switch k {
	case SPKISHA256:
		return 32
	case OpenSSLBlacklist:
		return 10
	}
	return 0
}
