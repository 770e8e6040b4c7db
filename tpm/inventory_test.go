package tpm

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func connect(t testing.TB, address string) *TPM {
	t.Helper()
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func keyByID(t *testing.T, keys []device.Key, id string) device.Key {
	t.Helper()
	for _, k := range keys {
		if k.ID == id {
			return k
		}
	}
	t.Fatalf("no key %s", id)
	return device.Key{}
}

// brief is the inventory, one line for each key and gap.
func brief(keys []device.Key, gaps []device.Gap) []string {
	var lines []string
	for _, k := range keys {
		lines = append(lines, fmt.Sprintf("%s %s %s %s %d", k.ID, k.Role, k.Algorithm(), k.Source, len(k.Chain)))
	}
	for _, g := range gaps {
		lines = append(lines, fmt.Sprintf("gap %s minor=%v", g.What, g.Minor))
	}
	return lines
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// allHandles are all handles there are in the TPM: NV indices, sessions that
// are loaded and saved, transient and persistent objects.
func allHandles(t *testing.T, c *TPM) []tpm2.TPMHandle {
	t.Helper()
	var all []tpm2.TPMHandle
	for _, kind := range []uint32{0x01, 0x02, 0x03, 0x80, 0x81} {
		handles, err := c.handles(kind<<24, kind<<24|0xffffff)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, handles...)
	}
	return all
}

func TestInventory(t *testing.T) { byEveryWay(t, testInventory) }

func testInventory(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{})
	roca := tpmtest.ROCAKey("inventory")
	if err := tpmtest.ImportRSA(emulator.SWTPM.Address(), roca, 0x81000100); err != nil {
		t.Fatal(err)
	}
	c := connect(t, emulator.Address())
	before := allHandles(t, c)
	if slices.ContainsFunc(before, func(h tpm2.TPMHandle) bool { return h>>24 == 0x80 }) {
		t.Errorf("the import left a transient object behind: %x", before)
	}
	var found []string
	c.Found = func(k device.Key) { found = append(found, k.ID) }
	info, keys, gaps := c.Inventory()
	if !slices.EqualFunc(found, keys, func(id string, k device.Key) bool { return id == k.ID }) {
		t.Errorf("found %v", found)
	}
	if want := (device.TPM{
		Family: "2.0", Manufacturer: "IBM", VendorString: "SW   TPM",
		FirmwareVersion: info.FirmwareVersion, SpecRevision: "1.64", State: device.TPMOK,
		PlatformCertificate: info.PlatformCertificate, NamingKey: "tpm-ek-rsa2048", Clearing: device.ClearingOpen,
	}); info != want || len(info.PlatformCertificate) != 64 || !strings.HasPrefix(info.FirmwareVersion, "8217.4131.22.") {
		t.Errorf("%+v", info)
	}
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 1",
		"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 1",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0",
		"tpm-0x81000100 PERSISTENT RSA-2048 tpm:0x81000100 0",
	)
	if n, e, ok := keyByID(t, keys, "tpm-0x81000100").RSA(); !ok || n.Cmp(roca.N) != 0 || e.Int64() != 65537 {
		t.Error("the imported key is not the one that was imported")
	}
	for _, k := range keys {
		// A second opinion on what was put together by hand.
		if der, err := x509.MarshalPKIXPublicKey(k.Public); err != nil || !bytes.Equal(der, k.SPKI) {
			t.Errorf("%s: SPKI differs from crypto/x509's: %v", k.ID, err)
		}
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for i, file := range emulator.CAFiles() {
		pem, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if ![]*x509.CertPool{intermediates, roots}[i].AppendCertsFromPEM(pem) {
			t.Fatalf("no certificate in %s", file)
		}
	}
	for _, id := range []string{"tpm-ek-rsa2048", "tpm-ek-p384"} {
		leaf := *keyByID(t, keys, id).Leaf()
		leaf.UnhandledCriticalExtensions = nil // the TPM's make and model, as a name of the subject
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}

	if _, err := c.Quote([32]byte{1}); err != nil {
		t.Error(err)
	}
	if after := allHandles(t, c); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
	_, again, _ := c.Inventory()
	if !slices.EqualFunc(keys, again, func(a, b device.Key) bool { return a.ID == b.ID && bytes.Equal(a.SPKI, b.SPKI) }) {
		t.Error("a second inventory found other keys")
	}
}

func TestInventoryWithoutCertificates(t *testing.T) { byEveryWay(t, testInventoryWithoutCertificates) }

func testInventoryWithoutCertificates(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	_, keys, gaps := c.Inventory()
	if len(gaps) != 0 || keyByID(t, keys, "tpm-ek-rsa2048").Chain != nil {
		t.Errorf("%v", brief(keys, gaps))
	}
	if e, err := c.Quote([32]byte{}); err != nil || e.EKCertificate != "" {
		t.Errorf("quote: %+v, %v", e, err)
	}
}

// evict removes a persistent key, as an owner may.
func evict(t testing.TB, c *TPM, h tpm2.TPMHandle) {
	t.Helper()
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: h, Name: rsp.Name}, PersistentHandle: h}).Execute(c); err != nil {
		t.Fatal(err)
	}
}

// The templates make the very keys that the manufacturer made persistent and certified.
func TestTemplates(t *testing.T) { byEveryWay(t, testTemplates) }

func testTemplates(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{}).Address())
	_, before, _ := c.Inventory()
	evict(t, c, 0x81010001)
	evict(t, c, 0x81010016)
	_, after, gaps := c.Inventory()
	expect(t, brief(after, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:template:L-1 1",
		"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:template:H-3 1",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0",
	)
	for i := range before {
		if !bytes.Equal(before[i].SPKI, after[i].SPKI) {
			t.Errorf("%s: another key by its template", after[i].ID)
		}
	}
}

func TestEndorsementPassword(t *testing.T) { byEveryWay(t, testEndorsementPassword) }

func testEndorsementPassword(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{}).Address())
	evict(t, c, 0x81010001)
	if _, err := (tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)},
		NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("password")},
	}).Execute(c); err != nil {
		t.Fatal(err)
	}
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:nv:0x01c00002 1",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 1",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"gap tpm-ek-rsa2048 minor=true",
		"gap tpm-ek-p256 minor=true",
		"gap tpm-ak minor=true",
	)
	for _, g := range gaps {
		if !strings.Contains(g.Why, "the endorsement hierarchy has a password: name a file that holds it as tpm.endorsement_auth_file") {
			t.Errorf("%+v", g)
		}
	}
	if _, err := c.Quote([32]byte{}); err == nil || !strings.Contains(err.Error(), "tpm.endorsement_auth_file") {
		t.Errorf("quote: %v", err)
	}
}

// One free slot for transient objects is enough; with none, the gaps say what to do.
func TestTransientSlots(t *testing.T) { byEveryWay(t, testTransientSlots) }

func testTransientSlots(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	load := func() {
		if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(c); err != nil {
			t.Fatal(err)
		}
	}
	load()
	load()
	if _, _, gaps := c.Inventory(); len(gaps) != 0 {
		t.Errorf("one slot is free, gaps: %v", gaps)
	}
	load()
	// This TPM needs one even to read the public area of a persistent key.
	_, keys, gaps := c.Inventory()
	if len(keys) != 0 || len(gaps) != 8 {
		t.Errorf("no slot is free: %v", brief(keys, gaps))
	}
	for _, g := range gaps {
		if g.Minor || !strings.Contains(g.Why, "use the kernel's resource manager") {
			t.Errorf("%+v", g)
		}
	}
}

// A key is flushed even if the response that told of it makes no sense, and if
// what it was made for fails.
func TestFlushOnErrors(t *testing.T) { byEveryWay(t, testFlushOnErrors) }

func testFlushOnErrors(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	var intact atomic.Bool
	var damaged atomic.Int32
	proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
		if !intact.Load() && bytes.HasPrefix(command[6:], []byte{0, 0, 1, 0x31}) && bytes.Equal(response[6:10], make([]byte, 4)) { // TPM2_CreatePrimary
			damaged.Add(1)
			response = append(response[:14:14], 0xff, 0xff, 0xff, 0xff) // the handle, and no more that makes sense
			response[5] = byte(len(response))
			response[4] = 0
		}
		return response
	})
	c := connect(t, proxy.Address())
	before := allHandles(t, c)
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 0",
		"gap tpm-ek-p256 minor=false", "gap tpm-srk minor=false", "gap tpm-srk-rsa2048 minor=false", "gap tpm-ak minor=false",
	)
	if damaged.Load() != 4 {
		t.Errorf("%d responses were damaged", damaged.Load())
	}
	failure := errors.New("failure")
	intact.Store(true)
	if err := c.withPrimary(storageRootKey, func(tpm2.NamedHandle, tpm2.TPM2BPublic) error { return failure }); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
	if after := allHandles(t, c); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
}

// A curve that the TPM neither makes keys of nor lists is a minor gap.
func TestUnsupported(t *testing.T) { byEveryWay(t, testUnsupported) }

func testUnsupported(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	area := tpm2.ECCSRKTemplate
	area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(128)),
			Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		CurveID: tpm2.TPMECCCurve448,
	})
	inv := inventory{t: c}
	inv.addPrimary(primary{"tpm-ek-x448", "x448", "X", tpm2.TPMRHEndorsement, area}, false, device.RoleEK, nil)
	expect(t, brief(inv.keys, inv.gaps), "gap tpm-ek-x448 minor=true")
}

func TestPretend(t *testing.T) { byEveryWay(t, testPretend) }

func testPretend(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{})
	proxy := by.proxy(t, emulator, tpmtest.Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x0007003d000ae100}.Rewrite)
	info, keys, _ := connect(t, proxy.Address()).Inventory()
	if want := (device.TPM{Family: "2.0", Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: "7.61.2785.0", SpecRevision: "1.64", PlatformCertificate: info.PlatformCertificate, State: device.TPMOK, NamingKey: "tpm-ek-rsa2048", Clearing: device.ClearingOpen}); info != want {
		t.Errorf("%+v, want %+v", info, want)
	}
	if len(keys) != 6 {
		t.Errorf("%d keys", len(keys))
	}
}
