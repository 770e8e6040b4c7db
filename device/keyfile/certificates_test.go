package keyfile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A directory of roots may have a text beside them, and roots with a line's end
// or padding behind them; what is meant as a root and is none keeps its reason.
func TestCertificatesOf(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	broken := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der[:len(der)-20]}))
	type file struct{ name, content string }
	for _, c := range []struct {
		name   string
		files  []file
		certs  int
		major  int
		reason string // of the first gap
	}{
		{"PEM", []file{{"a.pem", text}}, 1, 0, ""},
		{"PEM and empty lines", []file{{"a.pem", "\n" + text + "\n\n \n"}}, 1, 0, ""},
		{"two", []file{{"a.pem", text + "\n" + text}}, 2, 0, ""},
		{"DER", []file{{"a.der", string(der)}}, 1, 0, ""},
		{"DER and a newline", []file{{"a.der", string(der) + "\n"}}, 1, 0, ""},
		{"DER and a line's end", []file{{"a.der", string(der) + "\r\n"}}, 1, 0, ""},
		{"beside a README", []file{{"a.pem", text}, {"README", "The roots of AMD are from https://…\n"}, {"README.md", "# Roots\n"}}, 1, 0, "holds no certificate"},
		{"beside a damaged one", []file{{"a.pem", text}, {"b.pem", broken}}, 1, 1, "truncated"},
		{"a README alone", []file{{"README", "The roots are yet to come\n"}}, 0, 1, "holds no certificate"},
	} {
		dir := t.TempDir()
		var names []string
		for _, f := range c.files {
			names = append(names, filepath.Join(dir, f.name))
			if err := os.WriteFile(names[len(names)-1], []byte(f.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		certs, gaps := CertificatesOf(dir, names)
		major := 0
		for _, g := range gaps {
			if !g.Minor {
				major++
			}
		}
		if len(certs) != c.certs || major != c.major || c.reason != "" && (len(gaps) == 0 || !strings.Contains(gaps[0].Why, c.reason)) {
			t.Errorf("%s: %d certificates, gaps %+v", c.name, len(certs), gaps)
		}
	}
}
