package tpm

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// Evidence by a kept attestation key is as good as by the primary one, with the
// device's key certified and a challenge answered.
func TestKeptAK(t *testing.T) { byEveryWay(t, testKeptAK) }

func testKeptAK(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{Banks: "sha256,sha384"})
	c := connect(t, emulator.Address())
	before := allHandles(t, c)
	created, err := c.CreateAK()
	if err != nil {
		t.Fatal(err)
	}
	fromFile, err := ParseAK(created.PEM())
	if err != nil {
		t.Fatal(err)
	}
	blob, err := c.CreateKey("ecdsa-p256")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(emulator.Address(), Options{}, blob)
	if err != nil {
		t.Fatal(err)
	}
	const handle = 0x81010020
	atHandle, err := c.PersistentAK(handle)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.PersistentAK(handle); err != nil || !sameKey(again.area, atHandle.area) || again.PEM() != nil {
		t.Errorf("%v", err)
	}
	if after := allHandles(t, c); len(after) != len(before)+1 || !slices.Contains(after, handle) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
	before = allHandles(t, c)
	for source, ak := range map[string]*AK{"tpm:blob": fromFile, "tpm:0x81010020": atHandle, "tpm:template:AK-P256": nil} {
		c.ak = nil
		if ak != nil {
			if err := c.UseAK(ak); err != nil {
				t.Fatal(err)
			}
		}
		_, keys, gaps := c.Inventory()
		if k := keyByID(t, keys, "tpm-ak"); k.Source != source || k.Role != device.RoleAK || len(gaps) != 0 {
			t.Errorf("%s: %+v, %v", source, k, gaps)
		}
		aks := slices.DeleteFunc(slices.Clone(keys), func(k device.Key) bool { return k.Role != device.RoleAK })
		if want := map[bool]int{false: 1, true: 2}[ak != atHandle]; len(aks) != want { // the one at the handle is there in any case
			t.Errorf("%s: %v", source, brief(aks, nil))
		}
		listed := device.Key{ID: "device", Role: device.RoleDevice, Public: blob.Public(), SPKI: blob.SPKI()}
		encoded := report(t, c, []device.Key{listed}, func(digest [32]byte) (*device.Evidence, error) {
			return c.Attest(AttestRequest{Digest: digest, Bank: "sha384", PCRs: []uint{0, 23}, DeviceKey: signer})
		})
		policy := evidence.Policy{Check: passes, Now: time.Now(), EKRoots: roots(t, emulator)}
		name := evidence.Verify(encoded, policy).Statement.AKName
		challenge, expected, err := evidence.NewChallenge(keyByID(t, keys, "tpm-ek-rsa2048").Public, name, func(crypto.PublicKey) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := c.Activate(challenge); err != nil || !bytes.Equal(answer, expected.Secret) {
			t.Errorf("%s: %x, %v", source, answer, err)
		}
		policy.Activated = expected.Activated
		r := evidence.Verify(encoded, policy)
		for _, l := range r.Levels {
			if l.Status != device.Pass && l.Name != evidence.LevelFreshness && l.Name != evidence.LevelBootLog {
				t.Errorf("%s: %+v", source, l)
			}
		}
		if pcrs := r.Statement.PCRs; len(pcrs) != 2 || pcrs[0].Bank != "sha384" || len(pcrs[0].Value) != 48 || pcrs[1].Index != 23 {
			t.Errorf("%s: %+v", source, pcrs)
		}
	}
	if has, err := c.HasPCRs("sha384", nil); !has || err != nil {
		t.Errorf("bank: %v, %v", has, err)
	}
	if after := allHandles(t, c); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(c); err != nil {
		t.Fatal(err)
	}
	if err := c.UseAK(fromFile); !errors.Is(err, ErrAKUnusable) {
		t.Errorf("after TPM2_Clear: %v", err)
	}
	if err := c.UseAK(atHandle); err == nil || errors.Is(err, ErrAKUnusable) {
		t.Errorf("after TPM2_Clear: %v", err)
	}
}

func TestAKRefused(t *testing.T) { byEveryWay(t, testAKRefused) }

func testAKRefused(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	if err := tpmtest.ImportRSA(emulator.SWTPM.Address(), tpmtest.ROCAKey("ak"), 0x81000100); err != nil {
		t.Fatal(err)
	}
	c := connect(t, emulator.Address())
	for handle, want := range map[uint32]string{0x81000100: "another key is at", 0x81800000: "no persistent handle of the owner", 0x80000000: "no persistent handle"} {
		if _, err := c.PersistentAK(handle); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%#x: %v", handle, err)
		}
	}
	ak, err := c.CreateAK()
	if err != nil {
		t.Fatal(err)
	}
	other := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	if err := other.UseAK(ak); !errors.Is(err, ErrAKUnusable) || other.ak != nil {
		t.Errorf("another TPM's: %v", err)
	}
	changed := *ak
	file := *ak.file.TPMKey
	file.Privkey.Buffer = bytes.Clone(file.Privkey.Buffer)
	file.Privkey.Buffer[9] ^= 1
	changed.file = &loadable{TPMKey: &file}
	if err := c.UseAK(&changed); !errors.Is(err, ErrAKUnusable) {
		t.Errorf("damaged: %v", err)
	}
	device, err := c.CreateKey("ecdsa-p256")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "no PEM": []byte("key"), "the device's key": device.PEM(),
		"another block": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"}), "no DER": pem.EncodeToMemory(&pem.Block{Type: keyBlobType, Bytes: []byte{1}}),
	} {
		if _, err := ParseAK(text); err == nil || !strings.HasPrefix(err.Error(), "read attestation key: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Attest(AttestRequest{Bank: "md5"}); err == nil {
		t.Error("an unknown bank")
	}
	for bank, want := range map[string]bool{"sha256": true, "sha384": false, "md5": false} {
		if has, err := c.HasPCRs(bank, nil); has != want || (err == nil) != (bank != "md5") {
			t.Errorf("%s: %v, %v", bank, has, err)
		}
	}
}

// A TPM without resource manager that falls silent once is rid of what was left
// in it by the next connection.
func TestLeftovers(t *testing.T) { byEveryWay(t, testLeftovers) }

func testLeftovers(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	blob := createKey(t, emulator.Address(), "ecdsa-p256")
	var silent atomic.Uint32 // the command that is not answered
	proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
		if silent.CompareAndSwap(binary.BigEndian.Uint32(command[6:]), 0) {
			return nil
		}
		return response
	})
	s, err := NewSigner(proxy.Address(), Options{Timeout: 300 * time.Millisecond}, blob)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []tpm2.TPMCC{tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCSign, tpm2.TPMCCFlushContext} {
		silent.Store(uint32(command))
		if _, err := s.SelfTest(); !errors.Is(err, ErrTimeout) {
			t.Errorf("%v: %v", command, err)
		}
		patient, err := Open(proxy.Address(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range allHandles(t, patient) {
			if h>>24 == 0x80 {
				t.Errorf("%v: %#x stays in the TPM", command, h)
			}
		}
		patient.Close()
	}
	if _, err := s.SelfTest(); err != nil {
		t.Error(err)
	}
}

func FuzzParseAK(f *testing.F) {
	seed, err := os.ReadFile("testdata/ak.pem")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := ParseAK(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte("-----BEGIN TSS2 PRIVATE KEY-----\n-----END TSS2 PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		ak, err := ParseAK(text)
		if err != nil {
			return
		}
		if again, err := ParseAK(ak.PEM()); err != nil || !sameKey(again.area, ak.area) {
			t.Errorf("read back: %v", err)
		}
	})
}
