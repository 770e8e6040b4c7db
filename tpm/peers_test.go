package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	keyfile "github.com/foxboron/go-tpm-keyfiles"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// peer runs a program of the TCG's software stack on the TPM, in a directory.
func peer(t *testing.T, emulator machine, dir string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TPM2OPENSSL_TCTI="+emulator.TCTI(), "TPM2TOOLS_TCTI="+emulator.TCTI())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, out, &stderr)
	}
	return out
}

// openssl runs openssl with the provider tpm2 of tpm2-openssl.
func openssl(t *testing.T, emulator machine, dir, command string, args ...string) []byte {
	t.Helper()
	return peer(t, emulator, dir, slices.Concat([]string{"openssl", command, "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2"}, args)...)
}

// readFile reads a file of the test's own.
func readFile(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tpm2-openssl signs with the keys that keyvet makes, and go-tpm-keyfiles does.
func TestPeersSign(t *testing.T) { byEveryWay(t, testPeersSign) }

func testPeersSign(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	before := handlesOf(t, emulator.Address())
	dir := t.TempDir()
	message := []byte("message")
	if err := os.WriteFile(filepath.Join(dir, "message"), message, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		algorithm string
		hash      crypto.Hash
		digest    []byte
	}{
		{"ecdsa-p256", crypto.SHA256, sum256(message)},
		{"ecdsa-p384", crypto.SHA384, sum384(message)},
		{"rsa-2048", crypto.SHA256, sum256(message)},
	} {
		b := createKey(t, emulator.Address(), c.algorithm)
		if err := os.WriteFile(filepath.Join(dir, "key.pem"), b.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		openssl(t, emulator, dir, "dgst", "-"+map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384"}[c.hash], "-sign", "key.pem", "-out", "signature", "message")
		signature := readFile(t, dir, "signature")
		if err := verify(b.Public(), c.digest, c.hash, signature); err != nil {
			t.Errorf("%s: openssl: %v", c.algorithm, err)
		}
		signature[len(signature)-1] ^= 1
		if verify(b.Public(), c.digest, c.hash, signature) == nil {
			t.Errorf("%s: any signature verifies", c.algorithm)
		}
		if public, _ := pem.Decode(openssl(t, emulator, dir, "pkey", "-in", "key.pem", "-pubout")); public == nil || !bytes.Equal(public.Bytes, b.SPKI()) {
			t.Errorf("%s: openssl reads another public key", c.algorithm)
		}

		peer, err := keyfile.Decode(b.PEM())
		if err != nil {
			t.Fatal(err)
		}
		conn := connect(t, emulator.Address())
		signer, err := peer.Signer(struct {
			transport.TPM
			closer
		}{TPM: conn}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		signature, err = signer.Sign(nil, c.digest, c.hash)
		if err == nil {
			err = verify(b.Public(), c.digest, c.hash, signature)
		}
		if err != nil {
			t.Errorf("%s: go-tpm-keyfiles: %v", c.algorithm, err)
		}
		conn.Close()
	}
	if after := handlesOf(t, emulator.Address()); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
}

type closer struct{}

func (closer) Close() error { return nil }

func sum256(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
func sum384(b []byte) []byte { s := sha512.Sum384(b); return s[:] }

// keyvet signs with keys that tpm2-openssl and tpm2-tools made.
func TestPeersKeys(t *testing.T) { byEveryWay(t, testPeersKeys) }

func testPeersKeys(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	dir := t.TempDir()
	for name, create := range map[string]func() ([]byte, []byte){
		"openssl EC P-256": func() ([]byte, []byte) {
			return nil, openssl(t, emulator, dir, "genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256")
		},
		"openssl EC P-384": func() ([]byte, []byte) {
			return nil, openssl(t, emulator, dir, "genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-384")
		},
		"openssl RSA-2048": func() ([]byte, []byte) {
			return nil, openssl(t, emulator, dir, "genpkey", "-algorithm", "RSA", "-pkeyopt", "bits:2048")
		},
		// As tpm2_encodeobject(1) shows it, under a persistent parent.
		"tpm2-tools": func() ([]byte, []byte) {
			peer(t, emulator, dir, "tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-c", "primary.ctx")
			peer(t, emulator, dir, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", "primary.ctx", "0x81000001")
			peer(t, emulator, dir, "tpm2_flushcontext", "-t")
			peer(t, emulator, dir, "tpm2_create", "-Q", "-C", "0x81000001", "-G", "ecc", "-u", "key.pub", "-r", "key.priv")
			peer(t, emulator, dir, "tpm2_encodeobject", "-C", "0x81000001", "-u", "key.pub", "-r", "key.priv", "-o", "key.pem")
			return nil, readFile(t, dir, "key.pem")
		},
		"tpm2-tools, persistent": func() ([]byte, []byte) {
			peer(t, emulator, dir, "tpm2_createprimary", "-Q", "-C", "o", "-G", "rsa", "-c", "parent.ctx")
			peer(t, emulator, dir, "tpm2_flushcontext", "-t")
			peer(t, emulator, dir, "tpm2_create", "-Q", "-C", "parent.ctx", "-G", "rsa2048", "-u", "rsa.pub", "-r", "rsa.priv", "-c", "rsa.ctx")
			peer(t, emulator, dir, "tpm2_flushcontext", "-t")
			peer(t, emulator, dir, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", "rsa.ctx", "0x81000100")
			peer(t, emulator, dir, "tpm2_flushcontext", "-t")
			peer(t, emulator, dir, "tpm2_readpublic", "-Q", "-c", "0x81000100", "-f", "pem", "-o", "rsa.pem")
			return readFile(t, dir, "rsa.pem"), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			public, private := create()
			before := handlesOf(t, emulator.Address())
			s, err := peersSigner(emulator.Address(), public, private)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.SelfTest(); err != nil {
				t.Error(err)
			}
			if after := handlesOf(t, emulator.Address()); !slices.Equal(before, after) || slices.ContainsFunc(after, func(h tpm2.TPMHandle) bool { return h>>24 == 0x80 }) {
				t.Errorf("handles before: %x, after: %x", before, after)
			}
		})
	}
}

// peersSigner is the signer of a key file, or else of the key at 0x81000100.
func peersSigner(address string, public, private []byte) (*Signer, error) {
	if private != nil {
		b, err := ParseKeyBlob(private)
		if err != nil {
			return nil, err
		}
		return NewSigner(address, Options{}, b)
	}
	block, _ := pem.Decode(public)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return NewPersistentSigner(address, Options{}, 0x81000100, key)
}
