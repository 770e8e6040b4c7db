package check

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
)

// chainSamples are those of the checks on certificates that the cases of
// [pathCases] do not have: other roles than the device's, and how it is said.
func chainSamples(t *testing.T, add func(check, name string, key device.Key, env Env, want device.Status, code device.ReasonCode)) {
	root := issue(t, "Root", nil, asCA)
	issuing := issue(t, "Issuing", root, asCA)
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	tcbInfo := withExtension(asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}, true, []byte{0x30, 0})
	roots := []*x509.Certificate{root.cert}

	// What cannot be judged, whoever's it is, and whether or not the issuer is there.
	alias := issue(t, "dev", issuing, tcbInfo)
	for _, role := range []device.Role{device.RoleDevice, device.RoleFile, device.RoleClaim, device.RoleIDevID} {
		add("chain", "unknown extension, "+string(role), certified(role, alias.cert), Env{}, device.Undecided, "KEYVET_EXTENSION_UNKNOWN")
	}
	add("ekcert", "unknown extension", certified(device.RoleEK, alias.cert, issuing.cert), Env{EKRoots: roots}, device.Undecided, "KEYVET_EXTENSION_UNKNOWN")
	namesake := issue(t, "Issuing", root, asCA)
	add("belongs", "CA of that name only, of a file", certified(device.RoleFile, issue(t, "dev", issuing).cert, namesake.cert), Env{}, device.Fail, "KEYVET_ISSUER_MISMATCH")
	add("belongs", "the same one above", certified(device.RoleFile, issue(t, "dev", issuing).cert, issuing.cert, issue(t, "Root", nil, asCA).cert), Env{}, device.Fail, "KEYVET_ISSUER_MISMATCH")
	add("belongs", "CA in a bundle that names another key", certified(device.RoleFile, issuing.cert, issue(t, "Root", nil, asCA).cert), Env{}, device.Pass, "")
	add("belongs", "CA in a bundle that names no key", certified(device.RoleFile, issue(t, "Issuing", withoutKeyID(root), asCA).cert, issue(t, "Root", nil, asCA).cert), Env{}, device.Fail, "KEYVET_ISSUER_MISMATCH")
	add("belongs", "unrelated CA", certified(device.RoleFile, issue(t, "dev", issuing).cert, root.cert), Env{}, device.Warn, "KEYVET_ISSUER_MISSING")
	add("belongs", "unrelated certificate of no CA", certified(device.RoleFile, issue(t, "dev", issuing).cert, issue(t, "dev 2", issuing).cert), Env{}, device.Pass, "")
	add("belongs", "unrelated CAs of a CA", certified(device.RoleFile, issuing.cert, issue(t, "Other", nil, asCA).cert), Env{}, device.Pass, "")

	// What a file's certificate is for.
	mail := issue(t, "Mail", root, asCA, extUsage(x509.ExtKeyUsageEmailProtection))
	servers := issue(t, "Servers", root, asCA, extUsage(x509.ExtKeyUsageServerAuth))
	for _, tt := range []struct {
		name string
		ca   *authority
		leaf []x509.ExtKeyUsage
		want device.Status
	}{
		{"client under servers", servers, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, device.Fail},
		{"client and server under servers", servers, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, device.Pass},
		{"client and mail under mail", mail, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageEmailProtection}, device.Pass},
		{"client under mail", mail, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, device.Fail},
		{"unsaid under mail", mail, nil, device.Pass},
		{"any under mail", mail, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, device.Pass},
		{"code signing under servers", servers, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, device.Pass},
	} {
		code := map[device.Status]device.ReasonCode{device.Fail: "KEYVET_CHAIN_CONSTRAINT"}[tt.want]
		add("chain", "of a file: "+tt.name, certified(device.RoleFile, issue(t, "dev", tt.ca, extUsage(tt.leaf...)).cert, tt.ca.cert, root.cert), Env{Blocklist: fullList{}}, tt.want, code)
	}

	// So many ways up that not all are tried: each breaks a rule of the root.
	top := issue(t, "Top", nil, asCA, withExtension(oidNameConstraints, true, subtrees(0, base(nameDNS, false, []byte("example.com")))))
	var mesh []*x509.Certificate
	var cas []*authority
	for i := range 6 {
		cas = append(cas, issue(t, fmt.Sprint("Mesh ", i), top, asCA))
		mesh = append(mesh, cas[i].cert)
	}
	for i, ca := range cas {
		for j, by := range cas {
			if i != j {
				mesh = append(mesh, issue(t, fmt.Sprint("Mesh ", i), by, asCA, onKey(ca.key)).cert)
			}
		}
	}
	lost := issue(t, "dev", cas[0], dnsNames("example.org"))
	found := issue(t, "dev", cas[0], dnsNames("www.example.com"))
	given := []*x509.Certificate{top.cert}
	add("chain", "mesh without a way", certified(device.RoleDevice, append([]*x509.Certificate{lost.cert}, mesh...)...), Env{Roots: given}, device.Undecided, "KEYVET_CHAIN_TOO_COMPLEX")
	add("ekcert", "mesh without a way", certified(device.RoleEK, append([]*x509.Certificate{lost.cert}, mesh...)...), Env{EKRoots: given}, device.Undecided, "KEYVET_CHAIN_TOO_COMPLEX")
	add("chain", "mesh with a way", certified(device.RoleDevice, append([]*x509.Certificate{found.cert}, mesh...)...), Env{Roots: given, Blocklist: fullList{}}, device.Pass, "")
	add("chain", "mesh without the root", certified(device.RoleDevice, append([]*x509.Certificate{lost.cert}, mesh...)...), Env{Roots: roots, Blocklist: fullList{}}, device.Fail, "KEYVET_CHAIN_UNKNOWN_CA")

	// In the TPM.
	rsaKey := privateKey(t, "testdata/debian/rsa2048.pem")
	maker := issue(t, "Maker", nil, asCA, onKey(rsaKey))
	makers := []*x509.Certificate{maker.cert}
	sha1 := signedWith(t, issue(t, "", maker).cert, sha1WithRSA, rsaKey)
	add("ekcert", "SHA-1", certified(device.RoleEK, sha1), Env{EKRoots: makers}, device.Warn, "KEYVET_SIGNATURE_SHA1")
	add("ekcert", "MD5", certified(device.RoleEK, signedWith(t, issue(t, "", maker).cert, md5WithRSA, rsaKey)), Env{EKRoots: makers}, device.Warn, "KEYVET_SIGNATURE_MD5")
	add("ekcert", "SHA-1, forged", certified(device.RoleEK, tampered(t, sha1)), Env{EKRoots: makers}, device.Fail, "KEYVET_CERTIFICATE_SIGNATURE_INVALID")
	add("chain", "SHA-1 in the TPM", certified(device.RoleIDevID, sha1, maker.cert), Env{Blocklist: fullList{}}, device.Warn, "KEYVET_SIGNATURE_SHA1")
	add("ekcert", "no CA", certified(device.RoleEK, issue(t, "", issue(t, "Plain", root)).cert), Env{EKRoots: roots}, device.Fail, "KEYVET_EK_CERTIFICATE_UNKNOWN_CA")
	self := issue(t, "Twin", nil, asCA)
	twin := issue(t, "Twin", withoutKeyID(self), noKeyIDs).cert
	add("ekcert", "of its issuer's name", certified(device.RoleEK, twin), Env{EKRoots: []*x509.Certificate{self.cert}}, device.Pass, "")
	add("ekcert", "of its issuer's name, no roots", certified(device.RoleEK, twin), Env{}, device.Pass, "")

	// Validity.
	gone := issue(t, "dev", root, valid(hour(-100), hour(-1)))
	goneCA := issue(t, "Gone", root, asCA, valid(hour(-100), hour(-1)))
	for role, want := range map[device.Role]device.Status{
		device.RoleEK: device.Warn, device.RoleIDevID: device.Warn, device.RoleAK: device.Warn, device.RolePersistent: device.Warn,
		device.RoleDevice: device.Fail, device.RoleClaim: device.Fail, device.RoleFile: device.Fail,
	} {
		add("expiry", "past, "+string(role), certified(role, gone.cert), Env{}, want, device.ReasonExpired)
		add("expiry", "issuer past, "+string(role), certified(role, issue(t, "dev", goneCA).cert, goneCA.cert), Env{}, want, device.ReasonExpired)
	}
	add("expiry", "CA past, in a bundle", certified(device.RoleFile, goneCA.cert), Env{}, device.Warn, device.ReasonExpired)
	add("expiry", "CA past, given", certified(device.RoleCA, goneCA.cert), Env{}, device.Warn, device.ReasonExpired)
	server := certified(device.RoleFile, goneCA.cert)
	server.Private = &device.PrivateFile{SPKI: server.SPKI}
	add("expiry", "CA past, with its key", server, Env{}, device.Fail, device.ReasonExpired)
	for _, tt := range []struct {
		from, to int // hours from now
		want     device.Status
	}{
		{-1, 23, device.Pass}, {-21, 3, device.Pass}, {-22, 2, device.Warn}, {-23, 1, device.Warn}, // 24 h, as step-ca's
		{-7, 1, device.Pass}, {-10, 1, device.Warn}, {-8000, 719, device.Warn}, {-8000, 721, device.Pass},
	} {
		code := map[device.Status]device.ReasonCode{device.Warn: device.ReasonExpiring}[tt.want]
		c := issue(t, "dev", root, valid(hour(tt.from), hour(tt.to))).cert
		add("expiry", fmt.Sprintf("%d h of %d", tt.to, tt.to-tt.from), certified(device.RoleDevice, c), Env{}, tt.want, code)
	}
	soon := issue(t, "dev", root, valid(now.Add(90*time.Second), hour(24)))
	for _, role := range []device.Role{device.RoleDevice, device.RoleFile, device.RoleEK} {
		add("expiry", "90 s ahead, "+string(role), certified(role, soon.cert), Env{}, device.Undecided, "KEYVET_CERTIFICATE_NOT_YET_VALID")
	}
}

// TestChainMessages holds what is said to what a reader has to know.
func TestChainMessages(t *testing.T) {
	root := issue(t, "Root", nil, asCA)
	special := issue(t, "Special", root, asCA, withExtension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, []byte{5, 0}))
	rsaKey := privateKey(t, "testdata/debian/rsa2048.pem")
	maker := issue(t, "Maker", nil, asCA, onKey(rsaKey))
	ek := certified(device.RoleEK, signedWith(t, issue(t, "", maker).cert, sha1WithRSA, rsaKey), maker.cert)
	ek.ID = "tpm-ek-rsa2048"
	pq := signedWith(t, issue(t, "dev", maker).cert, 99, rsaKey)
	for _, tt := range []struct {
		key  device.Key
		env  Env
		want string
	}{
		{certified(device.RoleFile, issue(t, "dev", special).cert, special.cert), Env{}, "CN=Special has critical extensions that keyvet does not know: 1.2.3.4"},
		{certified(device.RoleFile, issue(t, "dev", root, withExtension(asn1.ObjectIdentifier{2, 5, 29, 16}, true, []byte{0x30, 0})).cert), Env{}, "CN=dev has critical extensions that keyvet does not know: 2.5.29.16 (privateKeyUsagePeriod)"},
		{certified(device.RoleFile, pq, maker.cert), Env{}, "the signature of CN=dev by CN=Maker cannot be checked: 1.2.840.113549.1.1.99"},
		{certified(device.RoleFile, issue(t, "dev", special).cert), Env{}, "its issuer CN=Special is not at hand"},
		{certified(device.RoleFile, issue(t, "dev", special).cert, root.cert), Env{}, "no certificate in the file issued it: its issuer CN=Special is not in the file"},
		{certified(device.RoleFile, issue(t, "dev", root).cert, root.cert), Env{}, "leads to CN=Root; whether that is to be trusted was not asked"},
		{ek, Env{EKRoots: []*x509.Certificate{maker.cert}}, "the certificate of tpm-ek-rsa2048 is signed with SHA1"},
	} {
		tt.env.Now, tt.env.Blocklist = now, fullList{}
		var found []device.Finding
		if tt.key.Role == device.RoleEK {
			found = runEKCert(t.Context(), tt.key, &tt.env)
		} else {
			found = append(runChain(t.Context(), tt.key, &tt.env), runBelongs(t.Context(), tt.key, &tt.env)...)
		}
		if !slices.ContainsFunc(found, func(f device.Finding) bool { return strings.Contains(f.Message, tt.want) }) {
			t.Errorf("none says %q: %+v", tt.want, found)
		}
	}
}

// counting counts how often it is asked for each key.
type counting map[string]int

func (c counting) Lookup(_ context.Context, pub crypto.PublicKey) (device.Listing, error) {
	c[fmt.Sprint(pub)]++
	return device.Listing{Name: "all", Set: "all", Covered: true}, nil
}

func (counting) Compromised(device.Key) ([]device.Compromised, bool, error) { return nil, true, nil }

// TestCAKeyOnce has many certificates under one bad CA and one odd CA: each key is
// judged once, and warned of once.
func TestCAKeyOnce(t *testing.T) {
	roca := issue(t, "ROCA", nil, asCA, onKey(privateKey(t, "testdata/roca/privkey05.pem")))
	three := ofPrimes(3, primesFor(t, 3, 4))
	for three.public.N.BitLen() < 2048 {
		three = ofPrimes(3, primesFor(t, 3, 4))
	}
	odd := issue(t, "Odd", nil, asCA, onKey(three))
	const n = 12
	for _, withCAs := range []bool{false, true} {
		var keys []device.Key
		for i := range n {
			ca := roca
			if i%2 == 1 {
				ca = odd
			}
			k := certified(device.RoleFile, issue(t, fmt.Sprint("dev ", i), ca).cert, ca.cert)
			k.ID = fmt.Sprint("file#", i)
			keys = append(keys, k)
		}
		if withCAs {
			for i, ca := range []*authority{roca, odd} {
				k := certified(device.RoleFile, ca.cert)
				k.ID = fmt.Sprint("ca#", i)
				keys = append(keys, k)
			}
		}
		list := counting{}
		found := allFindings(t, device.Inventory{Keys: keys}, &Env{Now: now, Blocklist: list})
		for key, times := range list {
			if times > 2 { // for itself, and as a CA
				t.Errorf("a key was looked up %d times: %.80s", times, key)
			}
		}
		said := map[string]int{}
		for _, f := range found {
			if f.Check != "chain" || f.Status == device.Pass {
				continue
			}
			what := "the rest"
			switch {
			case strings.Contains(f.Message, fmt.Sprintf("(%d certificates are under it)", n/2)):
				what = "in full"
			case strings.Contains(f.Message, "see file#0"):
				what = "see"
			}
			said[f.ReasonCode+" "+f.Status.String()+" "+what]++
		}
		want := map[string]int{device.ReasonROCA + " FAIL in full": 1, device.ReasonROCA + " FAIL see": n/2 - 1, "KEYVET_EXPONENT_SMALL WARN in full": 1}
		if withCAs {
			delete(want, "KEYVET_EXPONENT_SMALL WARN in full") // the CA's own certificate has it
		}
		if fmt.Sprint(said) != fmt.Sprint(want) {
			t.Errorf("CAs beside %v: said %v, want %v", withCAs, said, want)
		}
	}
}

// manyPrimes signs by an RSA key of many small primes, which are soon found.
type manyPrimes struct {
	public rsa.PublicKey
	primes []*big.Int
}

func (k *manyPrimes) Public() crypto.PublicKey { return &k.public }

func (k *manyPrimes) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	size := (k.public.N.BitLen() + 7) / 8
	info := slices.Concat(ofSHA256, digest)
	padded := slices.Concat([]byte{0, 1}, slices.Repeat([]byte{0xff}, size-len(info)-3), []byte{0}, info)
	m, s := new(big.Int).SetBytes(padded), new(big.Int)
	one, e := big.NewInt(1), big.NewInt(int64(k.public.E))
	for _, p := range k.primes {
		d := new(big.Int).ModInverse(e, new(big.Int).Sub(p, one))
		part := new(big.Int).Exp(new(big.Int).Mod(m, p), d, p)
		rest := new(big.Int).Div(k.public.N, p)
		part.Mul(part, rest).Mul(part, new(big.Int).ModInverse(rest, p))
		s.Add(s, part)
	}
	return s.Mod(s, k.public.N).FillBytes(make([]byte, size)), nil
}

// ofSHA256 is what stands before the digest (RFC 8017, section 9.2, note 1).
var ofSHA256 = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

func ofPrimes(e int, primes []*big.Int) *manyPrimes {
	k := &manyPrimes{public: rsa.PublicKey{N: big.NewInt(1), E: e}, primes: slices.Clone(primes)}
	for _, p := range primes {
		k.public.N.Mul(k.public.N, p)
	}
	return k
}

const primeBits = 512

// primesFor are n primes for keys with the exponent e.
func primesFor(tb testing.TB, e int64, n int) (primes []*big.Int) {
	tb.Helper()
	one := big.NewInt(1)
	for len(primes) < n {
		p, err := rand.Prime(rand.Reader, primeBits)
		if err != nil {
			tb.Fatal(err)
		}
		if new(big.Int).GCD(nil, nil, big.NewInt(e), new(big.Int).Sub(p, one)).Cmp(one) == 0 {
			primes = append(primes, p)
		}
	}
	return primes
}

// linked makes n CAs of RSA of that many bits, each issued by the one before.
func linked(tb testing.TB, n, bits int) []device.Key {
	tb.Helper()
	pool := primesFor(tb, 65537, 2*bits/primeBits)
	shuffle := mathrand.New(mathrand.NewPCG(1, 2))
	var above *authority
	var certs []*x509.Certificate
	for i := range n {
		shuffle.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
		k := ofPrimes(65537, pool[:bits/primeBits])
		above = issue(tb, fmt.Sprint("CA ", i), above, asCA, onKey(k))
		certs = append(certs, above.cert)
	}
	issuers := device.NewIssuers(certs)
	var keys []device.Key
	for i, c := range certs {
		k := certified(device.RoleFile, issuers.Chain(c)...)
		k.ID, k.Beside = fmt.Sprint("file#", i), certs
		keys = append(keys, k)
	}
	return keys
}

// TestLinked has a chain longer than any path: it ends, and each signature is
// checked once.
func TestLinked(t *testing.T) {
	keys := linked(t, 40, 1024)
	env := &Env{Now: now, Blocklist: fullList{}, Keys: keys}
	for _, k := range keys {
		found := runChain(t.Context(), k, env)
		if slices.ContainsFunc(found, func(f device.Finding) bool { return f.Status != device.Pass && f.ReasonCode != "KEYVET_RSA_TOO_SHORT" }) {
			t.Errorf("%s: %+v", k.ID, found)
		}
	}
	if n := len(env.memory.links); n != len(keys) {
		t.Errorf("%d signatures were checked, of %d", n, len(keys))
	}
	if p := pathOf(t.Context(), keys[39], env); len(p.nodes) != maxPath || !p.cut {
		t.Errorf("a path of %d certificates", len(p.nodes))
	}
}

// TestNamesakes has many CAs of one name, all signed by a key that is not there:
// the trying ends.
func TestNamesakes(t *testing.T) {
	root := issue(t, "Same", nil, asCA)
	var certs []*x509.Certificate
	for range 100 {
		certs = append(certs, issue(t, "Same", withoutKeyID(root), asCA, noKeyIDs).cert)
	}
	var keys []device.Key
	for i, c := range certs {
		k := certified(device.RoleFile, c)
		k.ID, k.Beside = fmt.Sprint("file#", i), certs
		keys = append(keys, k)
	}
	env := &Env{Now: now, Blocklist: fullList{}, Keys: keys}
	for _, k := range keys {
		found := append(runChain(t.Context(), k, env), runBelongs(t.Context(), k, env)...)
		if status := device.Worst(statuses(found)...); status != device.Fail && status != device.Undecided {
			t.Errorf("%s: %v", k.ID, status)
		}
	}
	if n := env.memory.spent; n > maxSpent+len(keys) || n < maxSpent {
		t.Errorf("spent %d", n)
	}
}

func statuses(found []device.Finding) []device.Status {
	all := make([]device.Status, len(found))
	for i, f := range found {
		all[i] = f.Status
	}
	return all
}

func BenchmarkMesh(b *testing.B) {
	const n = 24
	root := issue(b, "Top", nil, asCA)
	var cas []*authority
	var certs []*x509.Certificate
	for i := range n {
		cas = append(cas, issue(b, fmt.Sprint("Mesh ", i), root, asCA))
	}
	for i, ca := range cas {
		for j, by := range cas {
			if i != j {
				certs = append(certs, issue(b, fmt.Sprint("Mesh ", i), by, asCA, onKey(ca.key), valid(now.Add(-2*time.Hour), now.Add(-time.Hour))).cert)
			}
		}
	}
	var keys []device.Key
	for i, c := range certs {
		k := certified(device.RoleDevice, c)
		k.ID, k.Beside = fmt.Sprint("file#", i), certs
		keys = append(keys, k)
	}
	for _, given := range [][]*x509.Certificate{nil, {root.cert}, {cas[0].cert}} {
		b.Run(fmt.Sprint(len(certs), " cross-signed, expired, given ", len(given)), func(b *testing.B) {
			for b.Loop() {
				env := &Env{Now: now, Blocklist: fullList{}, Keys: keys, Roots: given}
				for _, k := range keys {
					runChain(b.Context(), k, env)
				}
			}
		})
	}
}

func BenchmarkChain(b *testing.B) {
	for _, size := range []struct{ n, bits int }{{1000, 2048}, {178, 16384}} {
		keys := linked(b, size.n, size.bits)
		for _, k := range keys {
			if len(k.Chain) == 0 {
				b.Fatal("no chain")
			}
		}
		b.Run(fmt.Sprintf("%d of RSA-%d", size.n, size.bits), func(b *testing.B) {
			for b.Loop() {
				env := &Env{Now: now, Blocklist: fullList{}, Keys: keys}
				m := env.remembered()
				for _, k := range keys { // what is asked of numbers has benchmarks of its own
					m.keys[judgedKey{device.RoleFile, keyHash(k.SPKI)}] = nil
				}
				for _, k := range keys {
					runChain(b.Context(), k, env)
				}
			}
		})
	}
}

// TestEnds has a path end at a CA that is given, also where that is the certificate
// itself, read a second time, and where its own signature is broken.
func TestEnds(t *testing.T) {
	self := issue(t, "self", nil)
	root := issue(t, "root", nil, asCA)
	broken := tampered(t, root.cert)
	for name, tt := range map[string]struct {
		key   device.Key
		given *x509.Certificate
	}{
		"a certificate that is given":           {certified(device.RoleDevice, self.cert), reparse(t, self.cert.Raw)},
		"a root whose own signature is damaged": {certified(device.RoleDevice, issue(t, "leaf", root).cert), broken},
	} {
		if found := runChain(t.Context(), tt.key, &Env{Now: now, Roots: []*x509.Certificate{tt.given}}); len(found) != 1 || found[0].Status != device.Pass {
			t.Errorf("%s: %+v", name, found)
		}
	}
}
