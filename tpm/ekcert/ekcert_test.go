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
		"bare":              {der, nil},
		"padded FF":         {slices.Concat(der, bytes.Repeat([]byte{0xff}, 1600-len(der))), nil},
		"padded 00":         {slices.Concat(der, make([]byte, 1600-len(der))), nil},
		"wrapped":           {wrap(der), nil},
		"wrapped, padded":   {slices.Concat(wrap(der), bytes.Repeat([]byte{0xff}, 100)), nil},
		"two":               {two, der},
		"two, padded":       {slices.Concat(two, []byte{0xff, 0xff, 0}), slices.Concat(der, []byte{0xff, 0xff, 0})},
		"padding between":   {slices.Concat(der, []byte{0xff, 0, 0xff}, der), der},
		"ends like padding": {slices.Concat(der, ends), ends},
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

func TestParseCriticalAltName(t *testing.T) {
	critical := pkix.Extension{Id: oidSAN, Critical: true, Value: directoryName(t)}
	der := certificate(t, nil, critical)
	if plain, err := x509.ParseCertificate(der); err != nil || len(plain.UnhandledCriticalExtensions) != 1 {
		t.Fatalf("crypto/x509 handles it by now: %v", err)
	}
	cert, err := ekcert.Parse(der)
	if err != nil || len(cert.UnhandledCriticalExtensions) != 0 {
		t.Errorf("%v, %v", cert.UnhandledCriticalExtensions, err)
	}
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	if cert, err := ekcert.Parse(certificate(t, nil, critical, unknown)); err != nil || len(cert.UnhandledCriticalExtensions) != 1 {
		t.Errorf("an unknown critical extension: %v, %v", cert.UnhandledCriticalExtensions, err)
	}
	for _, value := range [][]byte{
		{0x30, 0x04, 0xa4, 0x02, 0x04, 0x00},       // no name in the directory name
		{0x30, 0x05, 0xa4, 0x03, 0x30, 0x02, 0x00}, // cut short
	} {
		cert, err := ekcert.Parse(certificate(t, nil, pkix.Extension{Id: oidSAN, Critical: true, Value: value}))
		if err == nil && len(cert.UnhandledCriticalExtensions) == 0 {
			t.Errorf("malformed alternative name %x counts as handled", value)
		}
	}
}

func TestParseUnparsable(t *testing.T) {
	der := certificate(t, nil)
	leadingZero := bytes.Replace(der, []byte{2, 2, 0x47, 0x11}, []byte{2, 2, 0x00, 0x11}, 1)
	if bytes.Equal(der, leadingZero) {
		t.Fatal("the serial number is elsewhere")
	}
	for name, in := range map[string][]byte{"leading zero in the serial number": leadingZero, "empty sequence": {0x30, 0}, "nothing": nil} {
		if _, err := ekcert.Parse(in); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
}

func TestParseOAEPKey(t *testing.T) {
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
	cert, err := ekcert.Parse(oaep)
	if err != nil || !key.PublicKey.Equal(cert.PublicKey) || cert.PublicKeyAlgorithm != x509.RSA {
		t.Errorf("%v, %v", cert, err)
	}
	other := bytes.Replace(der, rsaEncryption, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a}, 1)
	if cert, err := ekcert.Parse(other); err == nil && cert.PublicKey != nil {
		t.Error("a key of another algorithm was parsed")
	}
}

// The key is found in whatever Parse takes, and where it refuses.
func TestPublicKey(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der := certificate(t, &key.PublicKey)
	replace := func(old, with []byte) []byte {
		if n := bytes.Count(der, old); n != 1 {
			t.Fatalf("%x is there %d times", old, n)
		}
		return bytes.Replace(der, old, with, 1)
	}
	rsaEncryption := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01}
	for name, c := range map[string]struct {
		der    []byte
		parsed bool
	}{
		"good":              {der, true},
		"serial number":     {replace([]byte{2, 2, 0x47, 0x11}, []byte{2, 2, 0x00, 0x11}), false},
		"key of RSAES-OAEP": {replace(rsaEncryption, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07}), true},
	} {
		if _, err := ekcert.Parse(c.der); (err == nil) != c.parsed {
			t.Errorf("%s: %v", name, err)
		}
		public, spki, err := ekcert.PublicKey(c.der)
		if err != nil || !key.PublicKey.Equal(public) || !bytes.Contains(c.der, spki) {
			t.Errorf("%s: %v, %v", name, public, err)
		}
	}
	// X.509 version 1 has no version field.
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	var tbs asn1.RawValue
	if _, err := asn1.Unmarshal(parsed.RawTBSCertificate, &tbs); err != nil {
		t.Fatal(err)
	}
	fields, ok := bytes.CutPrefix(tbs.Bytes, []byte{0xa0, 3, 2, 1, 2})
	if !ok {
		t.Fatal("no version 3")
	}
	sequence := asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: fields}
	first, err := asn1.Marshal([]asn1.RawValue{sequence})
	if err != nil {
		t.Fatal(err)
	}
	if public, _, err := ekcert.PublicKey(first); err != nil || !key.PublicKey.Equal(public) {
		t.Errorf("version 1: %v, %v", public, err)
	}
	other := replace(rsaEncryption, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a})
	if public, spki, err := ekcert.PublicKey(other); err != nil || public != nil || len(spki) < 270 {
		t.Errorf("another algorithm: %v, %v", public, err)
	}
	for n := range len(der) - 1 {
		if public, _, err := ekcert.PublicKey(der[:n]); err == nil {
			t.Fatalf("cut to %d bytes: %v", n, public)
		}
	}
	for name, in := range map[string][]byte{"empty": {0x30, 0}, "an integer": {2, 1, 5}, "of an integer": {0x30, 3, 2, 1, 5}, "empty body": {0x30, 2, 0x30, 0}} {
		if _, _, err := ekcert.PublicKey(in); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzUnwrapParse(f *testing.F) {
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
			cert, err := ekcert.Parse(der)
			if err == nil && !bytes.Equal(cert.Raw, der) {
				t.Fatal("the certificate is not the bytes it was parsed from")
			}
			_, spki, keyErr := ekcert.PublicKey(der)
			if keyErr == nil && !bytes.Contains(der, spki) || err == nil && !bytes.Equal(spki, cert.RawSubjectPublicKeyInfo) {
				t.Fatalf("public key %x, %v; of the parsed certificate %v", spki, keyErr, cert)
			}
			b = rest
		}
	})
}
