package main

import (
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/blocklist/debian"
)

// kind is a set of Debian's keys by its name.
type kind struct {
	name     string
	bits     int            // of an RSA modulus
	exponent int            // of RSA
	curve    elliptic.Curve // of EC
}

// Debian's ssh-keygen took the exponent 35, its openssl 65537.
var kinds = []kind{
	{name: "rsa1024", bits: 1024, exponent: 65537},
	{name: "rsa1024-ssh", bits: 1024, exponent: 35},
	{name: "rsa2048", bits: 2048, exponent: 65537},
	{name: "rsa2048-ssh", bits: 2048, exponent: 35},
	{name: "rsa3072", bits: 3072, exponent: 65537},
	{name: "rsa3072-ssh", bits: 3072, exponent: 35},
	{name: "rsa4096", bits: 4096, exponent: 65537},
	{name: "rsa4096-ssh", bits: 4096, exponent: 35},
	{name: "p256", curve: elliptic.P256()},
	{name: "p384", curve: elliptic.P384()},
	{name: "p521", curve: elliptic.P521()},
}

func kindNamed(name string) (kind, error) {
	var known []string
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
		known = append(known, k.name)
	}
	return kind{}, fmt.Errorf("there is no set %q, only %s", name, strings.Join(known, ", "))
}

// set is what a list says of the kind, but for its keys.
func (k kind) set() blocklist.Set {
	if k.curve != nil {
		return blocklist.Set{Name: k.name, Kind: blocklist.Debian, Algorithm: blocklist.ECDSA, Bits: k.curve.Params().BitSize}
	}
	return blocklist.Set{Name: k.name, Kind: blocklist.Debian, Algorithm: blocklist.RSA, Bits: k.bits, Exponent: k.exponent}
}

// origins are those that a complete set has.
func (k kind) origins() []blocklist.Origin {
	ssh := strings.HasSuffix(k.name, "-ssh")
	return slices.DeleteFunc(blocklist.Origins(), func(o blocklist.Origin) bool { return (o.Variant == debian.SSH) != ssh })
}

// file is the name of the file that has the keys of one origin.
func (k kind) file(o blocklist.Origin) string {
	base, _, _ := strings.Cut(k.name, "-")
	return base + "-" + o.String() + ".bin"
}

// A file has a row for each process id: the fingerprint of the key, and for
// RSA the number of candidates that failed before each prime (two uint16,
// little-endian) and four zero bytes.
const rowsPerFile = debian.MaxPID + 1

func (k kind) rowBytes() int {
	if k.curve != nil {
		return sha256.Size
	}
	return sha256.Size + 8
}

// weakKey is a key that the generator made: of RSA the modulus, of EC the
// affine x coordinate.
type weakKey struct {
	seed    debian.Seed
	number  *big.Int
	failed  debian.Failed
	refused bool // a prime by the exponent: another one gives another key
}

// generate makes the key of a seed from nothing else.
func (k kind) generate(ctx context.Context, seed debian.Seed) (weakKey, error) {
	if k.curve != nil {
		key, err := debian.EC(k.curve, seed)
		return weakKey{seed: seed, number: key.X}, err
	}
	key, err := debian.RSA(ctx, k.bits, k.exponent, seed)
	return weakKey{seed, key.N, key.Failed, key.Refused}, err
}

// withSmallExponent puts behind each key for which 65537 refused a prime the one
// that the same seed gives for an exponent such as 3.
func (k kind) withSmallExponent(ctx context.Context, keys iter.Seq2[weakKey, error]) iter.Seq2[weakKey, error] {
	small := k
	small.exponent = 3
	return func(yield func(weakKey, error) bool) {
		for key, err := range keys {
			if !yield(key, err) || key.refused && !yield(small.generate(ctx, key.seed)) {
				return
			}
		}
	}
}

// row is the key as a file has it.
func (k kind) row(key weakKey) ([]byte, error) {
	sum := debian.Fingerprint(key.number)
	row := sum[:]
	if k.curve == nil {
		if max(key.failed.BeforeP, key.failed.BeforeQ) > 0xffff {
			return nil, fmt.Errorf("%v: more candidates than a row can tell", key.seed)
		}
		row = binary.LittleEndian.AppendUint16(row, uint16(key.failed.BeforeP))
		row = binary.LittleEndian.AppendUint16(row, uint16(key.failed.BeforeQ))
		row = append(row, 0, 0, 0, 0)
	}
	return row, nil
}

// errRow means that a row does not have the key of its seed.
var errRow = errors.New("is not the key that the generator makes")

// fromRow makes the key of a seed, with the help of its row and held against it.
func (k kind) fromRow(ctx context.Context, seed debian.Seed, row []byte) (weakKey, error) {
	if k.curve != nil {
		key, err := k.generate(ctx, seed)
		if err == nil && debian.Fingerprint(key.number) != [sha256.Size]byte(row) {
			err = fmt.Errorf("%v: its row %w", seed, errRow)
		}
		return key, err
	}
	failed := debian.Failed{
		BeforeP: int(binary.LittleEndian.Uint16(row[sha256.Size:])),
		BeforeQ: int(binary.LittleEndian.Uint16(row[sha256.Size+2:])),
	}
	key, err := debian.Replay(ctx, k.bits, k.exponent, seed, failed)
	if err == nil && debian.Fingerprint(key.N) != [sha256.Size]byte(row) {
		err = fmt.Errorf("%v: its row %w", seed, errRow)
	}
	return weakKey{seed, key.N, failed, key.Refused}, err
}
