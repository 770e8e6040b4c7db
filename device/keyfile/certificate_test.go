package keyfile_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/keyfile"
)

// element is a DER element of any tag and less than 64 KiB.
func element(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	switch n := len(content); {
	case n < 0x80:
		return append([]byte{tag, byte(n)}, content...)
	case n < 0x100:
		return append([]byte{tag, 0x81, byte(n)}, content...)
	default:
		return append([]byte{tag, 0x82, byte(n >> 8), byte(n)}, content...)
	}
}

// parts are those of a certificate, each as it is encoded.
type parts struct {
	version, serial, inner, outer, issuer, validity, subject, spki []byte
	extensions                                                     [][]byte
	encode                                                         func(der []byte) []byte // of the TBSCertificate
}

// authority issues certificates that no sane CA would.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{key, cert}
}

var (
	oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidCommonName      = asn1.ObjectIdentifier{2, 5, 4, 3}
)

func commonName(t testing.TB, tag byte, value string) []byte {
	return sequence(element(0x31, sequence(marshal(t, oidCommonName), element(tag, []byte(value)))))
}

// extension has a BOOLEAN of that byte, and none for -1.
func extension(t testing.TB, id asn1.ObjectIdentifier, critical int, value []byte) []byte {
	var boolean []byte
	if critical >= 0 {
		boolean = []byte{1, 1, byte(critical)}
	}
	return sequence(marshal(t, id), boolean, element(4, value))
}

// issue returns a certificate of the CA that is sound but for what change does.
func (a authority) issue(t testing.TB, change func(*parts)) []byte {
	t.Helper()
	leaf, err := x509.MarshalPKIXPublicKey(a.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	algorithm := sequence(marshal(t, oidECDSAWithSHA256))
	p := parts{
		version: []byte{0xa0, 3, 2, 1, 2}, serial: []byte{2, 1, 7}, inner: algorithm, outer: algorithm, issuer: a.cert.RawSubject,
		validity: sequence(element(0x17, []byte("250101000000Z")), element(0x17, []byte("351231235959Z"))),
		subject:  commonName(t, 0x0c, "device-1"), spki: leaf, encode: func(der []byte) []byte { return der },
	}
	change(&p)
	var extensions []byte
	if p.extensions != nil {
		extensions = element(0xa3, sequence(p.extensions...))
	}
	tbs := p.encode(sequence(p.version, p.serial, p.inner, p.issuer, p.validity, p.subject, p.spki, extensions))
	digest := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return sequence(tbs, p.outer, marshal(t, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}))
}

// indefinite writes a SEQUENCE, and those right in it, with indefinite lengths.
func indefinite(der []byte) []byte {
	var outer asn1.RawValue
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		panic(err)
	}
	out := []byte{0x30, 0x80}
	for rest := outer.Bytes; len(rest) > 0; {
		var v asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &v); err != nil {
			panic(err)
		}
		if v.Tag == asn1.TagSequence && v.Class == asn1.ClassUniversal {
			out = append(append(append(out, 0x30, 0x80), v.Bytes...), 0, 0)
		} else {
			out = append(out, v.FullBytes...)
		}
	}
	return append(out, 0, 0)
}

// longLength writes the length of a SEQUENCE in four bytes.
func longLength(der []byte) []byte {
	var v asn1.RawValue
	if _, err := asn1.Unmarshal(der, &v); err != nil {
		panic(err)
	}
	n := len(v.Bytes)
	return append([]byte{0x30, 0x84, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, v.Bytes...)
}

var (
	idSKI  = asn1.ObjectIdentifier{2, 5, 29, 14}
	idKU   = asn1.ObjectIdentifier{2, 5, 29, 15}
	idSAN  = asn1.ObjectIdentifier{2, 5, 29, 17}
	idBC   = asn1.ObjectIdentifier{2, 5, 29, 19}
	idNC   = asn1.ObjectIdentifier{2, 5, 29, 30}
	idAKI  = asn1.ObjectIdentifier{2, 5, 29, 35}
	idEKU  = asn1.ObjectIdentifier{2, 5, 29, 37}
	idAIA  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	idElse = asn1.ObjectIdentifier{1, 2, 3, 4}

	caTrue       = sequence([]byte{1, 1, 0xff})
	caFalse      = sequence()
	digitalOnly  = []byte{3, 2, 7, 0x80}
	certSignOnly = []byte{3, 2, 2, 4}
)

// TestOddCertificates reads certificates that crypto/x509 refuses. Each is signed:
// what was read must carry the signature of the CA.
func TestOddCertificates(t *testing.T) {
	ca := newAuthority(t)
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	n := key.N.Bytes() // its first bit is set, so that a zero byte belongs before it
	modulus := func(p *parts) {
		p.spki = spki(t, sequence(marshal(t, oidRSA), []byte{5, 0}), sequence(element(2, n), marshal(t, 65537)))
	}
	long := bytes.Repeat([]byte{0x55}, 40)
	for _, c := range []struct {
		name   string
		change func(*parts)
		odd    string                         // in what is said of it
		want   func(c *x509.Certificate) bool // besides what all must have
	}{
		{"negative serial number", func(p *parts) { p.serial = []byte{2, 1, 0x83} }, "serial number", func(c *x509.Certificate) bool { return c.SerialNumber.Int64() == -125 }},
		{"padded serial number", func(p *parts) { p.serial = []byte{2, 3, 0, 0, 7} }, "serial number", func(c *x509.Certificate) bool { return c.SerialNumber.Int64() == 7 }},
		{"padded negative serial number", func(p *parts) { p.serial = []byte{2, 3, 0xff, 0xff, 0x83} }, "serial number", func(c *x509.Certificate) bool { return c.SerialNumber.Int64() == -125 }},
		{"serial number of 40 bytes, negative", func(p *parts) { p.serial = element(2, append([]byte{0x80}, long...)) }, "serial number", func(c *x509.Certificate) bool { return c.SerialNumber.BitLen() > 320 }},
		{"version 5", func(p *parts) { p.version = []byte{0xa0, 3, 2, 1, 4} }, "version", func(c *x509.Certificate) bool { return c.Version == 3 }},
		{"padded version", func(p *parts) { p.version = []byte{0xa0, 4, 2, 2, 0, 2} }, "version", func(c *x509.Certificate) bool { return c.Version == 3 }},
		{"extensions in version 1", func(p *parts) {
			p.version, p.extensions = nil, [][]byte{extension(t, idBC, 0xff, caFalse)}
		}, "version 1", func(c *x509.Certificate) bool { return c.Version == 1 && c.BasicConstraintsValid && !c.IsCA }},
		{"PrintableString with _ @ *", func(p *parts) { p.subject = commonName(t, 0x13, "dev_1@*") }, "PrintableString", func(c *x509.Certificate) bool { return c.Subject.CommonName == "dev_1@*" }},
		{"PrintableString in UTF-8", func(p *parts) { p.subject = commonName(t, 0x13, "Gerät") }, "PrintableString", func(c *x509.Certificate) bool { return c.Subject.CommonName == "Gerät" }},
		{"IA5String in Latin-1", func(p *parts) { p.issuer, p.subject = commonName(t, 0x16, "CA"), commonName(t, 0x16, "Ger\xe4t") }, "IA5String", func(c *x509.Certificate) bool { return c.Subject.CommonName == "Gerät" }},
		{"UTF8String that is none", func(p *parts) { p.subject = commonName(t, 0x0c, "a\xffb") }, "UTF-8", func(c *x509.Certificate) bool { return c.Subject.CommonName == "a\ufffdb" }},
		{"UniversalString", func(p *parts) { p.subject = commonName(t, 0x1c, "\x00\x00\x00d\x00\x01\xf6\x00") }, "string type", func(c *x509.Certificate) bool { return c.Subject.CommonName == "d😀" }},
		{"VisibleString", func(p *parts) { p.subject = commonName(t, 0x1a, "dev") }, "string type", func(c *x509.Certificate) bool { return c.Subject.CommonName == "dev" }},
		{"BMPString with surrogates", func(p *parts) { p.subject = commonName(t, 0x1e, "\x00d\xd8\x3d\xde\x00") }, "BMPString", func(c *x509.Certificate) bool { return c.Subject.CommonName == "d😀" }},
		{"BMPString of 3 bytes", func(p *parts) { p.subject = commonName(t, 0x1e, "\x00dx") }, "BMPString", func(c *x509.Certificate) bool { return c.Subject.CommonName == "#006478" }},
		{"name that is no string", func(p *parts) { p.subject = commonName(t, 0x03, "\x00\x17") }, "string type", func(c *x509.Certificate) bool { return c.Subject.CommonName == "#0017" }},
		{"RSA without NULL", func(p *parts) {
			p.spki = spki(t, sequence(marshal(t, oidRSA)), sequence(marshal(t, key.N), marshal(t, 65537)))
		}, "NULL", func(c *x509.Certificate) bool { return key.PublicKey.Equal(c.PublicKey) }},
		{"RSA modulus without sign byte", modulus, "sign byte", func(c *x509.Certificate) bool { return key.PublicKey.Equal(c.PublicKey) }},
		{"fraction of a second", func(p *parts) {
			p.validity = sequence(element(0x18, []byte("20250101000000.5Z")), element(0x18, []byte("20351231235959.25Z")))
		}, "GeneralizedTime", nil},
		{"no seconds, another time zone", func(p *parts) {
			p.validity = sequence(element(0x17, []byte("2501010130+0130")), element(0x17, []byte("351231235959Z")))
		}, "", nil},
		{"year of two digits, 1950", func(p *parts) {
			p.validity = sequence(element(0x17, []byte("500101000000+0000")), element(0x17, []byte("351231235959Z")))
		}, "UTCTime", func(c *x509.Certificate) bool { return c.NotBefore.Year() == 1950 }},
		{"two algorithms", func(p *parts) { p.inner = sequence(marshal(t, oidECDSAWithSHA256), []byte{5, 0}) }, "two different signature algorithms", func(c *x509.Certificate) bool { return c.SignatureAlgorithm == x509.UnknownSignatureAlgorithm }},

		{"IP address of 8 bytes", func(p *parts) {
			p.extensions = [][]byte{extension(t, idSAN, 0xff, sequence([]byte{0x82, 1, 'a', 0x87, 8, 10, 0, 0, 1, 255, 0, 0, 0}))}
		}, "IP address", func(c *x509.Certificate) bool {
			return slices.Equal(c.DNSNames, []string{"a"}) && len(c.URIs) == 1 && c.URIs[0].Host == "" && c.UnhandledCriticalExtensions == nil
		}},
		{"email address beyond ASCII", func(p *parts) {
			p.extensions = [][]byte{extension(t, idSAN, -1, sequence([]byte{0x81, 3, 'a', '@', 0xe4}))}
		}, "rfc822Name", func(c *x509.Certificate) bool { return len(c.EmailAddresses) == 1 }},
		{"URI that is none", func(p *parts) {
			p.extensions = [][]byte{extension(t, idSAN, -1, sequence([]byte{0x86, 2, '%', 'z'}))}
		}, "URI", func(c *x509.Certificate) bool { return len(c.URIs) == 1 && c.URIs[0].Host == "" }},
		{"BOOLEAN 01", func(p *parts) {
			p.extensions = [][]byte{extension(t, idBC, 1, sequence([]byte{1, 1, 1})), extension(t, idElse, 1, nil)}
		}, "critical", func(c *x509.Certificate) bool { return c.IsCA && len(c.UnhandledCriticalExtensions) == 1 }},
		{"BOOLEAN 01 within", func(p *parts) {
			p.extensions = [][]byte{extension(t, idBC, -1, sequence([]byte{1, 1, 1}))}
		}, "basic constraints", func(c *x509.Certificate) bool { return c.IsCA && c.MaxPathLen == -1 }},
		{"critical AIA, AKI and SKI", func(p *parts) {
			p.extensions = [][]byte{
				extension(t, idAIA, 0xff, sequence()), extension(t, idAKI, 0xff, sequence([]byte{0x80, 1, 9})), extension(t, idSKI, 0xff, []byte{4, 1, 8}),
			}
		}, "critical", func(c *x509.Certificate) bool {
			return bytes.Equal(c.AuthorityKeyId, []byte{9}) && bytes.Equal(c.SubjectKeyId, []byte{8}) && c.UnhandledCriticalExtensions == nil
		}},
		{"the same twice", func(p *parts) {
			p.extensions = [][]byte{extension(t, idBC, -1, caTrue), extension(t, idBC, 0xff, caTrue)}
		}, "duplicate", func(c *x509.Certificate) bool { return c.IsCA }},
		{"a CA and none", func(p *parts) {
			p.extensions = [][]byte{extension(t, idBC, 0xff, caFalse), extension(t, idBC, 0xff, caTrue)}
		}, "only what both allow", func(c *x509.Certificate) bool { return c.BasicConstraintsValid && !c.IsCA }},
		{"two path lengths", func(p *parts) {
			of := func(n byte) []byte { return sequence([]byte{1, 1, 0xff, 2, 1, n}) }
			p.extensions = [][]byte{extension(t, idBC, 0xff, caTrue), extension(t, idBC, 0xff, of(3)), extension(t, idBC, 0xff, of(0))}
		}, "only what both allow", func(c *x509.Certificate) bool { return c.IsCA && c.MaxPathLen == 0 && c.MaxPathLenZero }},
		{"negative path length", func(p *parts) {
			p.extensions = [][]byte{extension(t, idBC, 0xff, sequence([]byte{1, 1, 0xff, 2, 1, 0x83}))}
		}, "basic constraints", func(c *x509.Certificate) bool { return c.IsCA && c.MaxPathLen == 0 && c.MaxPathLenZero }},
		{"usages that exclude each other", func(p *parts) {
			p.extensions = [][]byte{extension(t, idKU, 0xff, digitalOnly), extension(t, idKU, 0xff, certSignOnly)}
		}, "only what both allow", func(c *x509.Certificate) bool { return c.KeyUsage != 0 && c.KeyUsage&0x1ff == 0 }},
		{"extended usages that exclude each other", func(p *parts) {
			p.extensions = [][]byte{
				extension(t, idEKU, -1, sequence(marshal(t, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}))),
				extension(t, idEKU, -1, sequence(marshal(t, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}))),
			}
		}, "only what both allow", func(c *x509.Certificate) bool {
			return len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) > 0 && len(c.Extensions) == 1 && bytes.Equal(c.Extensions[0].Value, []byte{0x30, 0})
		}},
		{"two key identifiers", func(p *parts) {
			p.extensions = [][]byte{extension(t, idAKI, -1, sequence([]byte{0x80, 1, 9})), extension(t, idAKI, -1, sequence([]byte{0x80, 1, 8}))}
		}, "none counts", func(c *x509.Certificate) bool { return c.AuthorityKeyId == nil }},
		{"two subject alternative names", func(p *parts) {
			p.extensions = [][]byte{extension(t, idSAN, -1, sequence([]byte{0x82, 1, 'a'})), extension(t, idSAN, -1, sequence([]byte{0x82, 1, 'b'}))}
		}, "both count", func(c *x509.Certificate) bool {
			return slices.Equal(c.DNSNames, []string{"a", "b"}) && len(c.Extensions) == 1 && bytes.Equal(c.Extensions[0].Value, sequence([]byte{0x82, 1, 'a', 0x82, 1, 'b'}))
		}},
		{"two name constraints", func(p *parts) {
			only := func(b byte) []byte { return sequence(element(0xa0, sequence([]byte{0x82, 1, b}))) }
			p.extensions = [][]byte{extension(t, idNC, -1, only('a')), extension(t, idNC, -1, only('b'))}
		}, "both of which", func(c *x509.Certificate) bool {
			return len(c.UnhandledCriticalExtensions) == 1 && c.UnhandledCriticalExtensions[0].Equal(idNC) && len(c.Extensions) == 2
		}},
		{"name constraint that is none", func(p *parts) {
			p.extensions = [][]byte{extension(t, idNC, -1, sequence(element(0xa0, sequence([]byte{0x87, 3, 1, 2, 3}))))}
		}, "constraint", func(c *x509.Certificate) bool { return len(c.UnhandledCriticalExtensions) == 1 }},
		{"two of another extension, critical", func(p *parts) {
			p.extensions = [][]byte{extension(t, idElse, -1, []byte{5, 0}), extension(t, idElse, 0xff, []byte{4, 0})}
		}, "the first counts", func(c *x509.Certificate) bool {
			return len(c.Extensions) == 1 && c.Extensions[0].Critical && bytes.Equal(c.Extensions[0].Value, []byte{5, 0})
		}},
		{"explicit default values", func(p *parts) {
			p.extensions = [][]byte{extension(t, idBC, 0, sequence([]byte{1, 1, 0})), extension(t, idAIA, 0xff, sequence())}
		}, "critical", func(c *x509.Certificate) bool { return c.BasicConstraintsValid && !c.IsCA && c.MaxPathLen == -1 }},
		{"object identifier beyond 2^31", func(p *parts) {
			id := append([]byte{6, 20, 0x69}, append(bytes.Repeat([]byte{0xff}, 18), 0x7f)...)
			p.extensions = [][]byte{sequence(id, element(4, nil)), extension(t, idBC, -1, caTrue)}
		}, "left out", func(c *x509.Certificate) bool { return c.IsCA && len(c.Extensions) == 1 }},
		{"indefinite lengths", func(p *parts) { p.encode = indefinite }, "BER", nil},
		{"long form of a length", func(p *parts) { p.encode = longLength }, "BER", nil},
		{"long form of a length within", func(p *parts) { p.subject = longLength(p.subject) }, "BER", nil},
		{"extension in pieces", func(p *parts) {
			p.extensions = [][]byte{sequence(marshal(t, idBC), element(0x24, []byte{4, 2, 0x30, 3}, []byte{4, 3, 1, 1, 0xff}))}
		}, "BER", func(c *x509.Certificate) bool { return c.IsCA }},
	} {
		der := ca.issue(t, c.change)
		cert, odd, err := keyfile.ParseCertificate(der)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if (odd == "") != (c.odd == "") || !strings.Contains(odd, c.odd) || strings.ContainsAny(odd, "\r\n") {
			t.Errorf("%s: said to be odd: %q", c.name, odd)
		}
		if c.want != nil && !c.want(cert) {
			t.Errorf("%s: %+v", c.name, cert)
		}
		if cert.SerialNumber == nil || len(cert.Subject.Names) == 0 || cert.Issuer.CommonName == "" || cert.NotBefore.IsZero() || !bytes.Equal(cert.Raw, der) {
			t.Errorf("%s: serial number, name or validity is missing", c.name)
		}
		if !strings.Contains(c.name, "1950") && (!cert.NotBefore.Truncate(time.Second).Equal(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)) || !cert.NotAfter.Truncate(time.Second).Equal(time.Date(2035, 12, 31, 23, 59, 59, 0, time.UTC))) {
			t.Errorf("%s: valid from %s to %s", c.name, cert.NotBefore, cert.NotAfter)
		}
		if err := cert.CheckSignatureFrom(ca.cert); (err == nil) != (cert.SignatureAlgorithm == x509.ECDSAWithSHA256) {
			t.Errorf("%s: signature: %v", c.name, err)
		}
		damaged := bytes.Clone(der)
		damaged[len(damaged)-1] ^= 1
		if cert, _, err := keyfile.ParseCertificate(damaged); err == nil && cert.CheckSignatureFrom(ca.cert) == nil {
			t.Errorf("%s: a damaged signature verifies", c.name)
		}
	}
}

// TestCertificateRefused is of what cannot be read at all.
func TestCertificateRefused(t *testing.T) {
	ca := newAuthority(t)
	for name, change := range map[string]func(*parts){
		"serial number of no bytes": func(p *parts) { p.serial = []byte{2, 0} },
		"serial number of 1 KiB":    func(p *parts) { p.serial = element(2, append([]byte{0x80}, make([]byte, 1024)...)) },
		"no time":                   func(p *parts) { p.validity = sequence(element(0x17, []byte("soon"))) },
		"month 13": func(p *parts) {
			p.validity = sequence(element(0x17, []byte("251301000000Z")), element(0x17, []byte("351231235959Z")))
		},
		"time without a zone": func(p *parts) {
			p.validity = sequence(element(0x18, []byte("20250101000000")), element(0x17, []byte("351231235959Z")))
		},
		"name that is a SET":             func(p *parts) { p.subject = element(0x31) },
		"key usage that is an INTEGER":   func(p *parts) { p.extensions = [][]byte{extension(t, idKU, -1, []byte{2, 1, 1})} },
		"basic constraints that are cut": func(p *parts) { p.extensions = [][]byte{extension(t, idBC, -1, []byte{0x30, 3})} },
		"one of two is cut": func(p *parts) {
			p.extensions = [][]byte{extension(t, idBC, -1, caTrue), extension(t, idBC, -1, []byte{0x30, 3})}
		},
		"alternative names that are cut": func(p *parts) { p.extensions = [][]byte{extension(t, idSAN, -1, sequence([]byte{0x82, 9, 1}))} },
		"critical, of an unreadable name": func(p *parts) {
			p.extensions = [][]byte{sequence(element(6, bytes.Repeat([]byte{0xff}, 18), []byte{0x7f}), []byte{1, 1, 0xff}, element(4))}
		},
		"1,001 extensions": func(p *parts) {
			p.serial = []byte{2, 1, 0x83}
			for i := range 1001 {
				p.extensions = append(p.extensions, extension(t, append(slices.Clone(idElse), i), -1, nil))
			}
		},
		"EC key without a curve":    func(p *parts) { p.spki = spki(t, sequence(marshal(t, oidEC)), bytes.Repeat([]byte{4}, 65)) },
		"indefinite without an end": func(p *parts) { p.encode = func(der []byte) []byte { return indefinite(der)[:len(der)] } },
	} {
		if cert, odd, err := keyfile.ParseCertificate(ca.issue(t, change)); err == nil || cert != nil || odd != "" {
			t.Errorf("%s: %+v, %q, %v", name, cert, odd, err)
		}
	}
	good := ca.issue(t, func(*parts) {})
	if _, odd, err := keyfile.ParseCertificate(good); err != nil || odd != "" {
		t.Errorf("a good certificate: %q, %v", odd, err)
	}
	for n := range good {
		if _, _, err := keyfile.ParseCertificate(good[:n]); err == nil {
			t.Fatalf("the first %d bytes of %d are taken for a certificate", n, len(good))
		}
	}
	if _, _, err := keyfile.ParseCertificate(append(good, 0)); err == nil {
		t.Error("a certificate with a byte after its end is taken")
	}
	deep := []byte{0x30, 0}
	for range 1000 {
		deep = element(0x30, deep)
	}
	if _, _, err := keyfile.ParseCertificate(deep); err == nil {
		t.Error("1,000 sequences in each other are taken for a certificate")
	}
}

// TestSpecialKeys is of keys that crypto/x509 refuses together with their
// certificate, or leaves out. Nothing is odd about their encoding.
func TestSpecialKeys(t *testing.T) {
	ca := newAuthority(t)
	p256 := elliptic.P256()
	compressed := elliptic.MarshalCompressed(p256, ca.key.X, ca.key.Y)
	e := new(big.Int).Lsh(big.NewInt(1), 40)
	n := new(big.Int).Lsh(big.NewInt(3), 1022)
	offCurve := slices.Concat([]byte{4}, make([]byte, 63), []byte{1})
	pss := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	for name, c := range map[string]struct {
		spki []byte
		want func(crypto.PublicKey) bool
	}{
		"compressed point":   {ecSPKI(t, oidP256, compressed), func(k crypto.PublicKey) bool { return ca.key.PublicKey.Equal(k) }},
		"point off":          {ecSPKI(t, oidP256, offCurve), func(k crypto.PublicKey) bool { return !k.(*ecdsa.PublicKey).IsOnCurve(new(big.Int), big.NewInt(1)) }},
		"curve unknown":      {ecSPKI(t, asn1.ObjectIdentifier{1, 3, 132, 0, 10}, compressed), isOther("ECDSA-secp256k1")},
		"explicit curve":     {spki(t, sequence(marshal(t, oidEC), sequence()), compressed), isOther("ECDSA-explicit-parameters")},
		"exponent of 41 bit": {rsaSPKI(t, n, e), func(k crypto.PublicKey) bool { return k.(*device.LargeRSA).E.Cmp(e) == 0 }},
		"RSA for PSS alone":  {spki(t, sequence(marshal(t, pss)), sequence(marshal(t, n), marshal(t, 65537))), func(k crypto.PublicKey) bool { return k.(*rsa.PublicKey).N.Cmp(n) == 0 }},
		"ML-DSA":             {spki(t, sequence(marshal(t, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 18})), []byte{1}), isOther("ML-DSA-65")},
		"SLH-DSA":            {spki(t, sequence(marshal(t, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 31})), []byte{1}), isOther("SLH-DSA-SHAKE-256f")},
		"ML-KEM":             {spki(t, sequence(marshal(t, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 4, 2})), []byte{1}), isOther("ML-KEM-768")},
		"GOST":               {spki(t, sequence(marshal(t, asn1.ObjectIdentifier{1, 2, 643, 7, 1, 1, 1, 1})), []byte{1}), isOther("GOST-2012-256")},
	} {
		cert, odd, err := keyfile.ParseCertificate(ca.issue(t, func(p *parts) { p.spki = c.spki }))
		if err != nil || odd != "" || !c.want(cert.PublicKey) || !bytes.Equal(cert.RawSubjectPublicKeyInfo, c.spki) {
			t.Errorf("%s: %+v, %q, %v", name, cert, odd, err)
			continue
		}
		if err := cert.CheckSignatureFrom(ca.cert); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCertificateKey takes the key out of certificates that cannot be read, or
// end after their key.
func TestCertificateKey(t *testing.T) {
	ca := newAuthority(t)
	for name, change := range map[string]func(*parts){
		"good":         func(*parts) {},
		"version 1":    func(p *parts) { p.version = nil },
		"no time":      func(p *parts) { p.validity = sequence(element(0x17, []byte("soon"))) },
		"no extension": func(p *parts) { p.extensions = [][]byte{{5, 0}} },
	} {
		key, public, err := keyfile.CertificateKey(ca.issue(t, change))
		if err != nil || !ca.key.PublicKey.Equal(key) || !bytes.Equal(public, ca.cert.RawSubjectPublicKeyInfo) {
			t.Errorf("%s: %v, %x, %v", name, key, public, err)
		}
	}
	bare := spki(t, sequence(marshal(t, oidEC)), nil)
	if key, public, err := keyfile.CertificateKey(ca.issue(t, func(p *parts) { p.spki = bare })); key != nil || !bytes.Equal(public, bare) || err != nil {
		t.Errorf("no curve: %v, %x, %v", key, public, err)
	}
	der := ca.issue(t, func(*parts) {})
	for n := range der {
		if _, _, err := keyfile.CertificateKey(der[:n]); err == nil {
			t.Fatalf("cut to %d bytes: a key", n)
		}
	}
}

func isOther(name string) func(crypto.PublicKey) bool {
	return func(k crypto.PublicKey) bool { o, ok := k.(*device.OtherKey); return ok && o.Algorithm == name }
}

// TestOddKeys is of keys without a certificate that can be read, with a word on
// how they are encoded.
func TestOddKeys(t *testing.T) {
	modulus := append([]byte{0xc1}, bytes.Repeat([]byte{0x55}, 255)...)
	key := sequence(element(2, modulus), []byte{2, 3, 1, 0, 1})
	negative := sequence(element(2, []byte{0}, modulus), []byte{2, 1, 0xfd})
	hybrid := append([]byte{6}, make([]byte, 64)...)
	zero := []byte{2, 1, 0}
	for name, c := range map[string]struct {
		data []byte
		odd  string
	}{
		"SPKI":                    {spki(t, sequence(marshal(t, oidRSA), []byte{5, 0}), key), "modulus without its sign byte"},
		"PKCS#1":                  {key, "modulus without its sign byte"},
		"PKCS#1 private":          {sequence(zero, element(2, modulus), []byte{2, 3, 1, 0, 1}, zero, zero, zero, zero, zero, zero), "modulus without its sign byte"},
		"PEM":                     {pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: key}), "modulus without its sign byte"},
		"negative exponent":       {negative, "exponent without its sign byte"},
		"no NULL":                 {spki(t, sequence(marshal(t, oidRSA)), sequence(element(2, []byte{0}, modulus), []byte{2, 3, 1, 0, 1})), "NULL"},
		"X25519 with a NULL":      {spki(t, sequence(marshal(t, asn1.ObjectIdentifier{1, 3, 101, 110}), []byte{5, 0}), bytes.Repeat([]byte{9}, 32)), "X25519 key with parameters"},
		"Ed25519 with a NULL":     {spki(t, sequence(marshal(t, asn1.ObjectIdentifier{1, 3, 101, 112}), []byte{5, 0}), bytes.Repeat([]byte{9}, 32)), "RFC 8410"},
		"X25519 without":          {spki(t, sequence(marshal(t, asn1.ObjectIdentifier{1, 3, 101, 110})), bytes.Repeat([]byte{9}, 32)), ""},
		"hybrid point":            {ecSPKI(t, oidP256, hybrid), "hybrid"},
		"indefinite length":       {indefinite(spki(t, sequence(marshal(t, oidRSA), []byte{5, 0}), sequence(element(2, []byte{0}, modulus), []byte{2, 3, 1, 0, 1}))), "BER"},
		"a sound one, to be sure": {spki(t, sequence(marshal(t, oidRSA), []byte{5, 0}), sequence(element(2, []byte{0}, modulus), []byte{2, 3, 1, 0, 1})), ""},
	} {
		k := only(t, c.data)
		if (c.odd == "") != (k.Encoding == "") || !strings.Contains(k.Encoding, c.odd) {
			t.Errorf("%s: %q", name, k.Encoding)
		}
		if n, e, ok := k.RSA(); ok && (n.Cmp(new(big.Int).SetBytes(modulus)) != 0 || e.Sign() <= 0) {
			t.Errorf("%s: n %x, e %d", name, n, e)
		}
	}
}

// corpus is every certificate under testdata, and some that crypto/x509 makes.
func corpus(t testing.TB) (all [][]byte) {
	t.Helper()
	for _, name := range files(t, "good", "bad", "roca") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			all = append(all, block.Bytes)
		}
		if len(data) > 0 && data[0] == 0x30 {
			all = append(all, data)
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, network, _ := net.ParseCIDR("10.0.0.0/8")
	name := pkix.Name{CommonName: "a", Organization: []string{"b", "c"}, Country: []string{"CH"}, SerialNumber: "1"}
	for _, template := range []*x509.Certificate{
		{SerialNumber: big.NewInt(1), Subject: name},
		{
			SerialNumber: new(big.Int).Lsh(big.NewInt(1), 159), Subject: name, NotBefore: time.Unix(-1<<32, 0), NotAfter: time.Unix(1<<37, 0),
			IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDecipherOnly,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{idElse},
			SubjectKeyId: []byte{1}, AuthorityKeyId: []byte{2},
			PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"a.example"}, ExcludedIPRanges: []*net.IPNet{network}, ExcludedURIDomains: []string{"b.example"}, PermittedEmailAddresses: []string{"c.example"},
			CRLDistributionPoints: []string{"http://crl.example"}, OCSPServer: []string{"http://ocsp.example"}, IssuingCertificateURL: []string{"http://ca.example"},
			ExtraExtensions: []pkix.Extension{
				{Id: idElse, Critical: true, Value: []byte{5, 0}},
				{Id: asn1.ObjectIdentifier{2, 5, 29, 36}, Critical: true, Value: sequence([]byte{0x80, 1, 0})},
				{Id: asn1.ObjectIdentifier{2, 5, 29, 54}, Critical: true, Value: []byte{2, 1, 3}},
				{Id: asn1.ObjectIdentifier{2, 5, 29, 32}, Value: sequence(sequence([]byte{6, 1, 42}))},
			},
		},
		{
			SerialNumber: big.NewInt(0x80), DNSNames: []string{"a.example", "*.b.example"}, EmailAddresses: []string{"a@b.example"},
			IPAddresses: []net.IP{{10, 0, 0, 1}, net.IPv6loopback}, URIs: []*url.URL{{Scheme: "urn", Opaque: "x"}, {Scheme: "https", Host: "a.example"}},
		},
	} {
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, der)
	}
	return all
}

// TestSameAsX509 holds our own reading of every certificate that crypto/x509
// takes against that of crypto/x509.
func TestSameAsX509(t *testing.T) {
	compared := 0
	for _, der := range corpus(t) {
		if want, err := x509.ParseCertificate(der); err == nil {
			compared++
			sameAsX509(t, der, want)
		}
	}
	if compared < 10 {
		t.Errorf("only %d certificates were compared", compared)
	}
}

func sameAsX509(t *testing.T, der []byte, want *x509.Certificate) {
	t.Helper()
	own, err := keyfile.ReadCertificate(der)
	if err != nil {
		t.Errorf("%x: %v", der, err)
		return
	}
	if public, ok := want.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && want.PublicKeyAlgorithm != x509.DSA && !public.Equal(own.PublicKey) {
		t.Errorf("key %v, not %v", own.PublicKey, want.PublicKey)
	}
	if want.PublicKeyAlgorithm == x509.UnknownPublicKeyAlgorithm {
		want.PublicKeyAlgorithm = own.PublicKeyAlgorithm
	}
	if want.Version < 3 { // crypto/x509 passes over their extensions
		want.Extensions, own.Extensions = nil, nil
	}
	got, wanted := reflect.ValueOf(own).Elem(), reflect.ValueOf(want).Elem()
	for i := range got.NumField() {
		name := got.Type().Field(i).Name
		a, b := got.Field(i).Interface(), wanted.Field(i).Interface()
		switch name {
		case "PublicKey":
			continue
		case "SerialNumber":
			a, b = fmt.Sprint(a), fmt.Sprint(b)
		case "NotBefore", "NotAfter":
			a, b = a.(time.Time).UnixNano(), b.(time.Time).UnixNano()
		case "UnhandledCriticalExtensions": // their order means nothing
			a, b = sorted(a.([]asn1.ObjectIdentifier)), sorted(b.([]asn1.ObjectIdentifier))
		case "Extensions":
			a, b = fmt.Sprint(a), fmt.Sprint(b)
		}
		if want.Version < 3 && reflect.ValueOf(b).IsZero() {
			continue
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %v, not %v, in\n%x", name, a, b, der)
		}
	}
}

func sorted(ids []asn1.ObjectIdentifier) (list []string) {
	for _, id := range ids {
		list = append(list, id.String())
	}
	slices.Sort(list)
	return list
}

func FuzzParseCertificate(f *testing.F) {
	for _, der := range corpus(f) {
		f.Add(der)
	}
	ca := newAuthority(f)
	f.Add(ca.issue(f, func(p *parts) { p.serial = []byte{2, 1, 0x83} }))
	f.Add(ca.issue(f, func(p *parts) { p.encode = indefinite }))
	f.Add(ca.issue(f, func(p *parts) {
		p.extensions = [][]byte{extension(f, idBC, 1, caFalse), extension(f, idBC, -1, caTrue), extension(f, idSAN, -1, sequence([]byte{0x87, 8, 1, 2, 3, 4, 5, 6, 7, 8}))}
	}))
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, odd, err := keyfile.ParseCertificate(der)
		if (cert == nil) != (err != nil) || strings.ContainsAny(odd, "\r\n") {
			t.Fatalf("%+v, %q, %v", cert, odd, err)
		}
		if want, err := x509.ParseCertificate(der); err == nil {
			if cert == nil {
				return // its key breaks a rule that keyvet has and crypto/x509 has not
			}
			sameAsX509(t, der, want)
		} else if cert != nil && cert.KeyUsage == 0 && slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(idKU) && len(e.Value) > 3 && e.Value[3] != 0 }) {
			t.Errorf("a key usage was lost in\n%x", der)
		}
		if cert == nil {
			return
		}
		if cert.SerialNumber == nil || len(cert.RawTBSCertificate) == 0 || !bytes.Contains(der, cert.RawTBSCertificate) || !bytes.Equal(cert.Raw, der) {
			t.Errorf("%+v", cert)
		}
		switch cert.PublicKey.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey, *device.LargeRSA, *device.OtherKey:
		default:
			t.Errorf("%T", cert.PublicKey)
		}
	})
}
