package keyfile_test

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
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
)

// request is a CertificationRequest, taken apart.
type request struct {
	Info      asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

func (r request) answer(t *testing.T) device.Answer {
	t.Helper()
	return requestAnswer(t, marshal(t, r))
}

func requestAnswer(t *testing.T, data []byte) device.Answer {
	t.Helper()
	k := only(t, data)
	if k.Request == nil || k.CertificateError != "" || k.Private != nil {
		t.Fatalf("not a request: %+v", k)
	}
	return *k.Request
}

// TestRequests changes requests that are signed rightly, of every algorithm.
func TestRequests(t *testing.T) {
	requests := make(map[string][]byte)
	for _, name := range files(t, "requests") {
		if filepath.Ext(name) == ".pem" {
			requests[filepath.Base(name)] = readPEM(t, name)
		}
	}
	if len(requests) < 20 {
		t.Fatalf("%d requests", len(requests))
	}
	for name, template := range goRequests(t) {
		requests[name] = template
	}
	for name, der := range requests {
		t.Run(name, func(t *testing.T) {
			if a := requestAnswer(t, der); a.Status != device.Pass {
				t.Fatalf("%v", a)
			}
			var r request
			if _, err := asn1.Unmarshal(der, &r); err != nil {
				t.Fatal(err)
			}
			last := len(r.Signature.Bytes) - 1
			r.Signature.Bytes[last] ^= 1
			if a := r.answer(t); a.Status != device.Fail || a.Why == "" {
				t.Errorf("a changed signature: %v", a)
			}
			r.Signature.Bytes[last] ^= 1
			r.Info.FullBytes[bytes.Index(r.Info.FullBytes, []byte{0x55, 4, 3})+5]++ // in the subject
			if a := r.answer(t); a.Status != device.Fail {
				t.Errorf("a changed subject: %v", a)
			}
			r.Signature.Bytes, r.Signature.BitLength = nil, 0
			if a := r.answer(t); a.Status != device.Fail {
				t.Errorf("no signature: %v", a)
			}
		})
	}
	for _, name := range []string{"ed448", "ec-sect233r1", "rsa-ripemd160"} {
		a := requestAnswer(t, readPEM(t, "testdata/requests/unknown/"+name+".pem"))
		if a.Status != device.Undecided || !strings.Contains(a.Why, "1.") {
			t.Errorf("%s: %v", name, a)
		}
	}
}

// goRequests are requests that crypto/x509 makes.
func goRequests(t *testing.T) map[string][]byte {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	requests := make(map[string][]byte)
	add := func(key crypto.Signer, algorithm x509.SignatureAlgorithm) {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: algorithm, Subject: pkix.Name{CommonName: "go"}}, key)
		if err != nil {
			t.Fatal(err)
		}
		requests[algorithm.String()] = der
	}
	for _, a := range []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS} {
		add(rsaKey, a)
	}
	for c, a := range map[elliptic.Curve]x509.SignatureAlgorithm{elliptic.P256(): x509.ECDSAWithSHA256, elliptic.P384(): x509.ECDSAWithSHA384, elliptic.P521(): x509.ECDSAWithSHA512} {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		add(key, a)
	}
	add(edKey, x509.PureEd25519)
	return requests
}

// A request of another version may be signed rightly.
func TestRequestVersion(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "version"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	var r request
	if _, err := asn1.Unmarshal(der, &r); err != nil {
		t.Fatal(err)
	}
	version := bytes.Index(r.Info.FullBytes, []byte{2, 1, 0}) + 2
	r.Info.FullBytes[version] = 99
	if a := r.answer(t); a.Status != device.Fail {
		t.Errorf("version 99 put into a signed request: %v", a)
	}
	digest := sha256.Sum256(r.Info.FullBytes)
	if r.Signature.Bytes, err = key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	r.Signature.BitLength = 8 * len(r.Signature.Bytes)
	if a := r.answer(t); a.Status != device.Pass {
		t.Errorf("version 99, signed: %v", a)
	}
	if k := only(t, marshal(t, r)); !strings.Contains(k.Encoding, "version 99") {
		t.Errorf("version 99: %q", k.Encoding)
	}
	r.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 643, 7, 1, 1, 3, 2}
	if a := r.answer(t); a.Status != device.Undecided || !strings.Contains(a.Why, "1.2.643.7.1.1.3.2") {
		t.Errorf("unknown algorithm: %v", a)
	}
	r.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	if a := r.answer(t); a.Status != device.Fail {
		t.Errorf("algorithm of another key: %v", a)
	}
}

// A request and a private key in one file.
func TestRequestAndKey(t *testing.T) {
	text := func(names ...string) string {
		var all strings.Builder
		for _, name := range names {
			b, err := os.ReadFile("testdata/good/" + name)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(b)
		}
		return all.String()
	}
	for _, c := range []struct {
		text string
		want device.Status
	}{
		{text("csr.pem", "ec-p256-pkcs8.pem"), device.Pass},
		{text("ec-p256-sec1.pem", "csr-new.pem"), device.Pass},
		{text("csr.pem", "ec-p384-pkcs8.pem"), device.Fail},
		{text("csr.pem", "rsa-pkcs1.pem"), device.Fail},
		{text("csr.pem", "ed448-pkcs8.pem"), device.Fail},
	} {
		keys, gaps := keyfile.ReadFrom(strings.NewReader(c.text), "-")
		if len(keys) != 2 || len(gaps) != 0 {
			t.Fatalf("%d keys, %v", len(keys), gaps)
		}
		for _, k := range keys {
			if k.Private != nil && k.Private.Partner.Status != c.want {
				t.Errorf("%s: %v, want %v", k.Algorithm(), k.Private.Partner, c.want)
			}
		}
	}
}
