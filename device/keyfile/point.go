package keyfile

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/asn1"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// ecAlgorithmOf is the algorithm of a key on the curve of params, which are
// named (an OID) or explicit.
func ecAlgorithmOf(params cryptobyte.String) (algorithm, error) {
	return builtAlgorithm(oidEC, params)
}

// curveName is what reports call the curve of params.
func curveName(params cryptobyte.String) string {
	var oid asn1.ObjectIdentifier
	if !readOID(&params, &oid) {
		return "ECDSA-explicit-parameters"
	}
	return "ECDSA-" + strings.Replace(curve.Of(oid).Name, "P-", "P", 1)
}

// pointOf is the uncompressed point that a private scalar makes on the curve of
// params; nil if the answer is not that it fits.
func pointOf(params cryptobyte.String, scalar []byte) ([]byte, device.Answer) {
	if isReference(scalar) {
		return nil, elsewhere("the private key stands for one in a secure element")
	}
	outOfRange := wrongNumbers("its private number is out of range")
	var oid asn1.ObjectIdentifier
	rest := params
	named := readOID(&rest, &oid)
	if c := curve.Of(oid); named && c.Std != nil {
		size := (c.Std.Params().N.BitLen() + 7) / 8
		scalar = bytes.TrimLeft(scalar, "\x00")
		if len(scalar) > size {
			return nil, outOfRange
		}
		fixed := make([]byte, size)
		defer clear(fixed)
		copy(fixed[size-len(scalar):], scalar)
		private, err := ecdsa.ParseRawPrivateKey(c.Std, fixed)
		if err != nil {
			return nil, outOfRange
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			return nil, notTested("its point cannot be computed")
		}
		return point, fits
	}
	c, err := curve.Computed(params)
	if err != nil {
		return nil, notTested("it is on a curve that keyvet cannot compute on: %v", err)
	}
	k := new(big.Int).SetBytes(scalar)
	defer wipe(k)
	point, ok := c.Public(k)
	if !ok {
		return nil, outOfRange
	}
	return point, fits
}

// isReference reports whether a scalar only names a key in a secure element of
// NXP's (Plug and Trust middleware: 0x10, zeros, the key's number, a mark, a
// class and an index).
func isReference(scalar []byte) bool {
	n := len(scalar)
	return n >= 15 && bytes.Equal(scalar[n-10:n-2], []byte{0xa5, 0xa6, 0xb5, 0xb6, 0xa5, 0xa6, 0xb5, 0xb6}) &&
		scalar[0] == 0x10 && len(bytes.TrimLeft(scalar[1:n-14], "\x00")) == 0
}
