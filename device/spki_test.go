package device

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"testing"
)

func ecSPKI(t *testing.T, algorithm, curve asn1.ObjectIdentifier, point []byte) []byte {
	t.Helper()
	type identifier struct{ Algorithm, Curve asn1.ObjectIdentifier }
	der, err := asn1.Marshal(struct {
		Algorithm identifier
		Key       asn1.BitString
	}{identifier{algorithm, curve}, asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func rsaSPKI(t *testing.T, algorithm asn1.ObjectIdentifier, numbers ...asn1.RawValue) []byte {
	t.Helper()
	key, err := asn1.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Algorithm struct{ OID asn1.ObjectIdentifier }
		Key       asn1.BitString
	}{struct{ OID asn1.ObjectIdentifier }{algorithm}, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSameKey(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	oid := func(numbers ...int) asn1.ObjectIdentifier { return numbers }
	ec, ecdh, p256, k256 := oid(1, 2, 840, 10045, 2, 1), oid(1, 3, 132, 1, 12), oid(1, 2, 840, 10045, 3, 1, 7), oid(1, 3, 132, 0, 10)
	with := func(first byte, rest []byte) []byte { return append([]byte{first}, rest...) }
	odd := point[64] & 1
	offCurve := bytes.Clone(point)
	offCurve[64] ^= 2
	number := func(b ...byte) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagInteger, Bytes: b} }
	pkcs1, pss := oid(1, 2, 840, 113549, 1, 1, 1), oid(1, 2, 840, 113549, 1, 1, 10)
	n, e := number(0, 0xff, 3), number(1, 0, 1)

	for name, pair := range map[string][2][]byte{
		"itself":                 {der, bytes.Clone(der)},
		"compressed":             {der, ecSPKI(t, ec, p256, with(2+odd, point[1:33]))},
		"hybrid":                 {der, ecSPKI(t, ec, p256, with(6+odd, point[1:]))},
		"hybrid and compressed":  {ecSPKI(t, ec, p256, with(2+odd, point[1:33])), ecSPKI(t, ec, p256, with(6+odd, point[1:]))},
		"for ECDH":               {der, ecSPKI(t, ecdh, p256, point)},
		"for PSS":                {rsaSPKI(t, pkcs1, n, e), rsaSPKI(t, pss, n, e)},
		"padded numbers":         {rsaSPKI(t, pkcs1, n, e), rsaSPKI(t, pkcs1, number(0, 0, 0xff, 3), number(0, 1, 0, 1))},
		"number without a sign":  {rsaSPKI(t, pkcs1, n, e), rsaSPKI(t, pkcs1, number(0xff, 3), e)},
		"what cannot be read":    {[]byte("a"), []byte("a")},
		"unknown, what for once": {ecSPKI(t, oid(1, 2, 3), p256, point), ecSPKI(t, oid(1, 2, 3), k256, point)},
	} {
		if !SameKey(pair[0], pair[1]) || !SameKey(pair[1], pair[0]) || KeyIdentity(pair[0]) != KeyIdentity(pair[1]) {
			t.Errorf("%s: not the same", name)
		}
	}
	for name, pair := range map[string][2][]byte{
		"nothing":             {nil, nil},
		"nothing and a key":   {{}, der},
		"the other y":         {der, ecSPKI(t, ec, p256, with(3-odd, point[1:33]))},
		"another x":           {der, ecSPKI(t, ec, p256, with(2+odd, point[2:34]))},
		"off the curve":       {der, ecSPKI(t, ec, p256, offCurve)},
		"another curve":       {der, ecSPKI(t, ec, k256, point)},
		"infinity":            {der, ecSPKI(t, ec, p256, []byte{0})},
		"cut short":           {der, der[1:]},
		"longer":              {der, append(bytes.Clone(der), 0)},
		"another exponent":    {rsaSPKI(t, pkcs1, n, e), rsaSPKI(t, pkcs1, n, number(3))},
		"another modulus":     {rsaSPKI(t, pkcs1, n, e), rsaSPKI(t, pkcs1, number(0, 0xff, 5), e)},
		"numbers that run on": {rsaSPKI(t, pkcs1, n, e), rsaSPKI(t, pkcs1, n, e, e)},
		"another algorithm":   {ecSPKI(t, oid(1, 2, 3), p256, point), ecSPKI(t, oid(1, 2, 4), p256, point)},
	} {
		if SameKey(pair[0], pair[1]) || SameKey(pair[1], pair[0]) {
			t.Errorf("%s: the same", name)
		}
	}
}
