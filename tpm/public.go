package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

// errNoPublicKey: the object is symmetric.
var errNoPublicKey = errors.New("a symmetric key or sealed data, which has no public key")

// curves are the curves that crypto/elliptic knows, with their OIDs (RFC 5480, section 2.1.1.1).
var curves = map[tpm2.TPMECCCurve]struct {
	curve elliptic.Curve
	oid   asn1.ObjectIdentifier
}{
	tpm2.TPMECCNistP224: {elliptic.P224(), asn1.ObjectIdentifier{1, 3, 132, 0, 33}},
	tpm2.TPMECCNistP256: {elliptic.P256(), asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}},
	tpm2.TPMECCNistP384: {elliptic.P384(), asn1.ObjectIdentifier{1, 3, 132, 0, 34}},
	tpm2.TPMECCNistP521: {elliptic.P521(), asn1.ObjectIdentifier{1, 3, 132, 0, 35}},
}

// named is the public area of an object, held against the name that the TPM
// gives with it: the hash of that area (Part 1, section 16). Two that do not
// fit are not of one object, or were changed on the way. A name by a hash that
// is not known is taken as it is.
func named(public tpm2.TPM2BPublic, name tpm2.TPM2BName) (*tpm2.TPMTPublic, error) {
	area, err := public.Contents()
	if err != nil {
		return nil, err
	}
	if own := objectName(public.Bytes()); own != nil && !bytes.Equal(own, name.Buffer) {
		return nil, errors.New("its public area is not the one that the TPM names: something between keyvet and the TPM changes what it says")
	}
	return area, nil
}

// objectName is the name of the object with that public area, or nil if it is
// by a hash that is not known.
func objectName(public []byte) []byte {
	hash, err := tpm2.TPMAlgID(binary.BigEndian.Uint16(public[2:])).Hash() // after the type (Part 2, section 12.2.4)
	if err != nil || !hash.Available() {
		return nil
	}
	h := hash.New()
	h.Write(public)
	return h.Sum(public[2:4:4])
}

// publicKey is the key in a public area, in one of the forms of
// [device.Key.Public], and its SubjectPublicKeyInfo. Nothing is repaired or
// refused: a point off its curve and an odd exponent are for the checks to see.
func publicKey(area *tpm2.TPMTPublic) (crypto.PublicKey, []byte, error) {
	switch area.Type {
	case tpm2.TPMAlgRSA:
		return rsaKey(area)
	case tpm2.TPMAlgECC:
		return eccKey(area)
	case tpm2.TPMAlgKeyedHash, tpm2.TPMAlgSymCipher:
		return nil, nil, errNoPublicKey
	}
	return nil, nil, fmt.Errorf("a key of unknown algorithm %#04x", uint16(area.Type))
}

func rsaKey(area *tpm2.TPMTPublic) (crypto.PublicKey, []byte, error) {
	params, err := area.Parameters.RSADetail()
	if err != nil {
		return nil, nil, err
	}
	unique, err := area.Unique.RSA()
	if err != nil {
		return nil, nil, err
	}
	n := new(big.Int).SetBytes(unique.Buffer)
	exponent := params.Exponent
	if exponent == 0 { // the default (Part 2, section 12.2.3.5)
		exponent = 65537
	}
	return rsaPublicKey(n, new(big.Int).SetUint64(uint64(exponent)))
}

// rsaPublicKey is the key of that modulus and exponent, and its SubjectPublicKeyInfo.
func rsaPublicKey(n, e *big.Int) (crypto.PublicKey, []byte, error) {
	spki, err := marshalSPKI(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue, struct{ N, E *big.Int }{n, e})
	if err != nil {
		return nil, nil, err
	}
	if !e.IsInt64() || e.Int64() > math.MaxInt32 {
		return &device.LargeRSA{N: n, E: e}, spki, nil
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, spki, nil
}

func eccKey(area *tpm2.TPMTPublic) (crypto.PublicKey, []byte, error) {
	params, err := area.Parameters.ECCDetail()
	if err != nil {
		return nil, nil, err
	}
	point, err := area.Unique.ECC()
	if err != nil {
		return nil, nil, err
	}
	known, ok := curves[params.CurveID]
	if !ok {
		return &device.OtherKey{Algorithm: "ECDSA-" + device.TPMCurve(uint16(params.CurveID))}, nil, nil
	}
	// X and Y are deprecated for what may hold a point that is off the curve, which is just what is wanted here.
	key := &ecdsa.PublicKey{Curve: known.curve, X: new(big.Int).SetBytes(point.X.Buffer), Y: new(big.Int).SetBytes(point.Y.Buffer)}
	size := (known.curve.Params().BitSize + 7) / 8
	if max(key.X.BitLen(), key.Y.BitLen()) > 8*size {
		return key, nil, nil // no SubjectPublicKeyInfo can hold this point
	}
	oid, err := asn1.Marshal(known.oid)
	if err != nil {
		return nil, nil, err
	}
	uncompressed := make([]byte, 1+2*size) // SEC 1, section 2.3.3
	uncompressed[0] = 4
	key.X.FillBytes(uncompressed[1 : 1+size])
	key.Y.FillBytes(uncompressed[1+size:])
	spki, err := marshalBits(asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, asn1.RawValue{FullBytes: oid}, uncompressed)
	return key, spki, err
}

// marshalSPKI is the SubjectPublicKeyInfo of an algorithm and the key's own
// structure. crypto/x509 would refuse the keys that matter here.
func marshalSPKI(algorithm asn1.ObjectIdentifier, parameters asn1.RawValue, key any) ([]byte, error) {
	der, err := asn1.Marshal(key)
	if err != nil {
		return nil, err
	}
	return marshalBits(algorithm, parameters, der)
}

func marshalBits(algorithm asn1.ObjectIdentifier, parameters asn1.RawValue, key []byte) ([]byte, error) {
	return asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{
		pkix.AlgorithmIdentifier{Algorithm: algorithm, Parameters: parameters},
		asn1.BitString{Bytes: key, BitLength: 8 * len(key)},
	})
}
