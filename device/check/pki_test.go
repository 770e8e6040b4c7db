package check

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
)

// now is the time at which the tests take place.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

var serials int64

// authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate of that name under parent, or self-signed if nil,
// on a new P-256 key unless edit's second argument is given another.
func issue(tb testing.TB, name string, parent *authority, edits ...func(*x509.Certificate, *crypto.Signer)) *authority {
	tb.Helper()
	var key crypto.Signer
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	serials++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(10000 * time.Hour), BasicConstraintsValid: true,
	}
	for _, edit := range edits {
		edit(template, &key)
	}
	signer := &authority{template, key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, key.Public(), signer.key)
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{reparse(tb, der), key}
}

func reparse(tb testing.TB, der []byte) *x509.Certificate {
	tb.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func asCA(c *x509.Certificate, _ *crypto.Signer) {
	c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
}

func valid(from, to time.Time) func(*x509.Certificate, *crypto.Signer) {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.NotBefore, c.NotAfter = from, to }
}

func onKey(key crypto.Signer) func(*x509.Certificate, *crypto.Signer) {
	return func(_ *x509.Certificate, k *crypto.Signer) { *k = key }
}

// sha256WithRSA and its neighbours are the last arc of PKCS #1's signature
// algorithms (RFC 8017, appendix C).
const (
	md2WithRSA    = 2
	md5WithRSA    = 4
	sha1WithRSA   = 5
	sha256WithRSA = 11
)

// signedWith is c signed by key with another algorithm; of a hash that is not
// there, the signature does not fit.
func signedWith(tb testing.TB, c *x509.Certificate, arc byte, key crypto.Signer) *x509.Certificate {
	tb.Helper()
	from, to := append(bytes.Clone(arcs), sha256WithRSA), append(bytes.Clone(arcs), arc)
	if bytes.Count(c.Raw, from) != 2 {
		tb.Fatal("not signed with SHA-256 and RSA")
	}
	der := bytes.ReplaceAll(c.Raw, from, to)
	if hash := map[byte]crypto.Hash{md5WithRSA: crypto.MD5, sha1WithRSA: crypto.SHA1}[arc]; hash != 0 {
		h := hash.New()
		h.Write(reparse(tb, der).RawTBSCertificate)
		signature, err := key.Sign(rand.Reader, h.Sum(nil), hash)
		if err != nil {
			tb.Fatal(err)
		}
		copy(der[len(der)-len(signature):], signature)
	}
	return reparse(tb, der)
}

// arcs are those of PKCS #1, in DER.
var arcs = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01}

// tampered is c with a bit of its signature flipped.
func tampered(tb testing.TB, c *x509.Certificate) *x509.Certificate {
	der := bytes.Clone(c.Raw)
	der[len(der)-1] ^= 1
	return reparse(tb, der)
}

func crlBy(tb testing.TB, by *authority, next time.Time, extensions []pkix.Extension, gone ...*x509.Certificate) []*x509.RevocationList {
	tb.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-48 * time.Hour), NextUpdate: next, ExtraExtensions: extensions}
	for _, c := range gone {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.Add(-49 * time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, by.cert, by.key)
	if err != nil {
		tb.Fatal(err)
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		tb.Fatal(err)
	}
	return []*x509.RevocationList{crl}
}

// certified is the key of that role with that chain, leaf first.
func certified(role device.Role, certs ...*x509.Certificate) device.Key {
	return device.Key{
		ID: "k", Role: role, Source: "file:k.pem",
		Public: certs[0].PublicKey, SPKI: certs[0].RawSubjectPublicKeyInfo, Chain: certs,
	}
}

func bare(role device.Role, public crypto.PublicKey) device.Key {
	k := device.Key{ID: "k", Role: role, Source: "file:k.pem", Public: public}
	if spki, err := x509.MarshalPKIXPublicKey(public); err == nil {
		k.SPKI = spki
	}
	return k
}

func privateKey(tb testing.TB, file string) crypto.Signer {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		tb.Fatalf("%s: no PEM", file)
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}
