// Package blocklist looks public keys up in lists of keys that are known to
// be weak: those of Debian's broken OpenSSL (CVE-2008-0166), and those that an
// operator knows to be compromised.
//
// A list is a file (.kvf). For each algorithm and size of Debian's keys it has
// a small Bloom filter, which settles nearly every key that is not weak, and
// an index that names the seed a weak key was made of. What passes the filter
// is held against the key of that seed, so that the answer is exact and comes
// with its proof. A key of a size that no set covers is told apart from one
// that was looked up and not found.
//
// A list is used where it lies, mapped from a path or embedded in the program,
// and never copied to the heap.
package blocklist

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"runtime/debug"
	"slices"
	"sort"
	"time"

	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
)

// List is one list of weak keys. It may be used by several goroutines at once.
type List struct {
	sets   []set
	bytes  int
	sha256 string // of the whole file, hex
	mapped []byte // what Close unmaps; nil if the list is not mapped
	inside []byte // what Close lets go of; nil if the list is not inside the program
}

type set struct {
	Set
	filter  bloom  // of Debian's keys
	index   index  // of Debian's keys
	entries []byte // of the other kinds
}

// ErrNotEmbedded is the answer of [Embedded] in a program that was built
// without a list, by the tag keyvet_noblocklist.
var ErrNotEmbedded = errors.New("blocklist: this program was built without a list; give one by its path")

// debianName is [device.Listing.Name] of the keys of Debian's generator.
const debianName = "Debian weak keys"

// confirmTimeout bounds the confirmation of one key. It takes some
// milliseconds on a PC, and seconds at worst on a slow 32-bit core.
const confirmTimeout = 30 * time.Second

// Lookup looks a key up in the list. The key is a *rsa.PublicKey, a
// *device.LargeRSA or an *ecdsa.PublicKey, whose point need not be on its
// curve; one of another type is not covered, though an operator's list may
// have it. A set may hold Debian's keys of some architectures and variants
// only: the key is covered then, and [List.Info] says by what.
//
// A listed key of Debian's comes with a proof: pid, architecture and variant,
// and for RSA a factor of the modulus in hex. If ctx's deadline, or thirty
// seconds, pass before the key of that seed was made, the key is reported as
// listed, not Exact, and its proof has the note "hit, not confirmed".
//
// An error means that the question could not be answered: a key without a
// modulus or with a coordinate outside its field, a context that was done
// before, a list whose file was cut short after it was opened.
func (l *List) Lookup(ctx context.Context, pub crypto.PublicKey) (listing device.Listing, err error) {
	if err := ctx.Err(); err != nil {
		return device.Listing{}, fmt.Errorf("blocklist: look up key: %w", err)
	}
	algorithm, size, n, err := identify(pub)
	if err != nil {
		return device.Listing{}, fmt.Errorf("blocklist: look up key: %w", err)
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
	for i := range l.sets {
		s := &l.sets[i]
		switch {
		case s.Kind != Debian:
			if s.lists(pub, n, algorithm) {
				listing = surer(listing, device.Listing{
					Covered: true, Set: s.Name, Listed: true, Exact: s.Exact(), Reason: s.Reason, Name: s.Title,
				})
			}
		case s.Algorithm == algorithm && s.Bits == size:
			if !listing.Covered {
				listing = device.Listing{Covered: true, Set: s.Name, Exact: true}
			}
			if s.filter.has(NewKeyID(n)) {
				hit, err := s.confirm(ctx, n)
				if err != nil {
					return device.Listing{}, fmt.Errorf("blocklist: look up key: %w", err)
				}
				listing = surer(listing, hit)
			}
		}
	}
	return listing, nil
}

// surer is the first of two answers that lists the key without doubt, lists it
// at all, or covers it.
func surer(a, b device.Listing) device.Listing {
	rank := func(l device.Listing) int {
		switch {
		case l.Listed && l.Exact:
			return 3
		case l.Listed:
			return 2
		case l.Covered:
			return 1
		}
		return 0
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// confirm makes the key of the seed that the index names, as far as it takes
// to see whether that is the key in hand: of RSA, up to the first prime.
//
// The number of candidates that failed before that prime could be stored: its
// entropy is 6.8 bits a key at RSA-2048, 7.8 at RSA-4096. A weak key would be
// confirmed in half of 0.3 ms, since all candidates have to be drawn still. A
// key that only passes the filter would cost 40 of them and not 480, 0.2 ms and
// not 2 ms: 10 µs less in the mean look-up, for a quarter more space.
func (s *set) confirm(ctx context.Context, n *big.Int) (device.Listing, error) {
	seed, err := debian.UnpackSeed(s.index.get(NewKeyID(n)))
	if err != nil || !slices.Contains(s.Origins, Origin{seed.Arch, seed.Variant}) {
		return device.Listing{}, nil // a key that is not in the set has any value
	}
	hit := device.Listing{
		Covered: true, Set: s.Name, Listed: true, Exact: true, Reason: device.ReasonDebian, Name: debianName,
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

// lists reports whether a list of fingerprints has the key.
func (s *set) lists(pub crypto.PublicKey, n *big.Int, a Algorithm) bool {
	var fingerprint []byte
	switch {
	case s.Kind == SPKISHA256:
		spki, err := marshalSPKI(pub)
		if err != nil {
			return false // what has no SPKI is on no list of them
		}
		sum := sha256.Sum256(spki)
		fingerprint = sum[:]
	case a == RSA:
		sum := debian.OpenSSLBlacklist(n)
		fingerprint = sum[:]
	default:
		return false
	}
	size := len(fingerprint)
	_, found := sort.Find(s.Keys, func(i int) int { return bytes.Compare(fingerprint, s.entries[i*size:(i+1)*size]) })
	return found
}

// marshalSPKI encodes a key as certificates do (RFC 5280, section 4.1).
func marshalSPKI(pub crypto.PublicKey) ([]byte, error) {
	large, ok := pub.(*device.LargeRSA)
	if !ok {
		return x509.MarshalPKIXPublicKey(pub)
	}
	key, err := asn1.Marshal(*large) // RSAPublicKey (RFC 8017, section A.1.1) is N and E too
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}{
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: asn1.NullRawValue},
		asn1.BitString{Bytes: key, BitLength: 8 * len(key)},
	})
}

// identify gives algorithm and size as sets have them, and the number that
// names the key: the modulus, or the affine x coordinate. Of a key of which
// Debian's generator made none they are 0.
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

// Passes reports whether the filter of a set of Debian's keys lets a key through
// to be confirmed, as it does with every key of the set and a few others.
func (l *List) Passes(name string, id KeyID) (passes bool, err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if fault := asFault(recover()); fault != nil {
			passes, err = false, fault
		}
	}()
	for i := range l.sets {
		if l.sets[i].Name == name && l.sets[i].Kind == Debian {
			return l.sets[i].filter.has(id), nil
		}
	}
	return false, fmt.Errorf("blocklist: no set of Debian's keys named %s", name)
}

// Lists are several lists asked as one.
type Lists []*List

// Lookup asks every list: the key is covered if one covers it, and listed if
// one lists it; an exact answer goes first. A list that could not answer is an
// error unless another lists the key.
func (ls Lists) Lookup(ctx context.Context, pub crypto.PublicKey) (device.Listing, error) {
	var answer device.Listing
	var failed error
	for _, l := range ls {
		listing, err := l.Lookup(ctx, pub)
		if err != nil && failed == nil {
			failed = err
		}
		answer = surer(answer, listing)
	}
	if failed != nil && !answer.Listed {
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

// Close closes every list.
func (ls Lists) Close() error {
	var failed error
	for _, l := range ls {
		failed = errors.Join(failed, l.Close())
	}
	return failed
}
