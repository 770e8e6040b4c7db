package curve

import (
	"encoding/asn1"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// Weierstrass is a curve y² = x³ + ax + b over a prime field (SEC 1, section
// 2.2.1) with its generator and the order of that. It is for curves that
// crypto/elliptic does not have, to test what a file says of itself; its time
// depends on the numbers.
type Weierstrass struct{ p, a, b, x, y, n *big.Int }

const (
	maxCurveBits = 640
	maxTwos      = 96 // times that 2 divides p-1, as in P-224; with more, a square root takes long
)

// read reads the explicit parameters of a curve (SEC 1, appendix C.2).
func read(params cryptobyte.String) (*Weierstrass, error) {
	damaged := errors.New("malformed parameters of a curve")
	var body, field, curve, base cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !params.ReadASN1(&body, tag.SEQUENCE) || !body.SkipASN1(tag.INTEGER) ||
		!body.ReadASN1(&field, tag.SEQUENCE) || !field.ReadASN1ObjectIdentifier(&oid) {
		return nil, damaged
	}
	if !oid.Equal(oidPrimeField) {
		return nil, errors.New("the curve is not over a prime field")
	}
	var a, b cryptobyte.String
	w := new(Weierstrass)
	if w.p = number(&field); w.p == nil || !body.ReadASN1(&curve, tag.SEQUENCE) || !curve.ReadASN1(&a, tag.OCTET_STRING) || !curve.ReadASN1(&b, tag.OCTET_STRING) ||
		!body.ReadASN1(&base, tag.OCTET_STRING) {
		return nil, damaged
	}
	if w.n = number(&body); w.n == nil {
		return nil, damaged
	}
	w.a, w.b = new(big.Int).SetBytes(a), new(big.Int).SetBytes(b)
	if w.p.BitLen() > maxCurveBits || w.n.BitLen() > maxCurveBits+1 || !w.p.ProbablyPrime(1) || w.p.Cmp(big.NewInt(3)) <= 0 ||
		w.a.Cmp(w.p) >= 0 || w.b.Cmp(w.p) >= 0 || w.n.Cmp(one) <= 0 {
		return nil, errors.New("the parameters of the curve make no curve that can be tested")
	}
	var ok bool
	if w.x, w.y, ok = w.point(base); !ok {
		return nil, errors.New("the generator of the curve is not on it")
	}
	return w, nil
}

// number reads an INTEGER as unsigned, since some tools leave the sign byte out;
// nil if there is none.
func number(s *cryptobyte.String) *big.Int {
	var b cryptobyte.String
	if !s.ReadASN1(&b, tag.INTEGER) || len(b) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(b)
}

var one = big.NewInt(1)

var oidPrimeField = asn1.ObjectIdentifier{1, 2, 840, 10045, 1, 1} // SEC 1, appendix C.1

func (c *Weierstrass) size() int { return (c.p.BitLen() + 7) / 8 }

// point reads a point in any form of SEC 1, section 2.3.4, but infinity.
func (c *Weierstrass) point(b []byte) (x, y *big.Int, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	form, xy, size := b[0], b[1:], c.size()
	switch {
	case (form == 2 || form == 3) && len(xy) == size && new(big.Int).Sub(c.p, one).TrailingZeroBits() <= maxTwos:
		x = new(big.Int).SetBytes(xy)
		if y = new(big.Int).ModSqrt(c.right(x), c.p); y != nil && y.Bit(0) != uint(form&1) {
			y.Sub(c.p, y)
		}
	case (form == 4 || form == 6 || form == 7) && len(xy) == 2*size:
		x, y = new(big.Int).SetBytes(xy[:size]), new(big.Int).SetBytes(xy[size:])
	}
	if x == nil || y == nil || x.Cmp(c.p) >= 0 || y.Cmp(c.p) >= 0 || c.mul(y, y).Cmp(c.right(x)) != 0 {
		return nil, nil, false
	}
	return x, y, true
}

// right is x³ + ax + b.
func (c *Weierstrass) right(x *big.Int) *big.Int {
	r := c.mul(x, x)
	r.Add(r, c.a).Mul(r, x).Add(r, c.b)
	return r.Mod(r, c.p)
}

func (c *Weierstrass) mul(a, b *big.Int) *big.Int {
	r := new(big.Int).Mul(a, b)
	return r.Mod(r, c.p)
}

func (c *Weierstrass) sub(a, b *big.Int) *big.Int {
	r := new(big.Int).Sub(a, b)
	return r.Mod(r, c.p)
}

// bytes is a point uncompressed.
func (c *Weierstrass) bytes(x, y *big.Int) []byte {
	b, size := make([]byte, 1+2*c.size()), c.size()
	b[0] = 4
	x.FillBytes(b[1 : 1+size])
	y.FillBytes(b[1+size:])
	return b
}

// Public returns the point, uncompressed, that a private scalar makes; ok is false
// where it is out of range.
func (c *Weierstrass) Public(scalar *big.Int) (point []byte, ok bool) {
	if scalar.Sign() <= 0 || scalar.Cmp(c.n) >= 0 {
		return nil, false
	}
	x, y, ok := c.times(scalar, c.x, c.y)
	if !ok {
		return nil, false
	}
	return c.bytes(x, y), true
}

// Verify reports whether (r, s) is an ECDSA signature of a digest by the key that
// is a point (SEC 1, section 4.1.4).
func (c *Weierstrass) Verify(point, digest []byte, r, s *big.Int) bool {
	x, y, ok := c.point(point)
	return ok && c.verifies(x, y, digest, r, s)
}

// jacobian is the point (x/z², y/z³); infinity where z is 0.
type jacobian struct{ x, y, z *big.Int }

// times is k·(x, y); ok is false for infinity.
func (c *Weierstrass) times(k, x, y *big.Int) (rx, ry *big.Int, ok bool) {
	return c.affine(c.timesJacobian(k, x, y))
}

func (c *Weierstrass) timesJacobian(k, x, y *big.Int) jacobian {
	r, p := infinity(), jacobian{x, y, big.NewInt(1)}
	for i := k.BitLen() - 1; i >= 0; i-- {
		if r = c.double(r); k.Bit(i) == 1 {
			r = c.add(r, p)
		}
	}
	return r
}

func infinity() jacobian { return jacobian{new(big.Int), big.NewInt(1), new(big.Int)} }

func (c *Weierstrass) affine(p jacobian) (x, y *big.Int, ok bool) {
	inv := new(big.Int).ModInverse(p.z, c.p)
	if inv == nil {
		return nil, nil, false
	}
	square := c.mul(inv, inv)
	return c.mul(p.x, square), c.mul(p.y, c.mul(square, inv)), true
}

// double and add are the textbook's (Hankerson, Menezes, Vanstone, Guide to
// Elliptic Curve Cryptography, section 3.2.2), for any a.
func (c *Weierstrass) double(p jacobian) jacobian {
	if p.z.Sign() == 0 || p.y.Sign() == 0 {
		return infinity()
	}
	yy, zz := c.mul(p.y, p.y), c.mul(p.z, p.z)
	s := c.mul(p.x, yy)
	s.Lsh(s, 2)
	m := c.mul(p.x, p.x)
	m.Mul(m, big.NewInt(3)).Add(m, c.mul(c.a, c.mul(zz, zz)))
	x := c.sub(c.mul(m, m), new(big.Int).Lsh(s, 1))
	y := c.sub(c.mul(m, c.sub(s, x)), new(big.Int).Lsh(c.mul(yy, yy), 3))
	z := c.mul(p.y, p.z)
	return jacobian{x, y, z.Mod(z.Lsh(z, 1), c.p)}
}

func (c *Weierstrass) add(p, q jacobian) jacobian {
	switch {
	case p.z.Sign() == 0:
		return q
	case q.z.Sign() == 0:
		return p
	}
	pzz, qzz := c.mul(p.z, p.z), c.mul(q.z, q.z)
	u1, u2 := c.mul(p.x, qzz), c.mul(q.x, pzz)
	s1, s2 := c.mul(p.y, c.mul(qzz, q.z)), c.mul(q.y, c.mul(pzz, p.z))
	h, r := c.sub(u2, u1), c.sub(s2, s1)
	if h.Sign() == 0 {
		if r.Sign() == 0 {
			return c.double(p)
		}
		return infinity()
	}
	hh := c.mul(h, h)
	hhh, v := c.mul(h, hh), c.mul(u1, hh)
	x := c.sub(c.sub(c.mul(r, r), hhh), new(big.Int).Lsh(v, 1))
	y := c.sub(c.mul(r, c.sub(v, x)), c.mul(s1, hhh))
	return jacobian{x, y, c.mul(h, c.mul(p.z, q.z))}
}

func (c *Weierstrass) verifies(x, y *big.Int, digest []byte, r, s *big.Int) bool {
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(c.n) >= 0 || s.Cmp(c.n) >= 0 {
		return false
	}
	e := new(big.Int).SetBytes(digest)
	if excess := 8*len(digest) - c.n.BitLen(); excess > 0 {
		e.Rsh(e, uint(excess))
	}
	w := new(big.Int).ModInverse(s, c.n)
	if w == nil {
		return false
	}
	u1, u2 := e.Mul(e, w), new(big.Int).Mul(r, w)
	sum := c.add(c.timesJacobian(u1.Mod(u1, c.n), c.x, c.y), c.timesJacobian(u2.Mod(u2, c.n), x, y))
	got, _, ok := c.affine(sum)
	return ok && got.Mod(got, c.n).Cmp(r) == 0
}
