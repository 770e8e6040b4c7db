package device

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"
)

// TestIssuers has paths in a cross-signed CA, in every order of its certificates.
func TestIssuers(t *testing.T) {
	made := int64(0)
	certificate := func(name, issuer, id, issuerID string, until int) *x509.Certificate {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		made++
		template := &x509.Certificate{
			SerialNumber: big.NewInt(made), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			NotAfter: time.Date(until, 1, 1, 0, 0, 0, 0, time.UTC), SubjectKeyId: []byte(id),
		}
		parent := &x509.Certificate{Subject: pkix.Name{CommonName: issuer}, SubjectKeyId: []byte(issuerID)}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	leaf := certificate("dev", "Int", "l", "i", 2030)
	ca := certificate("Int", "Root", "i", "r", 2030)
	root := certificate("Root", "Root", "r", "r", 2035)
	cross := certificate("root ", "Old", "r", "o", 2040)
	namesake := certificate("Int", "Root", "j", "r", 2040)
	older := certificate("Root", "Root", "r", "r", 2025)
	pool := []*x509.Certificate{leaf, ca, root, cross, namesake, older}
	for i := range pool {
		order := slices.Concat(pool[i:], pool[:i])
		slices.Reverse(order)
		issuers := NewIssuers(order)
		if got := issuers.Chain(leaf); !slices.Equal(got, []*x509.Certificate{leaf, ca, root}) {
			t.Errorf("rotated by %d: a chain of %v", i, subjects(got))
		}
		if got := issuers.Above(leaf); len(got) != 5 || slices.Contains(got, leaf) {
			t.Errorf("rotated by %d: above are %v", i, subjects(got))
		}
	}
	if got := NewIssuers(nil).Chain(leaf); len(got) != 1 {
		t.Errorf("alone: %v", subjects(got))
	}
	if got := NewIssuers(pool).Above(root); slices.Contains(got, root) {
		t.Error("a root is above itself")
	}
}

func subjects(chain []*x509.Certificate) (names []string) {
	for _, c := range chain {
		names = append(names, fmt.Sprint(c.Subject, " ", c.SerialNumber))
	}
	return names
}
