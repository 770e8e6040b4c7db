package keyfile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
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
			if ids[k.ID] || k.Source != "file:-" || k.Role != device.RoleFile || strings.ContainsAny(k.CertificateError, "\r\n") {
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
			if p := k.Private; p != nil {
				holdPrivate(t, k)
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

// holdPrivate holds the answers about a private key to what they must keep.
func holdPrivate(t *testing.T, k device.Key) {
	t.Helper()
	p := k.Private
	if p.Numbers.Status != device.Undecided && p.Numbers.Why == "" || p.Partner.Why == "" || strings.ContainsAny(p.Numbers.Why+p.Partner.Why, "\r\n") {
		t.Errorf("an answer without words: %+v", p)
	}
	if p.Numbers.Status == device.Pass && (len(k.SPKI) == 0 || !p.Wrapped && len(k.Chain) == 0 && !device.SameKey(p.SPKI, k.SPKI)) {
		t.Errorf("said to fit: %x, %x", k.SPKI, p.SPKI)
	}
}

// FuzzPrivateKey reads one private key in DER or of OpenSSH. What crypto/x509
// refuses for its numbers is not said to fit.
func FuzzPrivateKey(f *testing.F) {
	for _, name := range files(f, "good") {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if block, _ := pem.Decode(data); block != nil && strings.HasSuffix(block.Type, "PRIVATE KEY") {
			f.Add(block.Bytes, block.Type == "OPENSSH PRIVATE KEY")
		}
	}
	f.Fuzz(func(t *testing.T, der []byte, openssh bool) {
		kind := "PRIVATE KEY"
		if openssh {
			kind = "OPENSSH PRIVATE KEY"
		}
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})), "-")
		if len(keys)+len(gaps) == 0 {
			t.Error("neither key nor gap")
		}
		for _, k := range keys {
			if k.Private != nil {
				holdPrivate(t, k)
			}
		}
		if len(keys) != 1 || keys[0].Private == nil {
			return
		}
		fits := keys[0].Private.Numbers.Status == device.Pass
		if parsed, err := x509.ParsePKCS1PrivateKey(der); err == nil && !fits && parsed.Validate() == nil && !takesMore(der) {
			t.Errorf("Go says that it fits: %v", keys[0].Private.Numbers)
		}
	})
}

// takesMore reports whether crypto/x509 may take a key that does not fit, since
// it makes the numbers for the Chinese remainder theorem again.
func takesMore(der []byte) bool {
	var k pkcs1
	if _, err := asn1.Unmarshal(der, &k); err != nil {
		return true
	}
	one := big.NewInt(1)
	fit := func(exponent, p *big.Int) bool {
		return p.Cmp(one) > 0 && exponent.Cmp(new(big.Int).Mod(k.D, new(big.Int).Sub(p, one))) == 0
	}
	if !fit(k.DP, k.P) || !fit(k.DQ, k.Q) {
		return true
	}
	inverse := new(big.Int).ModInverse(k.Q, k.P)
	return inverse == nil || inverse.Cmp(k.QInv) != 0
}
