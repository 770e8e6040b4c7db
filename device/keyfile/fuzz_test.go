package keyfile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"os"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
)

func FuzzReadFrom(f *testing.F) {
	for _, name := range files(f, "good", "bad", "roca") {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(data), "-")
		if len(keys)+len(gaps) == 0 {
			t.Error("neither key nor gap")
		}
		ids := make(map[string]bool)
		for _, k := range keys {
			if ids[k.ID] || k.Source != "file:-" || k.Role != device.RoleFile && k.Role != device.RoleSSH || strings.ContainsAny(k.CertificateError, "\r\n") {
				t.Errorf("%+v", k)
			}
			ids[k.ID] = true
			switch p := k.Public.(type) {
			case *rsa.PublicKey:
				if p.N.Sign() <= 0 || p.N.BitLen() > 16384 {
					t.Errorf("modulus %v", p.N)
				}
			case *device.LargeRSA:
				if p.N.Sign() <= 0 || p.N.BitLen() > 16384 || p.E.BitLen() <= 30 || p.E.BitLen() > 16384 {
					t.Errorf("modulus %v, exponent %v", p.N, p.E)
				}
			case *ecdsa.PublicKey:
				if p.Curve == nil || p.X == nil || p.Y == nil || p.X.Sign() < 0 || p.Y.Sign() < 0 {
					t.Errorf("%+v", p)
				}
			case ed25519.PublicKey:
				if len(p) != ed25519.PublicKeySize {
					t.Errorf("%d bytes", len(p))
				}
			case *device.OtherKey:
				if p.Algorithm == "" || len(p.Algorithm) > 400 || strings.ContainsAny(p.Algorithm, "\r\n") {
					t.Errorf("%q", p.Algorithm)
				}
			default:
				t.Errorf("%T", p)
			}
			if _, other := k.Public.(*device.OtherKey); k.SPKI == nil && !other {
				t.Errorf("%s without SPKI", k.Algorithm())
			}
			for _, c := range k.Chain {
				if c == nil {
					t.Error("a nil certificate in the chain")
				}
			}
		}
		for _, g := range gaps {
			if g.What == "" || g.Why == "" || strings.ContainsAny(g.What+g.Why, "\r\n\x00") {
				t.Errorf("%+v", g)
			}
		}
	})
}
