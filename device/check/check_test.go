package check

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/keyvet/keyvet/device"
)

// sample is a key, or a TPM, with the answer that one check has to give.
type sample struct {
	check string
	name  string
	key   device.Key
	tpm   *device.TPM
	env   Env
	want  device.Status
	code  device.ReasonCode // of one of the findings that did not pass; "" = none
}

// weakList is a blocklist of two sets that answers as one built in would.
type weakList struct {
	weak  []crypto.PublicKey
	exact bool
	err   error

	compromised bool // there is a list of compromised keys, which has them, too
	reason      device.ReasonCode
}

func (l weakList) Lookup(_ context.Context, pub crypto.PublicKey) (device.Listing, error) {
	algorithm := (device.Key{Public: pub}).Algorithm()
	listing := device.Listing{Name: "Debian weak keys", Set: algorithm, Covered: algorithm == "RSA-2048" || algorithm == "ECDSA-P256", Exact: l.exact}
	if algorithm == "RSA-4096" {
		listing.Looked, listing.Missing = "le32, le64", "be32, ssh-keygen"
	}
	for _, w := range l.weak {
		if k, ok := w.(interface{ Equal(crypto.PublicKey) bool }); ok && k.Equal(pub) {
			listing.Listed, listing.Proof = true, map[string]any{"pid": 13}
		}
	}
	return listing, l.err
}

func (l weakList) Compromised(k device.Key) ([]device.Compromised, bool, error) {
	var entries []device.Compromised
	for _, w := range l.weak {
		if key, ok := w.(interface{ Equal(crypto.PublicKey) bool }); ok && l.compromised && key.Equal(k.Public) {
			entries = append(entries, device.Compromised{Name: "a key", List: "leaked", Cite: "https://example.com/leaked", Reason: l.reason})
		}
	}
	return entries, l.compromised, l.err
}

type advisories []device.Advisory

func (a advisories) Match(device.TPM) []device.Advisory { return a }

func rsaKey(n *big.Int, e int) device.Key {
	return bare(device.RoleDevice, &rsa.PublicKey{N: n, E: e})
}

func largeRSA(n, e *big.Int) device.Key {
	return bare(device.RoleDevice, &device.LargeRSA{N: n, E: e})
}

// nextPrime is the first prime from n on.
func nextPrime(n *big.Int) *big.Int {
	for n = new(big.Int).Set(n); !n.ProbablyPrime(10); {
		n.Add(n, big.NewInt(2))
	}
	return n
}

// ecKey need not be a point of its curve, which [ecdsa.ParseUncompressedPublicKey] would refuse.
func ecKey(c elliptic.Curve, x, y *big.Int) *ecdsa.PublicKey {
	return &ecdsa.PublicKey{Curve: c, X: x, Y: y} //nolint:staticcheck // see above
}

func debianP256(tb testing.TB) *ecdsa.PublicKey {
	tb.Helper()
	line, err := os.ReadFile("testdata/debian/p256.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var x, y *big.Int
	for _, field := range strings.Fields(string(line)) {
		if hex, ok := strings.CutPrefix(field, "x="); ok {
			x, _ = new(big.Int).SetString(hex, 16)
		}
		if hex, ok := strings.CutPrefix(field, "y="); ok {
			y, _ = new(big.Int).SetString(hex, 16)
		}
	}
	return ecKey(elliptic.P256(), x, y)
}

// with is k after an edit.
func with(k device.Key, edit func(*device.Key)) device.Key { edit(&k); return k }

// samples are passing and failing samples of every check.
func samples(t *testing.T) []sample {
	all := weakSamples(t)
	add := func(check, name string, key device.Key, env Env, want device.Status, code device.ReasonCode) {
		if env.Now.IsZero() {
			env.Now = now
		}
		all = append(all, sample{check: check, name: name, key: key, env: env, want: want, code: code})
	}
	good2048 := publishedModulus(t, 2048, false)
	weak2048 := publishedModulus(t, 2048, true)
	p256 := issue(t, "someone", nil).key.Public()

	// roca
	for _, p := range publishedModuli(t) {
		want, code := device.Pass, ""
		if p.exact {
			want, code = device.Fail, device.ReasonROCA
		}
		add("roca", p.name, rsaKey(p.n, 65537), Env{}, want, code)
	}
	add("roca", "any exponent", largeRSA(weak2048, new(big.Int).Lsh(big.NewInt(1), 100)), Env{}, device.Fail, device.ReasonROCA)
	add("roca", "too short to tell", rsaKey(big.NewInt(65537), 3), Env{}, device.NotApplicable, "")
	add("roca", "negative", rsaKey(new(big.Int).Neg(weak2048), 3), Env{}, device.NotApplicable, "")

	// debian
	weakRSA, weakEC := privateKey(t, "testdata/debian/rsa2048.pem"), debianP256(t)
	list := weakList{weak: []crypto.PublicKey{weakRSA.Public(), weakEC}}
	add("debian", "weak RSA", bare(device.RoleDevice, weakRSA.Public()), Env{Blocklist: list}, device.Fail, device.ReasonDebian)
	add("debian", "weak P-256", bare(device.RoleClaim, weakEC), Env{Blocklist: list}, device.Fail, device.ReasonDebian)
	add("debian", "good RSA", rsaKey(good2048, 65537), Env{Blocklist: list}, device.Pass, "")
	add("debian", "good P-256", bare(device.RoleDevice, p256), Env{Blocklist: list}, device.Pass, "")
	add("debian", "large exponent", largeRSA(good2048, new(big.Int).Lsh(big.NewInt(1), 100)), Env{Blocklist: list}, device.Pass, "")
	add("debian", "size not covered", rsaKey(publishedModulus(t, 4096, true), 65537), Env{Blocklist: list}, device.NotApplicable, "")
	add("debian", "size with no set", rsaKey(randomOdd(random(7), 3072), 65537), Env{Blocklist: list}, device.NotApplicable, "")
	add("debian", "no list at all", rsaKey(good2048, 65537), Env{}, device.NotApplicable, "")
	add("debian", "no list", rsaKey(good2048, 65537), Env{BlocklistProblem: "damaged"}, device.Undecided, "KEYVET_BLOCKLIST_UNAVAILABLE")
	add("debian", "list fails", bare(device.RoleDevice, weakRSA.Public()), Env{Blocklist: weakList{err: errors.New("read error")}}, device.Undecided, "KEYVET_BLOCKLIST_UNAVAILABLE")

	all = append(all, sizeSamples(t)...)

	// exponent
	for _, e := range []struct {
		e    int64
		want device.Status
		code device.ReasonCode
	}{
		{65537, device.Pass, ""}, {1<<31 - 1, device.Pass, ""}, {65539, device.Pass, ""},
		{3, device.Warn, "KEYVET_EXPONENT_SMALL"}, {65535, device.Warn, "KEYVET_EXPONENT_SMALL"},
		{1<<31 + 1, device.Warn, "KEYVET_EXPONENT_LARGE"},
		{1, device.Fail, "KEYVET_EXPONENT_ONE"},
		{0, device.Fail, "KEYVET_EXPONENT_INVALID"}, {-3, device.Fail, "KEYVET_EXPONENT_INVALID"}, {65536, device.Fail, "KEYVET_EXPONENT_INVALID"},
	} {
		add("exponent", fmt.Sprint(e.e), largeRSA(good2048, big.NewInt(e.e)), Env{}, e.want, e.code)
	}

	// factors
	p := nextPrime(randomOdd(random(5), 512))
	q := nextPrime(new(big.Int).Add(p, big.NewInt(2)))
	far := nextPrime(new(big.Int).Add(p, new(big.Int).Lsh(big.NewInt(1), 400)))
	for _, f := range []struct {
		name string
		n    *big.Int
		want device.Status
		code device.ReasonCode
	}{
		{"published", publishedNamed(t, "paranoid-good_rsa1"), device.Pass, ""},
		{"far", new(big.Int).Mul(p, far), device.Pass, ""},
		{"even", new(big.Int).Lsh(good2048, 3), device.Fail, "KEYVET_RSA_MODULUS_EVEN"},
		{"two", big.NewInt(2), device.Fail, "KEYVET_RSA_MODULUS_EVEN"},
		{"three", new(big.Int).Mul(good2048, big.NewInt(3)), device.Fail, "KEYVET_RSA_SMALL_FACTOR"},
		{"largest small", new(big.Int).Mul(good2048, big.NewInt(1048573)), device.Fail, "KEYVET_RSA_SMALL_FACTOR"},
		{"beyond small", new(big.Int).Mul(good2048, big.NewInt(1048583)), device.Pass, ""},
		{"square", new(big.Int).Mul(p, p), device.Fail, "KEYVET_RSA_MODULUS_SQUARE"},
		{"close", new(big.Int).Mul(p, q), device.Fail, "KEYVET_RSA_FACTORS_CLOSE"},
		{"one", big.NewInt(1), device.Fail, "KEYVET_RSA_MODULUS_SQUARE"},
		{"zero", new(big.Int), device.Fail, "KEYVET_RSA_MODULUS_INVALID"},
		{"negative", big.NewInt(-15), device.Fail, "KEYVET_RSA_MODULUS_INVALID"},
		{"too long", randomOdd(random(6), 16385), device.Undecided, "KEYVET_RSA_TOO_LONG"},
	} {
		add("factors", f.name, rsaKey(f.n, 65537), Env{}, f.want, f.code)
	}

	// point
	for _, c := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		on := func(x, y *big.Int) device.Key {
			return device.Key{Role: device.RoleDevice, Public: ecKey(c, x, y)}
		}
		name, gx, gy, one := c.Params().Name, c.Params().Gx, c.Params().Gy, big.NewInt(1)
		add("point", name+" off curve", on(gx, new(big.Int).Add(gy, one)), Env{}, device.Fail, "KEYVET_POINT_OFF_CURVE")
		add("point", name+" infinity", on(new(big.Int), new(big.Int)), Env{}, device.Fail, "KEYVET_POINT_AT_INFINITY")
		add("point", name+" nothing", on(nil, nil), Env{}, device.Fail, "KEYVET_POINT_AT_INFINITY")
		add("point", name+" plus p", on(new(big.Int).Add(gx, c.Params().P), gy), Env{}, device.Fail, "KEYVET_POINT_OUT_OF_RANGE")
		add("point", name+" negative", on(gx, new(big.Int).Neg(gy)), Env{}, device.Fail, "KEYVET_POINT_OUT_OF_RANGE")
	}
	add("point", "no curve", bare(device.RoleDevice, ecKey(nil, big.NewInt(1), big.NewInt(1))), Env{}, device.Undecided, "KEYVET_CURVE_UNKNOWN")

	// expiry
	root := issue(t, "Root", nil, asCA)
	issuing := issue(t, "Issuing", root, asCA)
	leaf := issue(t, "device", issuing)
	until := func(to time.Time) *x509.Certificate {
		return issue(t, "device", root, valid(now.Add(-10000*time.Hour), to)).cert
	}
	never := until(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))
	oldCA := issue(t, "Old", root, asCA, valid(now.Add(-time.Hour), now.Add(-time.Second)))
	add("expiry", "valid", certified(device.RoleDevice, leaf.cert, issuing.cert, root.cert), Env{}, device.Pass, "")
	add("expiry", "no expiry", certified(device.RoleDevice, never), Env{}, device.Pass, "")
	add("expiry", "past", certified(device.RoleDevice, until(now.Add(-time.Second))), Env{}, device.Fail, device.ReasonExpired)
	add("expiry", "to the second", certified(device.RoleDevice, until(now)), Env{}, device.Warn, device.ReasonExpiring)
	add("expiry", "within 30 days", certified(device.RoleDevice, until(now.Add(719*time.Hour))), Env{}, device.Warn, device.ReasonExpiring)
	add("expiry", "after 30 days", certified(device.RoleDevice, until(now.Add(721*time.Hour))), Env{}, device.Pass, "")
	add("expiry", "own warning", certified(device.RoleDevice, until(now.Add(719*time.Hour))), Env{ExpiryWarning: time.Hour}, device.Pass, "")
	add("expiry", "not yet", certified(device.RoleDevice, issue(t, "device", root, valid(now.Add(time.Hour), now.Add(9000*time.Hour))).cert), Env{}, device.Undecided, "KEYVET_CERTIFICATE_NOT_YET_VALID")
	add("expiry", "CA past", certified(device.RoleDevice, issue(t, "device", oldCA).cert, oldCA.cert), Env{}, device.Fail, device.ReasonExpired)
	add("expiry", "clock never set", certified(device.RoleDevice, leaf.cert), Env{Now: time.Unix(1000, 0)}, device.Undecided, "KEYVET_CLOCK_IMPLAUSIBLE")

	// chain
	rsaSigner := privateKey(t, "testdata/debian/rsa2048.pem")
	rsaRoot := issue(t, "RSA Root", nil, asCA, onKey(rsaSigner))
	rsaLeaf := issue(t, "device", rsaRoot).cert
	rocaCA := issue(t, "ROCA", nil, asCA, onKey(privateKey(t, "testdata/roca/privkey05.pem")))
	impostor := issue(t, "Root", nil, asCA)
	notCA := issue(t, "No CA", root)
	noSign := issue(t, "No cert sign", root, asCA, func(c *x509.Certificate, _ *crypto.Signer) { c.KeyUsage = x509.KeyUsageCRLSign })
	narrow := issue(t, "Narrow", root, asCA, func(c *x509.Certificate, _ *crypto.Signer) {
		c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.com"}, true
	})
	outside := issue(t, "device", narrow, func(c *x509.Certificate, _ *crypto.Signer) { c.DNSNames = []string{"example.org"} })
	inside := issue(t, "device", narrow, func(c *x509.Certificate, _ *crypto.Signer) { c.DNSNames = []string{"a.example.com"} })
	short := issue(t, "Short", root, asCA, func(c *x509.Certificate, _ *crypto.Signer) { c.MaxPathLenZero = true })
	below := issue(t, "Below", short, asCA)
	rollover := issue(t, "Root", root, asCA, func(c *x509.Certificate, _ *crypto.Signer) { c.AuthorityKeyId = root.cert.SubjectKeyId })
	edCA := issue(t, "Ed25519 CA", nil, asCA, func(_ *x509.Certificate, k *crypto.Signer) { _, *k, _ = ed25519.GenerateKey(rand.Reader) })
	selfMade := issue(t, "self", nil)
	list = weakList{}
	roots := []*x509.Certificate{impostor.cert, root.cert}
	other := []*x509.Certificate{issue(t, "Other", nil, asCA).cert}
	whole := certified(device.RoleDevice, leaf.cert, issuing.cert, root.cert)
	for _, c := range []struct {
		name string
		key  device.Key
		env  Env
		want device.Status
		code device.ReasonCode
	}{
		{"with its root", whole, Env{Roots: roots}, device.Pass, ""},
		{"to a root, same name beside", certified(device.RoleDevice, leaf.cert, issuing.cert), Env{Roots: roots}, device.Pass, ""},
		{"given intermediate", certified(device.RoleDevice, leaf.cert), Env{Roots: []*x509.Certificate{issuing.cert}}, device.Pass, ""},
		{"given intermediate in the chain", whole, Env{Roots: []*x509.Certificate{issuing.cert}}, device.Pass, ""},
		{"no roots given", whole, Env{}, device.Pass, ""},
		{"leaf alone", certified(device.RoleDevice, leaf.cert), Env{}, device.Pass, ""},
		{"self-signed", certified(device.RoleDevice, selfMade.cert), Env{}, device.Pass, ""},
		{"claim of another CA", certified(device.RoleClaim, leaf.cert), Env{Roots: other}, device.Pass, ""},
		{"expired CA is for expiry", certified(device.RoleDevice, issue(t, "device", oldCA).cert, oldCA.cert), Env{Roots: roots}, device.Pass, ""},
		{"CA expired before it was issued", certified(device.RoleDevice, issue(t, "device", oldCA, valid(now, now.Add(time.Hour))).cert, oldCA.cert), Env{}, device.Pass, ""},
		{"new key of the same CA", certified(device.RoleDevice, issue(t, "device", rollover).cert, rollover.cert), Env{}, device.Pass, ""},
		{"root by SHA-1", certified(device.RoleDevice, rsaLeaf, signedWith(t, rsaRoot.cert, sha1WithRSA, rsaSigner)), Env{}, device.Pass, ""},
		{"name allowed", certified(device.RoleDevice, inside.cert, narrow.cert, root.cert), Env{}, device.Pass, ""},

		{"unknown CA", certified(device.RoleDevice, leaf.cert, issuing.cert), Env{Roots: other}, device.Fail, "KEYVET_CHAIN_UNKNOWN_CA"},
		{"unknown CA of a file", certified(device.RoleFile, leaf.cert, issuing.cert), Env{Roots: other}, device.Warn, "KEYVET_CHAIN_UNKNOWN_CA"},
		{"CA of that name only", certified(device.RoleDevice, leaf.cert, issuing.cert), Env{Roots: []*x509.Certificate{impostor.cert}}, device.Fail, "KEYVET_CERTIFICATE_SIGNATURE_INVALID"},
		{"tampered leaf", certified(device.RoleFile, tampered(t, leaf.cert), issuing.cert), Env{}, device.Fail, "KEYVET_CERTIFICATE_SIGNATURE_INVALID"},
		{"tampered leaf, issuer given", certified(device.RoleFile, tampered(t, leaf.cert)), Env{Roots: []*x509.Certificate{issuing.cert}}, device.Fail, "KEYVET_CERTIFICATE_SIGNATURE_INVALID"},
		{"tampered self-signed", certified(device.RoleFile, tampered(t, selfMade.cert)), Env{}, device.Fail, "KEYVET_CERTIFICATE_SIGNATURE_INVALID"},
		{"out of order", certified(device.RoleDevice, leaf.cert, root.cert, issuing.cert), Env{}, device.Pass, ""},
		{"issuer not there", certified(device.RoleDevice, leaf.cert, root.cert), Env{}, device.Pass, ""},
		{"issuer is no CA", certified(device.RoleDevice, issue(t, "device", notCA).cert, notCA.cert), Env{}, device.Fail, "KEYVET_ISSUER_NOT_CA"},
		{"issuer may not sign", certified(device.RoleDevice, issue(t, "device", noSign).cert, noSign.cert), Env{}, device.Fail, "KEYVET_ISSUER_NOT_CA"},
		{"name not allowed", certified(device.RoleDevice, outside.cert, narrow.cert, root.cert), Env{}, device.Fail, "KEYVET_CHAIN_CONSTRAINT"},
		{"path too long", certified(device.RoleDevice, issue(t, "device", below).cert, below.cert, short.cert, root.cert), Env{}, device.Fail, "KEYVET_CHAIN_CONSTRAINT"},
		{"SHA-1", certified(device.RoleDevice, signedWith(t, rsaLeaf, sha1WithRSA, rsaSigner)), Env{}, device.Fail, "KEYVET_SIGNATURE_SHA1"},
		{"SHA-1, issuer there", certified(device.RoleDevice, signedWith(t, rsaLeaf, sha1WithRSA, rsaSigner), rsaRoot.cert), Env{}, device.Fail, "KEYVET_SIGNATURE_SHA1"},
		{"MD5", certified(device.RoleDevice, signedWith(t, rsaLeaf, md5WithRSA, rsaSigner), rsaRoot.cert), Env{}, device.Fail, "KEYVET_SIGNATURE_MD5"},
		{"MD2", certified(device.RoleDevice, signedWith(t, rsaLeaf, md2WithRSA, rsaSigner)), Env{}, device.Fail, "KEYVET_SIGNATURE_MD2"},
		{"unknown algorithm", certified(device.RoleDevice, signedWith(t, rsaLeaf, 99, rsaSigner), rsaRoot.cert), Env{}, device.Undecided, "KEYVET_SIGNATURE_UNKNOWN"},
		{"other key", with(whole, func(k *device.Key) { k.SPKI = root.cert.RawSubjectPublicKeyInfo }), Env{}, device.Fail, "KEYVET_KEY_CERTIFICATE_MISMATCH"},
		{"odd encoding", with(certified(device.RoleFile, leaf.cert, issuing.cert), func(k *device.Key) { k.Encoding = "negative serial number" }), Env{}, device.Warn, "KEYVET_CERTIFICATE_ENCODING"},
		{"odd encoding without a certificate", device.Key{Public: p256, Encoding: "hybrid"}, Env{}, device.Warn, "KEYVET_CERTIFICATE_ENCODING"},
		{"unparsable", device.Key{Public: p256, CertificateError: "x509: negative serial number"}, Env{}, device.Undecided, "KEYVET_CERTIFICATE_UNPARSABLE"},
		{"ROCA CA", certified(device.RoleDevice, issue(t, "device", rocaCA).cert, rocaCA.cert), Env{}, device.Fail, device.ReasonROCA},
		{"ROCA root, given", certified(device.RoleDevice, issue(t, "device", rocaCA).cert), Env{Roots: []*x509.Certificate{rocaCA.cert}}, device.Fail, device.ReasonROCA},
		{"Debian CA", certified(device.RoleDevice, rsaLeaf, rsaRoot.cert), Env{Blocklist: weakList{weak: []crypto.PublicKey{rsaSigner.Public()}}}, device.Fail, device.ReasonDebian},
		{"Ed25519 CA", certified(device.RoleDevice, issue(t, "device", edCA).cert, edCA.cert), Env{}, device.Fail, "KEYVET_ED25519_NOT_ACCEPTED"},
		{"CA not looked up", certified(device.RoleDevice, rsaLeaf, rsaRoot.cert), Env{Blocklist: weakList{err: errors.New("read error")}}, device.Undecided, "KEYVET_BLOCKLIST_UNAVAILABLE"},
	} {
		if c.env.Blocklist == nil {
			c.env.Blocklist = list
		}
		add("chain", c.name, c.key, c.env, c.want, c.code)
	}
	chainSamples(t, add)

	// revoked
	later, before := now.Add(24*time.Hour), now.Add(-24*time.Hour)
	scoped := []pkix.Extension{{Id: oidIssuingDistributionPoint, Critical: true, Value: []byte{0x30, 0x03, 0x81, 0x01, 0xff}}}   // onlyContainsUserCerts
	indirect := []pkix.Extension{{Id: oidIssuingDistributionPoint, Critical: true, Value: []byte{0x30, 0x03, 0x84, 0x01, 0xff}}} // indirectCRL
	delta := []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{0x02, 0x01, 0x01}}}
	add("revoked", "no CRL", whole, Env{}, device.NotApplicable, "")
	add("revoked", "CRL of another CA", whole, Env{CRLs: crlBy(t, issue(t, "Other", nil, asCA), later, nil)}, device.NotApplicable, "")
	add("revoked", "not in it", whole, Env{CRLs: crlBy(t, issuing, later, nil, root.cert)}, device.Pass, "")
	add("revoked", "in it", whole, Env{CRLs: crlBy(t, issuing, later, nil, root.cert, leaf.cert)}, device.Fail, device.ReasonRevoked)
	add("revoked", "in it, issuer from the roots", certified(device.RoleDevice, leaf.cert), Env{CRLs: crlBy(t, issuing, later, nil, leaf.cert), Roots: []*x509.Certificate{issuing.cert}}, device.Fail, device.ReasonRevoked)
	add("revoked", "in a stale one", whole, Env{CRLs: crlBy(t, issuing, before, nil, leaf.cert)}, device.Fail, device.ReasonRevoked)
	add("revoked", "CA in it", whole, Env{CRLs: crlBy(t, root, later, nil, issuing.cert)}, device.Fail, device.ReasonIssuerRevoked)
	add("revoked", "EK in it", certified(device.RoleEK, leaf.cert), Env{CRLs: crlBy(t, issuing, later, nil, leaf.cert), EKRoots: []*x509.Certificate{issuing.cert}}, device.Fail, device.ReasonRevoked)
	add("revoked", "stale", whole, Env{CRLs: crlBy(t, issuing, before, nil)}, device.Warn, "KEYVET_CRL_STALE")
	add("revoked", "issuer not at hand", certified(device.RoleDevice, leaf.cert), Env{CRLs: crlBy(t, issuing, later, nil)}, device.Undecided, "KEYVET_CRL_UNVERIFIED")
	add("revoked", "CRL of another CA of that name", certified(device.RoleDevice, issuing.cert, root.cert), Env{CRLs: crlBy(t, impostor, later, nil, issuing.cert)}, device.NotApplicable, "")
	forged := bytes.Clone(crlBy(t, issuing, later, nil)[0].Raw)
	forged[len(forged)-1] ^= 1
	forgedCRL, err := x509.ParseRevocationList(forged)
	if err != nil {
		t.Fatal(err)
	}
	add("revoked", "forged", whole, Env{CRLs: []*x509.RevocationList{forgedCRL}}, device.Undecided, "KEYVET_CRL_UNVERIFIED")
	add("revoked", "one distribution point", whole, Env{CRLs: crlBy(t, issuing, later, scoped, leaf.cert)}, device.Fail, device.ReasonRevoked)
	add("revoked", "indirect", whole, Env{CRLs: crlBy(t, issuing, later, indirect, leaf.cert)}, device.Undecided, "KEYVET_CRL_UNVERIFIED")
	add("revoked", "delta", whole, Env{CRLs: crlBy(t, issuing, later, delta, leaf.cert)}, device.Undecided, "KEYVET_CRL_UNVERIFIED")

	// shared
	twin := func(role device.Role) []device.Key {
		return []device.Key{whole, {ID: "twin", Role: role, SPKI: whole.SPKI}, {ID: "nobody", Role: role}}
	}
	add("shared", "alone", whole, Env{Keys: []device.Key{whole, rsaKey(good2048, 3)}}, device.Pass, "")
	add("shared", "found again in a file", whole, Env{Keys: twin(device.RoleFile)}, device.Pass, "")
	add("shared", "found again in the TPM", whole, Env{Keys: twin(device.RolePersistent)}, device.Pass, "")
	for _, role := range []device.Role{device.RoleClaim, device.RoleAK, device.RoleEK, device.RoleSRK, device.RoleCA, device.RoleSSH} {
		add("shared", string(role), whole, Env{Keys: twin(role)}, device.Fail, "KEYVET_KEY_SHARED")
	}

	all = append(all, permissionsSamples(t)...)

	// proof
	for name, tt := range map[string]struct {
		proof device.Proof
		want  device.Status
		code  device.ReasonCode
	}{
		"signed":       {device.Proof{Signed: true}, device.Pass, ""},
		"gone":         {device.Proof{Gone: true, Why: "cleared"}, device.Fail, "KEYVET_PRIVATE_KEY_GONE"},
		"no answer":    {device.Proof{Why: "timed out"}, device.Undecided, "KEYVET_PRIVATE_KEY_NOT_PROVEN"},
		"nothing said": {device.Proof{}, device.Undecided, "KEYVET_PRIVATE_KEY_NOT_PROVEN"},
	} {
		k := bare(device.RoleDevice, p256)
		k.Private = &device.PrivateFile{Path: "key.pem", Mode: 0o600, SPKI: k.SPKI, Proof: &tt.proof}
		add("proof", name, k, Env{}, tt.want, tt.code)
	}
	unasked := bare(device.RoleDevice, p256)
	unasked.Private = &device.PrivateFile{Path: "key.pem", Mode: 0o600, SPKI: unasked.SPKI, Wrapped: true}
	add("proof", "nobody asked", unasked, Env{}, device.Undecided, "KEYVET_PRIVATE_KEY_NOT_PROVEN")

	// ekcert
	ek := certified(device.RoleEK, leaf.cert)
	none := bare(device.RoleEK, p256)
	oaep := issue(t, "ek", root, onKey(rsaSigner)).cert
	oaepEK := certified(device.RoleEK, asOAEP(t, oaep), root.cert)
	oaepEK.SPKI = oaep.RawSubjectPublicKeyInfo
	add("ekcert", "no roots given", ek, Env{}, device.Pass, "")
	add("ekcert", "to a given intermediate", ek, Env{EKRoots: []*x509.Certificate{root.cert, issuing.cert}}, device.Pass, "")
	add("ekcert", "to a given root", certified(device.RoleEK, leaf.cert, issuing.cert), Env{EKRoots: []*x509.Certificate{root.cert}}, device.Pass, "")
	add("ekcert", "absent", none, Env{Keys: []device.Key{none}}, device.Pass, "")
	add("ekcert", "absent, but another has one", none, Env{Keys: []device.Key{none, ek}, EKRoots: roots}, device.Pass, "")
	add("ekcert", "absent where roots are given", none, Env{Keys: []device.Key{none}, EKRoots: roots}, device.Warn, "KEYVET_EK_CERTIFICATE_ABSENT")
	add("ekcert", "unparsable", with(none, func(k *device.Key) { k.CertificateError = "x509: malformed serial number" }), Env{}, device.Warn, "KEYVET_EK_CERTIFICATE_UNPARSABLE")
	add("ekcert", "odd encoding", with(ek, func(k *device.Key) { k.Encoding = "negative serial number" }), Env{}, device.Warn, "KEYVET_CERTIFICATE_ENCODING")
	add("ekcert", "not this EK's", with(ek, func(k *device.Key) { k.SPKI = none.SPKI }), Env{}, device.Fail, "KEYVET_EK_CERTIFICATE_MISMATCH")
	add("ekcert", "OAEP, tampered by that", oaepEK, Env{}, device.Fail, "KEYVET_CERTIFICATE_SIGNATURE_INVALID")
	add("ekcert", "not to a given root", ek, Env{EKRoots: roots}, device.Fail, "KEYVET_EK_CERTIFICATE_UNKNOWN_CA")
	add("ekcert", "root of that name only", certified(device.RoleEK, leaf.cert, issuing.cert), Env{EKRoots: []*x509.Certificate{impostor.cert}}, device.Fail, "KEYVET_CERTIFICATE_SIGNATURE_INVALID")

	all = append(all, firmwareSamples(t)...)

	// lockout
	infineon := &device.TPM{Family: "2.0", Manufacturer: "IFX", FirmwareVersion: "7.61.2785.0", State: device.TPMOK}
	guarded, open := *infineon, *infineon
	guarded.Clearing, open.Clearing = device.ClearingGuarded, device.ClearingOpen
	relied := func(p device.PrivateFile) []device.Key { return []device.Key{{Role: device.RoleDevice, Private: &p}} }
	wrapped := relied(device.PrivateFile{Path: "key.pem", Wrapped: true})
	for _, f := range []struct {
		name string
		tpm  *device.TPM
		keys []device.Key
		want device.Status
		code device.ReasonCode
	}{
		{"no TPM", nil, wrapped, device.NotApplicable, ""},
		{"absent", &device.TPM{State: device.TPMAbsent}, wrapped, device.NotApplicable, ""},
		{"TPM 1.2", &device.TPM{State: device.TPMOK, Family: "1.2"}, wrapped, device.NotApplicable, ""},
		{"not known", infineon, wrapped, device.NotApplicable, ""},
		{"open, no device key", &open, nil, device.NotApplicable, ""},
		{"open, key in a file", &open, relied(device.PrivateFile{Path: "key.pem", Mode: 0o600}), device.NotApplicable, ""},
		{"open, key file of the TPM", &open, wrapped, device.Warn, "KEYVET_TPM_LOCKOUT_OPEN"},
		{"open, key at a handle", &open, relied(device.PrivateFile{Path: "tpm:0x81000100", Mode: fs.ModeDevice}), device.Warn, "KEYVET_TPM_LOCKOUT_OPEN"},
		{"guarded", &guarded, wrapped, device.Pass, ""},
	} {
		all = append(all, sample{check: "lockout", name: f.name, tpm: f.tpm, env: Env{Keys: f.keys}, want: f.want, code: f.code})
	}
	return append(all, belongsSamples(t)...)
}

// asOAEP is c with id-RSAES-OAEP in place of rsaEncryption for its key, as in
// Infineon's EK certificates.
func asOAEP(t *testing.T, c *x509.Certificate) *x509.Certificate {
	t.Helper()
	pkcs1 := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01}
	return reparse(t, bytes.Replace(c.Raw, append(bytes.Clone(pkcs1), 1), append(bytes.Clone(pkcs1), 7), 1))
}

// repeated returns what of the advice the message has: four words in a row, or a
// sentence that says what to do. People are shown both.
func repeated(message, advice string) string {
	words := func(text string) []string {
		return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	}
	plain := " " + strings.Join(words(message), " ") + " "
	all := words(advice)
	for i := range max(len(all)-3, 0) {
		if some := strings.Join(all[i:i+4], " "); strings.Contains(plain, " "+some+" ") {
			return some
		}
	}
	return regexp.MustCompile(`[:;] (use|replace|make|update|set|put|renew|remove|chmod) .*`).FindString(message)
}

func TestSamples(t *testing.T) {
	provesFactor := func(f device.Finding) bool {
		return f.Status == device.Fail && f.ReasonCode != "KEYVET_RSA_MODULUS_PATTERN" && f.ReasonCode != "KEYVET_RSA_ROCA_VARIANT"
	}
	type tally struct{ good, bad int }
	seen := make(map[string]*tally)
	given := make(map[device.ReasonCode]bool)
	for _, c := range All {
		seen[c.ID] = new(tally)
	}
	for _, s := range samples(t) {
		t.Run(s.check+"/"+s.name, func(t *testing.T) {
			i := slices.IndexFunc(All, func(c Check) bool { return c.ID == s.check })
			if i < 0 {
				t.Fatalf("there is no check %q", s.check)
			}
			c := All[i]
			var found []device.Finding
			if c.RunTPM != nil {
				found = c.RunTPM(s.tpm, &s.env)
			} else {
				if c.Run != nil {
					if !c.Applies(s.key) {
						t.Fatal("does not apply")
					}
					found = c.Run(t.Context(), s.key, &s.env)
				}
				if c.RunAll != nil {
					for _, f := range c.RunAll(t.Context(), s.env.Keys, &s.env) {
						if c.Run == nil || f.Key == s.key.ID {
							found = append(found, f)
						}
					}
				}
			}
			if len(found) == 0 {
				t.Fatal("no finding")
			}
			got, codes := device.NotApplicable, []string{}
			for _, f := range found {
				if n, _, ok := s.key.RSA(); ok && n.Cmp(one) > 0 && s.check == "factors" && provesFactor(f) {
					proof, _ := f.Proof["factor"].(string)
					factor, ok := new(big.Int).SetString(proof, 16)
					if !ok || factor.Cmp(one) <= 0 || new(big.Int).Mod(n, factor).Sign() != 0 || factor.Cmp(n) == 0 && !n.ProbablyPrime(1) {
						t.Errorf("factor %q", proof)
					}
				}
				if got == device.NotApplicable || f.Status != device.NotApplicable {
					got = device.Worst(got, f.Status)
				}
				if f.Status == device.Pass || f.Status == device.NotApplicable {
					if f.ReasonCode != "" || f.Severity != "" {
						t.Errorf("passed with a reason: %+v", f)
					}
				} else {
					codes = append(codes, f.ReasonCode)
					given[f.ReasonCode] = true
					if !declares(c, f.ReasonCode) {
						t.Errorf("the check does not declare its reason %s", f.ReasonCode)
					}
					if r, _ := ReasonOf(c.ID, f.ReasonCode); repeated(f.Message, r.Do) != "" {
						t.Errorf("what to do, %q, is in the message, too: %q", repeated(f.Message, r.Do), f.Message)
					}
				}
				if f.Message == "" || strings.ContainsAny(f.Message, "\n\r") || strings.Contains(f.Message, "%!") {
					t.Errorf("message %q", f.Message)
				}
				if (f.Status == device.Fail || f.Status == device.Warn) && f.Severity == "" {
					t.Errorf("no severity: %+v", f)
				}
			}
			if s.want == device.NotApplicable {
				got = found[0].Status
			}
			if got != s.want || s.code == "" && len(codes) > 0 || s.code != "" && !slices.Contains(codes, s.code) {
				t.Errorf("got %v %v, want %v %q: %+v", got, codes, s.want, s.code, found)
			}
			switch s.want {
			case device.Pass:
				seen[s.check].good++
			case device.Warn, device.Fail:
				seen[s.check].bad++
			}
		})
	}
	for id, n := range seen {
		if n.good == 0 || n.bad == 0 {
			t.Errorf("check %s: %d passing and %d failing samples were seen", id, n.good, n.bad)
		}
	}
	for _, c := range All {
		for _, r := range c.Reasons {
			if code, any := strings.CutSuffix(r.Code, "*"); !given[code] && !any {
				t.Errorf("check %s: no sample gives the reason %s", c.ID, r.Code)
			}
		}
	}
}

// TestCatalogue holds the list against the contract.
// declares reports whether a check, or for chain those of the keys of CAs, has
// the code among its reasons. Reasons of lists are the lists' own.
func declares(c Check, code device.ReasonCode) bool {
	declaring := []Check{c}
	if c.ID == "chain" {
		declaring = append(declaring, OfNumbers...)
	}
	return code == "KEYVET_LEAKED" || slices.ContainsFunc(declaring, func(c Check) bool {
		return slices.ContainsFunc(c.Reasons, func(r device.Reason) bool {
			start, any := strings.CutSuffix(r.Code, "*")
			return r.Code == code || any && strings.HasPrefix(code, start)
		})
	})
}

func TestCatalogue(t *testing.T) {
	contract := []string{"roca", "debian", "compromised", "age", "firmware", "lockout", "size", "exponent", "factors", "point", "expiry", "chain", "belongs", "revoked", "shared", "permissions", "proof", "ekcert"}
	var ids []string
	for _, c := range All {
		ids = append(ids, c.ID)
		if !strings.HasPrefix(c.Cite, "https://") {
			t.Errorf("%s: citation %q", c.ID, c.Cite)
		}
		if c.Asks == "" || len(c.Reasons) == 0 {
			t.Errorf("%s: no question, or no reasons", c.ID)
		}
		for _, r := range c.Reasons {
			if r.Code == "" || !strings.HasSuffix(r.Means, ".") || !strings.HasSuffix(r.Do, ".") || r.Status != device.Undecided && r.Severity == "" && !strings.HasSuffix(r.Code, "*") {
				t.Errorf("%s: incomplete reason %+v", c.ID, r)
			}
		}
		if ofKeys := c.Run != nil || c.RunAll != nil; ofKeys == (c.RunTPM != nil) || (c.Run == nil) != (c.Applies == nil) {
			t.Errorf("%s: asked of keys: %t, of the TPM: %t", c.ID, ofKeys, c.RunTPM != nil)
		}
	}
	slices.Sort(ids)
	slices.Sort(contract)
	if !slices.Equal(ids, contract) {
		t.Errorf("checks %v, the contract has %v", ids, contract)
	}
}

func TestApplies(t *testing.T) {
	leaf := issue(t, "device", nil).cert
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	onStdin := bare(device.RoleFile, ed)
	onStdin.Private = &device.PrivateFile{Path: "-", Mode: 0o666}
	inTPM := bare(device.RoleFile, ed)
	inTPM.Private = &device.PrivateFile{Path: "tpm:0x81000100", Mode: fs.ModeDevice}
	unparsable := bare(device.RoleDevice, ed)
	unparsable.CertificateError = "x509: malformed"
	for _, tt := range []struct {
		key  device.Key
		want string
	}{
		{rsaKey(big.NewInt(15), 3), "roca debian compromised size exponent factors"},
		{largeRSA(big.NewInt(15), big.NewInt(3)), "roca debian compromised size exponent factors"},
		{bare(device.RoleSRK, leaf.PublicKey), "debian compromised size point"},
		{bare(device.RoleSSH, ed), "compromised size point"},
		{bare(device.RoleFile, &device.OtherKey{Algorithm: "DSA-1024"}), "compromised size"},
		{bare(device.RoleFile, nil), "compromised size"},
		{certified(device.RoleClaim, leaf), "debian compromised size point expiry chain belongs revoked"},
		{certified(device.RoleEK, leaf), "debian compromised size point expiry revoked ekcert"},
		{onStdin, "compromised size point belongs"},
		{inTPM, "compromised size point belongs"},
		{device.Key{Role: device.RoleFile, Public: ed, Request: new(device.Answer)}, "compromised size point belongs"},
		{unparsable, "compromised size point chain"},
	} {
		var got []string
		for _, c := range All {
			if c.Run != nil && c.Applies(tt.key) {
				got = append(got, c.ID)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s %s: %v apply, want %s", tt.key.Role, tt.key.Algorithm(), got, tt.want)
		}
	}
}

// allFindings runs everything and holds the answers against what Run promises.
func allFindings(t *testing.T, inv device.Inventory, env *Env) []device.Finding {
	t.Helper()
	found := Run(t.Context(), inv, env)
	asked := make(map[string]bool)
	for _, f := range found {
		if f.Check == "" || f.Key == "" || f.Citation == "" && f.Status != device.Undecided || f.Message == "" || f.ReasonCode == "KEYVET_NOT_CHECKED" {
			t.Errorf("incomplete: %+v", f)
		}
		if len([]rune(f.Message)) > 501 || strings.ContainsFunc(f.Message, unicode.IsControl) {
			t.Errorf("message %q", f.Message)
		}
		asked[f.Check+" "+f.Key] = true
	}
	for _, c := range All {
		if c.RunTPM != nil && !asked[c.ID+" "+device.TPMKeyID] {
			t.Errorf("%s gave no answer on the TPM", c.ID)
		}
		for _, k := range inv.Keys {
			if c.Run != nil && c.Applies(k) && !asked[c.ID+" "+k.ID] {
				t.Errorf("%s gave no answer on %s", c.ID, k.ID)
			}
		}
	}
	return found
}

// TestOnly asks some of the checks.
func TestOnly(t *testing.T) {
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	weak, other := rsaKey(publishedModulus(t, 2048, true), 3), bare(device.RoleFile, ed)
	weak.ID, other.ID = "weak", "other"
	inv := device.Inventory{TPM: &device.TPM{State: device.TPMAbsent}, Keys: []device.Key{weak, other}}
	found := Run(t.Context(), inv, &Env{Now: now, Only: []string{"roca"}})
	if len(found) != 2 || found[0].Key != "weak" || found[0].Status != device.Fail || found[1].Key != "other" || found[1].Status != device.Pass {
		t.Errorf("found %+v", found)
	}
	if found := Run(t.Context(), inv, &Env{Now: now, Only: []string{"firmware", "exponent"}}); len(found) != 3 || found[0].Check != "firmware" || found[1].Check != "exponent" {
		t.Errorf("found %+v", found)
	}
}

func TestRun(t *testing.T) {
	root := issue(t, "Root", nil, asCA)
	leaf := certified(device.RoleDevice, issue(t, "device", root).cert, root.cert)
	claim := leaf
	claim.ID, claim.Role = "claim", device.RoleClaim
	weak := rsaKey(publishedModulus(t, 2048, true), 65537)
	weak.ID, weak.Role, weak.Source = "srk", device.RoleSRK, "tpm:0x81000001"
	fixed := device.Advisory{ID: "a", CVE: cveROCA, Source: "https://example.com/a"}
	inv := device.Inventory{TPM: &device.TPM{Manufacturer: "IFX", FirmwareVersion: "7.85.4555.0", State: device.TPMOK}, Keys: []device.Key{leaf, claim, weak}}
	env := &Env{Now: now, Blocklist: weakList{}, Advisories: advisories{fixed}}
	found := allFindings(t, inv, env)
	want := map[string]device.ReasonCode{"firmware tpm": device.ReasonROCA, "shared k": "KEYVET_KEY_SHARED", "roca srk": device.ReasonROCA}
	for _, f := range found {
		if f.Status == device.Fail {
			if want[f.Check+" "+f.Key] != f.ReasonCode {
				t.Errorf("unexpected: %+v", f)
			}
			delete(want, f.Check+" "+f.Key)
		}
		if f.Check == "firmware" && f.Citation != fixed.Source {
			t.Errorf("the advisory is not cited: %+v", f)
		}
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
	if env.Keys != nil {
		t.Error("the environment was changed")
	}

	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range Run(done, inv, env) {
		if f.Status != device.Undecided || f.ReasonCode != "KEYVET_NOT_CHECKED" {
			t.Errorf("after the end: %+v", f)
		}
	}
}

// TestRunOnForeignNames has names in a certificate that would deface a
// terminal or fill up a report.
func TestRunOnForeignNames(t *testing.T) {
	for _, name := range []string{"a\nPASS\x1b[2J", strings.Repeat("x", 100000), "\u202e"} {
		edit := func(c *x509.Certificate, _ *crypto.Signer) { c.NotAfter = now.Add(-time.Minute) }
		ca := issue(t, name, nil, asCA, edit)
		leaf := issue(t, name+"2", ca, edit)
		found := allFindings(t, device.Inventory{Keys: []device.Key{certified(device.RoleDevice, leaf.cert, ca.cert)}}, &Env{Now: now})
		if !slices.ContainsFunc(found, func(f device.Finding) bool { return strings.Contains(f.Message, "the CA certificate CN=") }) {
			t.Errorf("%.20q: no message has the name", name)
		}
	}
}

// TestProof looks at what lets others see for themselves.
func TestProof(t *testing.T) {
	p := nextPrime(randomOdd(random(7), 512))
	n := new(big.Int).Mul(p, nextPrime(new(big.Int).Add(p, big.NewInt(2))))
	for _, n := range []*big.Int{n, new(big.Int).Mul(p, p), new(big.Int).Mul(p, big.NewInt(65521)), new(big.Int).Lsh(p, 1)} {
		f := runFactors(t.Context(), rsaKey(n, 3), &Env{})[0]
		factor, ok := new(big.Int).SetString(fmt.Sprint(f.Proof["factor"]), 16)
		if !ok || factor.Cmp(big.NewInt(1)) <= 0 || factor.Cmp(n) >= 0 || new(big.Int).Mod(n, factor).Sign() != 0 {
			t.Errorf("%v does not prove that %x is factored", f.Proof, n)
		}
	}
	weak := privateKey(t, "testdata/debian/rsa2048.pem").Public()
	for _, exact := range []bool{true, false} {
		f := runDebian(t.Context(), bare(device.RoleDevice, weak), &Env{Blocklist: weakList{weak: []crypto.PublicKey{weak}, exact: exact}})[0]
		if f.Proof["pid"] != 13 || f.Severity != device.Critical || !strings.Contains(f.Message, `"Debian weak keys" (set RSA-2048)`) {
			t.Errorf("incomplete: %+v", f)
		}
		if strings.Contains(f.Message, "filter") == exact {
			t.Errorf("exact %v: %s", exact, f.Message)
		}
	}
}

func FuzzRun(f *testing.F) {
	root := issue(f, "Root", nil, asCA)
	leaf := issue(f, "device", root)
	rsaLeaf := issue(f, "device", root, onKey(privateKey(f, "testdata/debian/rsa2048.pem")))
	crl := crlBy(f, root, now, nil, leaf.cert)[0]
	for _, c := range []*authority{root, leaf, rsaLeaf} {
		f.Add(c.cert.Raw, crl.Raw, c.cert.RawSubjectPublicKeyInfo, []byte{3})
	}
	for _, p := range publishedModuli(f) {
		f.Add([]byte{}, []byte{}, p.n.Bytes(), []byte{1, 0, 1})
	}
	f.Fuzz(func(t *testing.T, cert, list, number, e []byte) {
		if len(number) > 300 {
			return
		}
		env := &Env{Now: now, Blocklist: weakList{}, Roots: []*x509.Certificate{root.cert}, EKRoots: []*x509.Certificate{root.cert}}
		if crl, err := x509.ParseRevocationList(list); err == nil {
			env.CRLs = append(env.CRLs, crl)
		}
		raw := largeRSA(new(big.Int).SetBytes(number), new(big.Int).SetBytes(e))
		raw.SPKI = number
		inv := device.Inventory{Keys: []device.Key{raw}}
		if c, err := x509.ParseCertificate(cert); err == nil {
			for _, role := range []device.Role{device.RoleDevice, device.RoleEK, device.RoleFile} {
				k := certified(role, c, root.cert)
				k.ID = string(role)
				inv.Keys = append(inv.Keys, k)
			}
		}
		allFindings(t, inv, env)
	})
}
