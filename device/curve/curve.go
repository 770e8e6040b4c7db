// Package curve knows the elliptic curves that keys in files are on, and computes
// on those that crypto/elliptic does not have.
package curve

import (
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"math/big"
	"sync"

	"golang.org/x/crypto/cryptobyte"
)

// Curve is a curve that has a name; Std is nil where crypto/elliptic does not
// have it.
type Curve struct {
	Name string // "P-256", "secp256k1"; the OID where no name is known
	OID  asn1.ObjectIdentifier
	Std  elliptic.Curve
}

var all = []Curve{
	{"P-224", asn1.ObjectIdentifier{1, 3, 132, 0, 33}, elliptic.P224()},
	{"P-256", asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, elliptic.P256()},
	{"P-384", asn1.ObjectIdentifier{1, 3, 132, 0, 34}, elliptic.P384()},
	{"P-521", asn1.ObjectIdentifier{1, 3, 132, 0, 35}, elliptic.P521()},
	{"P192", asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 1}, nil},
	{"secp160r1", asn1.ObjectIdentifier{1, 3, 132, 0, 8}, nil},
	{"secp256k1", asn1.ObjectIdentifier{1, 3, 132, 0, 10}, nil},
	{"brainpoolP160r1", asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 1}, nil},
	{"brainpoolP192r1", asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 3}, nil},
	{"brainpoolP224r1", asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 5}, nil},
	{"brainpoolP256r1", asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}, nil},
	{"brainpoolP320r1", asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 9}, nil},
	{"brainpoolP384r1", asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 11}, nil},
	{"brainpoolP512r1", asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 13}, nil},
	{"SM2", asn1.ObjectIdentifier{1, 2, 156, 10197, 1, 301}, nil},
}

// Named returns the curve of a name.
func Named(name string) (Curve, bool) {
	for _, c := range all {
		if c.Name == name {
			return c, true
		}
	}
	return Curve{}, false
}

// Of returns the curve of an OID; of one that is not known there is no more than that.
func Of(oid asn1.ObjectIdentifier) Curve {
	for _, c := range all {
		if c.OID.Equal(oid) {
			return c
		}
	}
	return Curve{Name: oid.String(), OID: oid}
}

// maxParams bounds the parameters of a curve, in bytes; explicit ones of the
// largest have less than 600.
const maxParams = 2048

// Computed returns the numbers of the curve of params (RFC 3279, section 2.3.5:
// an OID, or the numbers themselves) where only this package has it.
func Computed(params []byte) (*Weierstrass, error) {
	s := cryptobyte.String(params)
	var oid asn1.ObjectIdentifier
	switch {
	case len(s) > maxParams:
		return nil, errors.New("the parameters of the curve are too long")
	case !s.ReadASN1ObjectIdentifier(&oid):
		return read(params)
	}
	c := numbers[Of(oid).Name]
	if c == nil {
		return nil, errors.New(Of(oid).Name)
	}
	return c, nil
}

// Known returns the curve of params, which may be its OID or all its numbers, if it
// is one of this package's. One that differs in its generator alone is another
// curve, on which anybody can make a private key to a public one (CVE-2020-0601).
func Known(params []byte) (Curve, bool) {
	s := cryptobyte.String(params)
	var oid asn1.ObjectIdentifier
	if s.ReadASN1ObjectIdentifier(&oid) {
		c := Of(oid)
		return c, c.Std != nil || numbers[c.Name] != nil
	}
	if len(params) > maxParams {
		return Curve{}, false
	}
	own, err := read(params)
	if err != nil {
		return Curve{}, false
	}
	for _, c := range all {
		if own.is(c.numbers()) {
			return c, true
		}
	}
	return Curve{}, false
}

// numbers are those of a curve that is known.
func (c Curve) numbers() *Weierstrass {
	if c.Std == nil {
		return numbers[c.Name]
	}
	p := c.Std.Params()
	return &Weierstrass{p.P, new(big.Int).Sub(p.P, big.NewInt(3)), p.B, p.Gx, p.Gy, p.N}
}

// Uncompressed returns a point, in any form of SEC 1, section 2.3.4, in the form in
// which both coordinates stand; ok is false if the curve, which is known, has no
// such point.
func (c Curve) Uncompressed(point []byte) (b []byte, ok bool) {
	w := c.numbers()
	x, y, ok := w.point(point)
	if !ok {
		return nil, false
	}
	return w.bytes(x, y), true
}

// Verify reports whether (r, s) is an ECDSA signature of a digest by the key that
// is a point, in any form of SEC 1, section 2.3.4, on a curve that is known.
func (c Curve) Verify(point, digest []byte, r, s *big.Int) bool {
	return c.numbers().Verify(point, digest, r, s)
}

// Point returns the coordinates of a point in any form of SEC 1, section 2.3.4, on a
// curve that is known; ok is false for infinity and what is not on the curve.
func (c Curve) Point(b []byte) (x, y *big.Int, ok bool) { return c.numbers().point(b) }

// SmallMultiples is up to which multiple of the generator of a curve a key is
// compared with it.
const SmallMultiples = 16

// Multiple returns which small multiple of the generator a point of a curve that is
// known is, negative for the negative of one; 0 for none of them.
func (c Curve) Multiple(x, y *big.Int) int {
	cached, ok := multiples.Load(c.Name)
	if !ok {
		w := c.numbers()
		all := make([][2]*big.Int, SmallMultiples)
		generator := jacobian{w.x, w.y, big.NewInt(1)}
		sum := infinity()
		for i := range all {
			sum = w.add(sum, generator)
			all[i][0], all[i][1], _ = w.affine(sum)
		}
		cached, _ = multiples.LoadOrStore(c.Name, all)
	}
	for i, p := range cached.([][2]*big.Int) {
		switch {
		case p[0].Cmp(x) != 0:
		case p[1].Cmp(y) != 0:
			return -i - 1
		default:
			return i + 1
		}
	}
	return 0
}

// multiples has the small multiples of the generator by the curve's name, once they
// are asked for.
var multiples sync.Map

func (c *Weierstrass) is(o *Weierstrass) bool {
	return c.p.Cmp(o.p) == 0 && c.a.Cmp(o.a) == 0 && c.b.Cmp(o.b) == 0 && c.x.Cmp(o.x) == 0 && c.y.Cmp(o.y) == 0 && c.n.Cmp(o.n) == 0
}
