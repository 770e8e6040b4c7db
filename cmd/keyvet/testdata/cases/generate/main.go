// Command generate makes cases of the kinds that keyvet once judged wrongly, two and
// more of each, with a table of what each must give:
//
//	go run ./cmd/keyvet/testdata/cases/generate cmd/keyvet/testdata/cases/further
//
// Keys and serial numbers are others each time. It starts openssl for what Go does
// not sign with. Where a case is a certificate or a chain, device/ has the private
// key of its first certificate, and the CA that this must lead to.
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
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyvet/keyvet/device/curve"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var (
	dir  string
	rows []string
)

// add writes a case: its name, the exit status of keyvet check, the kind of fault
// that it is of, and words that must be said.
func add(file string, status int, kind, says string, text []byte) {
	must(os.WriteFile(filepath.Join(dir, file), text, 0o644))
	rows = append(rows, fmt.Sprintf("%s\t%d\t%s\t%s", file, status, kind, says))
}

// chain adds a case of certificates, also as the credential of a device under a CA,
// whose exit status is asDevice.
func chain(file string, status, asDevice int, kind, says string, key, ca []byte, certs ...der) {
	add(file, status, kind, says, certificates(certs...))
	rows[len(rows)-1] += fmt.Sprintf("\t%d", asDevice)
	base := filepath.Join(dir, "device", strings.TrimSuffix(file, ".pem"))
	must(os.WriteFile(base+".key", key, 0o644))
	must(os.WriteFile(base+".ca", ca, 0o644))
}

func main() {
	dir = os.Args[1]
	must(os.MkdirAll(filepath.Join(dir, "device"), 0o755))
	extensions()
	rollover()
	together()
	requests()
	weak()
	notAWS()
	refused()
	signBytes()
	names()
	sentences()
	lost()
	plain()
	bundles()
	must(os.WriteFile(filepath.Join(dir, "expected.tsv"), []byte("# file\texit of `keyvet check FILE`\tkind\twhat must be said\texit of `keyvet run -once` with it as the device's own\n"+strings.Join(rows, "\n")+"\n"), 0o644))
}

// F1: critical extensions that Go does not know.
func extensions() {
	for _, c := range []struct {
		file             string
		status, asDevice int
		says             string
		ext              der
	}{
		{"san-critical-registeredid.pem", 0, 0, "leads to", extension(true, sequence(der{0x88, 3, 0x2a, 3, 4}), 2, 5, 29, 17)},
		{"san-critical-directoryname.pem", 0, 0, "leads to", extension(true, sequence(tlv(0xa4, name(utf8, "model 7"))), 2, 5, 29, 17)},
		{"critical-private-oid.pem", 3, 3, "1.3.6.1.4.1.99999.7", extension(true, der{5, 0}, 1, 3, 6, 1, 4, 1, 99999, 7)},
		{"critical-issueraltname.pem", 3, 3, "2.5.29.18", extension(true, sequence(der{0x82, 2, 'a', 'b'}), 2, 5, 29, 18)},
	} {
		root := newCA("Extensions Root", nil)
		cert, key := root.leaf(with(c.ext))
		chain(c.file, c.status, c.asDevice, "F1", c.says, privateKey(key), certificates(root.cert), cert, root.cert)
	}
}

// F2: a CA changes its certificate or its key.
func rollover() {
	old, root := newCA("Rollover Root", nil, func(t *template) { t.validity = sequence(utc("16"), utc("26")) }), newCA("New Rollover Root", nil)
	issuing := newCA("Rollover Issuing", old, func(t *template) { t.validity = sequence(utc("16"), utc("26")) })
	renewed := newCA("Rollover Issuing", root, func(t *template) { t.spki = spki(issuing.key) })
	cert, key := issuing.leaf()
	chain("two-roots-expired-first.pem", 0, 0, "F2", "leads to", privateKey(key), certificates(root.cert), cert, issuing.cert, old.cert, renewed.cert, root.cert)
	chain("two-roots-expired-last.pem", 0, 0, "F2", "leads to", privateKey(key), certificates(root.cert), cert, renewed.cert, issuing.cert, old.cert)

	base := newCA("Renewed Root", nil)
	first := newCA("Renewed Issuing", base, func(t *template) { t.validity = sequence(utc("16"), utc("26")) })
	again := newCA("Renewed Issuing", base, func(t *template) { t.spki = spki(first.key) })
	cert, key = first.leaf()
	chain("issuing-ca-renewed-with-its-key.pem", 0, 0, "F2", "leads to", privateKey(key), certificates(base.cert), cert, first.cert, again.cert, base.cert)
}

// F3: what stands in one file and does not belong together.
func together() {
	root, namesake := newCA("Rekeyed Root", nil), newCA("Rekeyed Root", nil)
	cert, key := root.leaf()
	chain("root-rekeyed.pem", 1, 1, "F3", "did not sign it", privateKey(key), certificates(namesake.cert), cert, namesake.cert)

	upper := newCA("Upper Root", nil)
	issuing, other := newCA("Lower CA", upper), newCA("Lower CA", upper)
	cert, key = issuing.leaf()
	chain("intermediate-of-the-same-name.pem", 1, 1, "F3", "did not sign it", privateKey(key), certificates(upper.cert), cert, other.cert, upper.cert)

	forged, key := root.leaf()
	forged[len(forged)-1] ^= 1
	chain("signature-changed.pem", 1, 1, "F3", "did not sign it", privateKey(key), certificates(root.cert), forged, root.cert)

	cert, _ = root.leaf()
	add("certificate-and-foreign-ec-key.pem", 1, "F3", "does not belong", append(certificates(cert), privateKey(newKey())...))

	k, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	type pkcs1 struct {
		Version                  int
		N                        *big.Int
		E                        int
		D, P, Q, DP, DQ, Inverse *big.Int
	}
	k.Precompute()
	numbers := pkcs1{0, k.N, k.E, k.D, k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}
	wrong := numbers
	wrong.DP = new(big.Int).Add(wrong.DP, big.NewInt(2))
	add("rsa-private-with-wrong-dp.pem", 1, "F3", "does not belong", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: marshal(wrong)}))
	wrong = numbers
	wrong.Inverse = new(big.Int).Add(wrong.Inverse, big.NewInt(1))
	add("rsa-private-with-wrong-coefficient.pem", 1, "F3", "does not belong", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: marshal(wrong)}))
}

// F3: certificate requests.
func requests() {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "device"}}, key)
	must(err)
	csr[len(csr)-1] ^= 1
	add("request-ed25519-changed.pem", 1, "F3", "does not verify", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "device"}}, rsaKey)
	must(err)
	csr = bytes.Replace(csr, []byte("device"), []byte("xevice"), 1)
	add("request-rsa-renamed.pem", 1, "F3", "does not verify", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
}

// F4: keys and certificates that are weak, and are not only of X.509.
func weak() {
	// p and q differ in their last 400 bits alone: Fermat finds them.
	high, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 620))
	must(err)
	high.SetBit(high, 623, 1).SetBit(high, 622, 1).Lsh(high, 400)
	prime := func() *big.Int {
		for {
			low, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 400))
			must(err)
			if p := low.SetBit(low.Add(low, high), 0, 1); p.ProbablyPrime(20) {
				return p
			}
		}
	}
	add("rsa-primes-are-close.pem", 1, "F4", "KEYVET", public(new(big.Int).Mul(prime(), prime()), 65537))
	small, err := rand.Prime(rand.Reader, 2047)
	must(err)
	add("rsa-factor-17.pem", 1, "F4", "17", public(new(big.Int).Mul(small, big.NewInt(17)), 65537))
	p, err := rand.Prime(rand.Reader, 1024)
	must(err)
	add("rsa-modulus-is-square.pem", 1, "F4", "KEYVET", public(new(big.Int).Mul(p, p), 65537))

	// (n-1)·G has the x of the generator.
	g := elliptic.P384().Params()
	point := append([]byte{4}, g.Gx.FillBytes(make([]byte, 48))...)
	point = append(point, new(big.Int).Sub(g.P, g.Gy).FillBytes(make([]byte, 48))...)
	der := sequence(sequence(oid(1, 2, 840, 10045, 2, 1), oid(1, 3, 132, 0, 34)), marshal(asn1.BitString{Bytes: point, BitLength: 8 * len(point)}))
	add("ec-public-is-minus-generator-p384.pem", 1, "F4", "KEYVET", publicKey(der))

	const k1, brainpool = "secp256k1", "brainpoolP320r1"
	secret, err := rand.Int(rand.Reader, g.N) // of 384 bits: less than the order once it is cut
	must(err)
	sound := otherCurve(k1, secret.Rsh(secret, 160))
	add("secp256k1-public.pem", 0, "F4", "a point of ECDSA-secp256k1", publicKey(sound))
	sound[len(sound)-1] ^= 1
	add("secp256k1-public-off-curve.pem", 1, "F4", "no point of ECDSA-secp256k1", publicKey(sound))
	add("brainpool-public.pem", 0, "F4", "a point of ECDSA-brainpoolP320r1", publicKey(otherCurve(brainpool, secret)))
	add("brainpool-public-is-twice-generator.pem", 1, "F4", "the private key is 2", publicKey(otherCurve(brainpool, big.NewInt(2))))

	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	add("openssh-user-cert-expired.pub", 1, "F4", "expired on 2021", sshCertificate(edKey, func(c *ssh.Certificate) {
		c.CertType, c.ValidBefore = ssh.UserCert, uint64(time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC).Unix())
	}, false))
	add("openssh-cert-changed.pub", 1, "F4", "does not verify", sshCertificate(edKey, func(*ssh.Certificate) {}, true))
	add("openssh-cert-without-principals.pub", 0, "F9", "takes for any", sshCertificate(edKey, func(c *ssh.Certificate) { c.ValidPrincipals = nil }, false))
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	must(err)
	add("openssh-cert-by-rsa1024-sha512.pub", 1, "F4", "RSA-1024", sshCertificate(short, func(*ssh.Certificate) {}, false))
}

func public(n *big.Int, e int) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spkiOf(n, e)})
}

func spkiOf(n *big.Int, e int) der {
	key := marshal(struct {
		N *big.Int
		E int
	}{n, e})
	return sequence(sequence(oid(1, 2, 840, 113549, 1, 1, 1), der{5, 0}), marshal(asn1.BitString{Bytes: key, BitLength: 8 * len(key)}))
}

func sshCertificate(ca crypto.Signer, change func(*ssh.Certificate), damaged bool) []byte {
	key, err := ssh.NewPublicKey(newKey().Public())
	must(err)
	c := &ssh.Certificate{Key: key, CertType: ssh.HostCert, KeyId: "gateway", ValidPrincipals: []string{"gw.example"}, ValidBefore: ssh.CertTimeInfinity}
	change(c)
	signer, err := ssh.NewSignerFromSigner(ca)
	must(err)
	if _, isRSA := ca.(*rsa.PrivateKey); isRSA {
		signer, err = ssh.NewSignerWithAlgorithms(signer.(ssh.AlgorithmSigner), []string{ssh.KeyAlgoRSASHA512})
		must(err)
	}
	must(c.SignCert(rand.Reader, signer))
	blob := c.Marshal()
	if damaged {
		blob = bytes.Replace(blob, []byte("gw.example"), []byte("gx.example"), 1)
	}
	return fmt.Appendf(nil, "%s %s gateway\n", c.Type(), base64.StdEncoding.EncodeToString(blob))
}

// F5: keys that AWS IoT never sees.
func notAWS() {
	line := func(options string) string {
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		must(err)
		key, err := ssh.NewPublicKey(pub)
		must(err)
		return options + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	}
	add("authorized_keys", 0, "F5", "3 keys", []byte(line("")+" root@build\n"+line("no-pty,command=\"backup\" ")+"\n"+line("restrict ")+" x\n"))
	add("allowed_signers", 0, "F5", "2 keys", []byte(line("dev@example.com namespaces=\"git\" ")+"\n"+line("*@example.com ")+"\n"))
	mldsa := make([]byte, 1952)
	_, err := rand.Read(mldsa)
	must(err)
	add("ml-dsa-65-public.pem", 0, "F5", "ML-DSA-65", publicKey(sequence(sequence(oid(2, 16, 840, 1, 101, 3, 4, 3, 18)), marshal(asn1.BitString{Bytes: mldsa, BitLength: 8 * len(mldsa)}))))
}

func publicKey(spki der) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
}

// otherCurve is the SubjectPublicKeyInfo that a private key makes on a curve that
// Go does not have.
func otherCurve(name string, private *big.Int) der {
	c, _ := curve.Named(name)
	params := marshal(c.OID)
	w, err := curve.Computed(params)
	must(err)
	point, _ := w.Public(private)
	return sequence(sequence(oid(1, 2, 840, 10045, 2, 1), params), marshal(asn1.BitString{Bytes: point, BitLength: 8 * len(point)}))
}

// F6: certificates that Go refuses. Where OpenSSL refuses them in TLS, too, a device
// that has one cannot reach its endpoint.
func refused() {
	const odd = "KEYVET_CERTIFICATE_ENCODING"
	for _, c := range []struct {
		file, says string
		asDevice   int
		change     func(*template)
	}{
		{"boolean-01.pem", odd, 0, func(t *template) {
			t.extensions = []der{sequence(oid(2, 5, 29, 19), der{1, 1, 1}, tlv(4, sequence())), mayUse}
		}},
		{"fractional-seconds.pem", odd, 3, func(t *template) {
			t.validity = sequence(tlv(0x18, der("20260101000000.5Z")), tlv(0x18, der("21260101000000.25Z")))
		}},
		{"serial-padded.pem", odd, 3, func(t *template) { t.serial = der{2, 4, 0, 0, 0, 7} }},
		{"subject-visiblestring.pem", odd, 3, func(t *template) { t.subject = name(visible, "device") }},
		{"subject-universalstring.pem", odd, 3, func(t *template) { t.subject = name(universal, "device") }},
		{"extension-twice.pem", odd, 3, func(t *template) { t.extensions = append(t.extensions, mayUse) }},
		{"point-compressed.pem", "leads to", 0, func(t *template) {
			at := bytes.Index(t.spki, []byte{3, 66, 0, 4})
			xy := t.spki[at+4:]
			point := append([]byte{2 + xy[63]&1}, xy[:32]...)
			t.spki = sequence(sequence(oid(1, 2, 840, 10045, 2, 1), oid(1, 2, 840, 10045, 3, 1, 7)), marshal(asn1.BitString{Bytes: point, BitLength: 8 * len(point)}))
		}},
		{"serial-negative-long.pem", odd, 0, func(t *template) { t.serial = append(der{2, 20, 0x80}, bytes.Repeat([]byte{7}, 19)...) }},
	} {
		root := newCA("Odd Root", nil)
		cert, key := root.leaf(c.change)
		chain(c.file, 0, c.asDevice, "F6", c.says, privateKey(key), certificates(root.cert), cert, root.cert)
	}
}

// F7: RSA numbers without their sign byte.
func signBytes() {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	numbers := sequence(append(der{2, 0x82, 1, 0}, key.N.Bytes()...), der{2, 3, 1, 0, 1})
	odd := sequence(sequence(oid(1, 2, 840, 113549, 1, 1, 1), der{5, 0}), marshal(asn1.BitString{Bytes: numbers, BitLength: 8 * len(numbers)}))
	add("rsa-public-without-sign-byte.pem", 0, "F7", "sign byte", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: odd}))
	add("rsa-pkcs1-without-sign-byte.pem", 0, "F7", "sign byte", pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: numbers}))
	root := newCA("Sign Byte Root", nil)
	cert, _ := root.leaf(func(t *template) { t.spki = odd })
	chain("certificate-without-sign-byte.pem", 0, 0, "F7", "sign byte", privateKey(key), certificates(root.cert), cert, root.cert)
	// The same of a key with a small factor: it is tested as what it is meant to be.
	big17 := new(big.Int).Mul(key.N, big.NewInt(17))
	big17.Rsh(big17, 5).SetBit(big17, 2047, 1)
	big17.Sub(big17, new(big.Int).Mod(big17, big.NewInt(17)))
	if big17.Bit(0) == 0 {
		big17.Add(big17, big.NewInt(17))
	}
	numbers = sequence(append(der{2, 0x82, 1, 0}, big17.FillBytes(make([]byte, 256))...), der{2, 3, 1, 0, 1})
	add("rsa-factor-17-without-sign-byte.pem", 1, "F7", "sign byte", pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: numbers}))
}

// F8: names that differ in type or case.
func names() {
	for _, c := range []struct {
		file           string
		status         int
		issuer, caName der
		forged         bool
	}{
		{"issuer-bmp-vs-utf8.pem", 0, name(bmp, "Test CA"), name(utf8, "Test CA"), false},
		{"issuer-spaces.pem", 0, name(printable, "  Test   CA "), name(printable, "Test CA"), false},
		{"issuer-teletex-vs-printable.pem", 0, name(teletex, "TEST ca"), name(printable, "Test CA"), false},
		{"issuer-case-forged.pem", 1, name(utf8, "TEST CA"), name(printable, "Test CA"), true},
	} {
		root := newCA("Test CA", nil, func(t *template) { t.subject = c.caName })
		cert, key := root.leaf(func(t *template) { t.issuer = c.issuer })
		says := "leads to"
		if c.forged {
			cert[len(cert)-1] ^= 1
			says = "did not sign it"
		}
		chain(c.file, c.status, c.status, "F8", says, privateKey(key), certificates(root.cert), cert, root.cert)
	}
}

// F9: CAs whose signatures Go does not verify. AWS IoT does not take their keys.
func sentences() {
	for _, c := range []struct {
		file     string
		status   int
		says     string
		key      string
		options  []string
		asDevice int
	}{
		{"ca-ed448.pem", 3, "Ed448 (1.3.101.113)", "ED448", nil, 1},
		{"ca-brainpool.pem", 0, "leads to", "EC -pkeyopt ec_paramgen_curve:brainpoolP256r1", []string{"-sha256"}, 1},
		{"ca-secp256k1-sha512.pem", 0, "leads to", "EC -pkeyopt ec_paramgen_curve:secp256k1", []string{"-sha512"}, 1},
		{"ca-rsa-sha3.pem", 0, "leads to", "RSA -pkeyopt rsa_keygen_bits:2048", []string{"-sha3-256"}, 0},
		{"ca-rsa-pss-two-hashes.pem", 0, "leads to", "RSA -pkeyopt rsa_keygen_bits:2048", []string{"-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_mgf1_md:sha384"}, 0},
		{"ca-dsa.pem", 0, "leads to", "dsa", []string{"-sha256"}, 1},
	} {
		chainByOpenSSL(c.file, c.status, c.asDevice, c.says, c.key, c.options)
	}
}

func chainByOpenSSL(file string, status, asDevice int, says, algorithm string, options []string) {
	tmp, err := os.MkdirTemp("", "cases")
	must(err)
	defer os.RemoveAll(tmp)
	run := func(args ...string) {
		cmd := exec.Command("openssl", args...)
		cmd.Dir = tmp
		out, err := cmd.CombinedOutput()
		if err != nil {
			panic(fmt.Sprintf("%q: %s", args, out))
		}
	}
	if algorithm == "dsa" {
		run("genpkey", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:2048", "-pkeyopt", "dsa_paramgen_q_bits:256", "-out", "params")
		run("genpkey", "-paramfile", "params", "-out", "ca.key")
	} else {
		run(append([]string{"genpkey", "-out", "ca.key", "-algorithm"}, strings.Fields(algorithm)...)...)
	}
	days := []string{"-days", "36500"}
	run(append(append([]string{"req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=Other CA", "-out", "ca.pem"}, options...), days...)...)
	run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "leaf.key")
	run("req", "-new", "-key", "leaf.key", "-subj", "/CN=device", "-out", "leaf.csr")
	must(os.WriteFile(filepath.Join(tmp, "ext"), []byte("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"), 0o600))
	run(append(append([]string{"x509", "-req", "-in", "leaf.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "7", "-extfile", "ext", "-out", "leaf.pem"}, options...), days...)...)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(tmp, name))
		must(err)
		return b
	}
	block := func(name string) der {
		b, _ := pem.Decode(read(name))
		return b.Bytes
	}
	chain(file, status, asDevice, "F9", says, read("leaf.key"), read("ca.pem"), block("leaf.pem"), block("ca.pem"))
}

// F10: a second object behind a damaged line.
func lost() {
	root := newCA("Lost Root", nil)
	first, _ := root.leaf()
	second := certificates(root.cert)
	behind := func(old, changed string) []byte {
		return append(certificates(first), bytes.Replace(second, []byte(old), []byte(changed), 1)...)
	}
	add("second-begin-in-lower-case.pem", 3, "F10", "line", behind("BEGIN CERTIFICATE", "begin certificate"))
	add("second-begin-with-em-dashes.pem", 3, "F10", "line", behind("-----BEGIN CERTIFICATE-----", "——BEGIN CERTIFICATE——"))
	add("second-is-bare-base64.pem", 3, "F10", "line", append(certificates(first), []byte(base64.StdEncoding.EncodeToString(root.cert)+"\n")...))
	add("second-end-is-missing.pem", 3, "F10", "line", behind("-----END CERTIFICATE-----\n", ""))
	add("second-is-der.pem", 3, "F10", "DER", append(certificates(first), root.cert...))
	add("second-is-public-key-in-der.pem", 3, "F10", "DER", append(certificates(first), spki(newKey())...))
	jwk := jwkOf(newKey())
	add("second-is-jwk.pem", 0, "F10", "#2", append(certificates(first), jwk+"\n"...))
	add("jwk-then-certificate.pem", 0, "F10", "#2", append([]byte(jwk+"\n"), certificates(first)...))
	add("jwk-a-line.jsonl", 0, "F10", "#2", []byte(jwk+"\n"+jwkOf(newKey())+"\n"))
	add("second-is-jwk-of-several-lines.pem", 3, "F10", "JWK", append(certificates(first), strings.ReplaceAll(jwk, ",", ",\n")+"\n"...))
}

func jwkOf(key *ecdsa.PrivateKey) string {
	point, err := key.PublicKey.Bytes()
	must(err)
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q}`, encode(point[1:33]), encode(point[33:]))
}

// F11: plain inputs.
func plain() {
	root := newCA("Plain Root", nil)
	cert, _ := root.leaf()
	add("certificate-padded-with-zeros.der", 0, "F11", "padding", append(bytes.Clone(cert), make([]byte, 300)...))
	add("certificate-and-its-issuer.der", 0, "F11", "#2", append(bytes.Clone(cert), root.cert...))
	add("two-public-keys.der", 0, "F11", "#2", append(spki(newKey()), spki(newKey())...))
}

// F12 and F13: bundles, in which each certificate has its name, and a CA is judged once.
func bundles() {
	var all []der
	for _, cn := range []string{"Bundle Alpha", "Bundle Beta"} {
		all = append(all, newCA(cn, nil).cert)
	}
	gone := newCA("Bundle Gone", nil, func(t *template) { t.validity = sequence(utc("16"), utc("20")) })
	add("bundle-with-an-expired-ca.pem", 0, "F12", "Bundle Gone", certificates(append(all, gone.cert)...))
	short := newCA("Bundle Short", nil, func(t *template) {
		k, err := rsa.GenerateKey(rand.Reader, 1024)
		must(err)
		t.spki, t.by, t.algorithm = spki(k), k, sequence(oid(1, 2, 840, 113549, 1, 1, 11), der{5, 0})
	})
	add("bundle-with-a-short-key.pem", 1, "F12", "Bundle Short", certificates(all[0], short.cert, all[1]))

	root := newCA("Busy Root", nil)
	var leaves []der
	for range 40 {
		cert, _ := root.leaf()
		leaves = append(leaves, cert)
	}
	add("forty-leaves-of-one-ca.pem", 0, "F13", "Busy Root", certificates(append(leaves, root.cert)...))
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	must(err)
	weakCA := newCA("Weak Root", nil, func(t *template) {
		t.spki, t.by, t.algorithm = spki(weakKey), weakKey, sequence(oid(1, 2, 840, 113549, 1, 1, 11), der{5, 0})
	})
	weakCA.key = weakKey
	var below []der
	for range 12 {
		cert, _ := weakCA.leaf(func(t *template) { t.algorithm = sequence(oid(1, 2, 840, 113549, 1, 1, 11), der{5, 0}) })
		below = append(below, cert)
	}
	add("twelve-leaves-of-a-short-ca.pem", 1, "F13", "12 certificates are under it", certificates(append(below, weakCA.cert)...))

	deep := newCA("Deep Root", nil)
	path := []der{deep.cert}
	at := deep
	for i := range 7 {
		at = newCA(fmt.Sprint("Deep ", i+1), at)
		path = append([]der{at.cert}, path...)
	}
	cert, key := at.leaf()
	chain("eight-cas-deep.pem", 0, 0, "F13", "leads to", privateKey(key), certificates(deep.cert), append([]der{cert}, path...)...)
}
