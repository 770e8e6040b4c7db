package check

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
)

// edit changes a certificate that is being made.
type edit = func(*x509.Certificate, *crypto.Signer)

// pathCase is a certificate with what was found with it and the CAs given.
type pathCase struct {
	name    string
	leaf    *x509.Certificate
	beside  []*x509.Certificate
	given   []*x509.Certificate
	want    device.Status     // of the checks chain, belongs and expiry, for a device's own certificate
	code    device.ReasonCode // among the findings
	openssl string            // "" OK if want passes, else an error; "OK" or "error" where OpenSSL sees it otherwise
	why     string            // it does
}

func withExtension(id asn1.ObjectIdentifier, critical bool, value any) edit {
	der, raw := value.([]byte)
	if !raw {
		var err error
		if der, err = asn1.Marshal(value); err != nil {
			panic(err)
		}
	}
	return func(c *x509.Certificate, _ *crypto.Signer) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: der})
	}
}

func pathLen(n int) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
}

func keyUsage(u x509.KeyUsage) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.KeyUsage = u }
}

func extUsage(u ...x509.ExtKeyUsage) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.ExtKeyUsage = u }
}

func dnsNames(names ...string) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.DNSNames = names }
}

func signedBy(a x509.SignatureAlgorithm) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.SignatureAlgorithm = a }
}

func noKeyIDs(c *x509.Certificate, _ *crypto.Signer) { c.SubjectKeyId, c.AuthorityKeyId = nil, nil }

// withoutKeyID is a CA whose certificates have no authority key identifier.
func withoutKeyID(a *authority) *authority {
	c := *a.cert
	c.SubjectKeyId = nil
	return &authority{&c, a.key}
}

// issuing is a CA whose certificates name their issuer by that DER name.
func renamed(a *authority, name []byte) *authority {
	c := *a.cert
	c.RawSubject = name
	return &authority{&c, a.key}
}

// commonName is a DER name of one common name, in a string of that tag.
func commonName(tag int, text string) []byte {
	oid, _ := asn1.Marshal(asn1.ObjectIdentifier{2, 5, 4, 3})
	value, _ := asn1.Marshal(asn1.RawValue{Tag: tag, Bytes: []byte(text)})
	attribute, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: slices.Concat(oid, value)})
	set, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: attribute})
	name, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: set})
	return name
}

// general is a GeneralNames of one name.
func general(tag int, constructed bool, value []byte) []byte {
	name, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: constructed, Bytes: value})
	names, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: name})
	return names
}

// subtrees is a NameConstraints with one base; tag 0 permits, 1 excludes.
func subtrees(tag int, bases ...[]byte) []byte {
	var all []byte
	for _, base := range bases {
		tree, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: base})
		all = append(all, tree...)
	}
	list, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: all})
	der, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: list})
	return der
}

func base(tag int, constructed bool, value []byte) []byte {
	der, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: constructed, Bytes: value})
	return der
}

func directory(name pkix.Name) []byte {
	der, _ := asn1.Marshal(name.ToRDNSequence())
	return der
}

// asVersion1 is c again without extensions, in version 1, signed by key.
func asVersion1(t testing.TB, c *x509.Certificate, by crypto.Signer) *x509.Certificate {
	t.Helper()
	type validity struct{ NotBefore, NotAfter time.Time }
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	tbs, err := asn1.Marshal(struct {
		Serial    *big.Int
		Algorithm pkix.AlgorithmIdentifier
		Issuer    asn1.RawValue
		Validity  validity
		Subject   asn1.RawValue
		Key       asn1.RawValue
	}{c.SerialNumber, algorithm, asn1.RawValue{FullBytes: c.RawIssuer}, validity{c.NotBefore.UTC(), c.NotAfter.UTC()},
		asn1.RawValue{FullBytes: c.RawSubject}, asn1.RawValue{FullBytes: c.RawSubjectPublicKeyInfo}})
	if err != nil {
		t.Fatal(err)
	}
	h := crypto.SHA256.New()
	h.Write(tbs)
	signature, err := by.Sign(rand.Reader, h.Sum(nil), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, algorithm, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		t.Fatal(err)
	}
	return reparse(t, der)
}

// pathCases are chains of every kind that the checks tell apart.
func pathCases(t testing.TB) (all []pathCase) {
	add := func(c pathCase) { all = append(all, c) }
	certs := func(as ...*authority) (list []*x509.Certificate) {
		for _, a := range as {
			list = append(list, a.cert)
		}
		return list
	}
	// under is a case of a leaf under CAs, nearest first, the last of which is given.
	under := func(name string, want device.Status, code device.ReasonCode, leaf *authority, cas ...*authority) {
		add(pathCase{name: name, leaf: leaf.cert, beside: certs(cas[:len(cas)-1]...), given: certs(cas[len(cas)-1]), want: want, code: code})
	}
	differs := func(openssl, why string) { all[len(all)-1].openssl, all[len(all)-1].why = openssl, why }
	const (
		pass, warn, fail, undecided = device.Pass, device.Warn, device.Fail, device.Undecided
		constraint                  = "KEYVET_CHAIN_CONSTRAINT"
		notCA                       = "KEYVET_ISSUER_NOT_CA"
		unknownExt                  = "KEYVET_EXTENSION_UNKNOWN"
		unknownCA                   = "KEYVET_CHAIN_UNKNOWN_CA"
		badSignature                = "KEYVET_CERTIFICATE_SIGNATURE_INVALID"
		mismatch                    = "KEYVET_ISSUER_MISMATCH"
	)

	root := issue(t, "Root", nil, asCA)
	one := issue(t, "One", root, asCA)
	two := issue(t, "Two", one, asCA)
	three := issue(t, "Three", two, asCA)
	under("under the root", pass, "", issue(t, "dev", root), root)
	under("one CA between", pass, "", issue(t, "dev", one), one, root)
	under("two between", pass, "", issue(t, "dev", two), two, one, root)
	under("three between", pass, "", issue(t, "dev", three), three, two, one, root)
	under("a given intermediate", pass, "", issue(t, "dev", two), two, one)

	// Basic constraints, key usage, path length.
	for n := range 3 {
		limited := issue(t, "Limited", nil, asCA, pathLen(n))
		sub := issue(t, "Sub", limited, asCA)
		subsub := issue(t, "Sub 2", sub, asCA)
		want := func(ok bool) (device.Status, device.ReasonCode) {
			if ok {
				return pass, ""
			}
			return fail, constraint
		}
		s, c := want(n >= 0)
		under("path length, none below", s, c, issue(t, "dev", limited), limited)
		s, c = want(n >= 1)
		under("path length, one below", s, c, issue(t, "dev", sub), sub, limited)
		s, c = want(n >= 2)
		under("path length, two below", s, c, issue(t, "dev", subsub), subsub, sub, limited)
	}
	zero := issue(t, "Zero", root, asCA, pathLen(0))
	again := issue(t, "Zero", zero, asCA)
	under("path length, its own new key below", pass, "", issue(t, "dev", again), again, zero, root)
	differs("error", "OpenSSL takes what is its own issuer for self-signed, and looks no further")
	plain := issue(t, "Plain", root)
	under("no CA signs", fail, notCA, issue(t, "dev", plain), plain, root)
	bare := issue(t, "Bare", root, func(c *x509.Certificate, _ *crypto.Signer) { c.BasicConstraintsValid = false })
	under("a CA without basic constraints", fail, notCA, issue(t, "dev", bare), bare, root)
	bareSigner := issue(t, "Bare", root, keyUsage(x509.KeyUsageCertSign), func(c *x509.Certificate, _ *crypto.Signer) { c.BasicConstraintsValid = false })
	under("a CA by key usage only", fail, notCA, issue(t, "dev", bareSigner), bareSigner, root)
	bareRoot := issue(t, "Bare Root", nil, keyUsage(x509.KeyUsageCertSign), func(c *x509.Certificate, _ *crypto.Signer) { c.BasicConstraintsValid = false })
	under("a root by key usage only", pass, "", issue(t, "dev", bareRoot), bareRoot)
	plainRoot := issue(t, "Plain Root", nil)
	under("a root that says it is no CA", fail, notCA, issue(t, "dev", plainRoot), plainRoot)
	mute := issue(t, "Mute", root, asCA, keyUsage(x509.KeyUsageCRLSign))
	under("a CA that may not sign certificates", fail, notCA, issue(t, "dev", mute), mute, root)
	muteRoot := issue(t, "Mute", nil, asCA, keyUsage(x509.KeyUsageCRLSign))
	under("a root that may not sign certificates", fail, notCA, issue(t, "dev", muteRoot), muteRoot)
	old := issue(t, "Old", nil, asCA)
	oldRoot := &authority{asVersion1(t, old.cert, old.key), old.key}
	under("a root of version 1", pass, "", issue(t, "dev", withoutKeyID(oldRoot)), oldRoot)
	oldOne := issue(t, "Old One", root, asCA)
	oldCA := &authority{asVersion1(t, oldOne.cert, root.key), oldOne.key}
	under("a CA of version 1", fail, notCA, issue(t, "dev", withoutKeyID(oldCA)), oldCA, root)

	// Name constraints.
	for _, c := range []struct {
		name string
		tree []byte
		leaf edit
		want device.Status
	}{
		{"DNS permitted", subtrees(0, base(2, false, []byte("example.com"))), dnsNames("a.example.com", "example.com", "EXAMPLE.com"), pass},
		{"DNS not permitted", subtrees(0, base(2, false, []byte("example.com"))), dnsNames("a.example.com", "badexample.com"), fail},
		{"DNS permitted, two trees", subtrees(0, base(2, false, []byte("example.com")), base(2, false, []byte("example.org"))), dnsNames("a.example.com", "b.example.org"), pass},
		{"DNS permitted, other kinds are free", subtrees(0, base(2, false, []byte("example.com"))), emails("a@example.org"), pass},
		{"DNS excluded", subtrees(1, base(2, false, []byte("example.com"))), dnsNames("a.example.com"), fail},
		{"DNS not excluded", subtrees(1, base(2, false, []byte("example.com"))), dnsNames("example.org"), pass},
		{"DNS below only", subtrees(0, base(2, false, []byte(".example.com"))), dnsNames("a.example.com"), pass},
		{"DNS all excluded", subtrees(1, base(2, false, nil)), dnsNames("a.example"), fail},
		{"e-mail of a host", subtrees(0, base(1, false, []byte("example.com"))), emails("a@EXAMPLE.com"), pass},
		{"e-mail of another host", subtrees(0, base(1, false, []byte("example.com"))), emails("a@mail.example.com"), fail},
		{"e-mail of a domain", subtrees(0, base(1, false, []byte(".example.com"))), emails("a@mail.example.com"), pass},
		{"e-mail of its host", subtrees(0, base(1, false, []byte(".example.com"))), emails("a@example.com"), fail},
		{"e-mail of a mailbox", subtrees(0, base(1, false, []byte("a@example.com"))), emails("a@example.com"), pass},
		{"e-mail of another mailbox", subtrees(0, base(1, false, []byte("a@example.com"))), emails("b@example.com"), fail},
		{"URI of a host", subtrees(0, base(6, false, []byte("example.com"))), uri("https://example.com:8443/x"), pass},
		{"URI of another host", subtrees(0, base(6, false, []byte("example.com"))), uri("https://a.example.com/"), fail},
		{"URI of a domain", subtrees(0, base(6, false, []byte(".example.com"))), uri("spiffe://a.example.com/x"), pass},
		{"URI excluded", subtrees(1, base(6, false, []byte(".example.com"))), uri("https://a.example.com/"), fail},
		{"IP within", subtrees(0, base(7, false, []byte{10, 0, 0, 0, 255, 0, 0, 0})), ips("10.1.2.3"), pass},
		{"IP without", subtrees(0, base(7, false, []byte{10, 0, 0, 0, 255, 0, 0, 0})), ips("11.1.2.3"), fail},
		{"IP of another family", subtrees(0, base(7, false, []byte{10, 0, 0, 0, 255, 0, 0, 0})), ips("2001:db8::1"), fail},
		{"IP excluded", subtrees(1, base(7, false, []byte{10, 0, 0, 0, 255, 0, 0, 0})), ips("10.1.2.3"), fail},
		{"directory name within", subtrees(0, base(4, true, directory(pkix.Name{Organization: []string{"ACME"}}))), named(pkix.Name{Organization: []string{"ACME"}, CommonName: "dev"}), pass},
		{"directory name in another case", subtrees(0, base(4, true, directory(pkix.Name{Organization: []string{"acme  "}}))), named(pkix.Name{Organization: []string{"ACME"}, CommonName: "dev"}), pass},
		{"directory name without", subtrees(0, base(4, true, directory(pkix.Name{Organization: []string{"ACME"}}))), named(pkix.Name{Organization: []string{"Other"}, CommonName: "dev"}), fail},
		{"directory name excluded", subtrees(1, base(4, true, directory(pkix.Name{Organization: []string{"ACME"}}))), named(pkix.Name{Organization: []string{"ACME"}, CommonName: "dev"}), fail},
		{"directory name not excluded", subtrees(1, base(4, true, directory(pkix.Name{Organization: []string{"ACME"}}))), named(pkix.Name{Organization: []string{"Other"}}), pass},
		{"registered ID, no such name", subtrees(0, base(8, false, []byte{0x2a, 0x03})), dnsNames("a.example"), pass},
		{"registered ID", subtrees(0, base(8, false, []byte{0x2a, 0x03})), withExtension(oidSubjectAltName, false, general(8, false, []byte{0x2a, 0x03, 0x04})), undecided},
	} {
		for _, critical := range []bool{true, false} {
			ca := issue(t, "Constrained", root, asCA, withExtension(oidNameConstraints, critical, c.tree))
			code := map[device.Status]device.ReasonCode{fail: constraint, undecided: unknownExt}[c.want]
			if !critical && len(all)%3 != 0 {
				continue // it makes no difference; some of them are enough
			}
			under(c.name, c.want, code, issue(t, "dev", ca, c.leaf), ca, root)
		}
	}
	constrainedRoot := issue(t, "Constrained Root", nil, asCA, withExtension(oidNameConstraints, true, subtrees(0, base(2, false, []byte("example.com")))))
	free := issue(t, "Free", constrainedRoot, asCA)
	under("constraints of the root", fail, constraint, issue(t, "dev", free, dnsNames("example.org")), free, constrainedRoot)
	under("constraints of the root kept", pass, "", issue(t, "dev", free, dnsNames("www.example.com")), free, constrainedRoot)

	// Extended key usage.
	for _, c := range []struct {
		name     string
		ca, leaf []x509.ExtKeyUsage
		want     device.Status
	}{
		{"client under client", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, pass},
		{"client under both", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, pass},
		{"both under client", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, pass},
		{"client under server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, fail},
		{"unsaid under server", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil, fail},
		{"unsaid under code signing", []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, nil, fail},
		{"client under unsaid", nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, pass},
	} {
		ca := issue(t, "For", root, asCA, extUsage(c.ca...))
		code := map[device.Status]device.ReasonCode{fail: constraint}[c.want]
		under(c.name, c.want, code, issue(t, "dev", ca, extUsage(c.leaf...)), ca, root)
	}
	anyCA := issue(t, "For any", root, asCA, extUsage(x509.ExtKeyUsageAny))
	under("client under any", pass, "", issue(t, "dev", anyCA, extUsage(x509.ExtKeyUsageClientAuth)), anyCA, root)
	differs("error", "OpenSSL 3.0 does not count anyExtendedKeyUsage of a CA; crypto/x509 does")

	// Critical extensions.
	null := []byte{5, 0}
	otherName, _ := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}) // hardwareModuleName, RFC 4108
	otherName = append(otherName, 0xa0, 2, 5, 0)
	for _, c := range []struct {
		name  string
		id    asn1.ObjectIdentifier
		value []byte
		want  device.Status
		other string
	}{
		{"SAN of an otherName", oidSubjectAltName, general(0, true, otherName), pass, ""},
		{"SAN of a directory name", oidSubjectAltName, general(4, true, directory(pkix.Name{SerialNumber: "1"})), pass, ""},
		{"SAN of a registered ID", oidSubjectAltName, general(8, false, []byte{0x2a, 0x03, 0x04}), pass, ""},
		{"Netscape certificate type", oidNetscapeCertType, []byte{3, 2, 7, 0x80}, pass, ""},
		{"certificate policies", asn1.ObjectIdentifier{2, 5, 29, 32}, []byte{0x30, 8, 0x30, 6, 6, 4, 0x55, 0x1d, 0x20, 0}, pass, ""},
		{"CRL distribution points", asn1.ObjectIdentifier{2, 5, 29, 31}, []byte{0x30, 0x0c, 0x30, 0x0a, 0xa0, 8, 0xa0, 6, 0x86, 4, 'a', ':', '/', 'b'}, pass, ""},
		{"OCSP noCheck", asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}, null, pass, ""},
		{"inhibit anyPolicy", asn1.ObjectIdentifier{2, 5, 29, 54}, []byte{2, 1, 0}, pass, ""},
		{"subject directory attributes", asn1.ObjectIdentifier{2, 5, 29, 9}, []byte{0x30, 0}, pass, "they bound nothing"},
		{"DICE TcbInfo", asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}, []byte{0x30, 0}, undecided, ""},
		{"private key usage period", asn1.ObjectIdentifier{2, 5, 29, 16}, []byte{0x30, 0}, undecided, ""},
		{"issuer alternative name", asn1.ObjectIdentifier{2, 5, 29, 18}, general(2, false, []byte("ca.example")), undecided, ""},
		{"one of a company", asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, null, undecided, ""},
	} {
		code := map[device.Status]device.ReasonCode{undecided: unknownExt}[c.want]
		under("critical: "+c.name, c.want, code, issue(t, "dev", one, withExtension(c.id, true, c.value)), one, root)
		if c.other != "" {
			differs("error", c.other)
		}
		if !c.id.Equal(oidNetscapeCertType) { // that of a client is no CA's
			ca := issue(t, "Special", root, asCA, withExtension(c.id, true, c.value))
			under("critical in the CA: "+c.name, c.want, code, issue(t, "dev", ca), ca, root)
			if c.other != "" {
				differs("error", c.other)
			}
		}
		if c.want == undecided {
			ca := issue(t, "Special", nil, asCA, withExtension(c.id, true, c.value))
			under("critical in the root: "+c.name, c.want, code, issue(t, "dev", ca), ca)
		}
		under("not critical: "+c.name, pass, "", issue(t, "dev", one, withExtension(c.id, false, c.value)), one, root)
	}

	// Names.
	ca := issue(t, "Test CA", nil, asCA)
	for what, name := range map[string][]byte{
		"PrintableString": commonName(19, "Test CA"), "T61String": commonName(20, "Test CA"), "BMPString": commonName(30, "\x00T\x00e\x00s\x00t\x00 \x00C\x00A"),
		"case": commonName(12, "test ca"), "spaces": commonName(12, " Test   CA "), "all at once": commonName(22, "TEST  ca "),
	} {
		under("issuer's name: "+what, pass, "", issue(t, "dev", withoutKeyID(renamed(ca, name))), ca)
		sub := issue(t, "Sub", renamed(ca, name), asCA)
		under("CA's issuer's name: "+what, pass, "", issue(t, "dev", sub), sub, ca)
		under("issuer's name, forged: "+what, fail, badSignature, &authority{tampered(t, issue(t, "dev", renamed(ca, name)).cert), nil}, ca)
	}
	under("issuer's name: another", fail, unknownCA, issue(t, "dev", withoutKeyID(renamed(ca, commonName(12, "TestCA")))), ca)
	lying := *one.cert
	lying.SubjectKeyId = []byte("another key")
	under("key identifier of another key", pass, "", issue(t, "dev", &authority{&lying, one.key}), one, root)
	differs("error", "RFC 5280 calls the identifier a help; crypto/x509 takes it so, and OpenSSL holds to it")

	// Signatures.
	rsaKey := privateKey(t, "testdata/debian/rsa2048.pem")
	rsaCA := issue(t, "RSA", nil, asCA, onKey(rsaKey))
	for _, a := range []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS} {
		leaf := issue(t, "dev", rsaCA, signedBy(a))
		under(a.String(), pass, "", leaf, rsaCA)
		under(a.String()+", tampered", fail, badSignature, &authority{tampered(t, leaf.cert), leaf.key}, rsaCA)
	}
	for _, c := range []elliptic.Curve{elliptic.P224(), elliptic.P384(), elliptic.P521()} {
		ca := issue(t, "EC", nil, asCA, func(_ *x509.Certificate, k *crypto.Signer) { *k, _ = ecdsa.GenerateKey(c, rand.Reader) })
		want, code := pass, device.ReasonCode("")
		if c == elliptic.P224() {
			want, code = fail, "KEYVET_P224_NOT_ACCEPTED"
		}
		under(c.Params().Name, want, code, issue(t, "dev", ca), ca)
		if c == elliptic.P224() {
			differs("OK", "AWS IoT does not take it")
		}
	}
	edCA := issue(t, "Ed", nil, asCA, func(_ *x509.Certificate, k *crypto.Signer) { _, *k, _ = ed25519.GenerateKey(rand.Reader) })
	under("Ed25519", fail, "KEYVET_ED25519_NOT_ACCEPTED", issue(t, "dev", edCA), edCA)
	differs("OK", "AWS IoT does not take it")
	under("RSA with SHA-1", fail, "KEYVET_SIGNATURE_SHA1", &authority{signedWith(t, issue(t, "dev", rsaCA).cert, sha1WithRSA, rsaKey), nil}, rsaCA)
	differs("OK", "OpenSSL at its level 0 takes SHA-1")

	// Which certificates are there.
	otherKey := issue(t, "One", root, asCA)
	otherOne := issue(t, "One", root, asCA, noKeyIDs)
	dev := issue(t, "dev", one)
	devNoID := issue(t, "dev", withoutKeyID(one))
	add(pathCase{name: "wrong intermediate", leaf: dev.cert, beside: certs(otherKey), given: certs(root), want: fail, code: mismatch})
	add(pathCase{name: "wrong intermediate, no key identifiers", leaf: devNoID.cert, beside: certs(otherOne), given: certs(root), want: fail, code: mismatch})
	add(pathCase{name: "wrong and right intermediate", leaf: dev.cert, beside: certs(otherKey, one), given: certs(root), want: pass})
	add(pathCase{name: "wrong and right intermediate, no key identifiers", leaf: devNoID.cert, beside: certs(otherOne, otherKey, one), given: certs(root), want: pass})
	differs("error", "OpenSSL tries one of the two")
	add(pathCase{name: "intermediate missing", leaf: dev.cert, beside: certs(two), given: certs(root), want: fail, code: unknownCA})
	add(pathCase{name: "root of another name", leaf: dev.cert, beside: certs(one), given: certs(ca), want: fail, code: unknownCA})
	add(pathCase{name: "root of that name only", leaf: dev.cert, beside: certs(one), given: certs(issue(t, "Root", nil, asCA)), want: fail, code: badSignature})
	add(pathCase{name: "two roots of that name", leaf: dev.cert, beside: certs(one), given: certs(issue(t, "Root", nil, asCA), root), want: pass})
	add(pathCase{name: "tampered CA", leaf: dev.cert, beside: []*x509.Certificate{tampered(t, one.cert)}, given: certs(root), want: fail, code: badSignature})
	add(pathCase{name: "tampered leaf", leaf: tampered(t, dev.cert), beside: certs(one), given: certs(root), want: fail, code: badSignature})
	add(pathCase{name: "its own root", leaf: root.cert, given: certs(root), want: pass})
	differs("error", "OpenSSL holds the usage of a leaf against it")
	same := issue(t, "Twin", nil, asCA)
	twin := issue(t, "Twin", withoutKeyID(same), noKeyIDs)
	add(pathCase{name: "leaf of its issuer's name", leaf: twin.cert, given: certs(same), want: pass})
	differs("error", "OpenSSL takes it for self-signed")
	add(pathCase{name: "leaf of its issuer's name, which is not given", leaf: twin.cert, given: certs(root), want: fail, code: badSignature})

	// Cross-signed.
	newRoot := issue(t, "New Root", nil, asCA)
	oldRoot2 := issue(t, "Old Root", nil, asCA)
	cross := issue(t, "New Root", oldRoot2, asCA, onKey(newRoot.key))
	lapsed := issue(t, "New Root", oldRoot2, asCA, onKey(newRoot.key), valid(now.Add(-2*time.Hour), now.Add(-time.Hour)))
	mid := issue(t, "Mid", newRoot, asCA)
	end := issue(t, "dev", mid)
	for _, c := range []struct {
		name          string
		beside, given []*x509.Certificate
		want          device.Status
		code          device.ReasonCode
	}{
		{"to the new root", certs(mid, cross), certs(newRoot), pass, ""},
		{"to the old root", certs(mid, cross), certs(oldRoot2), pass, ""},
		{"to either", certs(mid, cross), certs(oldRoot2, newRoot), pass, ""},
		{"to either, all there", certs(mid, cross, newRoot, oldRoot2), certs(newRoot, oldRoot2), pass, ""},
		{"to the old root, new one there", certs(mid, newRoot, cross), certs(oldRoot2), pass, ""},
		{"lapsed, to the new root", certs(mid, lapsed), certs(newRoot), pass, ""},
		{"lapsed, to either", certs(mid, lapsed), certs(oldRoot2, newRoot), pass, ""},
		{"lapsed, to the old root", certs(mid, lapsed), certs(oldRoot2), fail, device.ReasonExpired},
		{"lapsed and valid, to the old root", certs(mid, lapsed, cross), certs(oldRoot2), pass, ""},
		{"the cross-certificate is given", certs(mid), certs(cross), pass, ""},
	} {
		add(pathCase{name: "cross-signed: " + c.name, leaf: end.cert, beside: c.beside, given: c.given, want: c.want, code: c.code})
		if c.name == "to the old root, new one there" {
			differs("error", "OpenSSL ends at the root that is there")
		}
	}

	// Validity.
	add(pathCase{name: "expired", leaf: issue(t, "dev", one, valid(now.Add(-2*time.Hour), now.Add(-time.Hour))).cert, beside: certs(one), given: certs(root), want: fail, code: device.ReasonExpired})
	add(pathCase{name: "90 s ahead", leaf: issue(t, "dev", one, valid(now.Add(90*time.Second), now.Add(time.Hour))).cert, beside: certs(one), given: certs(root), want: undecided, code: "KEYVET_CERTIFICATE_NOT_YET_VALID"})
	past := issue(t, "Past", root, asCA, valid(now.Add(-2*time.Hour), now.Add(-time.Hour)))
	under("expired CA", fail, device.ReasonExpired, issue(t, "dev", past), past, root)
	pastRoot := issue(t, "Past Root", nil, asCA, valid(now.Add(-2*time.Hour), now.Add(-time.Hour)))
	renewed := issue(t, "Past Root", nil, asCA, onKey(pastRoot.key))
	under("expired root", fail, device.ReasonExpired, issue(t, "dev", pastRoot), pastRoot)
	add(pathCase{name: "expired root, renewed", leaf: issue(t, "dev", pastRoot).cert, given: certs(pastRoot, renewed), want: pass})
	return all
}

func emails(names ...string) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.EmailAddresses = names }
}

func uri(text string) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) {
		u, err := url.Parse(text)
		if err != nil {
			panic(err)
		}
		c.URIs = []*url.URL{u}
	}
}

func ips(text string) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.IPAddresses = []net.IP{net.ParseIP(text)} }
}

func named(n pkix.Name) edit {
	return func(c *x509.Certificate, _ *crypto.Signer) { c.Subject = n }
}

// TestPaths judges every case, whatever the order of its certificates.
func TestPaths(t *testing.T) {
	for _, c := range pathCases(t) {
		t.Run(c.name, func(t *testing.T) {
			for turn := range max(1, len(c.beside)) {
				beside := slices.Concat(c.beside[turn:], c.beside[:turn])
				k := certified(device.RoleDevice, c.leaf)
				k.Beside = append([]*x509.Certificate{c.leaf}, beside...)
				given := slices.Clone(c.given)
				if turn%2 == 1 {
					slices.Reverse(given)
				}
				status, found := judged(t, k, &Env{Now: now, Roots: given, Blocklist: fullList{}})
				if status != c.want || c.code != "" && !slices.ContainsFunc(found, func(f device.Finding) bool { return f.ReasonCode == c.code }) {
					t.Errorf("turned by %d: %v, want %v %s: %+v", turn, status, c.want, c.code, found)
				}
			}
		})
	}
}

// fullList covers every key, and lists none.
type fullList struct{}

func (fullList) Compromised(device.Key) ([]device.Compromised, bool, error) { return nil, true, nil }

func (fullList) Lookup(context.Context, crypto.PublicKey) (device.Listing, error) {
	return device.Listing{Name: "all", Set: "all", Covered: true}, nil
}

// judged is what the checks on certificates make of a key.
func judged(t testing.TB, k device.Key, env *Env) (device.Status, []device.Finding) {
	t.Helper()
	found := slices.Concat(runChain(t.Context(), k, env), runBelongs(t.Context(), k, env), runExpiry(t.Context(), k, env))
	for _, f := range found {
		if f.ReasonCode != "" && !declares(chain, f.ReasonCode) && !declares(belongs, f.ReasonCode) && !declares(expiry, f.ReasonCode) {
			t.Errorf("undeclared: %+v", f)
		}
	}
	return device.Worst(statuses(found)...), found
}

// TestPathsByOpenSSL holds the cases against openssl verify.
func TestPathsByOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, certs ...*x509.Certificate) string {
		var text []byte
		for _, c := range certs {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cases := pathCases(t)
	if len(cases) < 60 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, c := range cases {
		args := []string{"verify", "-partial_chain", "-purpose", "sslclient", "-attime", unix(now), "-CAfile", write("given.pem", c.given...)}
		if len(c.beside) > 0 {
			args = append(args, "-untrusted", write("beside.pem", c.beside...))
		}
		out, err := exec.Command("openssl", append(args, write("leaf.pem", c.leaf))...).CombinedOutput()
		want := c.openssl
		if want == "" {
			want = "error"
			if c.want == device.Pass || c.want == device.Warn {
				want = "OK"
			}
		}
		if got := map[bool]string{true: "OK", false: "error"}[err == nil]; got != want {
			t.Errorf("%s: OpenSSL says %s, not %s: %s", c.name, got, want, strings.TrimSpace(string(out)))
		}
	}
}

func unix(at time.Time) string { return big.NewInt(at.Unix()).String() }
