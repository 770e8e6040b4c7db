package tpm

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/tpm12"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func TestTPM12(t *testing.T) { byEveryWay(t, testTPM12) }

func testTPM12(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{TPM12: true})
	c := connect(t, emulator.Address())
	info, keys, gaps := c.Inventory()
	if want := (device.TPM{Family: "1.2", Manufacturer: "IBM", FirmwareVersion: info.FirmwareVersion, PlatformCertificate: info.PlatformCertificate, State: device.TPMOK, NamingKey: "tpm-ek"}); info != want ||
		!strings.HasPrefix(info.FirmwareVersion, "18.") || len(info.PlatformCertificate) != 64 {
		t.Errorf("%+v", info)
	}
	expect(t, brief(keys, gaps), "tpm-ek EK RSA-2048 tpm:pubek 1")
	ek := keyByID(t, keys, "tpm-ek")
	if der, err := x509.MarshalPKIXPublicKey(ek.Public); err != nil || !bytes.Equal(der, ek.SPKI) || !bytes.Equal(keyBits(der), keyBits(ek.Leaf().RawSubjectPublicKeyInfo)) {
		t.Errorf("the key is not that of its certificate: %v", err)
	}
	issuer, err := os.ReadFile(emulator.CAFiles()[0])
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(issuer)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !bytes.Equal(ca.RawSubject, ek.Leaf().RawIssuer) { // its signature is by SHA-1, which Go does not verify
		t.Errorf("the issuer is %s: %v", ek.Leaf().Issuer, err)
	}
	if _, err := c.Quote([32]byte{}); err == nil || !strings.Contains(err.Error(), "a TPM 1.2 does not have") {
		t.Errorf("quote: %v", err)
	}
}

// An owned TPM 1.2 gives its endorsement key by the certificate alone.
func TestTPM12Owned(t *testing.T) { byEveryWay(t, testTPM12Owned) }

func testTPM12Owned(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{TPM12: true, Owned: true}).Address())
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps), "tpm-ek EK RSA-2048 tpm:nv:0x1000f000 1", "gap tpm-ek minor=true", "gap tpm-srk minor=true")
	if !strings.HasPrefix(gaps[0].Why, "read from its certificate alone: ") || !strings.Contains(gaps[1].Why, "the TPM has an owner") {
		t.Errorf("%v", gaps)
	}
}

func TestTPM12OwnedWithoutCertificate(t *testing.T) { byEveryWay(t, testTPM12OwnedWithoutCertificate) }

func testTPM12OwnedWithoutCertificate(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{TPM12: true, Owned: true, NoEKCertificates: true}).Address())
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps), "gap tpm-ek minor=false", "gap tpm-srk minor=false")
	if !strings.Contains(gaps[0].Why, "owner's password") || !strings.Contains(gaps[0].Why, "evidence.required = false") {
		t.Errorf("%v", gaps)
	}
	c.opts.AKOptional = true
	_, keys, gaps = c.Inventory()
	expect(t, brief(keys, gaps), "gap tpm-ek minor=true", "gap tpm-srk minor=true")
}

// answer12 is a response of a TPM 1.2.
func answer12(code tpm12.Code, parameters ...byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 0xc4}, uint32(10+len(parameters)))
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), parameters...)
}

func TestTPM12States(t *testing.T) { byEveryWay(t, testTPM12States) }

func testTPM12States(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{TPM12: true})
	const readPubek, getCapability, nvRead = 0x7c, 0x65, 0xcf
	everything := func(_, ordinal uint32) bool { return ordinal < 0x100 }
	for name, c := range map[string]struct {
		when   func(n, ordinal uint32) bool // of the n-th command
		answer []byte
		state  device.TPMState
		want   []string
		why    string
	}{
		"failure mode":   {everything, answer12(tpm12.FailedTest), device.TPMDegraded, []string{"gap tpm minor=false"}, "in failure mode"},
		"not started":    {everything, answer12(tpm12.NotStarted), device.TPMNotStarted, []string{"gap tpm minor=false"}, "was not started"},
		"no endorsement": {func(_, o uint32) bool { return o == readPubek }, answer12(tpm12.NoEndorsement), device.TPMOK, []string{"tpm-ek EK RSA-2048 tpm:nv:0x1000f000 1", "gap tpm-ek minor=true"}, "no endorsement key"},
		"NV for the owner": {func(_, o uint32) bool { return o == nvRead }, answer12(tpm12.AuthConflict), device.TPMOK,
			[]string{"tpm-ek EK RSA-2048 tpm:pubek 0", "gap tpm:nv:0x1000f000 minor=false", "gap tpm:nv:0x1000f002 minor=true"}, "owner's password"},
		"NV of something else": {func(_, o uint32) bool { return o == nvRead }, answer12(0, append([]byte{0, 0, 0, 5}, "other"...)...), device.TPMOK,
			[]string{"tpm-ek EK RSA-2048 tpm:pubek 0", "gap tpm:nv:0x1000f000 minor=false", "gap tpm:nv:0x1000f002 minor=true"}, "5 bytes instead of"},
		"busy at first": {func(n, _ uint32) bool { return n <= 3 }, answer12(0x802), device.TPMOK, []string{"tpm-ek EK RSA-2048 tpm:pubek 1"}, ""},
	} {
		var asked atomic.Uint32
		proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
			ordinal := binary.BigEndian.Uint32(command[6:])
			if ordinal < 0x100 && c.when(asked.Add(1), ordinal) {
				return c.answer
			}
			return response
		})
		client, err := Open(proxy.Address(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		info, keys, gaps := client.Inventory()
		client.Close()
		proxy.Close()
		expect(t, brief(keys, gaps), c.want...)
		if info.State != c.state || info.Family != "1.2" || len(gaps) > 0 && !strings.Contains(gaps[0].Why, c.why) {
			t.Errorf("%s: %+v, %v", name, info, gaps)
		}
	}
}

// A TPM 1.2 that is disabled or deactivated says so.
func TestTPM12Disabled(t *testing.T) { byEveryWay(t, testTPM12Disabled) }

func testTPM12Disabled(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{TPM12: true, NoEKCertificates: true})
	proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
		switch {
		case bytes.HasPrefix(command[6:], []byte{0, 0, 0, 0x7c}):
			return answer12(tpm12.Disabled)
		case bytes.HasSuffix(command, []byte{0, 0, 1, 8}): // the permanent flags
			response[16] = 1
		}
		return response
	})
	_, keys, gaps := connect(t, proxy.Address()).Inventory()
	expect(t, brief(keys, gaps), "gap tpm: state minor=false", "gap tpm-ek minor=false")
	for _, g := range gaps {
		if !strings.Contains(g.Why, "in the firmware's setup") {
			t.Errorf("%+v", g)
		}
	}
}

func TestKernelSaysTPM12(t *testing.T) {
	sysfs := t.TempDir()
	for name, major := range map[string]string{"tpm0": "1\n", "tpm1": "2\n", "tpm2": "", "tpm.sock": "1\n"} {
		if err := os.Mkdir(filepath.Join(sysfs, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sysfs, name, "tpm_version_major"), []byte(major), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for address, want := range map[string]bool{
		"/dev/tpm0": true, "/dev/tpmrm0": true, "/dev/tpm1": false, "/dev/tpm2": false, "/dev/tpm3": false, "unix:/tpm.sock": false, "tcp:tpm0": false, "": false,
	} {
		if kernelSaysTPM12(sysfs, address) != want {
			t.Errorf("%q: %v", address, !want)
		}
	}
}

// A TPM that is known as a TPM 1.2 is sent no command of TPM 2.0.
func TestTPM12IsNotAskedAsTPM20(t *testing.T) { byEveryWay(t, testTPM12IsNotAskedAsTPM20) }

func testTPM12IsNotAskedAsTPM20(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{TPM12: true})
	var foreign atomic.Int32
	proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
		if command[0] == 0x80 {
			foreign.Add(1)
		}
		return response
	})
	c := connect(t, proxy.Address())
	c.is12.Store(true)
	if _, keys, gaps := c.Inventory(); len(keys) != 1 || len(gaps) != 0 {
		t.Errorf("%v", brief(keys, gaps))
	}
	if _, err := c.Quote([32]byte{}); !errors.Is(err, errTPM12) {
		t.Errorf("quote: %v", err)
	}
	if n := foreign.Load(); n != 0 {
		t.Errorf("%d commands of TPM 2.0", n)
	}
	c.is12.Store(false)
	if _, err := c.Info(); err != nil || foreign.Load() != 1 || !c.is12.Load() {
		t.Errorf("not known before: %d commands of TPM 2.0, %v", foreign.Load(), err)
	}
}
