package check

import (
	"crypto/ed25519"
	"math/big"
	"slices"
	"sync"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// Ed25519 is the curve -x² + y² = 1 + d·x²·y² modulo 2^255 - 19, with
// d = -121665/121666, and a generator with y = 4/5 (RFC 8032, section 5.1). A
// point is known by its y but for the sign of x.
var (
	edwardsPrime = new(big.Int).Sub(new(big.Int).Lsh(one, 255), big.NewInt(19))
	edwardsD     = edwardsQuotient(big.NewInt(-121665), big.NewInt(121666))
)

// edwardsQuotient is a/b modulo the prime; 0 if b is.
func edwardsQuotient(a, b *big.Int) *big.Int {
	inverse := new(big.Int).ModInverse(b, edwardsPrime)
	if inverse == nil {
		return new(big.Int)
	}
	return inverse.Mod(inverse.Mul(inverse, a), edwardsPrime)
}

// edwardsPoint judges a public key of Ed25519: that it is on the curve, that its
// order is not 1, 2, 4 or 8 (the curve's cofactor is 8), and that it is no small
// multiple of the generator.
func edwardsPoint(pub ed25519.PublicKey) []device.Finding {
	if len(pub) != ed25519.PublicKeySize {
		return give(pointOutOfRange, "the public key has %d bytes instead of %d", len(pub), ed25519.PublicKeySize)
	}
	little := slices.Clone(pub)
	little[31] &= 0x7f // the sign of x
	slices.Reverse(little)
	y := new(big.Int).SetBytes(little)
	if y.Cmp(edwardsPrime) >= 0 {
		return give(pointOutOfRange, "the coordinate of the public key is not in the field of Ed25519")
	}
	y2 := new(big.Int).Mul(y, y)
	y2.Mod(y2, edwardsPrime)
	above := new(big.Int).Sub(y2, one)
	below := new(big.Int).Mul(edwardsD, y2)
	x2 := edwardsQuotient(above, below.Add(below, one))
	if big.Jacobi(x2, edwardsPrime) < 0 {
		return give(pointOffCurve, "the public key is no point of Ed25519: it was damaged, or made to attack")
	}
	// Of order 1 and 2 x is 0, of order 4 y is 0. Of order 8 the double has
	// y = 0, so that x² = -y².
	if sum := new(big.Int).Add(x2, y2); x2.Sign() == 0 || y.Sign() == 0 || sum.Cmp(edwardsPrime) == 0 {
		return give(pointSmallOrder, "the public key is a point of small order: anyone can make signatures that it accepts")
	}
	for i, multiple := range edwardsMultiples() {
		if multiple.y.Cmp(y) == 0 {
			return knownPoint(i+1, uint(pub[31]>>7) == multiple.x.Bit(0))
		}
	}
	return passed("the public key is a point of Ed25519, and no small multiple of the generator")
}

// edwardsMultiples returns the first multiples of the generator.
var edwardsMultiples = sync.OnceValue(func() []affine {
	x, _ := new(big.Int).SetString("216936d3cd6e53fec0a4e231fdd6dc5c692cc7609525a7b2c9562d608f25d51a", 16)
	generator := affine{x, edwardsQuotient(big.NewInt(4), big.NewInt(5))}
	all := []affine{generator}
	for len(all) < curve.SmallMultiples {
		all = append(all, edwardsSum(all[len(all)-1], generator))
	}
	return all
})

// edwardsSum adds two points (RFC 8032, section 5.1.4).
func edwardsSum(a, b affine) affine {
	product := func(factors ...*big.Int) *big.Int {
		p := big.NewInt(1)
		for _, f := range factors {
			p.Mod(p.Mul(p, f), edwardsPrime)
		}
		return p
	}
	all := product(edwardsD, a.x, b.x, a.y, b.y)
	x := new(big.Int).Add(product(a.x, b.y), product(b.x, a.y))
	y := new(big.Int).Add(product(a.y, b.y), product(a.x, b.x))
	return affine{
		edwardsQuotient(x, new(big.Int).Add(one, all)),
		edwardsQuotient(y, new(big.Int).Sub(one, all)),
	}
}

// affine is a point of a curve.
type affine struct{ x, y *big.Int }
