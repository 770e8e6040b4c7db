// Package blocklist looks public keys up in lists of keys that are known to
// be weak: those of Debian's broken OpenSSL (CVE-2008-0166), and those whose
// private half is public, of which an operator may have lists of his own.
//
// A list is a file (.kvf). For each algorithm and size of Debian's keys it has
// a small Bloom filter, which settles nearly every key that is not weak, and
// an index that names the seed a weak key was made of. What passes the filter
// is held against the key of that seed, so that the answer is exact and comes
// with its proof. A key that no set covers, for its size or for the machines
// that the set has keys of, is told apart from one that was looked up and not
// found.
//
// A list is used where it lies, mapped from a path or embedded in the program,
// and never copied to the heap.
package blocklist

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"runtime/debug"
	"slices"
	"time"

	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
)

// List is one list of weak keys. It may be used by several goroutines at once.
type List struct {
	name   string // how errors call it
	file   []byte
	sets   []set
	sha256 string // of the file, hex, if it is known
	mapped bool   // by Open
}

type set struct {
	Set
	filter  bloom // of Debian's keys
	index   index // of Debian's keys
	entries part  // of the other kinds: the fingerprints
	labels  part  // of the kind Compromised: where the name of each begins in names
	names   part  // of the kind Compromised
	named   named // of the kind Named

	record  []byte // in the directory
	section part
}

// ErrNotEmbedded is the answer of [Embedded] in a program that was built
// without a list, by the tag keyvet_noblocklist.
var ErrNotEmbedded = errors.New("this program was built without a list; give one by its path")

// debianName is [device.Listing.Name] of the keys of Debian's generator.
const debianName = "Debian weak keys"

// confirmTimeout bounds the confirmation of one key. It takes some
// milliseconds on a PC, and seconds at worst on a slow 32-bit core.
const confirmTimeout = 30 * time.Second

// Lookup looks a key up among those of Debian's generator. The key is a
// *rsa.PublicKey, a *device.LargeRSA or an *ecdsa.PublicKey, whose point need
// not be on its curve; one of another type is not covered. The answer says
// which groups of Debian's keys of that algorithm and size the list has.
//
// A listed key of Debian's comes with a proof: pid, architecture and variant,
// and for RSA a factor of the modulus in hex. If ctx's deadline, or thirty
// seconds, pass before the key of that seed was made, the key is reported as
// listed, not Exact, and its proof has the note "hit, not confirmed".
//
// An error means that the question could not be answered: a key without a
// modulus or with a coordinate outside its field, a context that was done
// before, a list that is damaged where it was asked, or whose file was cut short
// after it was opened.
func (l *List) Lookup(ctx context.Context, pub crypto.PublicKey) (device.Listing, error) {
	return Lists{l}.Lookup(ctx, pub)
}

// keyNumber is what lists of Debian's keys know a key by.
type keyNumber struct {
	algorithm Algorithm
	size      int
	*big.Int
}

// lookup returns the answer of this list, and the origins of which it has the
// keys of that algorithm and size.
func (l *List) lookup(ctx context.Context, n keyNumber) (listing device.Listing, origins uint16, err error) {
	defer l.recoverFault(&err)()
	for i := range l.sets {
		s := &l.sets[i]
		switch {
		case s.Kind != Debian:
			if s.Reason == device.ReasonDebian && n.algorithm == RSA && s.Kind == OpenSSLBlacklist {
				if _, found := s.find(debianFingerprint(n)); found {
					listing = surer(listing, device.Listing{Set: s.Name, Listed: true, Name: s.Title})
				}
			}
		case s.Algorithm == n.algorithm && s.Bits == n.size:
			origins |= originMask(s.Origins)
			if packed, ok := s.passes(NewKeyID(n.Int)); ok {
				hit, err := s.confirm(ctx, n.Int, packed)
				if err != nil {
					return device.Listing{}, 0, err
				}
				listing = surer(listing, hit)
			}
		}
	}
	return listing, origins, nil
}

// recoverFault returns what to defer around reads of a list's bytes: damage, and a
// fault on a file that was cut short after it was mapped, become an error.
func (l *List) recoverFault(err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if fault := asFault(recover()); fault != nil {
			*err = fmt.Errorf("%s: %w", l.name, fault)
		}
	}
}

// surer is the first of two answers that lists the key without doubt, or lists
// it at all.
func surer(a, b device.Listing) device.Listing {
	if b.Listed && (!a.Listed || b.Exact && !a.Exact) {
		return b
	}
	return a
}

// passes reports whether a key has to be confirmed, and the packed seed to do it
// with.
func (s *set) passes(id KeyID) (packed uint32, ok bool) {
	if !s.filter.has(id) {
		return 0, false
	}
	return s.index.get(id)
}

// confirm makes the key of the seed that the index names, as far as it takes
// to see whether that is the key in hand: of RSA, up to the first prime.
//
// The number of candidates that failed before that prime could be stored: its
// entropy is 6.8 bits a key at RSA-2048, 7.8 at RSA-4096. A weak key would be
// confirmed in half of 0.3 ms, since all candidates have to be drawn still. A
// key that only passes the filter would cost 40 of them and not 480, 0.2 ms and
// not 2 ms: 10 µs less in the mean look-up, for a quarter more space.
func (s *set) confirm(ctx context.Context, n *big.Int, packed uint32) (device.Listing, error) {
	seed, err := debian.UnpackSeed(packed)
	if err != nil || !slices.Contains(s.Origins, Origin{seed.Arch, seed.Variant}) {
		return device.Listing{}, nil // a key that is not in the set has any value
	}
	hit := device.Listing{
		Set: s.Name, Listed: true, Exact: true, Name: debianName,
		Proof: map[string]any{"pid": int(seed.PID), "architecture": seed.Arch.String(), "variant": seed.Variant.String()},
	}
	if curve := s.Curve(); curve != nil {
		key, err := debian.EC(curve, seed)
		if err != nil || key.X.Cmp(n) != 0 {
			return device.Listing{}, err
		}
		return hit, nil
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	p, err := debian.Factor(ctx, n, s.Exponent, seed, s.Candidates)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		hit.Exact = false
		hit.Proof["note"] = "hit, not confirmed"
	case err != nil || p == nil:
		return device.Listing{}, err
	default:
		hit.Proof["factor"] = p.Text(16)
	}
	return hit, nil
}

// identify gives algorithm and size as sets have them, and the number that
// names the key: the modulus, or the affine x coordinate. Of a key of which no
// list has Debian's the number is nil.
func identify(pub crypto.PublicKey) (keyNumber, error) {
	n := keyNumber{}
	switch p := pub.(type) {
	case *rsa.PublicKey:
		n.algorithm, n.Int = RSA, p.N
	case *device.LargeRSA:
		n.algorithm, n.Int = RSA, p.N
	case *ecdsa.PublicKey:
		if p.Curve == nil {
			return keyNumber{}, errors.New("the key has no curve")
		}
		n.algorithm = ECDSA
		switch p.Curve.Params().Name {
		case "P-256", "P-384", "P-521":
		default:
			return n, nil
		}
		n.size = p.Curve.Params().BitSize
		x := p.X //nolint:staticcheck // Bytes refuses a point that is not on the curve; its x can be looked up all the same
		if x == nil || x.Sign() < 0 || x.BitLen() > n.size {
			return keyNumber{}, errors.New("the key's x coordinate is not in its field")
		}
		n.Int = x
		return n, nil
	default:
		return keyNumber{}, nil
	}
	if n.Int == nil || n.Sign() <= 0 {
		return keyNumber{}, errors.New("the key has no modulus")
	}
	n.size = n.BitLen()
	return n, nil
}

// NewKeyID is what a list knows a modulus or an x coordinate by.
func NewKeyID(n *big.Int) KeyID {
	var id [2]uint64
	for i, word := range n.Bits() {
		bit := i * bits.UintSize
		if bit >= 128 {
			break
		}
		id[bit/64] |= uint64(word) << (bit % 64)
	}
	return KeyID{Low: id[0], High: id[1]}
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
func (l *List) Bytes() int { return len(l.file) }

// Info names the sets, with what they cover if that is not all, the SHA-256 of
// the file, for which all of it may have to be read, and the worst false-positive
// rate.
func (l *List) Info() device.BlocklistInfo { return Lists{l}.Info() }

// sum is the SHA-256 of the file, "" if that cannot be read.
func (l *List) sum() string {
	if l.sha256 != "" {
		return l.sha256
	}
	var sum [sha256.Size]byte
	var err error
	func() {
		defer l.recoverFault(&err)()
		sum = sha256.Sum256(l.file)
	}()
	if err != nil {
		return ""
	}
	return hex.EncodeToString(sum[:])
}

// Passes reports whether filter and index of a set of Debian's keys let a key
// through to be confirmed, as they do with every key of the set and a few others.
func (l *List) Passes(name string, id KeyID) (passes bool, err error) {
	defer l.recoverFault(&err)()
	for i := range l.sets {
		if l.sets[i].Name == name && l.sets[i].Kind == Debian {
			_, passes = l.sets[i].passes(id)
			return passes, nil
		}
	}
	return false, fmt.Errorf("no set of Debian's keys named %s", name)
}

// Lists are several lists asked as one.
type Lists []*List

// Lookup asks every list, as [List.Lookup] does: the key is covered by what any
// of them has, and listed if one lists it; an exact answer goes first. A list
// that could not answer is an error unless another lists the key.
func (ls Lists) Lookup(ctx context.Context, pub crypto.PublicKey) (device.Listing, error) {
	if err := ctx.Err(); err != nil {
		return device.Listing{}, fmt.Errorf("look up key: %w", err)
	}
	n, err := identify(pub)
	if err != nil {
		return device.Listing{}, fmt.Errorf("look up key: %w", err)
	}
	var answer device.Listing
	var origins uint16
	var failed error
	for _, l := range ls {
		if n.Int == nil {
			break
		}
		listing, some, err := l.lookup(ctx, n)
		if err != nil && failed == nil {
			failed = fmt.Errorf("look up key: %w", err)
		}
		answer, origins = surer(answer, listing), origins|some
	}
	if failed != nil && !answer.Listed {
		return device.Listing{}, failed
	}
	answer.Covered, answer.Looked, answer.Missing = coverage(n.algorithm, origins)
	return answer, nil
}

// Info names the sets of all lists, the SHA-256 of the first and the worst rate.
func (ls Lists) Info() device.BlocklistInfo {
	info := device.BlocklistInfo{Sets: []string{}}
	if len(ls) > 0 {
		info.SHA256 = ls[0].sum()
	}
	for _, l := range ls {
		for i := range l.sets {
			info.Sets = append(info.Sets, l.sets[i].String())
			info.FalsePositiveRate = max(info.FalsePositiveRate, l.sets[i].FalsePositiveRate)
		}
	}
	return info
}

// Close closes every list.
func (ls Lists) Close() error {
	var failed error
	for _, l := range ls {
		failed = errors.Join(failed, l.Close())
	}
	return failed
}
