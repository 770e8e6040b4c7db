package signature_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/device/signature"
)

// signed is something signed, with its algorithm in DER and the key that signed it.
type signed struct {
	message, algorithm, signature []byte
	key                           device.Key
}

func (s signed) verify() signature.Result {
	return signature.Of(s.algorithm).Verify(s.key, s.message, s.signature)
}

// requests are certificate requests, signed by their own keys, that OpenSSL made
// with keys and algorithms of every kind.
func requests(tb testing.TB) map[string]signed {
	tb.Helper()
	names, err := filepath.Glob("../keyfile/testdata/requests/*.pem")
	if err != nil || len(names) < 25 {
		tb.Fatalf("%d requests, %v", len(names), err)
	}
	all := make(map[string]signed)
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		block, _ := pem.Decode(text)
		var request struct {
			Info, Algorithm asn1.RawValue
			Signature       asn1.BitString
		}
		if _, err := asn1.Unmarshal(block.Bytes, &request); err != nil {
			tb.Fatal(err)
		}
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(text), name)
		if len(keys) != 1 || len(gaps) > 0 {
			tb.Fatalf("%s: %v", name, gaps)
		}
		all[strings.TrimSuffix(filepath.Base(name), ".pem")] = signed{request.Info.FullBytes, request.Algorithm.FullBytes, request.Signature.Bytes, keys[0]}
	}
	return all
}

// TestVerify verifies what OpenSSL signed, and holds each signature against every
// other key, and against another message.
func TestVerify(t *testing.T) {
	all := requests(t)
	for name, s := range all {
		if r := s.verify(); r.Outcome != signature.Good {
			t.Errorf("%s: %+v", name, r)
		}
		for other, o := range all {
			if r := (signed{s.message, s.algorithm, s.signature, o.key}).verify(); other != name && r.Outcome == signature.Good && !device.SameKey(o.key.SPKI, s.key.SPKI) {
				t.Errorf("%s: verifies by the key of %s", name, other)
			}
		}
		if r := (signed{[]byte("another"), s.algorithm, s.signature, s.key}).verify(); r.Outcome != signature.Bad {
			t.Errorf("%s, another message: %+v", name, r)
		}
		for _, wrong := range [][]byte{nil, {0x30, 0}, s.signature[1:], append(bytes.Clone(s.signature), 0), append([]byte{0}, s.signature...), make([]byte, len(s.signature))} {
			if r := (signed{s.message, s.algorithm, wrong, s.key}).verify(); r.Outcome != signature.Bad {
				t.Errorf("%s, signature %.8x…: %+v", name, wrong, r)
			}
		}
	}
}

func algorithm(t *testing.T, value any) []byte {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

type oid = asn1.ObjectIdentifier

var (
	sha256WithRSA   = oid{1, 2, 840, 113549, 1, 1, 11}
	ecdsaWithSHA256 = oid{1, 2, 840, 10045, 4, 3, 2}
	rsassaPSS       = oid{1, 2, 840, 113549, 1, 1, 10}
)

func identifier(t *testing.T, id oid, params ...any) []byte {
	t.Helper()
	body := algorithm(t, id)
	for _, p := range params {
		body = append(body, algorithm(t, p)...)
	}
	return algorithm(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: body})
}

// TestUnknown holds that what cannot be computed is neither good nor bad, and is named.
func TestUnknown(t *testing.T) {
	if (signature.Result{}).Outcome != signature.Unknown {
		t.Error("the zero value decides")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	of := func(k crypto.PublicKey) device.Key { return device.Key{Public: k} }
	huge := new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 20000), 0, 1)
	rsaSPKI := func(id oid, params ...any) device.Key {
		k := device.Key{Public: &key.PublicKey}
		k.SPKI = algorithm(t, struct {
			Algorithm asn1.RawValue
			Key       asn1.BitString
		}{asn1.RawValue{FullBytes: identifier(t, id, params...)}, asn1.BitString{Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey), BitLength: 8 * len(x509.MarshalPKCS1PublicKey(&key.PublicKey))}})
		return k
	}
	explicit := requests(t)["ec-explicit"]
	ownCurve := explicit.key
	generator := bytes.Index(ownCurve.SPKI, []byte{0x04, 0x41, 0x04}) // the generator's OCTET STRING, compressed or not
	if generator < 0 {
		t.Fatal("no generator found in explicit parameters")
	}
	ownCurve.SPKI = bytes.Clone(ownCurve.SPKI)
	point := len(ownCurve.SPKI) - 64
	copy(ownCurve.SPKI[generator+3:], ownCurve.SPKI[point:]) // a curve whose generator is the key itself: its private number is 1
	for name, tt := range map[string]struct {
		algorithm []byte
		key       device.Key
		why       string
	}{
		"no algorithm":               {nil, of(&key.PublicKey), "unreadable"},
		"an algorithm of no name":    {identifier(t, oid{1, 2, 3, 4}), of(&key.PublicKey), "1.2.3.4"},
		"Ed448":                      {identifier(t, oid{1, 3, 101, 113}), of(&key.PublicKey), "Ed448"},
		"ML-DSA":                     {identifier(t, oid{2, 16, 840, 1, 101, 3, 4, 3, 18}), of(&key.PublicKey), "ML-DSA-65 (2.16.840.1.101.3.4.3.18)"},
		"no key":                     {identifier(t, sha256WithRSA), device.Key{}, "could not be read"},
		"a key of no name":           {identifier(t, sha256WithRSA), of(&device.OtherKey{Algorithm: "1.2.3.4"}), "1.2.3.4"},
		"a huge modulus":             {identifier(t, sha256WithRSA), of(&rsa.PublicKey{N: huge, E: 3}), "RSA-20001"},
		"a huge exponent":            {identifier(t, sha256WithRSA), of(&device.LargeRSA{N: new(big.Int).Rsh(huge, 4000), E: key.N}), "not computed with"},
		"no exponent":                {identifier(t, sha256WithRSA), of(&rsa.PublicKey{N: key.N}), "not computed with"},
		"a negative modulus":         {identifier(t, sha256WithRSA), of(&rsa.PublicKey{N: big.NewInt(-5), E: 3}), "not computed with"},
		"PSS of SHAKE":               {identifier(t, rsassaPSS, struct{}{}, 5), of(&key.PublicKey), "parameters"},
		"a key for PSS":              {identifier(t, sha256WithRSA), rsaSPKI(rsassaPSS), "for RSASSA-PSS only"},
		"a key for OAEP":             {identifier(t, sha256WithRSA), rsaSPKI(oid{1, 2, 840, 113549, 1, 1, 7}), "for encryption only"},
		"a key for PSS with SHA-1":   {identifier(t, rsassaPSS, pssParams(t, 32)), rsaSPKI(rsassaPSS, struct{}{}), "other parameters"},
		"a curve of its own numbers": {explicit.algorithm, ownCurve, "its curve is not known"},
		"an EC key without numbers":  {identifier(t, ecdsaWithSHA256), device.Key{Public: &device.OtherKey{Algorithm: "ECDSA-secp256k1"}}, "damaged"},
		"a DSA key without numbers":  {identifier(t, oid{1, 2, 840, 10040, 4, 3}), device.Key{Public: &device.OtherKey{Algorithm: "DSA"}}, "damaged"},
	} {
		r := signature.Of(tt.algorithm).Verify(tt.key, []byte("message"), make([]byte, 256))
		if r.Outcome != signature.Unknown || !strings.Contains(r.Why, tt.why) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]device.Key{
		"RSA": of(&key.PublicKey), "Ed25519": of(ed25519.PublicKey(make([]byte, 32))), "Ed448": of(&device.OtherKey{Algorithm: "Ed448"}), "infinity": of(&ecdsa.PublicKey{Curve: elliptic.P256()}), "another": of(&ec.PublicKey),
	} {
		if r := signature.Of(identifier(t, ecdsaWithSHA256)).Verify(k, nil, []byte{0x30, 0x06, 2, 1, 1, 2, 1, 1}); r.Outcome != signature.Bad {
			t.Errorf("ECDSA by %s: %+v", name, r)
		}
	}
}

// pssParams are those of SHA-256 with a salt of that many bytes.
func pssParams(t *testing.T, salt int) any {
	t.Helper()
	h := identifier(t, oid{2, 16, 840, 1, 101, 3, 4, 2, 1}, asn1.NullRawValue)
	field := func(tag int, der []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: der}
	}
	return struct{ Hash, Mask, Salt asn1.RawValue }{
		field(0, h), field(1, identifier(t, oid{1, 2, 840, 113549, 1, 1, 8}, asn1.RawValue{FullBytes: h})), field(2, algorithm(t, salt)),
	}
}

// TestPSS verifies what crypto/rsa signs, by moduli of every remainder of 8 bits,
// which decides how long the encoded message is.
func TestPSS(t *testing.T) {
	message := []byte("message")
	digest := sha256.Sum256(message)
	for bits := 1024; bits < 1033; bits++ {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		for _, salt := range []int{20, 32, (bits-1+7)/8 - 34} {
			s, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: salt})
			if err != nil {
				t.Fatal(err)
			}
			for stated, want := range map[int]signature.Outcome{salt: signature.Good, salt + 1: signature.Bad, 64: signature.Bad} {
				r := signed{message, identifier(t, rsassaPSS, pssParams(t, stated)), s, device.Key{Public: &key.PublicKey}}.verify()
				if r.Outcome != want {
					t.Errorf("%d bits, salt of %d bytes, stated %d: %+v", bits, salt, stated, r)
				}
			}
		}
	}
}

// TestNamed holds that every scheme of the table is named, with its weak hash.
func TestNamed(t *testing.T) {
	for name, weak := range map[string]string{
		"1.2.840.113549.1.1.2": "MD2", "1.2.840.113549.1.1.4": "MD5", "1.2.840.113549.1.1.5": "SHA1", "1.2.840.10045.4.1": "SHA1", "1.2.840.10040.4.3": "SHA1",
		"ssh-rsa": "SHA1", "ssh-dss": "SHA1", "1.2.840.113549.1.1.11": "", "rsa-sha2-256": "", "2.16.840.1.101.3.4.3.17": "", "1.2.3": "",
	} {
		if s := signature.Named(name); s.Weak != weak || s.OID != name || s.Name == "" || !strings.Contains(s.String(), name) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s := signature.Of(identifier(t, rsassaPSS, struct{}{})); s.Weak != "SHA1" {
		t.Errorf("RSASSA-PSS with its defaults: %+v", s)
	}
}

// FuzzVerify looks for what panics or takes long.
func FuzzVerify(f *testing.F) {
	for _, s := range requests(f) {
		f.Add(s.algorithm, s.key.SPKI, s.message, s.signature)
	}
	f.Fuzz(func(t *testing.T, algorithm, spki, message, blob []byte) {
		keys, _ := keyfile.ReadFrom(bytes.NewReader(spki), "spki")
		keys = append(keys, device.Key{Public: &device.OtherKey{Algorithm: "ECDSA"}, SPKI: spki}, device.Key{Public: &device.OtherKey{Algorithm: "DSA"}, SPKI: spki})
		for _, k := range keys {
			if r := signature.Of(algorithm).Verify(k, message, blob); r.Outcome == signature.Unknown && r.Why == "" {
				t.Error("it is not said why it is unknown")
			}
		}
		signature.OfSigned(spki)
	})
}
