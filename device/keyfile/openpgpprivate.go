package keyfile

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// pgpPrivate reads the private numbers that belong to a public key, and returns
// that key with whether they fit it; ok is false if they cannot be read.
type pgpPrivate func(o object, s *cryptobyte.String) (_ object, ok bool)

// withPrivate returns the object of a key with a private half (RFC 9580, section
// 5.5.3), whose numbers are looked at if they are not encrypted.
func (k pgpPublic) withPrivate() object {
	o, s := k.object, k.behind
	o.private, o.privateSPKI = true, o.spki
	var usage uint8
	switch {
	case !s.ReadUint8(&usage):
		o.numbers = damagedKey
		return o
	case usage != 0:
		o.numbers = elsewhere("the private half of the OpenPGP key is encrypted, or elsewhere")
		return o
	case k.private == nil || k.version == 5: // version 5 is none of RFC 9580's
		o.numbers = elsewhere("the private numbers of an OpenPGP key of its kind are not looked at")
		return o
	}
	numbers := s
	made, ok := k.private(o, &s)
	if k.version < 6 {
		var sum, want uint16
		for _, b := range numbers[:len(numbers)-len(s)] {
			sum += uint16(b)
		}
		ok = ok && s.ReadUint16(&want) && sum == want
	}
	if !ok || !s.Empty() {
		o.numbers = damagedKey
		return o
	}
	return made
}

// pgpRSA reads d, p, q and the inverse of p modulo q.
func pgpRSA(n, e *big.Int) pgpPrivate {
	return func(o object, s *cryptobyte.String) (object, bool) {
		list, err := readMPIs(s, 4)
		if err != nil {
			return o, false
		}
		d, p, q, u := list[0], list[1], list[2], list[3]
		return rsaNumbers{n: n, e: e, d: d, primes: []*big.Int{q, p}, coefficients: []*big.Int{u}}.judge(o), true
	}
}

// pgpDSA reads x, which belongs to p, q, g and y.
func pgpDSA(public []*big.Int) pgpPrivate {
	return func(o object, s *cryptobyte.String) (object, bool) {
		x, err := readMPI(s)
		if err != nil {
			return o, false
		}
		made, err := dsaNumbers{p: public[0], q: public[1], g: public[2], y: public[3], x: x}.object()
		return made, err == nil
	}
}

// pgpScalar reads the private number of a point.
func pgpScalar(a algorithm, point []byte) pgpPrivate {
	return func(o object, s *cryptobyte.String) (object, bool) {
		d, err := readMPI(s)
		if err != nil {
			return o, false
		}
		made, err := ecPrivate(a, d.Bytes(), point)
		return made, err == nil
	}
}

// pgpPrivateOctets reads a private key of as many bytes as the public one has.
func pgpPrivateOctets(a algorithm, public []byte) pgpPrivate {
	if a.name != "Ed25519" && a.name != "X25519" {
		return nil
	}
	return func(o object, s *cryptobyte.String) (object, bool) {
		var private []byte
		if !s.ReadBytes(&private, len(public)) {
			return o, false
		}
		var made []byte
		if a.name == "Ed25519" {
			made = ed25519.NewKeyFromSeed(private)[ed25519.SeedSize:]
		} else if k, err := ecdh.X25519().NewPrivateKey(private); err == nil {
			made = k.PublicKey().Bytes()
		}
		o, err := privateObject(a, public, made)
		return o, err == nil
	}
}

// ofNumber reads the private key where it is written as a number of at most 256
// bits: the older form, in which those of X25519 are in the other order.
func (read pgpPrivate) ofNumber(reversed bool) pgpPrivate {
	return func(o object, s *cryptobyte.String) (object, bool) {
		d, err := readMPI(s)
		if err != nil || d.BitLen() > 256 {
			return o, false
		}
		octets := d.FillBytes(make([]byte, 32))
		if reversed {
			slices.Reverse(octets)
		}
		rest := cryptobyte.String(octets)
		return read(o, &rest)
	}
}
