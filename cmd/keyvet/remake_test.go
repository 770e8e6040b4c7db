package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device/keyfile"
)

// remaker makes certificates again on keys that the test has, since those of the
// cases came without theirs. In each, the numbers of the key are replaced by those
// of a new key of the same size, byte for byte where they stand, and what was
// signed by a key of the same file is signed by its successor; all else, odd
// encodings among it, stays. What no key of the file had signed is signed by a
// stranger.
type remaker struct {
	t    *testing.T
	keys map[string]crypto.Signer // by the numbers of the old key
	old  []*x509.Certificate
}

// numbersOf is how a public key stands in a certificate: a point, or a modulus.
func (m *remaker) numbersOf(public crypto.PublicKey) []byte {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		b, err := k.Bytes()
		if err != nil {
			m.t.Fatal(err)
		}
		return b
	case *rsa.PublicKey:
		return k.N.Bytes()
	case ed25519.PublicKey:
		return k
	}
	return nil // of an algorithm that Go does not have: nothing is replaced
}

func (m *remaker) successor(public crypto.PublicKey) crypto.Signer {
	id := string(m.numbersOf(public))
	if s := m.keys[id]; s != nil {
		return s
	}
	var s crypto.Signer
	var err error
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		s, err = ecdsa.GenerateKey(k.Curve, rand.Reader)
	case *rsa.PublicKey:
		s, err = newRSA(k.N.BitLen(), k.E)
	case ed25519.PublicKey:
		_, s, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	m.keys[id] = s
	return s
}

// newRSA makes keys that are too short for crypto/rsa, too.
func newRSA(bits, e int) (*rsa.PrivateKey, error) {
	for {
		p, err := rand.Prime(rand.Reader, bits/2)
		if err != nil {
			return nil, err
		}
		q, err := rand.Prime(rand.Reader, bits-bits/2)
		if err != nil {
			return nil, err
		}
		one := big.NewInt(1)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		n, d := new(big.Int).Mul(p, q), new(big.Int).ModInverse(big.NewInt(int64(e)), phi)
		if d == nil || n.BitLen() != bits {
			continue
		}
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: e}, D: d, Primes: []*big.Int{p, q}}
		k.Precompute()
		return k, nil
	}
}

// signedBy is the certificate of the file whose key signed c, a root if it can be;
// nil if there is none.
func (m *remaker) signedBy(c *x509.Certificate) (found *x509.Certificate) {
	for _, issuer := range m.old {
		if verifies(issuer.PublicKey, c) && (found == nil || isRoot(issuer)) {
			found = issuer
		}
	}
	return found
}

func isRoot(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

func verifies(public crypto.PublicKey, c *x509.Certificate) bool {
	digest := c.RawTBSCertificate
	if hash := hashOf(c); hash != 0 {
		h := hash.New()
		h.Write(digest)
		digest = h.Sum(nil)
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest, c.Signature)
	case *rsa.PublicKey:
		if isPSS(c) {
			return rsa.VerifyPSS(k, hashOf(c), digest, c.Signature, nil) == nil
		}
		m := new(big.Int).Exp(new(big.Int).SetBytes(c.Signature), big.NewInt(int64(k.E)), k.N).Bytes()
		return bytes.HasSuffix(m, digest)
	}
	return false
}

func hashOf(c *x509.Certificate) crypto.Hash {
	name := c.SignatureAlgorithm.String()
	switch {
	case strings.Contains(name, "SHA384"):
		return crypto.SHA384
	case strings.Contains(name, "SHA512"):
		return crypto.SHA512
	case c.SignatureAlgorithm == x509.PureEd25519:
		return 0
	}
	return crypto.SHA256
}

func isPSS(c *x509.Certificate) bool {
	return bytes.Contains(c.Raw, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10})
}

// remake returns the successor of c.
func (m *remaker) remake(c *x509.Certificate, signer crypto.Signer) []byte {
	var outer struct{ TBS, Algorithm, Signature asn1.RawValue }
	if _, err := asn1.Unmarshal(c.Raw, &outer); err != nil {
		m.t.Fatal(err)
	}
	tbs := outer.TBS.FullBytes
	if numbers := m.numbersOf(c.PublicKey); numbers != nil {
		if bytes.Count(tbs, numbers) != 1 {
			m.t.Fatalf("the key stands %d times in its certificate", bytes.Count(tbs, numbers))
		}
		tbs = bytes.Replace(tbs, numbers, m.numbersOf(m.successor(c.PublicKey).Public()), 1)
	}
	if signer == nil {
		if issuer := m.signedBy(c); issuer != nil {
			signer = m.successor(issuer.PublicKey)
		} else if isEC := strings.HasPrefix(c.SignatureAlgorithm.String(), "ECDSA"); isEC {
			signer, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
	}
	signature := outer.Signature.FullBytes
	if signer != nil {
		b := m.sign(c, tbs, signer)
		var err error
		if signature, err = asn1.Marshal(asn1.BitString{Bytes: b, BitLength: 8 * len(b)}); err != nil {
			m.t.Fatal(err)
		}
	}
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join([][]byte{tbs, outer.Algorithm.FullBytes, signature}, nil)})
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

func (m *remaker) sign(c *x509.Certificate, tbs []byte, signer crypto.Signer) []byte {
	var options crypto.SignerOpts = hashOf(c)
	digest := tbs
	if hash := hashOf(c); hash != 0 {
		h := hash.New()
		h.Write(tbs)
		digest = h.Sum(nil)
	}
	key, isRSA := signer.(*rsa.PrivateKey)
	if isRSA && isPSS(c) {
		options = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: hashOf(c)}
	} else if isRSA && key.N.BitLen() < 1024 { // crypto/rsa does not
		info := append([]byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}, digest...)
		size := (key.N.BitLen() + 7) / 8
		padded := bytes.Join([][]byte{{0, 1}, bytes.Repeat([]byte{0xff}, size-3-len(info)), {0}, info}, nil)
		n := new(big.Int).SetBytes(padded)
		return n.Exp(n, key.D, key.N).FillBytes(make([]byte, size))
	}
	b, err := signer.Sign(rand.Reader, digest, options)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// device makes a case the credential of a device: the text of the case with its
// certificates made again, the private key of the first, and the CA that it must
// lead to. That is the root of the file; where no certificate of the file has the
// name of the issuer, it is a CA of that name, which signs in its place.
func (m *remaker) device(text, given []byte) (certificates, key, ca, leaf []byte) {
	m.keys = map[string]crypto.Signer{}
	var blocks []*pem.Block
	for block, rest := pem.Decode(bytes.ReplaceAll(text, []byte("\ufeff"), nil)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			blocks = append(blocks, block)
		}
	}
	for block, rest := pem.Decode(given); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	for _, block := range blocks {
		c, _, err := keyfile.ParseCertificate(block.Bytes)
		if err != nil {
			m.t.Fatal(err)
		}
		m.old = append(m.old, c)
	}
	top := m.top()
	root := slices.IndexFunc(m.old, isRoot)
	var signer crypto.Signer
	switch {
	case given != nil:
		root = len(m.old) - 1
	case isRoot(top):
		root = slices.Index(m.old, top)
	case !slices.ContainsFunc(m.old, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, top.RawIssuer) }):
		ca, signer = m.authority(top)
	}
	certificates = text
	for i, c := range m.old {
		by := signer
		if c != top {
			by = nil
		}
		der := m.remake(c, by)
		again := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		certificates = bytes.Replace(certificates, bytes.TrimSpace(pem.EncodeToMemory(blocks[i])), bytes.TrimSpace(again), 1)
		if i == 0 {
			leaf = der
		}
		if i == root && signer == nil {
			ca = again
		}
	}
	private, err := x509.MarshalPKCS8PrivateKey(m.successor(m.old[0].PublicKey))
	if err != nil {
		m.t.Fatal(err)
	}
	return certificates, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), ca, leaf
}

// top is the certificate where the path of the first one ends.
func (m *remaker) top() *x509.Certificate {
	c := m.old[0]
	for range m.old {
		issuer := m.signedBy(c)
		if issuer == nil || issuer == c {
			break
		}
		c = issuer
	}
	return c
}

// authority makes a CA of the name of c's issuer, and its key.
func (m *remaker) authority(c *x509.Certificate) ([]byte, crypto.Signer) {
	var key crypto.Signer
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil && !strings.HasPrefix(c.SignatureAlgorithm.String(), "ECDSA") {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), RawSubject: c.RawIssuer, NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: c.AuthorityKeyId,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		m.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}
