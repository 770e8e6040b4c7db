package service

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// kind is a public key's algorithm.
func kind(p crypto.PublicKey) string {
	switch p := p.(type) {
	case *ecdsa.PublicKey:
		return fmt.Sprint("ecdsa-p", p.Params().BitSize)
	case *rsa.PublicKey:
		return fmt.Sprint("rsa-", p.Size()*8)
	}
	return fmt.Sprintf("%T", p)
}

func keysOn(address string) keys {
	k := keys{*config.Default(), slog.New(slog.DiscardHandler)}
	k.config.TPM.Address, k.config.StateDir = address, "/nonexistent"
	return k
}

func TestKeysInSoftware(t *testing.T) {
	k := keysOn("")
	for _, algorithm := range device.Algorithms() {
		file, err := k.Make(t.Context(), algorithm)
		must(t, err)
		s, err := k.Open(t.Context(), file)
		if err != nil || kind(s.Public()) != algorithm {
			t.Errorf("%s: %v", algorithm, err)
		}
		if err := k.Destroy(t.Context(), file); err != nil {
			t.Error(err)
		}
	}
	if _, err := k.Make(t.Context(), "dsa"); !errors.Is(err, rotate.ErrAlgorithm) {
		t.Errorf("%v", err)
	}
	for name, file := range map[string][]byte{
		"nothing": nil, "no key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"a key of the TPM's that is none": pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: []byte("x")}),
	} {
		if _, err := k.Open(t.Context(), file); err == nil || errors.Is(err, rotate.ErrKeyGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKeysInTPM(t *testing.T) {
	s, other := tpmtest.Run(t, tpmtest.Options{}), tpmtest.Run(t, tpmtest.Options{})
	k := keysOn(s.Address())
	file, err := k.Make(t.Context(), "ecdsa-p256")
	must(t, err)
	signer, err := k.Open(t.Context(), file)
	must(t, err)
	digest := sha256.Sum256([]byte("x"))
	if sig, err := signer.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil || !ecdsa.VerifyASN1(signer.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Errorf("it does not sign: %v", err)
	}
	if _, err := keysOn(other.Address()).Open(t.Context(), file); !errors.Is(err, rotate.ErrKeyGone) {
		t.Errorf("another TPM has the key: %v", err)
	}
	if _, err := keysOn("unix:"+t.TempDir()+"/none").Open(t.Context(), file); err == nil || errors.Is(err, rotate.ErrKeyGone) {
		t.Errorf("a TPM that is not there does not have it: %v", err)
	}
	if _, err := keysOn("unix:"+t.TempDir()+"/none").Make(t.Context(), "ecdsa-p256"); err == nil {
		t.Error("a key without a TPM")
	}
	if _, err := k.Make(t.Context(), "dsa"); err == nil {
		t.Error("an unknown kind of key")
	}
	if _, err := k.Make(t.Context(), "rsa-2048"); err != nil {
		t.Errorf("good firmware makes no RSA key: %v", err)
	}
	roca := tpmtest.RunProxy(t, s.Address(), tpmtest.Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x0007003d000ae100}.Rewrite)
	if _, err := keysOn(roca.Address()).Make(t.Context(), "rsa-2048"); !errors.Is(err, rotate.ErrAlgorithm) {
		t.Errorf("firmware of the flawed library makes an RSA key: %v", err)
	}
}

// Jobs that ask for a rotation again and again, beside a storage key with a
// password, add one failure in all: the new keys are under another parent, and
// the log says why.
func TestStorageKeyWithPassword(t *testing.T) {
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
	tool("tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-a", "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth", "-p", "pw", "-c", "key.ctx")
	tool("tpm2_flushcontext", "-t")
	tool("tpm2_evictcontrol", "-Q", "-C", "o", "-c", "key.ctx", "0x81000001")
	tool("tpm2_flushcontext", "-t")
	k := keysOn(s.Address())
	var log bytes.Buffer
	k.config.StateDir, k.log = t.TempDir(), slog.New(slog.NewTextHandler(&log, nil))
	for range 10 {
		k.config.Attempts().Order() // as each job does
		if _, err := k.Make(t.Context(), device.ECDSAP256); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(log.String(), "the storage key at 0x81000001 has a password"); n != 10 || strings.Count(log.String(), "without tpm.owner_auth_file") != 10 {
		t.Errorf("%d times: %s", n, &log)
	}
	if out := tool("tpm2_getcap", "properties-variable"); !bytes.Contains(out, []byte("TPM2_PT_LOCKOUT_COUNTER: 0x1\n")) {
		t.Errorf("%s", out)
	}
}
