package ekcert_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm/ekcert"
)

var oidSAN = asn1.ObjectIdentifier{2, 5, 29, 17}

// directoryName is a SubjectAltName as EK certificates have it: the TPM's
// manufacturer, model and version in a directory name.
func directoryName(t testing.TB) []byte {
	t.Helper()
	rdn, err := asn1.Marshal(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 1}, Value: "id:49465800"},
		{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 2}, Value: "SLB9670"},
		{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 3}, Value: "id:0755"},
	}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	name, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: rdn}})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// certificate makes an EK certificate with those extensions on top.
func certificate(t testing.TB, public any, extensions ...pkix.Extension) []byte {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if public == nil {
		public = &signer.PublicKey
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x4711), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), ExtraExtensions: extensions,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func wrap(der []byte) []byte {
	n := len(der) + 2
	return append([]byte{0x10, 0x01, 0, byte(n >> 8), byte(n), 0x10, 0x02}, der...)
}

func TestUnwrap(t *testing.T) {
	der := certificate(t, nil)
	two := slices.Concat(der, der)
	ends := slices.Concat(der[:len(der)-2], []byte{0, 0xff})
	for name, c := range map[string]struct{ in, rest []byte }{
		"bare":               {der, nil},
		"padded FF":          {slices.Concat(der, bytes.Repeat([]byte{0xff}, 1600-len(der))), nil},
		"padded 00":          {slices.Concat(der, make([]byte, 1600-len(der))), nil},
		"wrapped":            {wrap(der), nil},
		"wrapped, padded":    {slices.Concat(wrap(der), bytes.Repeat([]byte{0xff}, 100)), nil},
		"padded 11":          {slices.Concat(der, bytes.Repeat([]byte{0x11}, 192)), nil},
		"without second tag": {slices.Concat([]byte{0x10, 0x01, 0, byte(len(der) >> 8), byte(len(der))}, der), nil},
		"two wrapped":        {slices.Concat(wrap(der), wrap(der), []byte{0xff}), slices.Concat(wrap(der), []byte{0xff})},
		"two":                {two, der},
		"two, padded":        {slices.Concat(two, []byte{0xff, 0xff, 0}), slices.Concat(der, []byte{0xff, 0xff, 0})},
		"padding between":    {slices.Concat(der, []byte{0xff, 0, 0xff}, der), der},
		"ends like padding":  {slices.Concat(der, ends), ends},
	} {
		got, rest, err := ekcert.Unwrap(c.in)
		if err != nil || !bytes.Equal(got, der) || !bytes.Equal(rest, c.rest) {
			t.Errorf("%s: %d bytes, %d left, %v", name, len(got), len(rest), err)
		}
	}
	for name, in := range map[string][]byte{
		"nothing": nil, "padding": bytes.Repeat([]byte{0xff}, 1600), "zeros": make([]byte, 100), "truncated": der[:len(der)-1],
		"wrapper cut short": wrap(der)[:200], "empty wrapper": {0x10, 0x01, 0, 0, 0, 0x10, 0x02}, "too large": make([]byte, ekcert.MaxBytes+1),
		"an integer": {2, 1, 5}, "not DER": []byte("-----BEGIN CERTIFICATE-----"),
	} {
		if _, _, err := ekcert.Unwrap(in); !errors.Is(err, ekcert.ErrNotCertificate) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOAEPKey takes a certificate whose key is of the algorithm that some EK
// certificates have, and crypto/x509 has no key of.
func TestOAEPKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := certificate(t, &key.PublicKey)
	// rsaEncryption becomes id-RSAES-OAEP: the last arc, 1, becomes 7.
	rsaEncryption := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01}
	oaep := bytes.Replace(der, rsaEncryption, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07}, 1)
	if plain, err := x509.ParseCertificate(oaep); err != nil || plain.PublicKey != nil {
		t.Fatalf("crypto/x509 parses it by now: %v", err)
	}
	cert, _, err := keyfile.ParseCertificate(oaep)
	if err != nil || !key.PublicKey.Equal(cert.PublicKey) || cert.PublicKeyAlgorithm != x509.RSA {
		t.Errorf("%v, %v", cert, err)
	}
}

func FuzzUnwrap(f *testing.F) {
	der := certificate(f, nil, pkix.Extension{Id: oidSAN, Critical: true, Value: directoryName(f)})
	f.Add(der)
	f.Add(wrap(der))
	f.Add(slices.Concat(der, der, []byte{0xff}))
	f.Add([]byte{0x10, 0x01, 0, 0, 2, 0x10, 0x02})
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			der, rest, err := ekcert.Unwrap(b)
			if err != nil {
				return
			}
			if len(der) == 0 || len(rest) >= len(b) {
				t.Fatalf("%d bytes of %d, %d left", len(der), len(b), len(rest))
			}
			cert, _, err := keyfile.ParseCertificate(der)
			if err == nil && !bytes.Equal(cert.Raw, der) {
				t.Fatal("the certificate is not the bytes it was parsed from")
			}
			b = rest
		}
	})
}
