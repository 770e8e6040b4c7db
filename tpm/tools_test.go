package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/advisory"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// tool runs a tool of tpm2-tools on the emulator, whose only client it has to be.
func tool(t *testing.T, emulator machine, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, append([]string{"-T", emulator.TCTI()}, args...)...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v (install tpm2-tools)\n%s", name, args, err, &problems)
	}
	return out
}

// read is an inventory over a connection of its own, and a quote.
func read(t *testing.T, emulator machine) (device.TPM, []device.Key) {
	t.Helper()
	c, err := Open(emulator.Address(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info, keys, gaps := c.Inventory()
	if len(gaps) != 0 {
		t.Fatalf("gaps: %v", gaps)
	}
	if _, err := c.Quote([32]byte{}); err != nil {
		t.Fatal(err)
	}
	return info, keys
}

// toolHandles are all handles that tpm2_getcap sees, by kind.
func toolHandles(t *testing.T, emulator machine) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, kind := range []string{"handles-transient", "handles-persistent", "handles-loaded-session", "handles-saved-session", "handles-nv-index", "handles-pcr"} {
		all[kind] = string(tool(t, emulator, "tpm2_getcap", kind))
	}
	return all
}

// tpm2-tools read the same keys from the same TPM: public keys, names and
// attributes; and see the same handles before and after.
func TestAgreesWithTPM2Tools(t *testing.T) { byEveryWay(t, testAgreesWithTPM2Tools) }

func testAgreesWithTPM2Tools(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{})
	if err := tpmtest.ImportRSA(emulator.SWTPM.Address(), tpmtest.ROCAKey("tools"), 0x81000100); err != nil {
		t.Fatal(err)
	}
	// The keys that are made by a template, where the tools can see them too.
	handles := map[string]tpm2.TPMHandle{"tpm-ek-p256": 0x81000200, "tpm-srk": 0x81000201, "tpm-srk-rsa2048": 0x81000203, "tpm-ak": 0x81000202}
	_, keys := read(t, emulator)
	persist(t, emulator, handles)

	before := toolHandles(t, emulator)
	info, withPersistent := read(t, emulator)
	if after := toolHandles(t, emulator); fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("handles before:\n%v\nafter:\n%v", before, after)
	}

	var persistent []string
	for _, k := range append(keys, withPersistent...) {
		handle, ok := strings.CutPrefix(k.Source, "tpm:0x")
		if ok {
			handle = "0x" + handle
			if line := "- " + strings.ToUpper(handle[2:]); !slices.Contains(persistent, line) {
				persistent = append(persistent, line)
			}
		} else if h, made := handles[k.ID]; made {
			handle = fmt.Sprintf("%#x", uint32(h))
		} else {
			t.Errorf("%s comes from %s", k.ID, k.Source)
			continue
		}
		file := filepath.Join(t.TempDir(), "key.der")
		said := tool(t, emulator, "tpm2_readpublic", "-c", handle, "-f", "der", "-o", file)
		der, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(der, k.SPKI) {
			t.Errorf("%s: tpm2_readpublic reads another public key: %v", k.ID, err)
		}
		if k.TPM == nil {
			t.Errorf("%s: no name", k.ID)
			continue
		}
		if want := "name: " + hex.EncodeToString(k.TPM.Name); !bytes.Contains(said, []byte(want+"\n")) {
			t.Errorf("%s: %s, tpm2_readpublic says\n%s", k.ID, want, said)
		}
		attributes := regexp.MustCompile(`attributes:\n  value: .*\n  raw: (.*)`).FindSubmatch(said)
		if attributes == nil || string(attributes[1]) != fmt.Sprintf("%#x", k.TPM.Attributes) {
			t.Errorf("%s: attributes %#x, tpm2_readpublic says\n%s", k.ID, k.TPM.Attributes, said)
		}
		if made := k.ID != "tpm-0x81000100"; k.TPM.MadeInTPM() != made {
			t.Errorf("%s: made in the TPM: %v", k.ID, !made)
		}
	}
	slices.Sort(persistent)
	if got, want := strings.Join(persistent, "\n")+"\n", strings.ToUpper(strings.ReplaceAll(before["handles-persistent"], "0x", "")); got != want {
		t.Errorf("persistent keys\n%s, tpm2_getcap says\n%s", got, want)
	}

	properties := string(tool(t, emulator, "tpm2_getcap", "properties-fixed"))
	property := func(name string) (value uint32) {
		if _, err := fmt.Sscanf(properties[strings.Index(properties, name+":\n")+len(name)+2:], "  raw: 0x%X\n", &value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return value
	}
	if version := advisory.FirmwareVersion("IBM", uint64(property("TPM2_PT_FIRMWARE_VERSION_1"))<<32|uint64(property("TPM2_PT_FIRMWARE_VERSION_2"))); version != info.FirmwareVersion || property("TPM2_PT_MANUFACTURER") != 0x49424d00 {
		t.Errorf("firmware version %s of %s, tpm2_getcap says %s", info.FirmwareVersion, info.Manufacturer, version)
	}
	platform := tool(t, emulator, "tpm2_nvread", "0x01c08000")
	if sum := sha256.Sum256(platform); hex.EncodeToString(sum[:]) != info.PlatformCertificate {
		t.Error("tpm2_nvread reads another platform certificate")
	}
}

// persist makes the keys of the inventory that have a template persistent, as an owner may.
func persist(t *testing.T, emulator machine, handles map[string]tpm2.TPMHandle) {
	t.Helper()
	c, err := Open(emulator.Address(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := []primary{storageRootKey, rsaStorageRootKey, attestationKey}
	for _, ek := range endorsementKeys {
		all = append(all, ek.primary)
	}
	for _, p := range all {
		handle, wanted := handles[p.id]
		if !wanted {
			continue
		}
		if err := c.withPrimary(p, func(key tpm2.NamedHandle, _ tpm2.TPM2BPublic) error {
			_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &key, PersistentHandle: handle}.Execute(c)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// Our templates make the keys that tpm2_createek makes by its own.
func TestTemplatesOfTPM2Tools(t *testing.T) { byEveryWay(t, testTemplatesOfTPM2Tools) }

func testTemplatesOfTPM2Tools(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	dir := t.TempDir()
	want := make(map[string][]byte)
	for id, algorithm := range map[string]string{
		"tpm-ek-rsa2048": "rsa2048", "tpm-ek-p256": "ecc256", "tpm-ek-p384": "ecc384", "tpm-ek-p521": "ecc521", "tpm-ek-rsa3072": "rsa3072",
	} {
		file := filepath.Join(dir, id)
		tool(t, emulator, "tpm2_createek", "-G", algorithm, "-c", filepath.Join(dir, "context"), "-u", file)
		tool(t, emulator, "tpm2_flushcontext", "-t")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want[id] = b[2:] // TPM2B_PUBLIC
	}
	c := connect(t, emulator.Address())
	for _, ek := range endorsementKeys {
		o, err := c.readPrimary(ek.primary)
		switch theirs, ok := want[ek.id]; {
		case ek.id == "tpm-ek-rsa4096":
			if !errors.Is(err, errUnsupported) { // by this emulator
				t.Errorf("%s: %v", ek.id, err)
			}
		case err != nil:
			t.Errorf("%s: %v", ek.id, err)
		case !sameTemplate(o.area, &ek.area):
			t.Errorf("%s: the key is not as its template", ek.id)
		case ok && !bytes.Equal(tpm2.Marshal(*o.area), theirs):
			t.Errorf("%s: another key than tpm2_createek makes", ek.id)
		}
	}
}
