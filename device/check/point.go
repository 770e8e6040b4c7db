package check

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	curveUnknown = device.Reason{
		Code: "KEYVET_CURVE_UNKNOWN", Status: device.Undecided,
		Means: "keyvet does not know the curve of the key.",
		Do:    "Use a key on P-256, P-384 or P-521.",
	}
	pointInfinity = device.Reason{
		Code: "KEYVET_POINT_AT_INFINITY", Status: device.Fail, Severity: device.Critical,
		Means: "The public key is the point at infinity.",
		Do:    "Replace the key.",
	}
	pointOutOfRange = device.Reason{
		Code: "KEYVET_POINT_OUT_OF_RANGE", Status: device.Fail, Severity: device.Critical,
		Means: "A coordinate of the public key is no number of the field.",
		Do:    "Replace the key.",
	}
	pointOffCurve = device.Reason{
		Code: "KEYVET_POINT_OFF_CURVE", Status: device.Fail, Severity: device.Critical,
		Means: "The public key is not a point of its curve: it was damaged, or made to attack.",
		Do:    "Replace the key.",
	}
)

var point = Check{
	ID:   "point",
	Cite: "https://doi.org/10.6028/NIST.SP.800-56Ar3", // section 5.6.2.3.3, ECC full public-key validation
	Asks: "Is the public key a valid point of its curve?",
	Applies: func(k device.Key) bool {
		_, ok := k.Public.(*ecdsa.PublicKey)
		return ok
	},
	Reasons: []device.Reason{curveUnknown, pointInfinity, pointOutOfRange, pointOffCurve},
	Run:     runPoint,
}

// runPoint leaves out the check of the point's order: the NIST curves have
// cofactor 1, so that every point but infinity has the right one.
func runPoint(_ context.Context, k device.Key, _ *Env) []device.Finding {
	pub := k.Public.(*ecdsa.PublicKey)
	switch pub.Curve {
	case elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521():
	default:
		return give(curveUnknown, "the curve of the key is not known, so the point cannot be checked")
	}
	// The coordinates are deprecated because they are easy to misuse. Here
	// they are read only to tell apart what [ecdsa.PublicKey.Bytes] refuses.
	x, y := pub.X, pub.Y //nolint:staticcheck // see above
	switch p := pub.Params().P; {
	case x == nil || y == nil || x.Sign() == 0 && y.Sign() == 0:
		return give(pointInfinity, "the public key is the point at infinity")
	case x.Sign() < 0 || y.Sign() < 0 || x.Cmp(p) >= 0 || y.Cmp(p) >= 0:
		return give(pointOutOfRange, "a coordinate of the public key is not in the field of %s", k.Algorithm())
	}
	if _, err := pub.Bytes(); err != nil {
		return give(pointOffCurve, "the public key is no point of %s: it was damaged, or made to attack", k.Algorithm())
	}
	return passed("the public key is a point of %s", k.Algorithm())
}
