package keyfile

import (
	"encoding/asn1"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// weierstrass is a curve y² = x³ + ax + b over a prime field (SEC 1, section
// 2.2.1) with its generator and the order of that. It is for curves that
// crypto/elliptic does not have, to test what a file says of itself; its time
// depends on the numbers.
type weierstrass struct{ p, a, b, x, y, n *big.Int }

const (
	maxCurveBits = 640
	maxTwos      = 96 // times that 2 divides p-1, as in P-224; with more, a square root takes long
)

// readCurve reads the explicit parameters of a curve (SEC 1, appendix C.2).
func readCurve(params cryptobyte.String) (*weierstrass, error) {
	damaged := errors.New("malformed parameters of a curve")
	var body, field, curve, base cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !params.ReadASN1(&body, tag.SEQUENCE) || !body.SkipASN1(tag.INTEGER) ||
		!body.ReadASN1(&field, tag.SEQUENCE) || !readOID(&field, &oid) {
		return nil, damaged
	}
	if !oid.Equal(oidPrimeField) {
		return nil, errors.New("the curve is not over a prime field")
	}
	var a, b cryptobyte.String
	p, ok := readNumbers(&field, 1)
	if !ok || !body.ReadASN1(&curve, tag.SEQUENCE) || !curve.ReadASN1(&a, tag.OCTET_STRING) || !curve.ReadASN1(&b, tag.OCTET_STRING) ||
		!body.ReadASN1(&base, tag.OCTET_STRING) {
		return nil, damaged
	}
	n, ok := readNumbers(&body, 1)
	if !ok {
		return nil, damaged
	}
	w := &weierstrass{p: p[0], a: new(big.Int).SetBytes(a), b: new(big.Int).SetBytes(b), n: n[0]}
	if w.p.BitLen() > maxCurveBits || w.n.BitLen() > maxCurveBits+1 || !w.p.ProbablyPrime(1) || w.p.Cmp(big.NewInt(3)) <= 0 ||
		w.a.Cmp(w.p) >= 0 || w.b.Cmp(w.p) >= 0 || w.n.Cmp(one) <= 0 {
		return nil, errors.New("the parameters of the curve make no curve that can be tested")
	}
	if w.x, w.y, ok = w.point(base); !ok {
		return nil, errors.New("the generator of the curve is not on it")
	}
	return w, nil
}

var oidPrimeField = asn1.ObjectIdentifier{1, 2, 840, 10045, 1, 1} // SEC 1, appendix C.1

func (c *weierstrass) size() int { return (c.p.BitLen() + 7) / 8 }

// point reads a point in any form of SEC 1, section 2.3.4, but infinity.
func (c *weierstrass) point(b []byte) (x, y *big.Int, ok bool) {
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
func (c *weierstrass) right(x *big.Int) *big.Int {
	r := c.mul(x, x)
	r.Add(r, c.a).Mul(r, x).Add(r, c.b)
	return r.Mod(r, c.p)
}

func (c *weierstrass) mul(a, b *big.Int) *big.Int {
	r := new(big.Int).Mul(a, b)
	return r.Mod(r, c.p)
}

func (c *weierstrass) sub(a, b *big.Int) *big.Int {
	r := new(big.Int).Sub(a, b)
	return r.Mod(r, c.p)
}

// bytes is a point uncompressed.
func (c *weierstrass) bytes(x, y *big.Int) []byte {
	b, size := make([]byte, 1+2*c.size()), c.size()
	b[0] = 4
	x.FillBytes(b[1 : 1+size])
	y.FillBytes(b[1+size:])
	return b
}

// jacobian is the point (x/z², y/z³); infinity where z is 0.
type jacobian struct{ x, y, z *big.Int }

// times is k·(x, y); ok is false for infinity.
func (c *weierstrass) times(k, x, y *big.Int) (rx, ry *big.Int, ok bool) {
	return c.affine(c.timesJacobian(k, x, y))
}

func (c *weierstrass) timesJacobian(k, x, y *big.Int) jacobian {
	r, p := infinity(), jacobian{x, y, big.NewInt(1)}
	for i := k.BitLen() - 1; i >= 0; i-- {
		if r = c.double(r); k.Bit(i) == 1 {
			r = c.add(r, p)
		}
	}
	return r
}

func infinity() jacobian { return jacobian{new(big.Int), big.NewInt(1), new(big.Int)} }

func (c *weierstrass) affine(p jacobian) (x, y *big.Int, ok bool) {
	inv := new(big.Int).ModInverse(p.z, c.p)
	if inv == nil {
		return nil, nil, false
	}
	square := c.mul(inv, inv)
	return c.mul(p.x, square), c.mul(p.y, c.mul(square, inv)), true
}

// double and add are the textbook's (Hankerson, Menezes, Vanstone, Guide to
// Elliptic Curve Cryptography, section 3.2.2), for any a.
func (c *weierstrass) double(p jacobian) jacobian {
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

func (c *weierstrass) add(p, q jacobian) jacobian {
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

// verifies reports whether (r, s) is an ECDSA signature of a digest by the key
// (x, y) (SEC 1, section 4.1.4).
func (c *weierstrass) verifies(x, y *big.Int, digest []byte, r, s *big.Int) bool {
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

// furtherCurves are those of [curves] that crypto/elliptic does not have (SEC 2;
// RFC 5639; GB/T 32918.5), as openssl ecparam -param_enc explicit shows them.
var furtherCurves = map[string]*weierstrass{
	"P192": curveOfHex(
		"fffffffffffffffffffffffffffffffeffffffffffffffff",
		"fffffffffffffffffffffffffffffffefffffffffffffffc",
		"64210519e59c80e70fa7e9ab72243049feb8deecc146b9b1",
		"188da80eb03090f67cbf20eb43a18800f4ff0afd82ff1012",
		"07192b95ffc8da78631011ed6b24cdd573f977a11e794811",
		"ffffffffffffffffffffffff99def836146bc9b1b4d22831"),
	"secp160r1": curveOfHex(
		"ffffffffffffffffffffffffffffffff7fffffff",
		"ffffffffffffffffffffffffffffffff7ffffffc",
		"1c97befc54bd7a8b65acf89f81d4d4adc565fa45",
		"4a96b5688ef573284664698968c38bb913cbfc82",
		"23a628553168947d59dcc912042351377ac5fb32",
		"0100000000000000000001f4c8f927aed3ca752257"),
	"secp256k1": curveOfHex(
		"fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000007",
		"79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
		"483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8",
		"fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"),
	"brainpoolP160r1": curveOfHex(
		"e95e4a5f737059dc60dfc7ad95b3d8139515620f",
		"340e7be2a280eb74e2be61bada745d97e8f7c300",
		"1e589a8595423412134faa2dbdec95c8d8675e58",
		"bed5af16ea3f6a4f62938c4631eb5af7bdbcdbc3",
		"1667cb477a1a8ec338f94741669c976316da6321",
		"e95e4a5f737059dc60df5991d45029409e60fc09"),
	"brainpoolP192r1": curveOfHex(
		"c302f41d932a36cda7a3463093d18db78fce476de1a86297",
		"6a91174076b1e0e19c39c031fe8685c1cae040e5c69a28ef",
		"469a28ef7c28cca3dc721d044f4496bcca7ef4146fbf25c9",
		"c0a0647eaab6a48753b033c56cb0f0900a2f5c4853375fd6",
		"14b690866abd5bb88b5f4828c1490002e6773fa2fa299b8f",
		"c302f41d932a36cda7a3462f9e9e916b5be8f1029ac4acc1"),
	"brainpoolP224r1": curveOfHex(
		"d7c134aa264366862a18302575d1d787b09f075797da89f57ec8c0ff",
		"68a5e62ca9ce6c1c299803a6c1530b514e182ad8b0042a59cad29f43",
		"2580f63ccfe44138870713b1a92369e33e2135d266dbb372386c400b",
		"0d9029ad2c7e5cf4340823b2a87dc68c9e4ce3174c1e6efdee12c07d",
		"58aa56f772c0726f24c6b89e4ecdac24354b9e99caa3f6d3761402cd",
		"d7c134aa264366862a18302575d0fb98d116bc4b6ddebca3a5a7939f"),
	"brainpoolP256r1": curveOfHex(
		"a9fb57dba1eea9bc3e660a909d838d726e3bf623d52620282013481d1f6e5377",
		"7d5a0975fc2c3057eef67530417affe7fb8055c126dc5c6ce94a4b44f330b5d9",
		"26dc5c6ce94a4b44f330b5d9bbd77cbf958416295cf7e1ce6bccdc18ff8c07b6",
		"8bd2aeb9cb7e57cb2c4b482ffc81b7afb9de27e1e3bd23c23a4453bd9ace3262",
		"547ef835c3dac4fd97f8461a14611dc9c27745132ded8e545c1d54c72f046997",
		"a9fb57dba1eea9bc3e660a909d838d718c397aa3b561a6f7901e0e82974856a7"),
	"brainpoolP320r1": curveOfHex(
		"d35e472036bc4fb7e13c785ed201e065f98fcfa6f6f40def4f92b9ec7893ec28fcd412b1f1b32e27",
		"3ee30b568fbab0f883ccebd46d3f3bb8a2a73513f5eb79da66190eb085ffa9f492f375a97d860eb4",
		"520883949dfdbc42d3ad198640688a6fe13f41349554b49acc31dccd884539816f5eb4ac8fb1f1a6",
		"43bd7e9afb53d8b85289bcc48ee5bfe6f20137d10a087eb6e7871e2a10a599c710af8d0d39e20611",
		"14fdd05545ec1cc8ab4093247f77275e0743ffed117182eaa9c77877aaac6ac7d35245d1692e8ee1",
		"d35e472036bc4fb7e13c785ed201e065f98fcfa5b68f12a32d482ec7ee8658e98691555b44c59311"),
	"brainpoolP384r1": curveOfHex(
		"8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b412b1da197fb71123acd3a729901d1a71874700133107ec53",
		"7bc382c63d8c150c3c72080ace05afa0c2bea28e4fb22787139165efba91f90f8aa5814a503ad4eb04a8c7dd22ce2826",
		"04a8c7dd22ce28268b39b55416f0447c2fb77de107dcd2a62e880ea53eeb62d57cb4390295dbc9943ab78696fa504c11",
		"1d1c64f068cf45ffa2a63a81b7c13f6b8847a3e77ef14fe3db7fcafe0cbd10e8e826e03436d646aaef87b2e247d4af1e",
		"8abe1d7520f9c2a45cb1eb8e95cfd55262b70b29feec5864e19c054ff99129280e4646217791811142820341263c5315",
		"8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b31f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565"),
	"brainpoolP512r1": curveOfHex(
		"aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca703308717d4d9b009bc66842aecda12ae6a380e62881ff2f2d82c68528aa6056583a48f3",
		"7830a3318b603b89e2327145ac234cc594cbdd8d3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94ca",
		"3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94cadc083e67984050b75ebae5dd2809bd638016f723",
		"81aee4bdd82ed9645a21322e9c4c6a9385ed9f70b5d916c1b43b62eef4d0098eff3b1f78e2d0d48d50d1687b93b97d5f7c6d5047406a5e688b352209bcb9f822",
		"7dde385d566332ecc0eabfa9cf7822fdf209f70024a57b1aa000c55b881f8111b2dcde494a5f485e5bca4bd88a2763aed1ca2b2fa8f0540678cd1e0f3ad80892",
		"aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870553e5c414ca92619418661197fac10471db1d381085ddaddb58796829ca90069"),
	"SM2": curveOfHex(
		"fffffffeffffffffffffffffffffffffffffffff00000000ffffffffffffffff",
		"fffffffeffffffffffffffffffffffffffffffff00000000fffffffffffffffc",
		"28e9fa9e9d9f5e344d5a9e4bcf6509a7f39789f515ab8f92ddbcbd414d940e93",
		"32c4ae2c1f1981195f9904466a39c9948fe30bbff2660be1715a4589334c74c7",
		"bc3736a2f4f6779c59bdcee36b692153d0a9877cc62a474002df32e52139f0a0",
		"fffffffeffffffffffffffffffffffff7203df6b21c6052b53bbf40939d54123"),
}

// curveOfHex takes p, a, b, the generator's x and y, and its order.
func curveOfHex(numbers ...string) *weierstrass {
	var all [6]*big.Int
	for i, hex := range numbers {
		all[i], _ = new(big.Int).SetString(hex, 16)
	}
	return &weierstrass{all[0], all[1], all[2], all[3], all[4], all[5]}
}
