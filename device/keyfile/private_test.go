package keyfile_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	openssh "golang.org/x/crypto/ssh"

	"github.com/keyvet/keyvet/device"
)

// pkcs1 is an RSAPrivateKey.
type pkcs1 struct {
	Version, N, E, D, P, Q, DP, DQ, QInv *big.Int
}

func numbersOf(k *rsa.PrivateKey) *pkcs1 {
	clone := func(n *big.Int) *big.Int { return new(big.Int).Set(n) }
	return &pkcs1{
		new(big.Int), clone(k.N), big.NewInt(int64(k.E)), clone(k.D), clone(k.Primes[0]), clone(k.Primes[1]),
		clone(k.Precomputed.Dp), clone(k.Precomputed.Dq), clone(k.Precomputed.Qinv),
	}
}

func (k *pkcs1) fields() []*big.Int { return []*big.Int{k.N, k.E, k.D, k.P, k.Q, k.DP, k.DQ, k.QInv} }

func newRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// privateOfOne is the private half of the only key in data.
func privateOfOne(t testing.TB, data []byte) *device.PrivateFile {
	t.Helper()
	k := only(t, data)
	if k.Private == nil {
		t.Fatalf("no private key: %+v", k)
	}
	return k.Private
}

// TestPrivateFiles holds every private key that openssl, ssh-keygen and
// tpm2-tools made to fit.
func TestPrivateFiles(t *testing.T) {
	hidden := map[string]bool{"ed448-pkcs8.pem": true, "x448-pkcs8.pem": true, "ssh-encrypted": true}
	seen := 0
	for _, name := range files(t, "good") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(name)
		if !bytes.Contains(data, []byte("PRIVATE KEY")) && !strings.HasPrefix(name, "rsa-pkcs1.") && !strings.HasPrefix(name, "rsa-pkcs8.") || strings.Contains(name, "chain") {
			continue
		}
		p := privateOfOne(t, data)
		switch {
		case p.Wrapped:
			if p.Numbers != (device.Answer{}) {
				t.Errorf("%s: %v", name, p.Numbers)
			}
			continue
		case hidden[name] && p.Numbers.Status != device.NotApplicable, !hidden[name] && p.Numbers.Status != device.Pass:
			t.Errorf("%s: %v", name, p.Numbers)
		}
		if p.Partner.Status != device.NotApplicable {
			t.Errorf("%s: partner %v", name, p.Partner)
		}
		seen++
	}
	if seen < 30 {
		t.Errorf("only %d private keys", seen)
	}
}

// TestPrivateForms writes keys in every form, and in each exchanges the public
// key that is stated beside the private one.
func TestPrivateForms(t *testing.T) {
	var signers []crypto.Signer
	for _, bits := range []int{1024, 2048} {
		signers = append(signers, newRSA(t, bits))
	}
	for _, c := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		for range 2 {
			k, err := ecdsa.GenerateKey(c, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			signers = append(signers, k)
		}
	}
	for range 2 {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, k)
	}
	for i, k := range signers {
		for form, data := range forms(t, k) {
			name := fmt.Sprintf("%s of %T %d", form, k, i)
			if p := privateOfOne(t, data); p.Numbers.Status != device.Pass {
				t.Errorf("%s: %v", name, p.Numbers)
			}
			// Another key of the same kind has points of the same length.
			other := signers[i^1]
			if i < 2 || fmt.Sprintf("%T", other) != fmt.Sprintf("%T", k) {
				continue
			}
			own, foreign := publicBytes(t, k), publicBytes(t, other)
			if len(own) != len(foreign) || !bytes.Contains(data, own) {
				continue
			}
			p := privateOfOne(t, bytes.ReplaceAll(data, own, foreign))
			if p.Numbers.Status != device.Fail {
				t.Errorf("%s, with another public key: %v", name, p.Numbers)
			}
		}
	}
}

// publicBytes is the public key as private forms state it.
func publicBytes(t *testing.T, k crypto.Signer) []byte {
	t.Helper()
	switch p := k.Public().(type) {
	case ed25519.PublicKey:
		return p
	case *ecdsa.PublicKey:
		b, err := p.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return nil
}

func forms(t *testing.T, k crypto.Signer) map[string][]byte {
	t.Helper()
	must := func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	all := map[string][]byte{"PKCS#8": must(x509.MarshalPKCS8PrivateKey(k))}
	var info struct {
		Version    int
		Algorithm  asn1.RawValue
		PrivateKey []byte
		Public     asn1.BitString `asn1:"optional,tag:1"`
	}
	if _, err := asn1.Unmarshal(all["PKCS#8"], &info); err != nil {
		t.Fatal(err)
	}
	switch k := k.(type) {
	case *rsa.PrivateKey:
		all["PKCS#1"] = x509.MarshalPKCS1PrivateKey(k)
		info.Public = bitString(x509.MarshalPKCS1PublicKey(&k.PublicKey))
	case *ecdsa.PrivateKey:
		all["SEC 1"] = must(x509.MarshalECPrivateKey(k))
		info.Public = bitString(publicBytes(t, k))
	case ed25519.PrivateKey:
		info.Public = bitString(publicBytes(t, k))
	}
	info.Version = 1
	all["PKCS#8, version 2"] = marshal(t, info)
	if k, ok := k.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P224() {
		return all // OpenSSH does not have it
	}
	block, err := openssh.MarshalPrivateKey(k, "comment")
	if err != nil {
		t.Fatal(err)
	}
	all["OpenSSH"] = pem.EncodeToMemory(block)
	return all
}

func bitString(b []byte) asn1.BitString { return asn1.BitString{Bytes: b, BitLength: 8 * len(b)} }

// TestOpenSSHPrivate exchanges what an OpenSSH private key says twice.
func TestOpenSSHPrivate(t *testing.T) {
	for name, fields := range map[string]int{"ssh-ecdsa-256": 3, "ssh-ecdsa-384": 3, "ssh-ecdsa-521": 3, "ssh-ed25519-256": 2, "ssh-rsa-2048": 6, "ssh-dsa-1024": 5} {
		der := readPEM(t, "testdata/good/"+name)
		encode := func(der []byte) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: der})
		}
		start := 15 + 6*4 // magic, none, none, no options, one key
		next := func(at int) int { return at + 4 + int(binary.BigEndian.Uint32(der[at:])) }
		private := next(start) + 4
		last := private + 8 // after the two numbers that must be the same
		for range fields + 1 {
			last = next(last)
		}
		for what, at := range map[string]int{"the public key before the private part": next(start) - 1, "the last private number": last - 1} {
			changed := bytes.Clone(der)
			changed[at] ^= 2
			if p := privateOfOne(t, encode(changed)); p.Numbers.Status != device.Fail {
				t.Errorf("%s, %s changed: %v", name, what, p.Numbers)
			}
		}
		changed := bytes.Clone(der)
		changed[private] ^= 1
		if p := privateOfOne(t, encode(changed)); p.Numbers.Status != device.Undecided {
			t.Errorf("%s, decrypted wrongly: %v", name, p.Numbers)
		}
	}
}

// TestDSAAboveOrder has a private number that is not less than q, as keys of devices
// have it: it works, and so the public key is known, but it does not fit.
func TestDSAAboveOrder(t *testing.T) {
	der := readPEM(t, "testdata/good/dsa-pkcs8.pem")
	want := only(t, der)
	var key struct {
		Version   int
		Algorithm struct {
			OID    asn1.ObjectIdentifier
			Params struct{ P, Q, G *big.Int }
		}
		Private []byte
	}
	var x *big.Int
	if _, err := asn1.Unmarshal(der, &key); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(key.Private, &x); err != nil {
		t.Fatal(err)
	}
	q := key.Algorithm.Params.Q
	for _, tt := range []struct {
		more  *big.Int
		known bool
	}{{new(big.Int), true}, {q, true}, {new(big.Int).Lsh(q, 400), false}} { // the last one would take long
		key.Private = marshal(t, new(big.Int).Add(x, tt.more))
		k := only(t, marshal(t, key))
		if bytes.Equal(k.SPKI, want.SPKI) != tt.known || k.Private == nil || (k.Private.Numbers.Status == device.Pass) != (tt.more.Sign() == 0) {
			t.Errorf("x + %x: %x, %+v", tt.more, k.SPKI, k.Private)
		}
	}
}

// TestRSANumbers changes one number at a time.
func TestRSANumbers(t *testing.T) {
	k := newRSA(t, 1024)
	lambda := func(k *pkcs1) *big.Int {
		p, q := new(big.Int).Sub(k.P, big.NewInt(1)), new(big.Int).Sub(k.Q, big.NewInt(1))
		return p.Mul(p, q).Div(p, new(big.Int).GCD(nil, nil, new(big.Int).Sub(k.P, big.NewInt(1)), q))
	}
	for _, c := range []struct {
		name   string
		change func(k *pkcs1)
		want   device.Status
	}{
		{"nothing", func(*pkcs1) {}, device.Pass},
		{"d by the least common multiple", func(k *pkcs1) { k.D.Mod(k.D, lambda(k)) }, device.Pass},
		{"d with it added", func(k *pkcs1) { k.D.Add(k.D, lambda(k)) }, device.Pass},
		{"p and q exchanged", func(k *pkcs1) {
			k.P, k.Q, k.DP, k.DQ = k.Q, k.P, k.DQ, k.DP
			k.QInv.ModInverse(k.Q, k.P)
		}, device.Pass},
		{"p and q exchanged, and nothing else", func(k *pkcs1) { k.P, k.Q = k.Q, k.P }, device.Fail},
		{"d negative", func(k *pkcs1) { k.D.Neg(k.D) }, device.Fail},
		{"d 0", func(k *pkcs1) { k.D.SetInt64(0) }, device.Fail},
		{"d 1", func(k *pkcs1) { k.D.SetInt64(1) }, device.Fail},
		{"d with the modulus added", func(k *pkcs1) { k.D.Add(k.D, new(big.Int).Mul(lambda(k), k.E)) }, device.Fail},
		{"dP with p - 1 added", func(k *pkcs1) { k.DP.Add(k.DP, k.P).Sub(k.DP, big.NewInt(1)) }, device.Fail},
		{"qInv with p added", func(k *pkcs1) { k.QInv.Add(k.QInv, k.P) }, device.Fail},
		{"p 1, q n", func(k *pkcs1) { k.P.SetInt64(1); k.Q.Set(k.N) }, device.Fail},
		{"q 1, p n", func(k *pkcs1) { k.Q.SetInt64(1); k.P.Set(k.N) }, device.Fail},
		{"dP 0", func(k *pkcs1) { k.DP.SetInt64(0) }, device.Fail},
		{"dQ of dP", func(k *pkcs1) { k.DQ.Set(k.DP) }, device.Fail},
		{"qInv 0", func(k *pkcs1) { k.QInv.SetInt64(0) }, device.Fail},
		{"pInv for qInv", func(k *pkcs1) { k.QInv.ModInverse(k.P, k.Q) }, device.Fail},
		{"n, e and d alone", func(k *pkcs1) { clearNumbers(k.P, k.Q, k.DP, k.DQ, k.QInv) }, device.Pass},
		{"n, e and a wrong d alone", func(k *pkcs1) { k.D.Xor(k.D, big.NewInt(2)); clearNumbers(k.P, k.Q, k.DP, k.DQ, k.QInv) }, device.Fail},
		{"no private number", func(k *pkcs1) { clearNumbers(k.D, k.P, k.Q, k.DP, k.DQ, k.QInv) }, device.Fail},
		{"a key of a secure element", func(k *pkcs1) {
			clearNumbers(k.D, k.DP, k.DQ)
			k.P.SetInt64(1)
			k.Q.SetInt64(0x6dccbb11)
			k.QInv.SetInt64(0xa5a6b5b6)
		}, device.NotApplicable},
		{"primes of another key", func(k *pkcs1) {
			n := k.N
			*k = *numbersOf(newRSA(t, 1024))
			k.N = n
		}, device.Fail},
		{"a prime that is none", func(k *pkcs1) { composite(k) }, device.Fail},
	} {
		n := numbersOf(k)
		c.change(n)
		for form, der := range map[string][]byte{
			"PKCS#1": marshal(t, *n),
			"PKCS#8": marshal(t, struct {
				Version   int
				Algorithm struct{ OID asn1.ObjectIdentifier }
				Key       []byte
			}{0, struct{ OID asn1.ObjectIdentifier }{oidRSA}, marshal(t, *n)}),
		} {
			if p := privateOfOne(t, der); p.Numbers.Status != c.want {
				t.Errorf("%s, %s: %v, want %v", form, c.name, p.Numbers, c.want)
			}
		}
	}
	for i, name := range []string{"n", "e", "d", "p", "q", "dP", "dQ", "qInv"} {
		for _, bit := range []int{0, 1, 7, 15} {
			n := numbersOf(k)
			f := n.fields()[i]
			f.SetBit(f, bit, f.Bit(bit)^1)
			if p := privateOfOne(t, marshal(t, *n)); p.Numbers.Status != device.Fail {
				t.Errorf("bit %d of %s changed: %v", bit, name, p.Numbers)
			}
		}
	}
}

func clearNumbers(all ...*big.Int) {
	for _, n := range all {
		n.SetInt64(0)
	}
}

// composite makes p a Carmichael number, so that the exponents fit all the same.
func composite(k *pkcs1) {
	one := big.NewInt(1)
	less1 := func(n *big.Int) *big.Int { return new(big.Int).Sub(n, one) }
	for {
		k.P = big.NewInt(561)
		k.N = new(big.Int).Mul(k.P, k.Q)
		phi := new(big.Int).Mul(less1(k.P), less1(k.Q))
		if k.D.ModInverse(k.E, phi) == nil {
			panic("no inverse")
		}
		k.DP.Mod(k.D, less1(k.P))
		k.DQ.Mod(k.D, less1(k.Q))
		if k.QInv.ModInverse(k.Q, k.P) == nil {
			panic("no coefficient")
		}
		return
	}
}

// TestMultiPrime is about keys of more than two primes (RFC 8017, section 3.2).
func TestMultiPrime(t *testing.T) {
	for _, n := range []int{3, 4, 5} {
		//lint:ignore SA1019 keys of this kind are out there
		k, err := rsa.GenerateMultiPrimeKey(rand.Reader, n, 1024) //nolint:staticcheck // as above
		if err != nil {
			t.Fatal(err)
		}
		der := x509.MarshalPKCS1PrivateKey(k)
		if p := privateOfOne(t, der); p.Numbers.Status != device.Pass {
			t.Errorf("%d primes: %v", n, p.Numbers)
		}
		last := k.Precomputed.CRTValues[n-3]
		for _, number := range []*big.Int{k.Primes[n-1], last.Exp, last.Coeff} {
			b := number.Bytes()
			changed := bytes.Replace(der, b, append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^2), 1)
			if p := privateOfOne(t, changed); p.Numbers.Status != device.Fail {
				t.Errorf("%d primes, one number changed: %v", n, p.Numbers)
			}
		}
	}
}

// TestAgainstGo changes RSA keys at random. What is said to fit, crypto/x509
// takes, too. It takes more: it makes the coefficients again.
func TestAgainstGo(t *testing.T) {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	k := newRSA(t, 1024)
	passed, refused := 0, 0
	for range 400 {
		n := numbersOf(k)
		field := n.fields()[random.IntN(8)]
		switch random.IntN(4) {
		case 0:
			field.SetBit(field, random.IntN(field.BitLen()), uint(random.IntN(2)))
		case 1:
			field.Add(field, n.fields()[random.IntN(8)])
		case 2:
			field.Set(n.fields()[random.IntN(8)])
		case 3:
			n.D.Mod(n.D, new(big.Int).Mul(new(big.Int).Sub(n.P, big.NewInt(1)), new(big.Int).Sub(n.Q, big.NewInt(1))))
		}
		der := marshal(t, *n)
		_, err := x509.ParsePKCS1PrivateKey(der)
		p := privateOfOne(t, der)
		switch {
		case p.Numbers.Status == device.Pass && err != nil:
			t.Errorf("said to fit, and Go says %v: %x", err, der)
		case p.Numbers.Status == device.Pass:
			passed++
		case err != nil:
			refused++
		}
	}
	if passed < 20 || refused < 100 {
		t.Errorf("%d passed, %d refused by both", passed, refused)
	}
}

// TestLargeRSA bounds the time: the numbers of RSA-16384 are held against each
// other, but whether the primes are is not asked.
func TestLargeRSA(t *testing.T) {
	half := new(big.Int).Lsh(big.NewInt(1), 8191)
	k := &pkcs1{Version: new(big.Int), E: big.NewInt(65537), P: new(big.Int).SetBit(half, 0, 1), Q: new(big.Int).SetBit(half, 1, 1)}
	k.Q.SetBit(k.Q, 0, 1)
	k.N = new(big.Int).Mul(k.P, k.Q)
	one := big.NewInt(1)
	p1, q1 := new(big.Int).Sub(k.P, one), new(big.Int).Sub(k.Q, one)
	k.D = new(big.Int).ModInverse(k.E, new(big.Int).Mul(p1, q1))
	if k.D == nil {
		t.Fatal("no inverse")
	}
	k.DP, k.DQ = new(big.Int).Mod(k.D, p1), new(big.Int).Mod(k.D, q1)
	k.QInv = new(big.Int).ModInverse(k.Q, k.P)
	if p := privateOfOne(t, marshal(t, *k)); p.Numbers.Status != device.Pass || !strings.Contains(p.Numbers.Why, "not tested") {
		t.Errorf("%v", p.Numbers)
	}
	clearNumbers(k.P, k.Q, k.DP, k.DQ, k.QInv)
	if p := privateOfOne(t, marshal(t, *k)); p.Numbers.Status != device.Undecided {
		t.Errorf("without primes: %v", p.Numbers)
	}
}

// TestECNumbers changes scalars.
func TestECNumbers(t *testing.T) {
	n := elliptic.P256().Params().N
	type sec1 struct {
		Version int
		Key     []byte
		Curve   asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
		Public  asn1.BitString        `asn1:"optional,explicit,tag:1"`
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := own.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	point := publicBytes(t, own)
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	otherForm := append([]byte{3 - point[64]&1}, point[1:33]...)
	reference := append(append(append([]byte{0x10}, make([]byte, 17)...), 0x7d, 0xcc, 0xbb, 0xaa), 0xa5, 0xa6, 0xb5, 0xb6, 0xa5, 0xa6, 0xb5, 0xb6, 0x10, 0)
	for _, c := range []struct {
		name          string
		scalar, point []byte
		want          device.Status
	}{
		{"its own point", scalar, point, device.Pass},
		{"compressed", scalar, compressed, device.Pass},
		{"hybrid", scalar, append([]byte{6 + point[64]&1}, point[1:]...), device.Pass},
		{"no point", scalar, nil, device.Pass},
		{"the other point of that x", scalar, otherForm, device.Fail},
		{"zeros before the scalar", append(make([]byte, 9), scalar...), point, device.Pass},
		{"scalar one larger", new(big.Int).Add(new(big.Int).SetBytes(scalar), big.NewInt(1)).FillBytes(make([]byte, 32)), point, device.Fail},
		{"scalar 0", make([]byte, 32), point, device.Fail},
		{"no scalar", nil, point, device.Fail},
		{"scalar n", n.Bytes(), point, device.Fail},
		{"scalar n, no point", n.Bytes(), nil, device.Fail},
		{"scalar too long", append([]byte{1}, scalar...), point, device.Fail},
		{"scalar and n", new(big.Int).Add(n, new(big.Int).SetBytes(scalar)).Bytes(), point, device.Fail},
		{"infinity", scalar, []byte{0}, device.Fail},
		{"off the curve", scalar, append(bytes.Clone(point[:64]), point[64]^1), device.Fail},
		{"a key of a secure element", reference, point, device.NotApplicable},
	} {
		key := sec1{1, c.scalar, oidP256, bitString(c.point)}
		if p := privateOfOne(t, marshal(t, key)); p.Numbers.Status != c.want {
			t.Errorf("%s: %v, want %v", c.name, p.Numbers, c.want)
		}
		key.Curve = nil
		type ecAlgorithm struct{ OID, Curve asn1.ObjectIdentifier }
		der := marshal(t, struct {
			Version   int
			Algorithm ecAlgorithm
			Key       []byte
		}{0, ecAlgorithm{oidEC, oidP256}, marshal(t, key)})
		if p := privateOfOne(t, der); p.Numbers.Status != c.want {
			t.Errorf("PKCS#8, %s: %v, want %v", c.name, p.Numbers, c.want)
		}
		key.Curve = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
		der = marshal(t, struct {
			Version   int
			Algorithm ecAlgorithm
			Key       []byte
		}{0, ecAlgorithm{oidEC, oidP256}, marshal(t, key)})
		if p := privateOfOne(t, der); p.Numbers.Status != device.Fail {
			t.Errorf("PKCS#8 that names two curves, %s: %v", c.name, p.Numbers)
		}
	}
}

// TestX25519 states another public key.
func TestX25519(t *testing.T) {
	oid := asn1.ObjectIdentifier{1, 3, 101, 110}
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(public []byte) []byte {
		return marshal(t, struct {
			Version   int
			Algorithm struct{ OID asn1.ObjectIdentifier }
			Key       []byte
			Public    asn1.BitString `asn1:"optional,tag:1"`
		}{1, struct{ OID asn1.ObjectIdentifier }{oid}, marshal(t, k.Bytes()), bitString(public)})
	}
	public := k.PublicKey().Bytes()
	if p := privateOfOne(t, encode(public)); p.Numbers.Status != device.Pass {
		t.Errorf("%v", p.Numbers)
	}
	public[3] ^= 1
	if p := privateOfOne(t, encode(public)); p.Numbers.Status != device.Fail {
		t.Errorf("another public key: %v", p.Numbers)
	}
}
