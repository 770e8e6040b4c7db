package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// todo is a device that fails for one reason, and what it takes to mend it.
type todo struct {
	*testing.T
	cloud *localiot.Server
	d     *labDevice
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	key   crypto.Signer // of the device
	more  string        // lines of keyvet.toml
	chip  *tpmtest.SWTPM
	tpm   string // its address; "": the device has none
	bin   string // where its keyvet is
	claim bool
}

func (d *todo) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// certify gives the device a certificate of its own CA, made after change.
func (d *todo) certify(key crypto.Signer, change func(*x509.Certificate)) {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: d.d.thing},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, d.ca, key.Public(), d.caKey)
	d.must(err)
	d.must(d.cloud.RegisterCertificate(d.d.thing, der))
	d.pair(der, key)
}

func (d *todo) pair(der []byte, key crypto.Signer) {
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	d.must(d.d.writePair(filepath.Join("state", "identity"), chain, key))
	d.key = key
}

// path is one of the device's own directory.
func (d *todo) path(name string) string { return filepath.Join(d.d.dir, name) }

// file writes a private key that check.files names.
func (d *todo) file(name string, mode os.FileMode) string {
	der, err := x509.MarshalPKCS8PrivateKey(p256())
	d.must(err)
	d.must(os.MkdirAll(filepath.Dir(d.path(name)), 0o755))
	d.must(os.WriteFile(d.path(name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	d.must(os.Chmod(d.path(name), mode))
	d.more = fmt.Sprintf("[check]\nfiles = [%q]\n", d.path(name))
	return d.path(name)
}

func p256() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// rsaOf is the RSA key of two primes and an exponent; nil if there is none.
func rsaOf(p, q *big.Int, e int64) *rsa.PrivateKey {
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: int(e)}, Primes: []*big.Int{p, q}}
	if key.D = new(big.Int).ModInverse(big.NewInt(e), phi); key.D == nil {
		return nil
	}
	key.Precompute()
	return key
}

func prime(bits int) *big.Int {
	p, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return p
}

// ailments are what can be wrong with a device in the lab.
var ailments = []struct {
	check, code string
	spoil       func(d *todo)
}{
	{"debian", device.ReasonDebian, func(d *todo) {
		block, _ := pem.Decode(debianWeakKey)
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		d.must(err)
		d.certify(key, nil)
	}},
	{"roca", device.ReasonROCA, func(d *todo) { d.certify(tpmtest.ROCAKey("todo"), nil) }},
	{"size", "KEYVET_RSA_TOO_SHORT", func(d *todo) {
		key, err := rsa.GenerateKey(rand.Reader, 1024)
		d.must(err)
		d.certify(key, nil)
	}},
	{"size", "KEYVET_ED25519_NOT_ACCEPTED", func(d *todo) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		d.must(err)
		d.certify(key, nil)
	}},
	{"exponent", "KEYVET_EXPONENT_SMALL", func(d *todo) {
		var key *rsa.PrivateKey
		for key == nil {
			key = rsaOf(prime(1024), prime(1024), 3)
		}
		d.certify(key, nil)
	}},
	{"factors", "KEYVET_RSA_PRIME_SHARED", func(d *todo) {
		p := prime(1024)
		d.certify(rsaOf(p, prime(1024), 65537), nil)
		other, err := x509.MarshalPKIXPublicKey(&rsaOf(p, prime(1024), 65537).PublicKey)
		d.must(err)
		d.must(os.WriteFile(d.path("other.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: other}), 0o600))
		d.more = fmt.Sprintf("[check]\nfiles = [%q]\n", d.path("other.pem"))
	}},
	{"expiry", "CERTIFICATE_APPROACHING_EXPIRATION", func(d *todo) {
		d.certify(p256(), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, 0, 5)
		})
	}},
	{"expiry", "CERTIFICATE_PAST_EXPIRATION", func(d *todo) {
		d.certify(p256(), func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, 0, -5)
		})
		d.claim = true
	}},
	{"age", "CERTIFICATE_PAST_AGE_THRESHOLD", func(d *todo) {
		d.certify(p256(), func(c *x509.Certificate) { c.NotBefore = time.Now().AddDate(0, 0, -30) })
		d.more = "[check]\nmax_age = \"48h\"\n"
	}},
	{"compromised", "KEYVET_LABELLED_TEST_KEY", func(d *todo) {
		d.certify(p256(), func(c *x509.Certificate) { c.Subject.CommonName = "DO NOT TRUST - AMI Test PK" })
	}},
	{"compromised", "KEYVET_NAMED_TEST_KEY", func(d *todo) {
		d.certify(p256(), func(c *x509.Certificate) { c.Subject.CommonName = "Test PK" })
	}},
	{"chain", "KEYVET_SIGNATURE_SHA1", func(d *todo) {
		d.certify(p256(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 })
	}},
	{"revoked", "CERTIFICATE_REVOKED_BY_ISSUER", func(d *todo) {
		serial := big.NewInt(4711)
		d.certify(p256(), func(c *x509.Certificate) { c.SerialNumber = serial })
		crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().AddDate(0, 1, 0),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: time.Now().Add(-time.Hour)}},
		}, d.ca, d.caKey)
		d.must(err)
		d.must(os.WriteFile(d.path("crl.pem"), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl}), 0o600))
		d.more = fmt.Sprintf("[check]\ncrls = [%q]\n", d.path("crl.pem"))
	}},
	{"shared", "KEYVET_KEY_SHARED", func(d *todo) { d.claim = true }}, // the claim is on the device's key
	{"permissions", "KEYVET_PRIVATE_KEY_READABLE", func(d *todo) { d.file("app/key.pem", 0o644) }},
	{"permissions", "KEYVET_PRIVATE_KEY_GROUP_READABLE", func(d *todo) { d.file("app/key.pem", 0o640) }},
	{"permissions", "KEYVET_PRIVATE_KEY_REPLACEABLE", func(d *todo) {
		d.must(os.Chmod(filepath.Dir(d.file("app/key.pem", 0o600)), 0o777))
	}},
	{"permissions", "KEYVET_PRIVATE_KEY_FOREIGN", func(d *todo) {
		if file := d.file("app/key.pem", 0o600); os.Geteuid() == 0 {
			d.must(os.Chown(file, 4711, -1))
		} else {
			d.Skip("only root can give a file away")
		}
	}},
	{"lockout", "KEYVET_TPM_LOCKOUT_OPEN", func(d *todo) { d.intoTPM() }},
	{"roca", device.ReasonROCA, func(d *todo) { // in the TPM
		d.withTPM()
		d.must(tpmtest.ImportRSA(d.tpm, tpmtest.ROCAKey("demo"), 0x81000100))
	}},
	{"proof", "KEYVET_PRIVATE_KEY_GONE", func(d *todo) {
		d.intoTPM()
		d.run("tpm2_clear -c p")
		d.claim = true
	}},
}

// withTPM puts the TPM of the desk into the device: one after the other has it.
func (d *todo) withTPM() { d.tpm = d.chip.Address() }

// intoTPM has the device make its key in the TPM.
func (d *todo) intoTPM() {
	d.withTPM()
	d.configure()
	d.run("keyvet rotate")
}

// configure writes keyvet.toml.
func (d *todo) configure() {
	d.d.claim = d.claim
	d.must(d.d.writeConfig(d.cloud, d.tpm))
	config, err := os.ReadFile(d.d.config)
	d.must(err)
	ours := d.path("ca.pem")
	d.must(os.WriteFile(ours, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.ca.Raw}), 0o644))
	text := strings.Replace(string(config), "ca = [", fmt.Sprintf("ca = [%q, ", ours), 1)
	d.must(os.WriteFile(d.d.config, []byte(text+d.more), 0o600))
	if d.claim {
		key := d.key
		if d.Name() != "TestWhatToDo/shared/KEYVET_KEY_SHARED" {
			key = p256()
		}
		chain, err := d.cloud.IssueClaim(key.Public())
		d.must(err)
		d.must(d.d.writePair("claim", chain, key))
	}
}

// shell runs a line as a user would, on this device.
func (d *todo) shell(line string) (stdout []byte, err error) {
	cmd := exec.CommandContext(d.Context(), "sh", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+d.bin+":"+os.Getenv("PATH"), "CONFIG="+d.d.config, "TPM2TOOLS_TCTI="+d.chip.TCTI())
	return cmd.Output()
}

func (d *todo) run(line string) {
	d.Helper()
	if out, err := d.shell(line); err != nil {
		d.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// report is what AWS IoT got last: of keyvet rotate, or else of keyvet run -once.
func (d *todo) report(line string) *device.Report {
	if line != "keyvet rotate" {
		d.run("keyvet run -once")
		if !d.d.trusted() {
			d.Error("the gate is shut")
		}
	}
	r, err := (&stage{cloud: d.cloud}).delivered(d.d.thing)
	d.must(err)
	return r
}

// checked is what keyvet check reports.
func (d *todo) checked() *device.Report {
	out, _ := d.shell("keyvet check -json") // its exit status is the verdict
	r := new(device.Report)
	d.must(json.Unmarshal(out, r))
	return r
}

func finding(r *device.Report, check, code string) *device.Finding {
	i := slices.IndexFunc(r.Findings, func(f device.Finding) bool {
		return f.Check == check && f.ReasonCode == code && f.Status != device.Pass
	})
	if i < 0 {
		return nil
	}
	return &r.Findings[i]
}

var (
	span     = regexp.MustCompile("`([^`]+)`")
	programs = regexp.MustCompile(`^(keyvet|chmod|chown|cd|tpm2_[a-z]+) `)
)

// commands are those of the row of a reason code, in the section of a check.
func commands(t *testing.T, findings, check, code string) []string {
	_, section, _ := strings.Cut(findings, "\n## "+check+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.ReplaceAll(line, `\|`, "/"), " | ")
		if !strings.HasPrefix(line, "| `"+code+"` |") {
			continue
		}
		var all []string
		for _, m := range span.FindAllStringSubmatch(cells[len(cells)-1], -1) {
			if programs.MatchString(m[1]) {
				all = append(all, m[1])
			}
		}
		return all
	}
	t.Fatalf("%s has no row of %s", check, code)
	return nil
}

var absolute = regexp.MustCompile(`/[^ ,]+`)

// TestWhatToDo carries out what docs/findings.md says to do, and the next report
// passes.
func TestWhatToDo(t *testing.T) {
	text, err := os.ReadFile("../../docs/findings.md")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	program := buildKeyvet(t)
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" -config \"$CONFIG\"\n", program)
	if err := os.WriteFile(filepath.Join(bin, "keyvet"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "todo-tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	chip, err := startTPM(t.Context(), dir+"/tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chip.Stop() })
	cloud, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cloud.Close() })
	caKey := p256()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the operator's CA"}, NotBefore: time.Now().AddDate(-2, 0, 0), NotAfter: time.Now().AddDate(9, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	codes := make(map[string]bool)
	for _, a := range ailments {
		codes[a.code] = true
	}
	if len(codes) < 20 {
		t.Errorf("only %d reason codes, want twenty", len(codes))
	}
	for i, a := range ailments {
		t.Run(a.check+"/"+a.code, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "todo") // where every user may look
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			must := (&todo{T: t}).must
			must(os.Chmod(dir, 0o755))
			must(os.MkdirAll(filepath.Join(dir, "state"), 0o700))
			d := &todo{T: t, cloud: cloud, ca: ca, caKey: caKey, chip: chip, bin: bin, d: &labDevice{thing: fmt.Sprint("device-", i), dir: dir, config: filepath.Join(dir, "keyvet.toml")}}
			d.certify(p256(), nil)
			a.spoil(d)
			d.configure()
			if d.tpm == "" {
				t.Parallel()
			}
			f := finding(d.checked(), a.check, a.code)
			if f == nil {
				t.Fatalf("the device does not have it: %+v", d.checked().Findings)
			}
			all := commands(t, string(text), a.check, a.code)
			if len(all) == 0 {
				t.Fatal("the row has no command")
			}
			line := all[0]
			if d.tpm != "" && len(all) > 1 && strings.Contains(all[1], "HANDLE") {
				line = all[1] // of a key in the TPM
			}
			d.run(d.filled(line, *f))
			if r := d.report(line); finding(r, a.check, a.code) != nil || !r.Verdict().Opens() {
				t.Errorf("after %q: %s, %+v", line, r.Verdict(), r.Findings)
			}
		})
	}
}

// filled puts what a finding is about in the place of the capital words of a line.
func (d *todo) filled(line string, f device.Finding) string {
	line = strings.ReplaceAll(line, "STATE_DIR", d.path("state"))
	for _, path := range absolute.FindAllString(f.Message, -1) {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			line = strings.ReplaceAll(line, "DIR", path)
		} else if err == nil {
			line = strings.ReplaceAll(line, "FILE", path)
		}
	}
	return strings.NewReplacer("HANDLE", strings.TrimPrefix(f.Key, "tpm-"), "PASSWORD", "correcthorse").Replace(line)
}
