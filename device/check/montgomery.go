package check

import (
	"bytes"
	"crypto/ecdh"
	"math/big"
	"slices"
	"sync"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// x25519 is the algorithm of keys for X25519, which have so many bytes (RFC 8410,
// section 4).
const (
	x25519     = "X25519"
	x25519Size = 32
)

// montgomeryPoint judges a public key of X25519, the u of a point on the curve
// v² = u³ + 486662·u² + u or on its twist, modulo 2^255 - 19 (RFC 7748, section
// 4.1): that its order is not 1, 2, 4 or 8, and that it is no small multiple of
// the generator, nor made by a private key that is a small number.
func montgomeryPoint(spki []byte) []device.Finding {
	info, _ := device.SplitSPKI(spki)
	key := info.Key
	if len(key) != x25519Size {
		return give(pointOutOfRange, "the public key has %d bytes instead of %d", len(key), x25519Size)
	}
	little := bytes.Clone(key)
	little[31] &= 0x7f // the bit is not used
	slices.Reverse(little)
	u := new(big.Int).SetBytes(little)
	u.Mod(u, edwardsPrime) // what is above the prime is taken like that
	// Of order 2 u is 0, of order 4 it is ±1, of order 8 the double has such a u.
	for _, p := range []*big.Int{u, montgomeryDouble(u)} {
		if p.Cmp(one) <= 0 || new(big.Int).Add(p, one).Cmp(edwardsPrime) == 0 {
			return give(pointSmallOrder, "the public key is a point of small order: everybody knows the secret that is agreed on with it")
		}
	}
	known := montgomeryKnown()
	if i := slices.IndexFunc(known.multiples, func(m *big.Int) bool { return m.Cmp(u) == 0 }); i >= 0 {
		return give(pointKnown, "the public key is %d times the generator of its curve, or the negative of that", i+1)
	}
	if i := slices.IndexFunc(known.ofPrivate, func(m []byte) bool { return bytes.Equal(m, key) }); i >= 0 {
		return give(pointKnown, "the private key is the number %d", 8*i)
	}
	return passed("the public key is a point of X25519, and of no small private key")
}

// montgomeryKnown returns the u of small multiples of the generator, whose own is
// 9, and the public keys of small private ones. Of those the lowest three bits do
// not count (RFC 7748, section 5).
var montgomeryKnown = sync.OnceValue(func() (known struct {
	multiples []*big.Int
	ofPrivate [][]byte
}) {
	generator := big.NewInt(9)
	known.multiples = []*big.Int{generator, montgomeryDouble(generator)}
	for len(known.multiples) < curve.SmallMultiples {
		last := known.multiples[len(known.multiples)-2:]
		// u(P+G)·u(P-G) = ((u(P)·u(G) - 1)/(u(P) - u(G)))²
		above := new(big.Int).Mul(last[1], generator)
		sum := edwardsQuotient(above.Sub(above, one), new(big.Int).Sub(last[1], generator))
		known.multiples = append(known.multiples, edwardsQuotient(sum.Mul(sum, sum), last[0]))
	}
	for i := range byte(curve.SmallMultiples) {
		private := make([]byte, x25519Size)
		private[0] = 8 * i
		if k, err := ecdh.X25519().NewPrivateKey(private); err == nil {
			known.ofPrivate = append(known.ofPrivate, k.PublicKey().Bytes())
		}
	}
	return known
})

// montgomeryDouble is the u of twice a point: (u² - 1)²/(4·u·(u² + 486662·u + 1)),
// 0 at infinity.
func montgomeryDouble(u *big.Int) *big.Int {
	square := new(big.Int).Mul(u, u)
	below := new(big.Int).Mul(u, big.NewInt(486662))
	below.Add(below, square).Add(below, one)
	below.Mul(below, u).Lsh(below, 2)
	above := square.Sub(square, one)
	return edwardsQuotient(above.Mul(above, above), below)
}
