// Package blocklist looks public keys up in lists of keys that are known to
// be weak: those of Debian's broken OpenSSL (CVE-2008-0166).
//
// A list is a file (.kvf) with one Bloom filter for each algorithm and size of
// key. It is used where it lies, mapped from a path or embedded in the
// program, and never copied to the heap. A key of a size that no set covers is
// told apart from one that was looked up and not found.
package blocklist

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"runtime/debug"

	"github.com/keyvet/keyvet/device"
)

// List is one list of weak keys. It may be used by several goroutines at once.
type List struct {
	sets   []set
	bytes  int
	sha256 string // of the whole file, hex
	mapped []byte // what Close unmaps; nil if the list is not mapped
}

type set struct {
	Set
	filter bloom
}

// ErrNotEmbedded is the answer of [Embedded] in a program that was built
// without a list, by the tag keyvet_noblocklist.
var ErrNotEmbedded = errors.New("blocklist: this program was built without a list; give one by its path")

// debianName is [device.Listing.Name] of the keys of Debian's generator.
const debianName = "Debian weak keys"

// Lookup tells whether a key is on the list. The key is a *rsa.PublicKey, a
// *device.LargeRSA or an *ecdsa.PublicKey, whose point need not be on its
// curve; one of another type is not covered. A set may hold the keys of some
// architectures and variants only: the key is covered then, and [List.Info]
// says by what.
//
// An error means that the question could not be answered: a key without a
// modulus or with a coordinate outside its field, a context that is done, a
// list that was closed, or whose file was cut short after it was opened.
func (l *List) Lookup(ctx context.Context, pub crypto.PublicKey) (listing device.Listing, err error) {
	if err := ctx.Err(); err != nil {
		return device.Listing{}, fmt.Errorf("blocklist: look up key: %w", err)
	}
	algorithm, size, n, err := identify(pub)
	if err != nil {
		return device.Listing{}, fmt.Errorf("blocklist: look up key: %w", err)
	}
	if n == nil {
		return device.Listing{}, nil
	}
	if l.mapped != nil {
		old := debug.SetPanicOnFault(true)
		defer func() {
			debug.SetPanicOnFault(old)
			if fault := asFault(recover()); fault != nil {
				listing, err = device.Listing{}, fault
			}
		}()
	}
	var sum [sha256.Size]byte
	for i := range l.sets {
		s := &l.sets[i]
		if s.Algorithm != algorithm || s.Bits != size {
			continue
		}
		if !listing.Covered {
			listing = device.Listing{Covered: true, Set: s.Name}
			sum = fingerprint(n)
		}
		if s.filter.has(&sum) {
			return device.Listing{
				Covered: true, Set: s.Name, Listed: true, Reason: device.ReasonDebian, Name: debianName,
			}, nil
		}
	}
	return listing, nil
}

// identify gives algorithm and size as sets have them, and the number that
// names the key: the modulus, or the affine x coordinate. The number is nil
// for a key of which no list knows the like.
func identify(pub crypto.PublicKey) (a Algorithm, size int, n *big.Int, err error) {
	switch p := pub.(type) {
	case *rsa.PublicKey:
		a, n = RSA, p.N
	case *device.LargeRSA:
		a, n = RSA, p.N
	case *ecdsa.PublicKey:
		if p.Curve == nil {
			return 0, 0, nil, errors.New("the key has no curve")
		}
		switch p.Curve.Params().Name {
		case "P-256", "P-384", "P-521":
		default:
			return 0, 0, nil, nil
		}
		size = p.Curve.Params().BitSize
		x := p.X //nolint:staticcheck // Bytes refuses a point that is not on the curve; its x can be looked up all the same
		if x == nil || x.Sign() < 0 || x.BitLen() > size {
			return 0, 0, nil, errors.New("the key's x coordinate is not in its field")
		}
		return ECDSA, size, x, nil
	default:
		return 0, 0, nil, nil
	}
	if n == nil || n.Sign() <= 0 {
		return 0, 0, nil, errors.New("the key has no modulus")
	}
	return a, n.BitLen(), n, nil
}

// fingerprint is SHA-256 of n, which is not negative: big-endian, without
// leading zero bytes. Up to 4096 bits nothing is allocated.
func fingerprint(n *big.Int) [sha256.Size]byte {
	var buf [4096 / 8]byte
	size := (n.BitLen() + 7) / 8
	if size > len(buf) {
		return sha256.Sum256(n.Bytes())
	}
	end := len(buf)
	for _, w := range n.Bits() { // FillBytes goes byte by byte and costs as much as the hash
		if bits.UintSize == 64 {
			end -= 8
			binary.BigEndian.PutUint64(buf[end:], uint64(w))
		} else {
			end -= 4
			binary.BigEndian.PutUint32(buf[end:], uint32(w))
		}
	}
	return sha256.Sum256(buf[len(buf)-size:])
}

// Sets lists the sets in ascending order of their names.
func (l *List) Sets() []Set {
	all := make([]Set, len(l.sets))
	for i := range l.sets {
		all[i] = l.sets[i].Set
	}
	return all
}

// Bytes is the length of the list file.
func (l *List) Bytes() int { return l.bytes }

// Info names the sets, with what they cover if that is not all, the SHA-256 of
// the file and the worst false-positive rate.
func (l *List) Info() device.BlocklistInfo {
	info := device.BlocklistInfo{Sets: []string{}, SHA256: l.sha256}
	for i := range l.sets {
		info.Sets = append(info.Sets, l.sets[i].String())
		info.FalsePositiveRate = max(info.FalsePositiveRate, l.sets[i].FalsePositiveRate)
	}
	return info
}

// Has tells whether the named set holds a fingerprint, as [Source] has them.
func (l *List) Has(name string, fingerprint [sha256.Size]byte) (has bool, err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if fault := asFault(recover()); fault != nil {
			has, err = false, fault
		}
	}()
	for i := range l.sets {
		if l.sets[i].Name == name {
			return l.sets[i].filter.has(&fingerprint), nil
		}
	}
	return false, fmt.Errorf("blocklist: no set named %s", name)
}

// Lists are several lists asked as one.
type Lists []*List

// Lookup asks every list: the key is covered if one covers it, and listed if
// one lists it. A list that could not answer is an error unless another lists
// the key.
func (ls Lists) Lookup(ctx context.Context, pub crypto.PublicKey) (device.Listing, error) {
	var answer device.Listing
	var failed error
	for _, l := range ls {
		listing, err := l.Lookup(ctx, pub)
		switch {
		case err != nil:
			if failed == nil {
				failed = err
			}
		case listing.Listed:
			return listing, nil
		case !answer.Covered:
			answer = listing
		}
	}
	if failed != nil {
		return device.Listing{}, failed
	}
	return answer, nil
}

// Info names the sets of all lists, the SHA-256 of the first and the worst rate.
func (ls Lists) Info() device.BlocklistInfo {
	info := device.BlocklistInfo{Sets: []string{}}
	for i, l := range ls {
		one := l.Info()
		if i == 0 {
			info.SHA256 = one.SHA256
		}
		info.Sets = append(info.Sets, one.Sets...)
		info.FalsePositiveRate = max(info.FalsePositiveRate, one.FalsePositiveRate)
	}
	return info
}
