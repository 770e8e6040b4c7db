package debian

import (
	"crypto/ecdh"
	"crypto/elliptic"
	"fmt"
	"math/big"
)

// ECKey is a key on one of the NIST curves: Y = D·G, affine.
type ECKey struct {
	D, X, Y *big.Int
}

// EC regenerates the key of seed on curve, one of P-224, P-256, P-384 and P-521.
// There is none of [SSH]: ssh-keygen of that time made no such keys.
func EC(curve elliptic.Curve, seed Seed) (ECKey, error) {
	if err := seed.check(); err != nil {
		return ECKey{}, err
	}
	if seed.Variant == SSH {
		return ECKey{}, fmt.Errorf("ssh-keygen made no EC keys: %v", seed)
	}
	var multiply ecdh.Curve
	switch curve {
	case elliptic.P256():
		multiply = ecdh.P256()
	case elliptic.P384():
		multiply = ecdh.P384()
	case elliptic.P521():
		multiply = ecdh.P521()
	case elliptic.P224(): // which crypto/ecdh does not have
	default:
		return ECKey{}, fmt.Errorf("curve %s is none of P-224, P-256, P-384 and P-521", curve.Params().Name)
	}
	// The orders of all four begin with a run of ones, so a draw of their
	// length below them is what BN_rand_range does.
	order := curve.Params().N
	g := newGenerator(seed)
	buf := make([]byte, (order.BitLen()+7)/8)
	d := new(big.Int)
	for {
		g.number(buf, order.BitLen())
		d.SetBytes(buf)
		if d.Sign() > 0 && d.Cmp(order) < 0 {
			break
		}
	}
	if multiply == nil {
		x, y := curve.ScalarBaseMult(buf) //nolint:staticcheck // there is no other for P-224
		return ECKey{D: d, X: x, Y: y}, nil
	}
	key, err := multiply.NewPrivateKey(buf)
	if err != nil {
		return ECKey{}, fmt.Errorf("%s key of %v: %w", curve.Params().Name, seed, err)
	}
	point := key.PublicKey().Bytes()[1:] // SEC 1, section 2.3.3: 04, X, Y
	half := len(point) / 2
	return ECKey{D: d, X: new(big.Int).SetBytes(point[:half]), Y: new(big.Int).SetBytes(point[half:])}, nil
}
