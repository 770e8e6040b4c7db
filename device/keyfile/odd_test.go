package keyfile_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
)

var (
	oidRSA  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC   = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
)

func sequence(parts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, p := range parts {
			b.AddBytes(p)
		}
	})
	return b.BytesOrPanic()
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func spki(t testing.TB, algorithm, key []byte) []byte {
	return sequence(algorithm, marshal(t, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}))
}

func rsaSPKI(t testing.TB, n, e *big.Int) []byte {
	return spki(t, sequence(marshal(t, oidRSA), []byte{5, 0}), sequence(marshal(t, n), marshal(t, e)))
}

func ecSPKI(t testing.TB, curve asn1.ObjectIdentifier, point []byte) []byte {
	return spki(t, sequence(marshal(t, oidEC), marshal(t, curve)), point)
}

func only(t testing.TB, data []byte) device.Key {
	t.Helper()
	keys, gaps := keyfile.ReadFrom(bytes.NewReader(data), "-")
	if len(keys) != 1 || len(gaps) != 0 {
		t.Fatalf("%d keys, gaps %v", len(keys), gaps)
	}
	return keys[0]
}

func ssh(parts ...[]byte) string {
	var blob []byte
	for _, p := range parts {
		blob = binary.BigEndian.AppendUint32(blob, uint32(len(p)))
		blob = append(blob, p...)
	}
	return string(parts[0]) + " " + base64.StdEncoding.EncodeToString(blob) + " comment\n"
}

// TestOddRSA reads RSA keys that crypto/x509 refuses, in four forms.
func TestOddRSA(t *testing.T) {
	odd := new(big.Int).Lsh(big.NewInt(0xabcdef), 2023)
	odd.SetBit(odd, 0, 1)
	even := new(big.Int).SetBit(odd, 0, 0)
	biggest := new(big.Int).SetBit(new(big.Int).SetBit(big.NewInt(1), 16383, 1), 0, 1)
	for name, c := range map[string]struct{ n, e *big.Int }{
		"e 0":        {odd, big.NewInt(0)},
		"e 1":        {odd, big.NewInt(1)},
		"e 2":        {odd, big.NewInt(2)},
		"e 3":        {odd, big.NewInt(3)},
		"e 2^31-1":   {odd, big.NewInt(1<<31 - 1)},
		"e 2^31":     {odd, big.NewInt(1 << 31)},
		"e huge":     {odd, new(big.Int).Sub(odd, big.NewInt(2))},
		"n even":     {even, big.NewInt(65537)},
		"n 1":        {big.NewInt(1), big.NewInt(65537)},
		"n tiny":     {big.NewInt(15), big.NewInt(3)},
		"n 16384bit": {biggest, big.NewInt(65537)},
	} {
		zero := []byte{2, 1, 0}
		public := rsaSPKI(t, c.n, c.e)
		forms := map[string][]byte{
			"SPKI":           public,
			"PKCS#1":         sequence(marshal(t, c.n), marshal(t, c.e)),
			"PKCS#1 private": sequence(zero, marshal(t, c.n), marshal(t, c.e), zero, zero, zero, zero, zero, zero),
		}
		mpint := func(n *big.Int) []byte { return append([]byte{0}, n.Bytes()...) }
		forms["OpenSSH"] = []byte(ssh([]byte("ssh-rsa"), mpint(c.e), mpint(c.n)))
		for form, data := range forms {
			t.Run(name+" "+form, func(t *testing.T) {
				k := only(t, data)
				n, e, ok := k.RSA()
				if !ok || n.Cmp(c.n) != 0 || e.Cmp(c.e) != 0 {
					t.Errorf("%s: n %v, e %v, want n %v, e %v", k.Algorithm(), n, e, c.n, c.e)
				}
				_, large := k.Public.(*device.LargeRSA)
				if large != (c.e.BitLen() > 31) {
					t.Errorf("%T for an exponent of %d bits", k.Public, c.e.BitLen())
				}
				if !bytes.Equal(k.SPKI, public) {
					t.Errorf("SPKI %x", k.SPKI)
				}
			})
		}
	}
}

func TestRefused(t *testing.T) {
	huge := new(big.Int).SetBit(big.NewInt(1), 16384, 1)
	e := big.NewInt(65537)
	var deep []byte
	for range 200 {
		deep = sequence(deep)
	}
	for name, data := range map[string][]byte{
		"RSA of 16,385 bits":     rsaSPKI(t, huge, e),
		"exponent of as many":    rsaSPKI(t, e, huge),
		"modulus 0":              rsaSPKI(t, new(big.Int), e),
		"point cut short":        ecSPKI(t, oidP256, bytes.Repeat([]byte{4}, 64)),
		"no point":               ecSPKI(t, oidP256, nil),
		"point of form 9":        ecSPKI(t, oidP256, bytes.Repeat([]byte{9}, 65)),
		"Ed25519 of 31 bytes":    spki(t, sequence(marshal(t, asn1.ObjectIdentifier{1, 3, 101, 112})), make([]byte, 31)),
		"nothing in it":          {0x30, 0},
		"nested":                 deep,
		"indefinite length":      {0x30, 0x80, 2, 1, 1, 2, 1, 3, 0},
		"EC without parameters":  spki(t, sequence(marshal(t, oidEC)), bytes.Repeat([]byte{4}, 65)),
		"EC with NULL":           spki(t, sequence(marshal(t, oidEC), []byte{5, 0}), bytes.Repeat([]byte{4}, 65)),
		"length of 5 bytes":      {0x30, 0x85, 0, 0, 0, 0, 0},
		"length of 4 GB":         {0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0},
		"OID of 70 bytes":        spki(t, sequence(append([]byte{6, 70}, bytes.Repeat([]byte{1}, 70)...)), []byte{1}),
		"TPM template":           {0, 1, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x10, 8, 0, 0, 0, 0, 0, 0, 0},
		"TPM HMAC key":           {0, 8, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0},
		"OpenSSH key and more":   []byte(ssh([]byte("ssh-ed25519"), make([]byte, 32), []byte("more"))),
		"OpenSSH blob too short": []byte("ssh-rsa AAAAB3NzaC1yc2E="),
	} {
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(data), "-")
		if len(keys) != 0 || len(gaps) != 1 || gaps[0].What == "" || gaps[0].Why == "" {
			t.Errorf("%s: %d keys, gaps %v", name, len(keys), gaps)
		}
	}
}

// TestOddEC reads points that are none of their curve.
func TestOddEC(t *testing.T) {
	p := elliptic.P256().Params()
	point := func(form byte, xy ...*big.Int) []byte {
		b := []byte{form}
		for _, c := range xy {
			b = append(b, c.FillBytes(make([]byte, 32))...)
		}
		return b
	}
	one := big.NewInt(1)
	off := new(big.Int).Add(p.Gy, one)
	noRoot := big.NewInt(5) // asserted below: no point of P-256 has this x
	if x, _ := elliptic.UnmarshalCompressed(elliptic.P256(), point(2, noRoot)); x != nil {
		for x != nil {
			noRoot.Add(noRoot, one)
			x, _ = elliptic.UnmarshalCompressed(elliptic.P256(), point(2, noRoot))
		}
	}
	negGy := new(big.Int).Sub(p.P, p.Gy)
	evenY, oddY := p.Gy, negGy
	if p.Gy.Bit(0) == 1 {
		evenY, oddY = negGy, p.Gy
	}
	for name, c := range map[string]struct {
		point []byte
		x, y  *big.Int
	}{
		"on the curve":             {point(4, p.Gx, p.Gy), p.Gx, p.Gy},
		"hybrid":                   {point(6, p.Gx, evenY), p.Gx, evenY},
		"compressed, even":         {point(2, p.Gx), p.Gx, evenY},
		"compressed, odd":          {point(3, p.Gx), p.Gx, oddY},
		"off the curve":            {point(4, p.Gx, off), p.Gx, off},
		"coordinates beyond p":     {point(4, p.P, p.P), p.P, p.P},
		"infinity":                 {[]byte{0}, new(big.Int), new(big.Int)},
		"zero":                     {point(4, new(big.Int), new(big.Int)), new(big.Int), new(big.Int)},
		"compressed, on no point":  {point(2, noRoot), noRoot, new(big.Int)},
		"compressed, beyond field": {point(2, p.P), p.P, new(big.Int)},
	} {
		der := ecSPKI(t, oidP256, c.point)
		for form, data := range map[string][]byte{
			"SPKI":    der,
			"OpenSSH": []byte(ssh([]byte("ecdsa-sha2-nistp256"), []byte("nistp256"), c.point)),
		} {
			k := only(t, data)
			public, ok := k.Public.(*ecdsa.PublicKey)
			if !ok || public.Curve != elliptic.P256() || public.X.Cmp(c.x) != 0 || public.Y.Cmp(c.y) != 0 {
				t.Errorf("%s, %s: %#v", name, form, k.Public)
			}
			if !bytes.Equal(k.SPKI, der) {
				t.Errorf("%s, %s: SPKI %x", name, form, k.SPKI)
			}
		}
	}
}

// TestECPrivateOfAnother is a private key file that states another's public key.
func TestECPrivateOfAnother(t *testing.T) {
	p := elliptic.P256().Params()
	generator := append([]byte{4}, append(p.Gx.FillBytes(make([]byte, 32)), p.Gy.FillBytes(make([]byte, 32))...)...)
	file := func(scalar byte) []byte {
		key := make([]byte, 32)
		key[31] = scalar
		return marshal(t, struct {
			Version int
			Key     []byte
			Curve   asn1.ObjectIdentifier `asn1:"explicit,tag:0"`
			Public  asn1.BitString        `asn1:"explicit,tag:1"`
		}{1, key, oidP256, asn1.BitString{Bytes: generator, BitLength: 8 * len(generator)}})
	}
	right, wrong, none := only(t, file(1)), only(t, file(2)), only(t, file(0))
	for _, k := range []device.Key{right, wrong, none} {
		if !bytes.Equal(k.SPKI, ecSPKI(t, oidP256, generator)) || k.Private == nil {
			t.Errorf("%+v", k)
		}
	}
	if !bytes.Equal(right.Private.SPKI, right.SPKI) {
		t.Error("the right private key is reported as another's")
	}
	if len(wrong.Private.SPKI) != len(wrong.SPKI) || bytes.Equal(wrong.Private.SPKI, wrong.SPKI) {
		t.Error("the wrong private key is reported as the right one")
	}
	if none.Private.SPKI != nil {
		t.Error("a private key of zero is told to make a public key")
	}
}

// TestUnparsableCertificate takes the key out of a certificate that cannot be read.
func TestUnparsableCertificate(t *testing.T) {
	der := readPEM(t, "testdata/good/leaf.pem")
	good := only(t, der)
	if good.CertificateError != "" || good.Leaf() == nil {
		t.Fatalf("%+v", good)
	}
	k := only(t, bytes.Replace(der, []byte("Z"), []byte("?"), 1)) // a time that is none
	if k.CertificateError == "" || strings.Contains(k.CertificateError, "\n") || k.Chain != nil || !bytes.Equal(k.SPKI, good.SPKI) {
		t.Errorf("%+v", k)
	}
}

func readPEM(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s: no PEM", name)
	}
	return block.Bytes
}

// TestOtherTPMCurve names a curve that Go does not have.
func TestOtherTPMCurve(t *testing.T) {
	for id, want := range map[uint16]string{0x10: "ECDSA-BN_P256", 0x20: "ECDSA-SM2", 0x1: "ECDSA-P192", 0x99: "ECDSA-TPM-curve-0x0099"} {
		public := []byte{0, 0x23, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0x1a, 0, 0xb, 0, 1} // scheme ECDAA
		public = binary.BigEndian.AppendUint16(public, id)
		public = append(public, 0, 0x10, 0, 1, 7, 0, 1, 8)
		if k := only(t, public); k.Algorithm() != want || k.SPKI != nil {
			t.Errorf("curve %#x: %s, SPKI %x", id, k.Algorithm(), k.SPKI)
		}
	}
}

// TestTPMExponent reads exponents other than the default, which stands as 0.
func TestTPMExponent(t *testing.T) {
	for stated, want := range map[uint32]int64{0: 65537, 3: 3, 1<<32 - 1: 1<<32 - 1} {
		public := []byte{0, 1, 0, 0xb, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 0, 8}
		public = binary.BigEndian.AppendUint32(public, stated)
		public = append(public, 0, 1, 0x8f)
		n, e, ok := only(t, public).RSA()
		if !ok || n.Int64() != 0x8f || e.Int64() != want {
			t.Errorf("exponent %d: n %v, e %v", stated, n, e)
		}
	}
}

// TestChain makes certificates that share a name.
func TestChain(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := int64(0)
	make := func(subject, issuer string, own, authority []byte) []byte {
		serial++
		template := func(name string, id []byte) *x509.Certificate {
			return &x509.Certificate{
				SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, SubjectKeyId: id,
				NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
			}
		}
		c := template(subject, own)
		c.AuthorityKeyId = authority
		der, err := x509.CreateCertificate(rand.Reader, c, template(issuer, authority), &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	id := func(b byte) []byte { return []byte{b} }
	for _, c := range []struct {
		name  string
		certs [][]byte
		want  []int // lengths of the chains
	}{
		{"by name alone", [][]byte{make("leaf", "ca", nil, nil), make("ca", "ca", nil, nil)}, []int{2, 1}},
		{"the one of two with the key identifier", [][]byte{make("leaf", "ca", nil, id(2)), make("ca", "ca", id(1), nil), make("ca", "root", id(2), id(3)), make("root", "root", id(3), id(3))}, []int{3, 1, 2, 1}},
		{"none with the key identifier", [][]byte{make("leaf", "ca", nil, id(2)), make("ca", "ca", id(1), id(1))}, []int{1, 1}},
		{"a circle", [][]byte{make("a", "b", id(1), id(2)), make("b", "a", id(2), id(1))}, []int{2, 2}},
		{"a key rolled over", [][]byte{make("ca", "ca", id(2), id(1)), make("ca", "ca", id(1), id(1))}, []int{2, 1}},
	} {
		var file []byte
		for _, der := range c.certs {
			file = append(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(file), "-")
		if len(keys) != len(c.want) || len(gaps) != 0 {
			t.Fatalf("%s: %d keys, gaps %v", c.name, len(keys), gaps)
		}
		for i, k := range keys {
			if len(k.Chain) != c.want[i] || !bytes.Equal(k.Chain[0].Raw, c.certs[i]) {
				t.Errorf("%s: certificate %d has a chain of %d, want %d", c.name, i+1, len(k.Chain), c.want[i])
			}
		}
	}
}
