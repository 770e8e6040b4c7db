package keyfile_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
)

// TestMergePrivate puts private keys beside certificates.
func TestMergePrivate(t *testing.T) {
	file := func(name string) string {
		text, err := os.ReadFile("testdata/good/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), only(t, []byte(file("ec-p256-compressed.pem"))).SPKI[26:])
	if x == nil {
		t.Fatal("no compressed point where it should be")
	}
	uncompressed := append([]byte{4}, append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)...)
	compressed := elliptic.MarshalCompressed(elliptic.P256(), x, y)
	type ecPrivate struct {
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"explicit,tag:0"`
		Public  asn1.BitString        `asn1:"explicit,tag:1"`
	}
	var own ecPrivate
	sec1, err := os.ReadFile("testdata/good/ec-p256-sec1.der")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(sec1, &own); err != nil {
		t.Fatal(err)
	}
	encode := func(scalar, point []byte) string {
		der := marshal(t, ecPrivate{1, scalar, oidP256, asn1.BitString{Bytes: point, BitLength: 8 * len(point)}})
		return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	}
	other := bytes.Repeat([]byte{7}, 32)

	for _, c := range []struct {
		name, text string
		want       []string // of each key: no private key, its own, another's
	}{
		{"no private key", file("fullchain.pem"), []string{"no", "no", "no"}},
		{"key before", file("ec-p256-pkcs8.pem") + file("fullchain.pem"), []string{"own", "no", "no"}},
		{"key after, with its parameters", file("fullchain.pem") + file("ec-p256-sec1.pem"), []string{"own", "no", "no"}},
		{"key in between", file("leaf.pem") + file("ec-p256-pkcs8.pem") + file("root.pem"), []string{"own", "no"}},
		{"two keys and their certificates", file("rsa-pkcs1.pem") + file("ec-p256-pkcs8.pem") + file("leaf.pem") + file("intermediate.pem"), []string{"own", "own"}},
		{"TSS2 key of another", file("tss2-ecc-ecdsa-sha256.pem") + file("leaf.pem"), []string{"own", "no"}},
		{"two keys, neither fits", file("ed25519-pkcs8.pem") + file("rsa-pss.pem") + file("leaf.pem"), []string{"own", "own", "no"}},
		{"a key that states no public key", file("ed448-pkcs8.pem") + file("leaf.pem"), []string{"unknown", "no"}},
		{"public key compressed", encode(own.Key, compressed) + file("leaf.pem"), []string{"own"}},
		{"the certificate's public key stated, another private key", encode(other, uncompressed) + file("leaf.pem"), []string{"another"}},
		{"another public key stated, the right private key", encode(own.Key, elliptic.MarshalCompressed(elliptic.P256(), elliptic.P256().Params().Gx, elliptic.P256().Params().Gy)) + file("leaf.pem"), []string{"own"}},
		{"a request is no certificate", file("ec-p256-pkcs8.pem") + file("csr.pem"), []string{"own", "no"}},
	} {
		keys, gaps := keyfile.ReadFrom(strings.NewReader(c.text), "-")
		if len(keys) != len(c.want) || len(gaps) != 0 {
			t.Errorf("%s: %d keys, gaps %v", c.name, len(keys), gaps)
			continue
		}
		for i, k := range keys {
			if got := privateOf(k); got != c.want[i] {
				t.Errorf("%s: private key of key %d: %s, want %s", c.name, i+1, got, c.want[i])
			}
		}
	}
}

func privateOf(k device.Key) string {
	switch {
	case k.Private == nil:
		return "no"
	case k.SPKI == nil || k.Private.SPKI == nil:
		return "unknown"
	case bytes.Equal(k.Private.SPKI, k.SPKI):
		return "own"
	}
	return "another"
}
