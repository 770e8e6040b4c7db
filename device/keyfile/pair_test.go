package keyfile_test

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"slices"
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

// TestPartner asks of private keys what stands beside them.
func TestPartner(t *testing.T) {
	file := func(name string) string {
		text, err := os.ReadFile("testdata/good/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const none, pass, fail, unknown = device.NotApplicable, device.Pass, device.Fail, device.Undecided
	for _, c := range []struct {
		files []string
		want  []device.Status // of each private key
	}{
		{[]string{"ec-p256-sec1.pem"}, []device.Status{none}},
		{[]string{"ec-p256-sec1.pem", "rsa-pkcs1.pem"}, []device.Status{none, none}},
		{[]string{"ec-p256-sec1.pem", "leaf.pem"}, []device.Status{pass}},
		{[]string{"ec-p256-sec1.pem", "ec-p256-pkcs8.pem", "leaf.pem"}, []device.Status{pass, pass}},
		{[]string{"rsa-pkcs1.pem", "ed25519-pkcs8.pem", "leaf.pem"}, []device.Status{fail, fail}},
		{[]string{"ec-p256-sec1.pem", "ed25519-pkcs8.pem", "leaf.pem"}, []device.Status{fail, pass}},
		{[]string{"rsa-pkcs8.pem", "rsa-spki.pem"}, []device.Status{pass}},
		{[]string{"rsa-pkcs8.pem", "rsa-pkcs1-public.pem"}, []device.Status{pass}},
		{[]string{"rsa-pss.pem", "rsa-spki.pem"}, []device.Status{fail}},
		{[]string{"ec-p256-pkcs8.pem", "ec-p256-compressed.pem"}, []device.Status{pass}},
		{[]string{"ec-p384-sec1.pem", "ec-p384-hybrid.pem"}, []device.Status{pass}},
		{[]string{"ec-explicit.pem", "ec-p256-spki.pem"}, []device.Status{pass}},
		{[]string{"dsa-traditional.pem", "dsa-spki.pem"}, []device.Status{pass}},
		{[]string{"dsa-pkcs8.pem", "dsa-spki.pem"}, []device.Status{pass}},
		{[]string{"ssh-dsa-1024", "dsa-spki.pem"}, []device.Status{fail}},
		{[]string{"ssh-ed25519-256", "ssh-ed25519-256.pub"}, []device.Status{pass}},
		{[]string{"ssh-encrypted", "ssh-encrypted.pub"}, []device.Status{pass}},
		{[]string{"ssh-encrypted", "ssh-rsa-2048.pub"}, []device.Status{fail}},
		{[]string{"ssh-rsa-2048", "ssh-rsa-2048-cert.pub"}, []device.Status{pass}},
		{[]string{"x25519-pkcs8.pem", "x25519-spki.pem"}, []device.Status{pass}},
		{[]string{"x25519-pkcs8.pem", "ed25519-spki.pem"}, []device.Status{fail}},
		{[]string{"ed448-pkcs8.pem", "ed448-spki.pem"}, []device.Status{unknown}},
		{[]string{"ed448-pkcs8.pem", "x448-spki.pem"}, []device.Status{fail}},
		{[]string{"ec-brainpool-sec1.pem", "ec-brainpool-spki.pem"}, []device.Status{pass}},
		{[]string{"ec-secp256k1-pkcs8.pem", "ec-brainpool-spki.pem"}, []device.Status{fail}},
		{[]string{"tss2-rsa2048-rsaes.pem", "leaf.pem"}, []device.Status{fail}},
	} {
		var text strings.Builder
		for _, name := range c.files {
			text.WriteString(file(name))
		}
		keys, gaps := keyfile.ReadFrom(strings.NewReader(text.String()), "-")
		var got []device.Status
		for _, k := range keys {
			if k.Private != nil {
				got = append(got, k.Private.Partner.Status)
			}
		}
		slices.Sort(got) // a key that fits is where its certificate is
		slices.Sort(c.want)
		if len(gaps) != 0 || !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v; %v", c.files, got, c.want, gaps)
		}
	}
}

// TestPair names files together.
func TestPair(t *testing.T) {
	const none, pass, fail = device.NotApplicable, device.Pass, device.Fail
	for _, c := range []struct {
		files []string
		want  device.Status // of the private key
	}{
		{[]string{"leaf.pem", "ec-p256-pkcs8.pem"}, pass},
		{[]string{"ec-p256-sec1.pem", "fullchain.pem"}, pass},
		{[]string{"csr.pem", "ec-p256-sec1.pem"}, pass},
		{[]string{"leaf.pem", "rsa-pkcs1.pem"}, fail},
		{[]string{"rsa-pkcs8.der", "leaf.der"}, fail},
		{[]string{"csr.der", "rsa-pkcs8.der"}, fail},
		{[]string{"root.pem", "ec-p256-pkcs8.pem"}, fail},
		{[]string{"leaf.pem", "tss2-ecc-ecdsa-sha256.pem"}, fail},
		{[]string{"leaf.pem", "ec-p256-spki.pem", "rsa-pkcs1.pem"}, fail},

		// Not one file of each kind.
		{[]string{"rsa-pkcs1.pem"}, none},
		{[]string{"ec-p256-spki.pem", "rsa-pkcs1.pem"}, none},
		{[]string{"leaf.pem", "root.pem", "rsa-pkcs1.pem"}, none},
		{[]string{"leaf.pem", "rsa-pkcs1.pem", "ed25519-pkcs8.pem"}, none},
		{[]string{"leaf.pem", "csr.pem", "rsa-pkcs1.pem"}, none},
		{[]string{"leaf.pem", "rsa-pkcs1.pem", "rsa-pkcs1.pem"}, none},

		// What its own file says of a private key stays.
		{[]string{"key-and-chain.pem", "root.pem"}, pass},
		{[]string{"foreign-key-and-chain.pem", "root.pem"}, fail},
	} {
		var all [][]device.Key
		for _, name := range c.files {
			keys, gaps := keyfile.Read("testdata/good/" + name)
			if len(gaps) != 0 {
				t.Fatal(gaps)
			}
			all = append(all, keys)
		}
		keyfile.Pair(all...)
		for _, k := range slices.Concat(all...) {
			if k.Private != nil && k.Private.Partner.Status != c.want {
				t.Errorf("%q: %v, want %v", c.files, k.Private.Partner, c.want)
			}
		}
	}
	keyfile.Pair()
	keyfile.Pair(nil, nil)

	// The certificates of both are beside each other.
	leaf, _ := keyfile.Read("testdata/good/key-and-chain.pem")
	root, _ := keyfile.Read("testdata/good/root.pem")
	keyfile.Pair(leaf, root)
	for _, k := range slices.Concat(leaf, root) {
		if len(k.Beside) != 3 {
			t.Errorf("%s: %d certificates beside it", k.ID, len(k.Beside))
		}
	}
}
