package check

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"fmt"
	"math/big"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
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
	pointSmallOrder = device.Reason{
		Code: "KEYVET_POINT_SMALL_ORDER", Status: device.Fail, Severity: device.Critical,
		Means: "The public key is one of the few points of a small order, so everybody can make signatures that it accepts, or knows the secret that is agreed on with it.",
		Do:    "Replace the key; it was made to attack.",
	}
	pointKnown = device.Reason{
		Code: "KEYVET_POINT_KNOWN_PRIVATE_KEY", Status: device.Fail, Severity: device.Critical,
		Means: "The public key is the generator of its curve or a small multiple of it: its private key is a small number, or one less than the order.",
		Do:    "Replace the key, and the program that made it.",
	}
)

var point = Check{
	ID:      "point",
	Cite:    "https://doi.org/10.6028/NIST.SP.800-56Ar3", // section 5.6.2.3.3, ECC full public-key validation
	Asks:    "Is the public key a valid point of its curve, and no small multiple of the generator?",
	Applies: hasPoint,
	Reasons: []device.Reason{curveUnknown, pointInfinity, pointOutOfRange, pointOffCurve, pointSmallOrder, pointKnown},
	Run:     runPoint,
}

// hasPoint reports whether a key is a point that can be looked at.
func hasPoint(k device.Key) bool {
	switch k.Public.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	algorithm := k.Algorithm()
	_, _, computed := ofOtherCurve(algorithm, k.SPKI)
	return computed || algorithm == x25519 && len(k.SPKI) > 0
}

// ofOtherCurve returns the curve and the point of a key that crypto/elliptic does
// not have, but package curve.
func ofOtherCurve(algorithm string, spki []byte) (c curve.Curve, point []byte, ok bool) {
	if !strings.HasPrefix(algorithm, "ECDSA-") {
		return curve.Curve{}, nil, false
	}
	info, _ := device.SplitSPKI(spki)
	c, ok = curve.Known(info.Params)
	return c, info.Key, ok
}

func runPoint(_ context.Context, k device.Key, _ *Env) []device.Finding {
	algorithm := k.Algorithm()
	switch pub := k.Public.(type) {
	case ed25519.PublicKey:
		return edwardsPoint(pub)
	case *ecdsa.PublicKey:
		return weierstrassPoint(pub, algorithm)
	}
	if algorithm == x25519 {
		return montgomeryPoint(k.SPKI)
	}
	c, b, _ := ofOtherCurve(algorithm, k.SPKI)
	if len(bytes.Trim(b, "\x00")) == 0 {
		return give(pointInfinity, "the public key is the point at infinity")
	}
	x, y, on := c.Point(b)
	return pointOn(c, x, y, on, algorithm)
}

// weierstrassPoint leaves out the check of the point's order: the NIST curves
// have cofactor 1, as all of package curve, so that every point but infinity has
// the right one.
func weierstrassPoint(pub *ecdsa.PublicKey, algorithm string) []device.Finding {
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
		return give(pointOutOfRange, "a coordinate of the public key is not in the field of %s", algorithm)
	}
	_, err := pub.Bytes()
	c, _ := curve.Named(pub.Params().Name)
	return pointOn(c, x, y, err == nil, algorithm)
}

// pointOn is about the point x, y, if it is one of the curve.
func pointOn(c curve.Curve, x, y *big.Int, on bool, algorithm string) []device.Finding {
	if !on {
		return give(pointOffCurve, "the public key is no point of %s: it was damaged, or made to attack", algorithm)
	}
	if multiple := c.Multiple(x, y); multiple != 0 {
		return knownPoint(max(multiple, -multiple), multiple > 0)
	}
	return passed("the public key is a point of %s, and no small multiple of the generator", algorithm)
}

func knownPoint(multiple int, positive bool) []device.Finding {
	private := fmt.Sprint(multiple)
	if !positive {
		private = "the order of the curve less " + private
	}
	return give(pointKnown, "the private key is %s: the public key is a small multiple of the generator of its curve, or the negative of one", private)
}
