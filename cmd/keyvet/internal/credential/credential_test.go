package credential

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func keyPEM(t *testing.T, key crypto.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// authority issues certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string, parent *authority) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	issuer, signer := template, a.key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, a.key.Public(), signer)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	return a
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue gives the certificate of a device.
func (a *authority) issue(t *testing.T, name string, public crypto.PublicKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issueOdd gives the certificate of a device with a negative serial number, which
// crypto/x509 refuses.
func (a *authority) issueOdd(t *testing.T, name string, public crypto.PublicKey) []byte {
	t.Helper()
	block, _ := pem.Decode(a.issue(t, name, public))
	cert, err := x509.ParseCertificate(block.Bytes)
	must(t, err)
	tbs := bytes.Replace(cert.RawTBSCertificate, []byte{2, 1, 2, 0x30}, []byte{2, 1, 0x82, 0x30}, 1)
	digest := sha256.Sum256(tbs)
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	must(t, err)
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	must(t, err)
	if _, err := x509.ParseCertificate(der); err == nil {
		t.Fatal("crypto/x509 takes it by now")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func write(t *testing.T, name string, data ...[]byte) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o700))
	must(t, os.WriteFile(name, bytes.Join(data, nil), 0o600))
	return name
}

// on is a configuration whose credential is these files.
func on(t *testing.T, certificate, key []byte) config.Config {
	t.Helper()
	c := *config.Default()
	c.StateDir, c.TPM.Address = t.TempDir(), ""
	identity := filepath.Join(c.StateDir, "identity")
	if certificate != nil {
		write(t, filepath.Join(identity, "certificate.pem"), certificate)
	}
	if key != nil {
		write(t, filepath.Join(identity, "key.pem"), key)
	}
	return c
}

// TestPrivateKey is of the forms of a private key beside a certificate that
// crypto/x509 refuses.
func TestPrivateKey(t *testing.T) {
	ec := newKey(t)
	sec1, err := x509.MarshalECPrivateKey(ec)
	must(t, err)
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	for name, c := range map[string]struct {
		text   []byte
		public crypto.PublicKey
		ok     bool
	}{
		"PKCS#8":          {keyPEM(t, ec), ec.Public(), true},
		"SEC 1":           {pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}), ec.Public(), true},
		"PKCS#1":          {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(large)}), large.Public(), true},
		"another's":       {keyPEM(t, ec), large.Public(), false},
		"of no algorithm": {keyPEM(t, ec), &device.OtherKey{Algorithm: "SM2"}, false},
		"no key":          {[]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), ec.Public(), false},
		"no PEM":          {nil, ec.Public(), false},
	} {
		if key, err := privateKey(c.text, c.public); (err == nil) != c.ok || (key == nil) == c.ok {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
}

func TestRead(t *testing.T) {
	ca := newAuthority(t, "ca", nil)
	key, other := newKey(t), newKey(t)
	leaf := ca.issue(t, "gw", key.Public())
	odd := ca.issueOdd(t, "gw", key.Public())
	for _, tt := range []struct {
		name             string
		certificate, key []byte
		want             string // in the error; "" for none
		keys, gaps       int
	}{
		{"good", leaf, keyPEM(t, key), "", 1, 0},
		{"with its CA", append(append([]byte(nil), leaf...), ca.pem()...), keyPEM(t, key), "", 2, 0},
		{"with text between", append([]byte("subject\n"), leaf...), append([]byte("# mine\n"), keyPEM(t, key)...), "", 1, 0},
		{"negative serial number", odd, keyPEM(t, key), "", 1, 0},
		{"negative serial number, another's key", odd, keyPEM(t, other), "does not belong to the certificate", 1, 0},
		{"no certificate", nil, keyPEM(t, key), "no device certificate", 0, 1},
		{"no key", leaf, nil, "no device key", 1, 1},
		{"another's key", leaf, keyPEM(t, other), "private key does not match", 1, 0},
		{"two keys", leaf, append(keyPEM(t, key), keyPEM(t, other)...), "holds 2 private keys", 1, 1},
		{"no private key", leaf, leaf, "holds no private key in PEM", 1, 1},
		{"a key that cannot be read", leaf, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "private key", 1, 1},
		{"no certificate in it", keyPEM(t, key), keyPEM(t, key), "certificate", 1, 0},
	} {
		c := on(t, tt.certificate, tt.key)
		got, err := InUse(c)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		got.Prove(nil)
		guarded := got.Guarded()
		if guarded.Proven != (tt.want == "") || (got.PrivateKey == nil) != (tt.want != "") || got.Signer() != nil {
			t.Errorf("%s: proven %t, private key %v", tt.name, guarded.Proven, got.PrivateKey)
		}
		if tt.want == "" && (!bytes.Equal(guarded.SPKI, got.Leaf.RawSubjectPublicKeyInfo) || !bytes.Equal(guarded.Leaf, got.Leaf.Raw) ||
			!bytes.Equal(guarded.KeyFile, keyPEM(t, key)) || strings.Contains(string(guarded.Certificate), "subject")) {
			t.Errorf("%s: guarded %+v", tt.name, guarded)
		}
		keys, gaps := got.Keys(device.RoleDevice, true, nil)
		if len(keys) != tt.keys || len(gaps) != tt.gaps {
			t.Errorf("%s: %d keys, gaps %v", tt.name, len(keys), gaps)
		}
		for i, k := range keys {
			if i == 0 && (k.ID != "device" || k.Role != device.RoleDevice) || i > 0 && (k.ID != fmt.Sprintf("device#%d", i+1) || k.Role != device.RoleCA) {
				t.Errorf("%s: key %d is %s, %s", tt.name, i, k.ID, k.Role)
			}
		}
	}
}

// A credential that is not there yet matters only where it was asked for by name.
func TestNotThereYet(t *testing.T) {
	c := on(t, nil, nil)
	got, err := InUse(c)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if keys, gaps := got.Keys(device.RoleDevice, false, nil); keys != nil || len(gaps) != 1 || !gaps[0].Minor || !strings.Contains(gaps[0].Why, "not there yet") {
		t.Errorf("%v, %v", keys, gaps)
	}
	if keys, gaps := got.Keys(device.RoleDevice, true, nil); keys != nil || len(gaps) != 1 || gaps[0].Minor {
		t.Errorf("asked for by name: %v, %v", keys, gaps)
	}
}

// TLS gets the CA certificates that the leaf leads to, and no other.
func TestPair(t *testing.T) {
	root := newAuthority(t, "root", nil)
	middle, stranger := newAuthority(t, "middle", root), newAuthority(t, "stranger", nil)
	key := newKey(t)
	c := on(t, middle.issue(t, "gw", key.Public()), keyPEM(t, key))
	dir := t.TempDir()
	files := []string{
		write(t, filepath.Join(dir, "stranger"), stranger.pem()), write(t, filepath.Join(dir, "root"), root.pem()),
		write(t, filepath.Join(dir, "middle"), middle.pem()), filepath.Join(dir, "none"),
	}
	got, err := InUse(c)
	must(t, err)
	pair, err := got.Pair(files)
	must(t, err)
	if len(pair.Certificate) != 3 || !bytes.Equal(pair.Certificate[1], middle.cert.Raw) || !bytes.Equal(pair.Certificate[2], root.cert.Raw) {
		t.Errorf("%d certificates", len(pair.Certificate))
	}
	if pair, err := got.Pair(nil); err != nil || len(pair.Certificate) != 1 {
		t.Errorf("without CA files: %d certificates, %v", len(pair.Certificate), err)
	}
	odd := Credential{Certificate: tls.Certificate{Certificate: [][]byte{{1}}}}
	if pair, err := odd.Pair(files); err != nil || len(pair.Certificate) != 1 {
		t.Errorf("a chain that cannot be read: %d certificates, %v", len(pair.Certificate), err)
	}
}

func TestSame(t *testing.T) {
	ca, key := newAuthority(t, "ca", nil), newKey(t)
	leaf := ca.issue(t, "gw", key.Public())
	base, err := InUse(on(t, leaf, keyPEM(t, key)))
	must(t, err)
	again, _ := InUse(on(t, leaf, keyPEM(t, key)))
	if !base.Same(&again) {
		t.Error("the same bytes are not the same")
	}
	for name, c := range map[string]config.Config{
		"renewed on the key": on(t, ca.issue(t, "gw", key.Public()), keyPEM(t, key)),
		"another key":        on(t, leaf, keyPEM(t, newKey(t))),
		"no key":             on(t, leaf, nil),
		"nothing":            on(t, nil, nil),
	} {
		if other, _ := InUse(c); base.Same(&other) {
			t.Errorf("%s: the same", name)
		}
	}
}

func TestGone(t *testing.T) {
	for err, want := range map[error]bool{
		tpm.ErrGone: true, fs.ErrNotExist: true, fmt.Errorf("x: %w", tpm.ErrGone): true,
		tpm.ErrAbsent: false, tpm.ErrTimeout: false, errors.New("busy"): false,
	} {
		if got := Gone(err); errors.Is(got, rotate.ErrKeyGone) != want || !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if Gone(nil) != nil {
		t.Error("no error is one")
	}
}

// A key in the TPM has to show that it is there.
func TestKeyInTPM(t *testing.T) {
	s, foreign := tpmtest.Run(t, tpmtest.Options{}), tpmtest.Run(t, tpmtest.Options{})
	create := func(address string) *tpm.KeyBlob {
		t.Helper()
		c, err := tpm.Open(address, tpm.Options{})
		must(t, err)
		defer c.Close()
		blob, err := c.CreateKey("ecdsa-p256")
		must(t, err)
		return blob
	}
	ca, blob := newAuthority(t, "ca", nil), create(s.Address())
	leaf := ca.issue(t, "gw", blob.Public())
	for _, tt := range []struct {
		name    string
		address string
		key     []byte
		unread  bool
		proven  bool
		gone    bool
	}{
		{"its own", s.Address(), blob.PEM(), false, true, false},
		{"another TPM's", foreign.Address(), blob.PEM(), false, false, true},
		{"no TPM there", "unix:" + t.TempDir() + "/none", blob.PEM(), false, false, false},
		{"another key of this TPM", s.Address(), create(s.Address()).PEM(), true, false, false},
	} {
		c := on(t, leaf, tt.key)
		c.TPM.Address = tt.address
		got, err := InUse(c)
		if (err != nil) != tt.unread {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.unread {
			continue
		}
		got.Prove(nil)
		keys, _ := got.Keys(device.RoleDevice, true, nil)
		proof := keys[0].Private.Proof
		if got.Guarded().Proven != tt.proven || proof.Signed != tt.proven || proof.Gone != tt.gone || (proof.Why == "") != tt.proven {
			t.Errorf("%s: proven %t, %+v", tt.name, got.Guarded().Proven, proof)
		}
		pair, err := got.Pair(nil)
		if (err == nil) != tt.proven || tt.proven && len(pair.SupportedSignatureAlgorithms) == 0 || errors.Is(Gone(err), rotate.ErrKeyGone) != tt.gone {
			t.Errorf("%s: TLS gets %v, %v", tt.name, pair.SupportedSignatureAlgorithms, err)
		}
	}
}

// A key at a handle has no file, and its private half is what the TPM shows there.
func TestKeyAtHandle(t *testing.T) {
	const handle = "tpm:0x81000100"
	ca, key := newAuthority(t, "ca", nil), newKey(t)
	c := on(t, ca.issue(t, "gw", key.Public()), nil)
	c.Identity.Key, c.TPM.Address = handle, "unix:"+t.TempDir()+"/none"
	got, err := InUse(c)
	must(t, err)
	if got.Signer() == nil || got.Guarded().KeyFile != nil {
		t.Errorf("%+v", got.Guarded())
	}
	if keys, gaps := got.Keys(device.RoleDevice, true, nil); len(keys) != 1 || len(gaps) != 1 || gaps[0].What != handle {
		t.Errorf("the TPM shows nothing there: %v", gaps)
	}
	got.Prove(nil)
	keys, gaps := got.Keys(device.RoleDevice, true, []device.Key{{Source: "tpm:0x81000001"}, {Source: handle, SPKI: []byte("spki")}})
	if len(gaps) != 0 || string(keys[0].Private.SPKI) != "spki" || keys[0].Private.Proof == nil || keys[0].Private.Proof.Signed {
		t.Errorf("%+v, %v", keys[0].Private, gaps)
	}
	c.Identity.Key = "tpm:nonsense"
	if _, err := InUse(c); err == nil {
		t.Error("a handle that is none")
	}
}

// An hour of attempts to connect, and restarts, with keys that have a password:
// one failure in all counts towards the TPM's lockout.
func TestPasswordInTPM(t *testing.T) {
	s := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	dir := t.TempDir()
	tool := func(name string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command(name, append(args, "-T", s.TCTI())...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return out
	}
	tool("tpm2_dictionarylockout", "-Q", "-s", "-n", "32", "-t", "7200", "-l", "86400")
	tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc256:ecdsa-sha256:null", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign", "-p", "secret", "-c", "key.ctx")
	tool("tpm2_flushcontext", "-t")
	tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "key.ctx", "0x81000100")
	tool("tpm2_flushcontext", "-t")
	tool("tpm2_readpublic", "-Q", "-c", "0x81000100", "-f", "pem", "-o", "public.pem")
	text, err := os.ReadFile(filepath.Join(dir, "public.pem"))
	must(t, err)
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	must(t, err)
	counts := func(want string) {
		t.Helper()
		if out := tool("tpm2_getcap", "properties-variable"); !bytes.Contains(out, []byte("TPM2_PT_LOCKOUT_COUNTER: "+want+"\n")) {
			t.Errorf("not %s: %s", want, out)
		}
	}
	ca := newAuthority(t, "ca", nil)
	connects := func(c config.Config) {
		t.Helper()
		for range 60 {
			got, err := InUse(c)
			must(t, err)
			got.Prove(nil)
			if _, err := got.Pair(nil); err == nil || !strings.Contains(err.Error(), "the key has a password") || errors.Is(Gone(err), rotate.ErrKeyGone) {
				t.Fatal(err)
			}
		}
	}
	c := on(t, ca.issue(t, "gw", public), nil)
	c.Identity.Key, c.TPM.Address = "tpm:0x81000100", s.Address()
	connects(c)
	counts("0x1")
	claim := c // the same key as that of a claim, in the same state
	claim.Provision.ClaimCertificate, claim.Provision.ClaimKey = filepath.Join(c.StateDir, "identity", "certificate.pem"), c.Identity.Key
	for range 10 {
		got, err := Claim(claim)
		must(t, err)
		if _, err := got.Pair(nil); err == nil {
			t.Fatal("the claim's key signs")
		}
	}
	c.Attempts().Order()
	connects(c)
	counts("0x1")
}
