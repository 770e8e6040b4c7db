package tpm

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// TestPolicyB computes the policy from its parts (EK Profile, annex B, and Part
// 3, on PolicySecret, PolicyAuthorizeNV and PolicyOR).
func TestPolicyB(t *testing.T) {
	for alg, c := range map[tpm2.TPMAlgID]struct {
		hash  crypto.Hash
		index tpm2.TPMHandle // that holds the policy
	}{
		tpm2.TPMAlgSHA256: {crypto.SHA256, 0x01c07f01}, tpm2.TPMAlgSHA384: {crypto.SHA384, 0x01c07f02}, tpm2.TPMAlgSHA512: {crypto.SHA512, 0x01c07f03},
	} {
		sum := func(parts ...[]byte) []byte {
			h := c.hash.New()
			h.Write(slices.Concat(parts...))
			return h.Sum(nil)
		}
		start := make([]byte, c.hash.Size())
		word := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
		command := func(code tpm2.TPMCC) []byte { return word(uint32(code)) }
		secret := sum(sum(start, command(tpm2.TPMCCPolicySecret), word(uint32(tpm2.TPMRHEndorsement))))
		index := tpm2.TPMSNVPublic{
			NVIndex: c.index, NameAlg: alg,
			Attributes: tpm2.TPMANV{PolicyWrite: true, WriteAll: true, PPRead: true, OwnerRead: true, AuthRead: true, PolicyRead: true, NoDA: true, Written: true},
			AuthPolicy: tpm2.TPM2BDigest{Buffer: secret}, DataSize: uint16(2 + c.hash.Size()),
		}
		stored := sum(start, command(tpm2.TPMCCPolicyAuthorizeNV), binary.BigEndian.AppendUint16(nil, uint16(alg)), sum(tpm2.Marshal(index)))
		either := sum(start, command(tpm2.TPMCCPolicyOR), secret, stored)
		if hex.EncodeToString(either) != policyB[alg] {
			t.Errorf("%v: %x", c.hash, either)
		}
		if area := highECC(alg, 128, tpm2.TPMECCNistP256); !bytes.Equal(area.AuthPolicy.Buffer, either) {
			t.Errorf("%v: another policy in the template", c.hash)
		}
	}
}

func TestEndorsementKeyTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, ek := range endorsementKeys {
		if !holdsCertificate(ek.index) || !isEKIndex(ek.index) || seen[ek.id] || seen[ek.name] {
			t.Errorf("%s", ek.id)
		}
		seen[ek.id], seen[ek.name] = true, true
		if ek.hierarchy != tpm2.TPMRHEndorsement {
			t.Errorf("%s is in hierarchy %#x", ek.id, uint32(ek.hierarchy))
		}
	}
	if isEKIndex(0x01c00020) {
		t.Error("an index of none")
	}
}

// A TPM that the manufacturer gave an RSA key of 3,072 bits.
func TestRSA3072(t *testing.T) { byEveryWay(t, testRSA3072) }

func testRSA3072(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{RSA3072: true}).Address())
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:template:L-1 0",
		"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 1",
		"tpm-ek-rsa3072 EK RSA-3072 tpm:0x8101001c 1",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0",
	)
	before := keyByID(t, keys, "tpm-ek-rsa3072")
	evict(t, c, 0x8101001c)
	_, keys, gaps = c.Inventory()
	after := keyByID(t, keys, "tpm-ek-rsa3072")
	if after.Source != "tpm:template:H-6" || len(after.Chain) != 1 || !bytes.Equal(before.SPKI, after.SPKI) {
		t.Errorf("%v", brief(keys, gaps))
	}
}

// Two keys of one algorithm, by templates of the low and of the high range,
// are told apart.
func TestLowAndHighRange(t *testing.T) { byEveryWay(t, testLowAndHighRange) }

func testLowAndHighRange(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	persist(t, emulator, map[string]tpm2.TPMHandle{"tpm-ek-rsa2048-high": 0x81010000, "tpm-ek-p256-high": 0x81010014, "tpm-ek-p521": 0x81010018})
	c := connect(t, emulator.Address())
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 0",
		"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 0",
		"tpm-ek-rsa2048-high EK RSA-2048 tpm:0x81010000 0",
		"tpm-ek-p256-high EK ECDSA-P256 tpm:0x81010014 0",
		"tpm-ek-p521 EK ECDSA-P521 tpm:0x81010018 0",
		"tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
		"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
		"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0",
	)
}

func TestRoleOf(t *testing.T) {
	ak, srk, ek := attestationKey.area, storageRootKey.area, endorsementKeys[0].area
	imported, general := ak, ak
	imported.ObjectAttributes.FixedTPM, imported.ObjectAttributes.SensitiveDataOrigin = false, false
	general.ObjectAttributes.Restricted = false
	for _, c := range []struct {
		handle tpm2.TPMHandle
		area   tpm2.TPMTPublic
		want   device.Role
	}{
		{0x81010002, ak, device.RoleAK}, {0x81000002, ak, device.RoleAK}, {0x81800000, ak, device.RoleAK},
		{0x81000002, srk, device.RoleSRK}, {0x81010005, ek, device.RoleEK}, {0x81020000, srk, device.RolePersistent}, {0x81800001, srk, device.RolePersistent},
		{0x81000002, imported, device.RolePersistent}, {0x81010002, general, device.RolePersistent},
		{0x81000002, tpm2.TPMTPublic{}, device.RolePersistent},
	} {
		if got := roleOf(object{handle: c.handle, area: &c.area}); got != c.want {
			t.Errorf("%#x: %s, want %s", uint32(c.handle), got, c.want)
		}
	}
}

// Keys of the platform's hierarchy are listed too.
func TestPlatformKey(t *testing.T) { byEveryWay(t, testPlatformKey) }

func testPlatformKey(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	platform := attestationKey
	platform.hierarchy = tpm2.TPMRHPlatform
	if err := c.withPrimary(platform, func(key tpm2.NamedHandle, _ tpm2.TPM2BPublic) error {
		_, err := tpm2.EvictControl{Auth: tpm2.TPMRHPlatform, ObjectHandle: &key, PersistentHandle: 0x81800000}.Execute(c)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, keys, gaps := c.Inventory()
	if k := keyByID(t, keys, "tpm-0x81800000"); k.Role != device.RoleAK || len(gaps) != 0 {
		t.Errorf("%v", brief(keys, gaps))
	}
}
