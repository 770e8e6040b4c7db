package keyfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/curve"
)

// Numbers of TPM_ALG_ID (TPM 2.0 Library, Part 2, section 6.3).
const (
	algRSA       = 0x0001
	algKeyedHash = 0x0008
	algNull      = 0x0010
	algRSAES     = 0x0015
	algECDAA     = 0x001a
	algECC       = 0x0023
	algSymCipher = 0x0025
)

// looksTPM reports whether data may be a TPM2B_PUBLIC or a TPMT_PUBLIC.
func looksTPM(data []byte) bool {
	return looksTPMT(data) || len(data) > 2 && looksTPMT(data[2:])
}

// looksTPMT looks at type and name algorithm.
func looksTPMT(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	switch binary.BigEndian.Uint16(data) {
	case algRSA, algECC, algKeyedHash, algSymCipher:
	default:
		return false
	}
	switch binary.BigEndian.Uint16(data[2:]) {
	case algNull, 0x0004, 0x000b, 0x000c, 0x000d, 0x0012, 0x0027, 0x0028, 0x0029: // SHA-1, SHA-2, SM3, SHA-3
		return true
	}
	return false
}

// parseTPMPublic reads a TPMT_PUBLIC, or a TPM2B_PUBLIC, which is one with its
// size before it (Part 2, sections 12.2.4 and 12.2.5).
func parseTPMPublic(data []byte) (object, error) {
	s := cryptobyte.String(data)
	if !looksTPMT(data) {
		var size uint16
		switch s.ReadUint16(&size); {
		case int(size) > len(s):
			return object{}, fmt.Errorf("truncated TPM public area: %d bytes of %d", len(s), size)
		case int(size) < len(s):
			return object{}, fmt.Errorf("TPM public area with %d bytes after its end", len(s)-int(size))
		}
	}
	truncated := errors.New("truncated or damaged TPM public area")
	var kind, hash uint16
	var policy cryptobyte.String
	if !s.ReadUint16(&kind) || !s.ReadUint16(&hash) || !s.Skip(4) || !s.ReadUint16LengthPrefixed(&policy) { // 4: attributes
		return object{}, truncated
	}
	if kind != algRSA && kind != algECC {
		return object{}, errors.New("a TPM object that is no asymmetric key")
	}
	if !skipDetails(&s, 4) || !skipScheme(&s) { // TPMT_SYM_DEF_OBJECT: key bits and mode
		return object{}, truncated
	}
	if kind == algRSA {
		return tpmRSA(s)
	}
	return tpmECC(s)
}

// skipDetails skips an algorithm and, unless it is TPM_ALG_NULL, n bytes.
func skipDetails(s *cryptobyte.String, n int) bool {
	var alg uint16
	return s.ReadUint16(&alg) && (alg == algNull || s.Skip(n))
}

// skipScheme skips a TPMT_RSA_SCHEME or TPMT_ECC_SCHEME (Part 2, sections 11.2.4.2 and 11.2.5.6).
func skipScheme(s *cryptobyte.String) bool {
	var scheme uint16
	if !s.ReadUint16(&scheme) {
		return false
	}
	switch scheme {
	case algNull, algRSAES:
		return true
	case algECDAA:
		return s.Skip(4) // hash and count
	}
	return s.Skip(2) // hash
}

// tpmRSA reads key bits, exponent and modulus; exponent 0 stands for 65537
// (Part 2, section 12.2.3.5).
func tpmRSA(s cryptobyte.String) (object, error) {
	var bits uint16
	var exponent uint32
	var modulus cryptobyte.String
	if !s.ReadUint16(&bits) || !s.ReadUint32(&exponent) || !s.ReadUint16LengthPrefixed(&modulus) || !s.Empty() {
		return object{}, errors.New("truncated or damaged TPM public area")
	}
	if exponent == 0 {
		exponent = 65537
	}
	n := new(big.Int).SetBytes(modulus)
	switch {
	case n.Sign() == 0:
		return object{}, errors.New("a TPM template without a key: its modulus is empty or zero")
	case n.BitLen() > maxRSABits:
		return object{}, fmt.Errorf("number of %d bits in the key, more than %d", n.BitLen(), maxRSABits)
	}
	return rsaObject(n, new(big.Int).SetUint64(uint64(exponent)))
}

// tpmECC reads curve, key derivation and point.
func tpmECC(s cryptobyte.String) (object, error) {
	var id uint16
	var x, y cryptobyte.String
	if !s.ReadUint16(&id) || !skipDetails(&s, 2) || !s.ReadUint16LengthPrefixed(&x) || !s.ReadUint16LengthPrefixed(&y) || !s.Empty() {
		return object{}, errors.New("truncated or damaged TPM public area")
	}
	bigX, bigY := new(big.Int).SetBytes(x), new(big.Int).SetBytes(y)
	if bigX.Sign() == 0 && bigY.Sign() == 0 {
		return object{}, errors.New("a TPM template without a key: its point is empty or zero")
	}
	name := device.TPMCurve(id)
	c, known := curve.Named(name)
	if !known || c.Std == nil {
		return object{public: &device.OtherKey{Algorithm: "ECDSA-" + name}}, nil
	}
	size := (c.Std.Params().BitSize + 7) / 8
	if (bigX.BitLen()+7)/8 > size || (bigY.BitLen()+7)/8 > size {
		return object{}, fmt.Errorf("TPM public area with coordinates too long for %s", name)
	}
	point := make([]byte, 1+2*size)
	point[0] = 4
	bigX.FillBytes(point[1 : 1+size])
	bigY.FillBytes(point[1+size:])
	a, err := ecAlgorithm(c.OID)
	if err != nil {
		return object{}, err
	}
	return buildSPKI(a, point)
}

// parseTSS2 reads a TPMKey after its type ("ASN.1 Specification for TPM 2.0
// Key Files", section 3): optional fields with context tags, parent, public
// area, private area. The private half can be used in its TPM alone.
func parseTSS2(s cryptobyte.String) (object, error) {
	for t := uint8(0); t < 10; t++ {
		if !s.SkipOptionalASN1(tag.Tag(t).Constructed().ContextSpecific()) {
			return object{}, errors.New("malformed TSS2 private key")
		}
	}
	var public, private cryptobyte.String
	if !s.SkipASN1(tag.INTEGER) || !s.ReadASN1(&public, tag.OCTET_STRING) || !s.ReadASN1(&private, tag.OCTET_STRING) {
		return object{}, errors.New("malformed TSS2 private key")
	}
	if !looksTPM(public) {
		return object{}, errors.New("TSS2 private key without a TPM public area")
	}
	o, err := parseTPMPublic(public)
	if err != nil {
		return object{}, fmt.Errorf("TSS2 private key: %w", err)
	}
	o.private, o.privateSPKI, o.wrapped = true, o.spki, true
	return o, nil
}
