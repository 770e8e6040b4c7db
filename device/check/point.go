package check

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"

	"github.com/keyvet/keyvet/device"
)

var point = Check{
	ID:   "point",
	Cite: "https://doi.org/10.6028/NIST.SP.800-56Ar3", // section 5.6.2.3.3, ECC full public-key validation
	Applies: func(k device.Key) bool {
		_, ok := k.Public.(*ecdsa.PublicKey)
		return ok
	},
	Run: runPoint,
}

// runPoint leaves out the check of the point's order: the NIST curves have
// cofactor 1, so that every point but infinity has the right one.
func runPoint(_ context.Context, k device.Key, _ *Env) []device.Finding {
	pub := k.Public.(*ecdsa.PublicKey)
	switch pub.Curve {
	case elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521():
	default:
		return undecided("KEYVET_CURVE_UNKNOWN", "the curve of the key is not known, so the point cannot be checked")
	}
	// The coordinates are deprecated because they are easy to misuse. Here
	// they are read only to tell apart what [ecdsa.PublicKey.Bytes] refuses.
	x, y := pub.X, pub.Y //nolint:staticcheck // see above
	switch p := pub.Params().P; {
	case x == nil || y == nil || x.Sign() == 0 && y.Sign() == 0:
		return failed(device.Critical, "KEYVET_POINT_AT_INFINITY", "the public key is the point at infinity")
	case x.Sign() < 0 || y.Sign() < 0 || x.Cmp(p) >= 0 || y.Cmp(p) >= 0:
		return failed(device.Critical, "KEYVET_POINT_OUT_OF_RANGE", "a coordinate of the public key is not in the field of %s", k.Algorithm())
	}
	if _, err := pub.Bytes(); err != nil {
		return failed(device.Critical, "KEYVET_POINT_OFF_CURVE", "the public key is no point of %s: it was damaged, or made to attack", k.Algorithm())
	}
	return passed("the public key is a point of %s", k.Algorithm())
}
