package main

import (
	"crypto"
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyvet/keyvet/device"
)

// securityKey signs as a FIDO key does (OpenSSH, PROTOCOL.u2f).
type securityKey struct {
	public  ssh.PublicKey
	private crypto.Signer
}

func (s securityKey) PublicKey() ssh.PublicKey { return s.public }

func (s securityKey) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	application, message := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	rest := []byte{1, 0, 0, 0, 7} // flags, counter
	signed := slices.Concat(application[:], rest, message[:])
	var blob []byte
	if key, ok := s.private.(*ecdsa.PrivateKey); ok {
		digest := sha256.Sum256(signed)
		a, b, err := ecdsa.Sign(r, key, digest[:])
		if err != nil {
			return nil, err
		}
		blob = ssh.Marshal(struct{ R, S *big.Int }{a, b})
	} else {
		blob = ed25519.Sign(s.private.(ed25519.PrivateKey), signed)
	}
	return &ssh.Signature{Format: s.public.Type(), Blob: blob, Rest: rest}, nil
}

func newSecurityKey(t *testing.T, kind string) securityKey {
	t.Helper()
	var private crypto.Signer
	var blob []byte
	switch kind {
	case "sk-ssh-ed25519@openssh.com":
		public, key, _ := ed25519.GenerateKey(rand.Reader)
		private = key
		blob = ssh.Marshal(struct {
			Type        string
			Key         []byte
			Application string
		}{kind, public, "ssh:"})
	default:
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		private = key
		point, _ := key.PublicKey.Bytes()
		blob = ssh.Marshal(struct {
			Type, Curve string
			Point       []byte
			Application string
		}{kind, "nistp256", point, "ssh:"})
	}
	public, err := ssh.ParsePublicKey(blob)
	if err != nil {
		t.Fatal(err)
	}
	return securityKey{public, private}
}

// TestSSHCertificates judges certificates that x/crypto/ssh signed, with every
// algorithm of a CA, and each of them with one bit turned over.
func TestSSHCertificates(t *testing.T) {
	signer := func(key any, algorithm string) ssh.Signer {
		s, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if algorithm == "" {
			return s
		}
		one, err := ssh.NewSignerWithAlgorithms(s.(ssh.AlgorithmSigner), []string{algorithm})
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	ec := func(c elliptic.Curve) any { k, _ := ecdsa.GenerateKey(c, rand.Reader); return k }
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	dsaKey := new(dsa.PrivateKey)
	if err := dsa.GenerateParameters(&dsaKey.Parameters, rand.Reader, dsa.L1024N160); err != nil {
		t.Fatal(err)
	}
	if err := dsa.GenerateKey(dsaKey, rand.Reader); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		ca     ssh.Signer
		status int
		code   string
	}{
		"ed25519":      {signer(edKey, ""), 0, ""},
		"p256":         {signer(ec(elliptic.P256()), ""), 0, ""},
		"p384":         {signer(ec(elliptic.P384()), ""), 0, ""},
		"p521":         {signer(ec(elliptic.P521()), ""), 0, ""},
		"rsa-sha2-256": {signer(rsaKey, ssh.KeyAlgoRSASHA256), 0, ""},
		"rsa-sha2-512": {signer(rsaKey, ssh.KeyAlgoRSASHA512), 0, ""},
		"rsa-sha1":     {signer(rsaKey, ssh.KeyAlgoRSA), 1, "KEYVET_SIGNATURE_SHA1"},
		"dsa":          {signer(dsaKey, ""), 1, "KEYVET_SIGNATURE_SHA1"},
		"sk-ed25519":   {newSecurityKey(t, "sk-ssh-ed25519@openssh.com"), 0, ""},
		"sk-ecdsa":     {newSecurityKey(t, "sk-ecdsa-sha2-nistp256@openssh.com"), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cert := sshCertificate(t, tt.ca, time.Now().Add(-time.Hour), time.Time{})
			checkSSH(t, cert.Marshal(), tt.status, tt.code)
			for _, at := range []int{60, len(cert.Marshal()) - 1 - len(cert.Signature.Rest)} { // the nonce, the signature
				blob := cert.Marshal()
				blob[at] ^= 1
				checkSSH(t, blob, 1, "KEYVET_CERTIFICATE_SIGNATURE_INVALID")
			}
		})
	}
}

// TestSSHValidity judges the times of certificates.
func TestSSHValidity(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	ca, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for name, tt := range map[string]struct {
		after, before time.Time
		status        int
		code          string
	}{
		"always":           {time.Unix(0, 0), time.Time{}, 0, ""},
		"a day old of two": {now.Add(-24 * time.Hour), now.Add(24 * time.Hour), 0, ""},
		"nearly over":      {now.Add(-99 * time.Hour), now.Add(time.Hour), 0, device.ReasonExpiring},
		"over":             {now.Add(-2 * time.Hour), now.Add(-time.Hour), 1, device.ReasonExpired},
		"not yet":          {now.Add(time.Hour), now.Add(2 * time.Hour), 3, "KEYVET_CERTIFICATE_NOT_YET_VALID"},
	} {
		t.Run(name, func(t *testing.T) {
			checkSSH(t, sshCertificate(t, ca, tt.after, tt.before).Marshal(), tt.status, tt.code)
		})
	}
}

func sshCertificate(t *testing.T, ca ssh.Signer, after, before time.Time) *ssh.Certificate {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: public, CertType: ssh.HostCert, KeyId: "gateway", ValidPrincipals: []string{"gw.example"},
		ValidAfter: uint64(after.Unix()), ValidBefore: ssh.CertTimeInfinity}
	if !before.IsZero() {
		cert.ValidBefore = uint64(before.Unix())
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	return cert
}

func checkSSH(t *testing.T, blob []byte, status int, code string) {
	t.Helper()
	line := fmt.Sprintf("ecdsa-sha2-nistp256-cert-v01@openssh.com %s\n", base64.StdEncoding.EncodeToString(blob))
	got, r := checkJSON(t, line, "-")
	found := code == "" || slices.ContainsFunc(r.Findings, func(f device.Finding) bool { return f.ReasonCode == code })
	if got != status || !found || len(r.Keys) != 2 {
		t.Errorf("exit %d with %d keys, want %d with %q: %v %v", got, len(r.Keys), status, code, r.Findings, r.Gaps)
	}
}

// TestSSHKeygen judges certificates that ssh-keygen wrote, one for every type of
// key and of CA that it has without a security key.
func TestSSHKeygen(t *testing.T) {
	names, err := filepath.Glob("testdata/cases/ssh/*-cert.pub")
	if err != nil || len(names) != 6 {
		t.Fatalf("%q, %v", names, err)
	}
	for _, name := range names {
		if status, r := checkJSON(t, "", name); status != 0 || len(r.Keys) != 2 || len(failed(r, "chain")) > 0 {
			t.Errorf("%s: exit %d, %v %v", name, status, r.Findings, r.Gaps)
		}
	}
}
