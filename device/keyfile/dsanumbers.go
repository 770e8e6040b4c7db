package keyfile

import (
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// dsaNumbers are those of a DSA key (FIPS 186-4, section 4.1); x is nil for a
// public key, y where it is not stated.
type dsaNumbers struct{ p, q, g, y, x *big.Int }

const maxSubgroupBits = 512 // of q; FIPS 186-4 has 256 at most

// readDSANumbers reads p, q, g, y and x in that order.
func readDSANumbers(next func() ([]byte, bool)) (k dsaNumbers, err error) {
	for _, n := range []**big.Int{&k.p, &k.q, &k.g, &k.y, &k.x} {
		b, ok := next()
		if !ok {
			return k, errors.New("malformed DSA key")
		}
		if *n, ok = unsigned(b); !ok {
			return k, fmt.Errorf("number of %d bits in the key, more than %d", 8*len(b), maxRSABits)
		}
	}
	return k, nil
}

// readDSAParams reads Dss-Parms (RFC 3279, section 2.3.2).
func readDSAParams(params cryptobyte.String) (k dsaNumbers, err error) {
	var body cryptobyte.String
	if !params.ReadASN1(&body, tag.SEQUENCE) {
		return k, errors.New("DSA key without parameters")
	}
	list, ok := readNumbers(&body, 3)
	if !ok {
		return k, errors.New("malformed DSA parameters")
	}
	k.p, k.q, k.g = list[0], list[1], list[2]
	return k, nil
}

func (k *dsaNumbers) setPrivate(x []byte) error {
	var ok bool
	if k.x, ok = unsigned(x); !ok {
		return errors.New("malformed DSA private key")
	}
	return nil
}

// object is that of the public key which is stated, else of the one that x makes.
func (k dsaNumbers) object() (object, error) {
	made, answer := k.public()
	y := k.y
	if y == nil {
		y = made
	}
	if y == nil {
		return object{public: k.name(), private: k.x != nil, numbers: answer}, nil
	}
	spki, err := k.spki(y)
	o := object{public: k.name(), spki: spki, private: k.x != nil, numbers: answer}
	switch {
	case err != nil || k.x == nil:
		return o, err
	case made == nil:
		return o, nil
	case made.Cmp(y) == 0:
		o.privateSPKI = spki
		return o, nil
	}
	o.numbers = madeOther
	o.privateSPKI, err = k.spki(made)
	return o, err
}

func (k dsaNumbers) name() *device.OtherKey {
	return &device.OtherKey{Algorithm: fmt.Sprintf("DSA-%d", k.p.BitLen())}
}

// public is the public key that x makes, and wipes x.
func (k dsaNumbers) public() (*big.Int, device.Answer) {
	if k.x == nil {
		return nil, device.Answer{}
	}
	defer wipe(k.x)
	if k.q.BitLen() > maxSubgroupBits || k.p.BitLen() > maxPrimeBits {
		return nil, notTested("its numbers are too large to be tested")
	}
	answer := fits
	if k.p.Sign() == 0 || k.x.Sign() == 0 || k.x.Cmp(k.q) >= 0 {
		answer = wrongNumbers("its private number is out of range")
	}
	if k.p.Sign() == 0 || k.x.BitLen() > maxSubgroupBits {
		return nil, answer
	}
	// Keys of devices have an x above q, which works all the same.
	return new(big.Int).Exp(k.g, k.x, k.p), answer
}

// spki is the SubjectPublicKeyInfo of a public number.
func (k dsaNumbers) spki(y *big.Int) ([]byte, error) {
	var number, b cryptobyte.Builder
	number.AddASN1BigInt(y)
	key, err := number.Bytes()
	if err != nil {
		return nil, err
	}
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidDSA)
			b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1BigInt(k.p)
				b.AddASN1BigInt(k.q)
				b.AddASN1BigInt(k.g)
			})
		})
		b.AddASN1BitString(key)
	})
	return b.Bytes()
}
