package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
)

// der is the encoding of one ASN.1 element.
type der = []byte

func tlv(tag byte, parts ...der) der {
	var body der
	for _, p := range parts {
		body = append(body, p...)
	}
	n := len(body)
	switch {
	case n < 0x80:
		return append(der{tag, byte(n)}, body...)
	case n < 0x100:
		return append(der{tag, 0x81, byte(n)}, body...)
	}
	return append(der{tag, 0x82, byte(n >> 8), byte(n)}, body...)
}

func sequence(parts ...der) der { return tlv(0x30, parts...) }

func marshal(value any) der {
	b, err := asn1.Marshal(value)
	must(err)
	return b
}

func oid(arcs ...int) der { return marshal(asn1.ObjectIdentifier(arcs)) }

// The tags of strings.
const (
	utf8      = 0x0c
	printable = 0x13
	teletex   = 0x14
	visible   = 0x1a
	universal = 0x1c
	bmp       = 0x1e
)

// name is a Name of one common name, in that type of string.
func name(tag byte, cn string) der {
	b := der(cn)
	switch tag {
	case bmp:
		b = nil
		for _, c := range cn {
			b = append(b, byte(c>>8), byte(c))
		}
	case universal:
		b = nil
		for _, c := range cn {
			b = append(b, 0, 0, byte(c>>8), byte(c))
		}
	}
	return sequence(tlv(0x31, sequence(oid(2, 5, 4, 3), tlv(tag, b))))
}

func extension(critical bool, value der, arcs ...int) der {
	var flag der
	if critical {
		flag = der{1, 1, 0xff}
	}
	return sequence(oid(arcs...), flag, tlv(4, value))
}

// The extensions of most certificates.
var (
	isCA     = extension(true, sequence(der{1, 1, 0xff}), 2, 5, 29, 19)
	signs    = extension(true, marshal(asn1.BitString{Bytes: []byte{0x06}, BitLength: 7}), 2, 5, 29, 15)
	isLeaf   = extension(true, sequence(), 2, 5, 29, 19)
	mayUse   = extension(true, marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1}), 2, 5, 29, 15)
	ecdsa256 = sequence(oid(1, 2, 840, 10045, 4, 3, 2))
)

// template is a certificate that is to be made, part by part; what is nil is as usual.
type template struct {
	serial, subject, issuer, validity, spki der
	extensions                              []der
	by                                      crypto.Signer
	algorithm                               der
	options                                 crypto.SignerOpts
	body                                    func(tbs der) der // changes what is signed
}

func utc(year string) der { return tlv(0x17, der(year+"0101000000Z")) }

// valid is from 2026 to 2126: GeneralizedTime from 2050 on.
var valid = sequence(utc("26"), tlv(0x18, der("21260101000000Z")))

var serials byte

func (t template) make() der {
	if t.serial == nil {
		serials++
		t.serial = der{2, 2, 0x40, serials}
	}
	if t.validity == nil {
		t.validity = valid
	}
	if t.algorithm == nil {
		t.algorithm = ecdsa256
	}
	if t.options == nil {
		t.options = crypto.SHA256
	}
	tbs := sequence(der{0xa0, 3, 2, 1, 2}, t.serial, t.algorithm, t.issuer, t.validity, t.subject, t.spki, tlv(0xa3, sequence(t.extensions...)))
	if t.body != nil {
		tbs = t.body(tbs)
	}
	digest := sha256.Sum256(tbs)
	signature, err := t.by.Sign(rand.Reader, digest[:], t.options)
	must(err)
	return sequence(tbs, t.algorithm, marshal(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}))
}

func newKey() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return k
}

func spki(k crypto.Signer) der {
	b, err := x509.MarshalPKIXPublicKey(k.Public())
	must(err)
	return b
}

// authority is a CA with its key.
type authority struct {
	cert der
	name der
	key  crypto.Signer
}

// newCA makes a CA under another, or a root if by is nil.
func newCA(cn string, by *authority, change ...func(*template)) *authority {
	a := &authority{name: name(utf8, cn), key: newKey()}
	t := template{subject: a.name, spki: spki(a.key), extensions: []der{isCA, signs}}
	for _, c := range change {
		c(&t)
	}
	a.name = t.subject
	if by == nil {
		by = a
	}
	if t.issuer == nil {
		t.issuer = by.name
	}
	if t.by == nil {
		t.by = by.key
	}
	a.cert = t.make()
	return a
}

// leaf makes the certificate of a device under a CA, and its key.
func (a *authority) leaf(change ...func(*template)) (cert der, key crypto.Signer) {
	key = newKey()
	t := template{subject: name(utf8, "device"), issuer: a.name, spki: spki(key), extensions: []der{isLeaf, mayUse}, by: a.key}
	for _, c := range change {
		c(&t)
	}
	return t.make(), key
}

func with(extensions ...der) func(*template) {
	return func(t *template) { t.extensions = append(t.extensions, extensions...) }
}

func certificates(certs ...der) (text []byte) {
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return text
}

func privateKey(k crypto.Signer) []byte {
	b, err := x509.MarshalPKCS8PrivateKey(k)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b})
}
