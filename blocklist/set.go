package blocklist

import (
	"cmp"
	"crypto/elliptic"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/keyvet/keyvet/blocklist/debian"
)

// Kind is where a set's keys come from, and so what they are known by.
type Kind uint8

// The numbers stand in the file.
const (
	Debian           Kind = 1 // Debian's broken generator: the seed of each key is known
	SPKISHA256       Kind = 2 // keys whose private half is public, without names, as keyvet 0.1 wrote them: SHA-256 of the DER SubjectPublicKeyInfo
	OpenSSLBlacklist Kind = 3 // Debian's package of that name: 80 bits of a SHA-1 of the modulus
	Compromised      Kind = 4 // keys whose private half is public, by the same SHA-256, each with a name
	Named            Kind = 5 // the same, each by SubjectPublicKeyInfo or number, with name, class and source
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
	FilterRate float64 // the part of other keys that filter and index let through, to be confirmed

	// Of the other kinds:
	Title  string // the list's name: [device.Listing.Name], [device.Compromised.List]
	Reason string // reason code of the finding
	Cite   string // of the kinds Compromised and Named: URL of the list; "" if it has none

	// Of the kind Named:
	Licence      string // of the data; "" if the list does not say
	Fingerprints int    // one or two a key

	// FalsePositiveRate is the chance that a key which is not weak is listed:
	// 0, but for hashes of 80 bits.
	FalsePositiveRate float64
}

// Exact reports whether there is no doubt about a key that is listed.
func (s *Set) Exact() bool { return s.Kind != OpenSSLBlacklist && s.Kind != Named }

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
	return s.Name + " (" + originWords(originMask(s.Origins)) + " only)"
}

// Covers says which of Debian's keys a set of them has: "RSA-4096 of le32, le64".
func (s *Set) Covers() string { return s.keyName() + " of " + originWords(originMask(s.Origins)) }

// keyName is the algorithm of a set of Debian's keys as [device.Key.Algorithm]
// has it.
func (s *Set) keyName() string {
	if s.Algorithm == ECDSA {
		return fmt.Sprintf("ECDSA-P%d", s.Bits)
	}
	return fmt.Sprintf("RSA-%d", s.Bits)
}

// Coverage says which of Debian's keys of one algorithm and size a list has in
// all of its sets, and which it lacks.
type Coverage struct {
	Algorithm string `json:"algorithm"`         // "RSA-4096"
	Has       string `json:"has"`               // "le32, le64"
	Lacks     string `json:"missing,omitempty"` // "be32, ssh-keygen"
}

// Coverage lists what the sets of Debian's keys cover, in ascending order of
// algorithm and size.
func (l *List) Coverage() (all []Coverage) {
	sets := slices.Clone(l.sets)
	slices.SortStableFunc(sets, func(a, b set) int {
		return cmp.Or(cmp.Compare(b.Algorithm, a.Algorithm), cmp.Compare(a.Bits, b.Bits))
	})
	var mask uint16
	for i := range sets {
		s := &sets[i]
		if s.Kind != Debian {
			continue
		}
		mask |= originMask(s.Origins)
		if next := i + 1; next < len(sets) && sets[next].Kind == Debian && sets[next].Algorithm == s.Algorithm && sets[next].Bits == s.Bits {
			continue
		}
		_, has, lacks := coverage(s.Algorithm, mask)
		all, mask = append(all, Coverage{s.keyName(), has, lacks}), 0
	}
	return all
}

// coverage says in words which groups of Debian's keys of an algorithm the
// origins are, and which there are besides. Debian's ssh-keygen of that time
// made no EC keys.
func coverage(a Algorithm, mask uint16) (all bool, has, lacks string) {
	possible := uint16(originsComplete)
	if a == RSA {
		possible |= originsSSH
	}
	return mask&possible == possible, originWords(mask), originWords(possible &^ mask)
}

// wordsOf are the words of origins, which each look-up gives: there are few.
var wordsOf sync.Map

// originWords is "le32, be32-rnd, ssh-keygen": an architecture stands for all
// that openssl's tools made on it, ssh-keygen for all that it made.
func originWords(mask uint16) string {
	words, ok := wordsOf.Load(mask)
	if !ok {
		words, _ = wordsOf.LoadOrStore(mask, makeWords(mask))
	}
	return words.(string)
}

func makeWords(mask uint16) string {
	var words []string
	for arch := debian.LE32; arch <= debian.BE32; arch++ {
		var some []string
		for variant := debian.Rnd; variant < debian.SSH; variant++ {
			if o := (Origin{arch, variant}); mask&o.bit() != 0 {
				some = append(some, o.String())
			}
		}
		if len(some) == 3 {
			some = []string{arch.String()}
		}
		words = append(words, some...)
	}
	if mask&originsSSH == originsSSH {
		return strings.Join(append(words, "ssh-keygen"), ", ")
	}
	for arch := debian.LE32; arch <= debian.BE32; arch++ {
		if o := (Origin{arch, debian.SSH}); mask&o.bit() != 0 {
			words = append(words, "ssh-keygen on "+arch.String())
		}
	}
	return strings.Join(words, ", ")
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
	case SPKISHA256, Compromised:
		return 32
	case OpenSSLBlacklist:
		return 10
	}
	return 0
}
