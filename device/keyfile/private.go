package keyfile

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// A private key is read for its public half and for whether its numbers fit
// each other. Of the private ones nothing but that answer goes further.

// What a private key's numbers can be found to be.
var (
	fits       = device.Answer{Status: device.Pass, Why: "the numbers of the private key fit each other"}
	madeOther  = device.Answer{Status: device.Fail, Why: "it states another public key than its private number makes"}
	damagedKey = device.Answer{Why: "the private numbers are damaged and cannot be read"}
)

// wrongNumbers is the answer that the numbers do not fit.
func wrongNumbers(why string) device.Answer { return device.Answer{Status: device.Fail, Why: why} }

// notTested is the answer where it is not known how to test them.
func notTested(format string, args ...any) device.Answer {
	return device.Answer{Why: fmt.Sprintf(format, args...)}
}

// elsewhere is the answer where the private half lies where it cannot be read.
func elsewhere(why string) device.Answer {
	return device.Answer{Status: device.NotApplicable, Why: why}
}

// parsePKCS1Private reads an RSAPrivateKey (RFC 8017, appendix A.1.2).
func parsePKCS1Private(body cryptobyte.String) (object, error) {
	a, err := rsaAlgorithm()
	if err != nil {
		return object{}, err
	}
	return rsaPrivate(a, body)
}

// rsaPrivate makes the object of modulus and exponent as they are stated; what
// follows them may be damaged.
func rsaPrivate(a algorithm, body cryptobyte.String) (object, error) {
	rest := body
	var n, e cryptobyte.String
	if !rest.SkipASN1(tag.INTEGER) || !rest.ReadASN1Element(&n, tag.INTEGER) || !rest.ReadASN1Element(&e, tag.INTEGER) {
		return object{}, errors.New("malformed RSA private key")
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(n)
		b.AddBytes(e)
	})
	key, err := b.Bytes()
	if err != nil {
		return object{}, err
	}
	o, err := buildSPKI(a, key)
	if err != nil {
		return object{}, err
	}
	o.private, o.privateSPKI = true, o.spki
	k, ok := readRSANumbers(body)
	if !ok {
		o.numbers = damagedKey
		return o, nil
	}
	return k.judge(o), nil
}

// parseDSAPrivate reads the traditional form: version, p, q, g, y, x.
func parseDSAPrivate(body cryptobyte.String) (object, error) {
	body.SkipASN1(tag.INTEGER)
	k, err := readDSANumbers(func() ([]byte, bool) {
		var b cryptobyte.String
		return b, body.ReadASN1(&b, tag.INTEGER) && len(b) > 0
	})
	if err != nil {
		return object{}, err
	}
	return k.object()
}

// parsePKCS8 reads a PrivateKeyInfo (RFC 5208) or OneAsymmetricKey (RFC 5958),
// which may state the public key.
func parsePKCS8(body cryptobyte.String) (object, error) {
	malformed := errors.New("malformed PKCS#8 private key")
	if !body.SkipASN1(tag.INTEGER) {
		return object{}, malformed
	}
	a, err := readAlgorithm(&body)
	if err != nil {
		return object{}, err
	}
	var key cryptobyte.String
	if !body.ReadASN1(&key, tag.OCTET_STRING) {
		return object{}, malformed
	}
	var stated []byte
	var public cryptobyte.String
	var isStated bool
	if !body.SkipOptionalASN1(tag.Tag(0).Constructed().ContextSpecific()) || // attributes
		!body.ReadOptionalASN1(&public, &isStated, tag.Tag(1).ContextSpecific()) {
		return object{}, malformed
	}
	if isStated {
		if len(public) < 1 || public[0] != 0 { // a BIT STRING of whole bytes
			return object{}, malformed
		}
		stated = public[1:]
	}

	inner, tags, innerErr := elements(key)
	switch a.name {
	case "RSA":
		if innerErr != nil || !strings.HasPrefix(tags, "III") {
			return object{}, malformed
		}
		o, err := rsaPrivate(a, inner)
		return o.stating(a, stated), err
	case "EC":
		if innerErr != nil || !strings.HasPrefix(tags, "IO") {
			return object{}, malformed
		}
		o, err := parseSEC1(inner, &a)
		return o.stating(a, stated), err
	case "Ed25519":
		var seed []byte
		if !key.ReadASN1Bytes(&seed, tag.OCTET_STRING) || len(seed) != ed25519.SeedSize {
			return object{}, malformed
		}
		made := ed25519.NewKeyFromSeed(seed)[ed25519.SeedSize:]
		return privateObject(a, stated, made)
	case "X25519":
		var raw []byte
		if !key.ReadASN1Bytes(&raw, tag.OCTET_STRING) {
			return object{}, malformed
		}
		private, err := ecdh.X25519().NewPrivateKey(raw)
		if err != nil {
			return object{}, malformed
		}
		return privateObject(a, stated, private.PublicKey().Bytes())
	case "DSA":
		k, err := readDSAParams(a.params)
		if err != nil {
			return object{}, malformed
		}
		var x cryptobyte.String
		if !key.ReadASN1(&x, tag.INTEGER) || k.setPrivate(x) != nil {
			return object{}, malformed
		}
		o, err := k.object()
		return o.stating(a, stated), err
	}
	return unknownPrivate(a, stated)
}

// unknownPrivate is a private key of an algorithm that is only named.
func unknownPrivate(a algorithm, stated []byte) (object, error) {
	if stated == nil {
		return object{public: otherPublic(a), private: true,
			numbers: device.Answer{Status: device.NotApplicable, Why: "the private key has one number, and states no public key that it must fit"}}, nil
	}
	o, err := buildSPKI(a, stated)
	o.private, o.privateSPKI = true, o.spki
	o.numbers = notTested("whether a private key of the algorithm %s fits the public key that it states cannot be tested", a.name)
	return o, err
}

// privateObject is a private key that makes one public key, and may state another.
func privateObject(a algorithm, stated, made []byte) (object, error) {
	o, err := buildSPKI(a, made)
	if err != nil {
		return object{}, err
	}
	o.private, o.privateSPKI, o.numbers = true, o.spki, fits
	return o.stating(a, stated), nil
}

// stating adds that the file states a public key beside what was found in the
// private one; nil states none. That of the file is then the object's.
func (o object) stating(a algorithm, stated []byte) object {
	if stated == nil || !o.private {
		return o
	}
	p, err := buildSPKI(a, stated)
	switch {
	case err != nil:
		o.numbers = wrongNumbers("the public key that it states is malformed")
	case !device.SameKey(p.spki, o.spki):
		o.public, o.spki = p.public, p.spki
		o.numbers, o.test = madeOther, nil
	}
	return o
}

// parseSEC1 reads an ECPrivateKey (RFC 5915, section 3); outerAlgorithm names the
// curve where it is within PKCS#8. The public key is the one that the file
// states, if it does; the private key may make another.
func parseSEC1(body cryptobyte.String, outerAlgorithm *algorithm) (object, error) {
	malformed := errors.New("malformed EC private key")
	var scalar, params, public cryptobyte.String
	var hasParams, hasPublic bool
	if !body.SkipASN1(tag.INTEGER) || !body.ReadASN1(&scalar, tag.OCTET_STRING) ||
		!body.ReadOptionalASN1(&params, &hasParams, tag.Tag(0).Constructed().ContextSpecific()) ||
		!body.ReadOptionalASN1(&public, &hasPublic, tag.Tag(1).Constructed().ContextSpecific()) {
		return object{}, malformed
	}
	var stated []byte
	if hasPublic && !public.ReadASN1BitStringAsBytes(&stated) {
		return object{}, malformed
	}
	var a algorithm
	var err error
	switch {
	case outerAlgorithm == nil && !hasParams:
		return object{}, errors.New("EC private key without a curve")
	case outerAlgorithm == nil:
		if a, err = ecAlgorithmOf(params); err != nil {
			return object{}, err
		}
	default:
		a = *outerAlgorithm
	}
	o, err := ecPrivate(a, scalar, stated)
	if outerAlgorithm != nil && hasParams && namesOther(params, a.params) {
		o.numbers = wrongNumbers("it names two curves")
	}
	return o, err
}

// namesOther reports whether the parameters name another curve than those beside them.
func namesOther(params, beside cryptobyte.String) bool {
	var a, b asn1.ObjectIdentifier
	return readOID(&params, &a) && readOID(&beside, &b) && !a.Equal(b)
}

// ecPrivate makes the object of a scalar, and of the point that stands beside it;
// nil if there is none.
func ecPrivate(a algorithm, scalar, stated []byte) (object, error) {
	made, answer := pointOf(a.params, scalar)
	point := stated
	if point == nil {
		point = made
	}
	if point == nil {
		k, err := ecPublic(a.params, nil)
		if err != nil { // of a curve that is understood
			k = &device.OtherKey{Algorithm: curveName(a.params)}
		}
		if answer.Status == device.Undecided { // nothing that the scalar has to fit
			answer.Status = device.NotApplicable
		}
		return object{public: k, private: true, numbers: answer}, nil
	}
	o, err := buildSPKI(a, point)
	if err != nil {
		return object{}, err
	}
	o.private, o.privateSPKI, o.numbers = true, o.spki, answer
	if made == nil {
		if answer.Status == device.Fail {
			o.privateSPKI = nil
		}
		return o, nil
	}
	own, err := buildSPKI(a, made)
	if err != nil {
		return object{}, err
	}
	if !device.SameKey(own.spki, o.spki) {
		o.privateSPKI, o.numbers = own.spki, madeOther
	}
	return o, nil
}
