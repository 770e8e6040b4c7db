package tpm

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
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// createKey makes a key in the TPM at address, which then has no client.
func createKey(t testing.TB, address, algorithm string) *KeyBlob {
	t.Helper()
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := c.CreateKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// createTemplate makes a key that CreateKey does not make, with a password.
func createTemplate(t *testing.T, address, password string, template tpm2.TPMTPublic) *tpm2.CreateResponse {
	t.Helper()
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var rsp *tpm2.CreateResponse
	err = c.withParent(parent{handle: tpm2.TPMRHOwner}, func(_ parent, h tpm2.AuthHandle) (err error) {
		secret := tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(password)}}}
		rsp, err = tpm2.Create{ParentHandle: h, InSensitive: secret, InPublic: tpm2.New2B(template)}.Execute(c)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return rsp
}

// persistBlob puts a key at a persistent handle.
func persistBlob(t testing.TB, address string, b *KeyBlob, handle uint32) {
	t.Helper()
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = b.with(c, func(h tpm2.AuthHandle, _ *tpm2.TPMTPublic) error {
		_, err := tpm2.EvictControl{
			Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: h.Handle, Name: h.Name}, PersistentHandle: tpm2.TPMHandle(handle),
		}.Execute(c)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func handlesOf(t *testing.T, address string) []tpm2.TPMHandle {
	t.Helper()
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return allHandles(t, c)
}

func signerOf(t testing.TB, address string, b *KeyBlob) *Signer {
	t.Helper()
	s, err := NewSigner(address, Options{}, b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// selfSigned is a certificate on a key by the key itself.
func selfSigned(t *testing.T, key crypto.Signer) tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"test"},
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// shake does a TLS handshake in which the client shows a certificate, and
// returns what the server says of it.
func shake(t *testing.T, client tls.Certificate, version uint16) error {
	t.Helper()
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	for _, c := range []net.Conn{near, far} {
		c.SetDeadline(time.Now().Add(time.Minute))
	}
	shaken := make(chan error, 1)
	go func() {
		c := tls.Client(near, &tls.Config{
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
			InsecureSkipVerify:   true, MaxVersion: version,
		})
		err := c.Handshake()
		if err != nil {
			near.Close()
		}
		shaken <- err
	}()
	server := tls.Server(far, &tls.Config{
		Certificates: []tls.Certificate{selfSigned(t, serverKey)}, ClientAuth: tls.RequireAnyClientCert, MinVersion: version,
		SessionTicketsDisabled: true, // nobody reads them from the pipe
	})
	err = server.Handshake() // which checks that the client has the key
	if err == nil && !bytes.Equal(server.ConnectionState().PeerCertificates[0].Raw, client.Certificate[0]) {
		t.Error("the server saw another certificate")
	}
	if clientErr := <-shaken; err == nil && clientErr != nil {
		t.Error(clientErr)
	}
	return err
}

func TestSigner(t *testing.T) { byEveryWay(t, testSigner) }

func testSigner(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
	before := handlesOf(t, address)
	handle := uint32(0x81000100)
	for algorithm, want := range map[string][]tls.SignatureScheme{
		"ecdsa-p256": {tls.ECDSAWithP256AndSHA256},
		"ecdsa-p384": {tls.ECDSAWithP384AndSHA384},
		"rsa-2048":   {tls.PSSWithSHA256, tls.PKCS1WithSHA256},
		"rsa-3072":   {tls.PSSWithSHA256, tls.PKCS1WithSHA256},
	} {
		t.Run(algorithm, func(t *testing.T) {
			b, err := ParseKeyBlob(createKey(t, address, algorithm).PEM())
			if err != nil {
				t.Fatal(err)
			}
			if after := handlesOf(t, address); !slices.Equal(before, after) {
				t.Errorf("creation: handles before: %x, after: %x", before, after)
			}
			persistBlob(t, address, b, handle)
			persistent, err := NewPersistentSigner(address, Options{}, handle, b.Public())
			if err != nil {
				t.Fatal(err)
			}
			handle++
			before = handlesOf(t, address)
			for _, s := range []*Signer{signerOf(t, address, b), persistent} {
				schemes, err := s.SelfTest()
				if err != nil || !slices.Equal(schemes, want) {
					t.Fatalf("%s: self-test: %v, %v", s.key, schemes, err)
				}
				certificate := selfSigned(t, s) // for RSA by PKCS#1 v1.5
				certificate.SupportedSignatureAlgorithms = schemes
				for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
					if err := shake(t, certificate, version); err != nil {
						t.Errorf("%s: %s: %v", s.key, tls.VersionName(version), err)
					}
				}
				der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, s)
				if err != nil {
					t.Fatal(err)
				}
				csr, err := x509.ParseCertificateRequest(der)
				if err != nil || csr.CheckSignature() != nil || !bytes.Equal(csr.RawSubjectPublicKeyInfo, b.SPKI()) {
					t.Errorf("%s: certificate request: %v", s.key, err)
				}
			}
			if after := handlesOf(t, address); !slices.Equal(before, after) {
				t.Errorf("signing: handles before: %x, after: %x", before, after)
			}
		})
	}
}

// Every hash and length of salt that crypto/x509 and crypto/tls may ask for.
func TestSignOptions(t *testing.T) { byEveryWay(t, testSignOptions) }

func testSignOptions(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
	keys := map[string]*Signer{}
	for _, algorithm := range []string{"ecdsa-p256", "ecdsa-p384", "rsa-2048"} {
		keys[algorithm] = signerOf(t, address, createKey(t, address, algorithm))
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		h := hash.New()
		h.Write([]byte("message"))
		digest := h.Sum(nil)
		pss := func(salt int) crypto.SignerOpts { return &rsa.PSSOptions{SaltLength: salt, Hash: hash} }
		for _, c := range []struct {
			algorithm string
			opts      crypto.SignerOpts
		}{
			{"ecdsa-p256", hash}, {"ecdsa-p384", hash}, {"rsa-2048", hash},
			{"rsa-2048", pss(rsa.PSSSaltLengthEqualsHash)}, {"rsa-2048", pss(rsa.PSSSaltLengthAuto)}, {"rsa-2048", pss(20)}, {"rsa-2048", pss(256 - hash.Size() - 2)},
		} {
			if _, err := keys[c.algorithm].Sign(rand.Reader, digest, c.opts); err != nil { // it verifies by itself
				t.Errorf("%s %v %+v: %v", c.algorithm, hash, c.opts, err)
			}
		}
		for _, c := range []struct {
			digest []byte
			opts   crypto.SignerOpts
		}{
			{digest[1:], hash}, {nil, hash}, {digest, crypto.SHA1}, {digest, crypto.Hash(0)}, {digest, &rsa.PSSOptions{}}, {digest, pss(256 - hash.Size() - 1)}, {digest, pss(-2)},
		} {
			if signature, err := keys["rsa-2048"].Sign(rand.Reader, c.digest, c.opts); err == nil {
				t.Errorf("%d bytes by %+v: signed: %x", len(c.digest), c.opts, signature)
			}
		}
	}
}

func TestSignInParallel(t *testing.T) { byEveryWay(t, testSignInParallel) }

func testSignInParallel(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
	b := createKey(t, address, "ecdsa-p256")
	one, other := signerOf(t, address, b), signerOf(t, address, b)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			digest := sha256.Sum256([]byte{byte(i)})
			if _, err := []*Signer{one, other}[i%2].Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// On a TPM that somebody owns, keys are made under the storage key that was
// put there for it.
func TestCreateKeyUnderPersistentParent(t *testing.T) {
	byEveryWay(t, testCreateKeyUnderPersistentParent)
}

func testCreateKeyUnderPersistentParent(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
	underOwner := createKey(t, address, "ecdsa-p256")
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = c.withPrimary(storageRootKey, func(h tpm2.NamedHandle, _ tpm2.TPM2BPublic) error {
		_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: h, PersistentHandle: srkHandle}.Execute(c)
		return err
	})
	if err == nil {
		_, err = tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}.Execute(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	for _, algorithm := range []string{"ecdsa-p256", "rsa-2048"} {
		b, err := ParseKeyBlob(createKey(t, address, algorithm).PEM())
		if err != nil || b.file.Parent != srkHandle {
			t.Fatalf("%+v, %v", b, err)
		}
		if _, err := signerOf(t, address, b).SelfTest(); err != nil {
			t.Error(err)
		}
	}
	contexts.Lock()
	clear(contexts.saved) // as another process
	contexts.Unlock()
	if _, err := signerOf(t, address, underOwner).SelfTest(); err == nil || !strings.Contains(err.Error(), "the owner hierarchy has a password") {
		t.Errorf("under the owner hierarchy: %v", err)
	}
}

func TestCreateKeyErrors(t *testing.T) { byEveryWay(t, testCreateKeyErrors) }

func testCreateKeyErrors(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	c := connect(t, emulator.Address())
	if _, err := c.CreateKey("rsa-1024"); err == nil {
		t.Error("a key of an algorithm that nobody knows")
	}
	unsupported := by.proxy(t, machine{}, func(command, response []byte) []byte {
		return frame(0x8001, 0x2c4) // TPM_RC_VALUE, parameter 2
	})
	if _, err := connect(t, unsupported.Address()).CreateKey("ecdsa-p384"); err == nil {
		t.Error("a key of a TPM that has none")
	}
}

// frame makes a response of that tag and code.
func frame(tag uint16, code uint32) []byte {
	b := binary.BigEndian.AppendUint16(nil, tag)
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, headerLen), code)
}

func TestSignerRefuses(t *testing.T) { byEveryWay(t, testSignerRefuses) }

func testSignerRefuses(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	address := emulator.Address()
	p256 := keyTemplates["ecdsa-p256"]
	restricted := p256
	restricted.ObjectAttributes.Restricted = true
	restricted.Parameters = attestationKey.area.Parameters
	decrypting := p256
	decrypting.ObjectAttributes.SignEncrypt, decrypting.ObjectAttributes.Decrypt = false, true
	byPolicy := p256
	byPolicy.ObjectAttributes.UserWithAuth, byPolicy.AuthPolicy.Buffer = false, make([]byte, 32)
	for i, c := range []struct {
		name     string
		template tpm2.TPMTPublic
		password string
		want     string
	}{
		{"restricted", restricted, "", "restricted"},
		{"for decryption", decrypting, "", "not for signing"},
		{"by policy", byPolicy, "", "policy"},
		{"by password", p256, "secret", "password"},
	} {
		rsp := createTemplate(t, address, c.password, c.template)
		area, err := rsp.OutPublic.Contents()
		if err != nil {
			t.Fatal(err)
		}
		public, _, err := publicKey(area)
		if err != nil {
			t.Fatal(err)
		}
		b := blobOf(rsp)
		b.area, b.public = area, public
		if _, err := ParseKeyBlob(b.PEM()); c.password == "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: the file: %v", c.name, err)
		}
		handle := 0x81000100 + uint32(i)
		persistBlob(t, address, b, handle)
		s, err := NewPersistentSigner(address, Options{}, handle, public)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.SelfTest(); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := signerOf(t, address, b).SelfTest(); c.password != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: the file says otherwise: %v", c.name, err)
		}
	}

	good, other := createKey(t, address, "ecdsa-p256"), createKey(t, address, "ecdsa-p256")
	persistBlob(t, address, other, 0x81000200)
	foreign := createKey(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address(), "ecdsa-p256")
	orphan := *good
	file := *good.file.TPMKey
	file.Parent, orphan.file = 0x81000300, &loadable{TPMKey: &file}
	persistentSigner := func(handle uint32) func() (*Signer, error) {
		return func() (*Signer, error) { return NewPersistentSigner(address, Options{}, handle, good.Public()) }
	}
	for name, c := range map[string]struct {
		make func() (*Signer, error)
		want string
	}{
		"another key":        {persistentSigner(0x81000200), "another key is there"},
		"no key":             {persistentSigner(0x81000201), "nothing is at 0x81000201"},
		"another TPM's key":  {func() (*Signer, error) { return NewSigner(address, Options{}, foreign) }, "of another TPM"},
		"no parent":          {func() (*Signer, error) { return NewSigner(address, Options{}, &orphan) }, "nothing is at 0x81000300"},
		"no TPM":             {func() (*Signer, error) { return NewSigner("unix:"+filepath.Join(t.TempDir(), "x"), Options{}, good) }, ErrAbsent.Error()},
		"transient handle":   {persistentSigner(0x80000001), "no persistent handle"},
		"permanent handle":   {persistentSigner(0x40000001), "no persistent handle"},
		"not a key to check": {func() (*Signer, error) { return NewPersistentSigner(address, Options{}, 0x81000200, nil) }, "cannot sign"},
		"point at infinity": {func() (*Signer, error) {
			return NewPersistentSigner(address, Options{}, 0x81000200, &ecdsa.PublicKey{Curve: elliptic.P256(), X: new(big.Int), Y: new(big.Int)})
		}, "no point"},
	} {
		s, err := c.make()
		if err == nil {
			_, err = s.SelfTest()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}

	before := handlesOf(t, address)
	if slices.ContainsFunc(before, func(h tpm2.TPMHandle) bool { return h>>24 == 0x80 }) {
		t.Errorf("a refusal left something behind: %x", before)
	}
	tested := signerOf(t, address, good)
	if _, err := tested.SelfTest(); err != nil {
		t.Fatal(err)
	}
	if err := emulator.Pause(); err != nil {
		t.Fatal(err)
	}
	if _, err := tested.SelfTest(); err != nil {
		t.Errorf("a self-test that passed asks the TPM again: %v", err)
	}
	s, err := NewSigner(address, Options{Timeout: 50 * time.Millisecond}, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SelfTest(); !errors.Is(err, ErrTimeout) {
		t.Errorf("a TPM that does not answer: %v", err)
	}
	if err := emulator.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := signerOf(t, address, good).SelfTest(); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// flipSignatures inverts a bit of what a proxy's TPM signs in that scheme.
func flipSignatures(scheme tpm2.TPMAlgID) tpmtest.Rewrite {
	return func(command, response []byte) []byte {
		wanted := binary.BigEndian.Uint32(command[6:]) == uint32(tpm2.TPMCCSign) && len(response) > headerLen+16 &&
			binary.BigEndian.Uint16(response[headerLen+4:]) == uint16(scheme)
		if wanted {
			response = bytes.Clone(response)
			response[headerLen+16] ^= 1
		}
		return response
	}
}

// A TPM that falls silent in the middle ends the signature at the deadline of
// that command.
func TestSilentWhileSigning(t *testing.T) { byEveryWay(t, testSilentWhileSigning) }

func testSilentWhileSigning(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	b := createKey(t, emulator.Address(), "ecdsa-p256")
	for _, command := range []tpm2.TPMCC{tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCSign, tpm2.TPMCCFlushContext} {
		proxy := by.proxy(t, emulator, func(sent, response []byte) []byte {
			if binary.BigEndian.Uint32(sent[6:]) == uint32(command) {
				return nil
			}
			return response
		})
		s, err := NewSigner(proxy.Address(), Options{Timeout: 300 * time.Millisecond}, b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.SelfTest(); !errors.Is(err, ErrTimeout) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", command, err)
		}
		proxy.Close()
		flushAll(t, emulator.Address()) // as a reset or a resource manager would
	}
}

// flushAll takes out what an interrupted command left in the TPM.
func flushAll(t *testing.T, address string) {
	t.Helper()
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, h := range allHandles(t, c) {
		if h>>24 == 0x80 {
			if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(c); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A TPM locks itself after some wrong passwords: one is not tried twice.
func TestPasswordTriedOnce(t *testing.T) { byEveryWay(t, testPasswordTriedOnce) }

func testPasswordTriedOnce(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	template := keyTemplates["rsa-2048"]
	template.ObjectAttributes.NoDA = false
	b, err := ParseKeyBlob(blobOf(createTemplate(t, emulator.Address(), "secret", template)).PEM())
	if err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int32
	proxy := by.proxy(t, emulator, func(_, response []byte) []byte {
		if binary.BigEndian.Uint32(response[6:]) == 0x98e { // TPM_RC_AUTH_FAIL, session 1
			refused.Add(1)
		}
		return response
	})
	for range 3 {
		s := signerOf(t, proxy.Address(), b)
		if _, err := s.SelfTest(); !errors.Is(err, tpm2.TPMRCAuthFail) || !strings.Contains(err.Error(), "password") {
			t.Errorf("%v", err)
		}
	}
	if n := refused.Load(); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestBadSignature(t *testing.T) { byEveryWay(t, testBadSignature) }

func testBadSignature(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	for algorithm, scheme := range map[string]tpm2.TPMAlgID{"ecdsa-p256": tpm2.TPMAlgECDSA, "rsa-2048": tpm2.TPMAlgRSASSA} {
		b := createKey(t, emulator.Address(), algorithm)
		proxy := by.proxy(t, emulator, flipSignatures(scheme))
		digest := sha256.Sum256(nil)
		if signature, err := signerOf(t, proxy.Address(), b).Sign(nil, digest[:], crypto.SHA256); err == nil || signature != nil || !strings.Contains(err.Error(), "does not verify") {
			t.Errorf("%s: %x, %v", algorithm, signature, err)
		}
		proxy.Close()
		if slices.ContainsFunc(handlesOf(t, emulator.Address()), func(h tpm2.TPMHandle) bool { return h>>24 == 0x80 }) {
			t.Error("something was left behind")
		}
	}
}

// A key that may only sign has the TPM pad: PSS is offered if the salt is right.
func TestSignOnlyRSA(t *testing.T) { byEveryWay(t, testSignOnlyRSA) }

func testSignOnlyRSA(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	template := keyTemplates["rsa-2048"]
	template.ObjectAttributes.Decrypt = false
	b, err := ParseKeyBlob(blobOf(createTemplate(t, emulator.Address(), "", template)).PEM())
	if err != nil {
		t.Fatal(err)
	}
	schemes, err := signerOf(t, emulator.Address(), b).SelfTest()
	if err != nil || !slices.Equal(schemes, []tls.SignatureScheme{tls.PSSWithSHA256, tls.PKCS1WithSHA256}) {
		t.Errorf("swtpm's salt is as long as the hash: %v, %v", schemes, err)
	}

	// A TPM whose PSS is not what TLS wants.
	proxy := by.proxy(t, emulator, flipSignatures(tpm2.TPMAlgRSAPSS))
	s := signerOf(t, proxy.Address(), b)
	schemes, err = s.SelfTest()
	if err != nil || !slices.Equal(schemes, []tls.SignatureScheme{tls.PKCS1WithSHA256}) {
		t.Fatalf("%v, %v", schemes, err)
	}
	certificate := selfSigned(t, s)
	certificate.SupportedSignatureAlgorithms = schemes
	if err := shake(t, certificate, tls.VersionTLS12); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	if err := shake(t, certificate, tls.VersionTLS13); err == nil {
		t.Error("TLS 1.3 with PKCS#1 v1.5")
	}
	// The key that keyvet makes does not depend on that.
	schemes, err = signerOf(t, proxy.Address(), createKey(t, proxy.Address(), "rsa-2048")).SelfTest()
	if err != nil || len(schemes) != 2 {
		t.Errorf("a key that may decrypt: %v, %v", schemes, err)
	}
}

func TestVerify(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	asked := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	for _, c := range []struct {
		salt int
		ok   bool
	}{{rsa.PSSSaltLengthEqualsHash, true}, {32, true}, {rsa.PSSSaltLengthAuto, false} /* as long as fits */, {20, false}, {0, false}} {
		signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: c.salt})
		if err != nil {
			t.Fatal(err)
		}
		if err := verify(key.Public(), digest[:], asked, signature); (err == nil) != c.ok {
			t.Errorf("salt %d: %v", c.salt, err)
		}
	}
}

// padPSS is held against crypto/rsa, also where the modulus does not end on a byte.
func TestPadPSS(t *testing.T) {
	for _, bits := range []int{2048, 2049, 2050, 2055} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA512} {
			h := hash.New()
			fmt.Fprint(h, bits)
			digest := h.Sum(nil)
			for _, salt := range []int{1, 32, hash.Size(), (bits-1+7)/8 - hash.Size() - 2} {
				padded, err := padPSS(bits, digest, hash, salt)
				if err != nil {
					t.Fatal(err)
				}
				m := new(big.Int).SetBytes(padded)
				if len(padded) != key.Size() || m.Cmp(key.N) >= 0 {
					t.Fatalf("%d bits: %d bytes, too large: %v", bits, len(padded), m.Cmp(key.N) >= 0)
				}
				signature := m.Exp(m, key.D, key.N).FillBytes(make([]byte, key.Size()))
				if err := rsa.VerifyPSS(&key.PublicKey, hash, digest, signature, &rsa.PSSOptions{SaltLength: salt}); err != nil {
					t.Errorf("%d bits, %v, salt %d: %v", bits, hash, salt, err)
				}
			}
			if _, err := padPSS(bits, digest, hash, (bits-1+7)/8-hash.Size()-1); err == nil {
				t.Errorf("%d bits: a salt too long was taken", bits)
			}
		}
	}
}

// FuzzSign has a TPM answer anything, from recordings of real signatures on.
func FuzzSign(f *testing.F) {
	emulator := tpmtest.Run(f, tpmtest.Options{NoEKCertificates: true})
	type request struct {
		signer *Signer
		opts   crypto.SignerOpts
	}
	digest := sha256.Sum256(nil)
	var requests []request
	for _, algorithm := range []string{"ecdsa-p256", "rsa-2048"} {
		b := createKey(f, emulator.Address(), algorithm)
		persistent, err := NewPersistentSigner(emulator.Address(), Options{}, 0x81000100+uint32(len(requests)), b.Public())
		if err != nil {
			f.Fatal(err)
		}
		persistBlob(f, emulator.Address(), b, 0x81000100+uint32(len(requests)))
		for _, w := range waysToSign(b.Public()) {
			requests = append(requests, request{signerOf(f, emulator.Address(), b), w.opts}, request{persistent, w.opts})
		}
	}
	for i, r := range requests {
		c, recording := recorded(f, emulator.Address())
		signature, err := r.signer.signOn(c, digest[:], r.opts)
		if err != nil || verify(r.signer.public, digest[:], r.opts, signature) != nil {
			f.Fatal(err)
		}
		c.Close()
		f.Add(byte(i), recording.responses)
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		r := requests[int(which)%len(requests)]
		// Too short a time to be asked to repeat a command.
		c := over(&transcript{responses: b}, 9*time.Millisecond)
		if signature, err := r.signer.signOn(c, digest[:], r.opts); err == nil {
			verify(r.signer.public, digest[:], r.opts, signature)
		}
	})
}

func BenchmarkSignP256(b *testing.B) {
	address := tpmtest.Run(b, tpmtest.Options{NoEKCertificates: true}).Address()
	blob := createKey(b, address, "ecdsa-p256")
	persistBlob(b, address, blob, 0x81000100)
	persistent, err := NewPersistentSigner(address, Options{}, 0x81000100, blob.Public())
	if err != nil {
		b.Fatal(err)
	}
	software, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256(nil)
	for _, c := range []struct {
		name string
		key  crypto.Signer
	}{{"keyblob", signerOf(b, address, blob)}, {"persistent", persistent}, {"software", software}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := c.key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A key that is gone, or was never there, is told apart from a TPM that does not
// give it now.
func TestGone(t *testing.T) { byEveryWay(t, testGone) }

func testGone(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	other := by.run(t, tpmtest.Options{NoEKCertificates: true})
	c := connect(t, emulator.Address())
	blob, err := c.CreateKey("ecdsa-p256")
	if err != nil {
		t.Fatal(err)
	}
	persistSigning := func(handle tpm2.TPMHandle) *ecdsa.PublicKey {
		t.Helper()
		key, listed := loadKey(t, c, true)
		named := tpm2.NamedHandle{Handle: key.Handle, Name: key.Name}
		if _, err := (tpm2.EvictControl{Auth: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, ObjectHandle: &named, PersistentHandle: handle}).Execute(c); err != nil {
			t.Fatal(err)
		}
		if _, err := (tpm2.FlushContext{FlushHandle: key.Handle}).Execute(c); err != nil {
			t.Fatal(err)
		}
		return listed.Public.(*ecdsa.PublicKey)
	}
	public := persistSigning(0x81000100)
	c.Close()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	test := func(name, address string, gone bool) {
		t.Helper()
		opts := Options{Timeout: time.Second}
		byBlob, err := NewSigner(address, opts, blob)
		if err != nil {
			t.Fatal(err)
		}
		byHandle, err := NewPersistentSigner(address, opts, 0x81000100, public)
		if err != nil {
			t.Fatal(err)
		}
		for what, s := range map[string]*Signer{"blob": byBlob, "handle": byHandle} {
			if _, err := s.SelfTest(); err == nil || errors.Is(err, ErrGone) != gone {
				t.Errorf("%s, by %s: %v", name, what, err)
			}
		}
	}
	replaced, err := NewPersistentSigner(emulator.Address(), Options{}, 0x81000100, stranger.Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replaced.SelfTest(); !errors.Is(err, ErrGone) {
		t.Errorf("another key at the handle: %v", err)
	}
	test("another TPM", other.Address(), true)
	test("no TPM", "unix:"+filepath.Join(t.TempDir(), "absent"), false)

	c = connect(t, emulator.Address())
	switchOff(t, c, uint32(tpm2.TPMRHOwner))
	c.Close()
	test("hierarchy disabled", emulator.Address(), false)

	reset := by.run(t, tpmtest.Options{NoEKCertificates: true})
	c = connect(t, reset.Address())
	made, err := c.CreateKey("ecdsa-p256")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(reset.Address(), Options{}, made)
	if err != nil {
		t.Fatal(err)
	}
	const clear = 0x126
	command(t, c, clear, uint32(tpm2.TPMRHLockout))
	c.Close()
	if _, err := s.SelfTest(); !errors.Is(err, ErrGone) {
		t.Errorf("cleared: %v", err)
	}
	busy := by.proxy(t, reset, func(command, response []byte) []byte {
		if bytes.HasPrefix(command[6:], []byte{0, 0, 1, 0x57}) { // TPM2_Load
			return []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x22} // TPM_RC_RETRY
		}
		return response
	})
	if s, err = NewSigner(busy.Address(), Options{Timeout: 100 * time.Millisecond}, made); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SelfTest(); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("busy: %v", err)
	}
}
