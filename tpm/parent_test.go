package tpm

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// lacking starts a TPM that lacks an algorithm, and has no key of it.
func lacking(t *testing.T, l tpmtest.Lacks) (address string, emulator *tpmtest.SWTPM) {
	t.Helper()
	emulator = tpmtest.Run(t, tpmtest.Options{})
	c := connect(t, emulator.Address())
	if l.Algorithm == tpmtest.RSA {
		evict(t, c, 0x81010001)
	} else {
		evict(t, c, 0x81010016)
	}
	c.Close()
	return tpmtest.RunInterposer(t, emulator.Address(), l.Refuse, l.Rewrite).Address(), emulator
}

// A TPM that has RSA alone, or ECC alone, is read, attests by a key that is kept
// or not, and makes keys that sign; the fleet's side takes its evidence and its
// answer to a challenge.
func TestOneAlgorithm(t *testing.T) {
	for name, tt := range map[string]struct {
		lacks     tpmtest.Lacks
		ak, key   string // algorithms
		ek        string // that is challenged
		other     string // of keys that cannot be made
		rsaParent bool
		want      []string
	}{
		"RSA": {
			tpmtest.Lacks{Algorithm: tpmtest.ECC, Code: 0x2ca}, "RSA-2048", "rsa-2048", "tpm-ek-rsa2048", "ecdsa-p256", true,
			[]string{
				"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 1", "tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0", "tpm-ak AK RSA-2048 tpm:template:AK-RSA2048 0",
				"tpm-ek-p384 EK ECDSA-P384 tpm:nv:0x01c00016 1", "gap tpm-ek-p256 minor=true", "gap tpm-srk minor=true",
			},
		},
		"RSA, though P-256 is listed": {
			tpmtest.Lacks{Algorithm: tpmtest.ECC, Code: 0x2e6, Lists: true}, "RSA-2048", "rsa-2048", "tpm-ek-rsa2048", "ecdsa-p256", true,
			[]string{"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 1", "tpm-ak AK RSA-2048 tpm:template:AK-RSA2048 0", "gap tpm-ek-p256 minor=true", "gap tpm-srk minor=true"},
		},
		"RSA, by a code of no parameter": {
			tpmtest.Lacks{Algorithm: tpmtest.ECC, Code: 0x143}, "RSA-2048", "rsa-2048", "tpm-ek-rsa2048", "", true,
			[]string{"tpm-ak AK RSA-2048 tpm:template:AK-RSA2048 0"},
		},
		"ECC": {
			tpmtest.Lacks{Algorithm: tpmtest.RSA, Code: 0x2c1}, "ECDSA-P256", "ecdsa-p256", "tpm-ek-p384", "rsa-2048", false,
			[]string{
				"tpm-ek-p256 EK ECDSA-P256 tpm:template:L-2 0", "tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 1", "tpm-srk SRK ECDSA-P256 tpm:template:SRK-P256 0",
				"tpm-ak AK ECDSA-P256 tpm:template:AK-P256 0", "gap tpm-srk-rsa2048 minor=true",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			address, emulator := lacking(t, tt.lacks)
			c := connect(t, address)
			_, keys, gaps := c.Inventory()
			got := brief(keys, gaps)
			for _, want := range tt.want {
				if !slices.Contains(got, want) {
					t.Errorf("want %s in\n%s", want, strings.Join(got, "\n"))
				}
			}
			if tt.other != "" && holdsUp(gaps) {
				t.Errorf("undecided:\n%s\n%v", strings.Join(got, "\n"), gaps)
			}

			// Keys for the device.
			if tt.other != "" {
				if _, err := c.CreateKey(tt.other); !errors.Is(err, ErrAlgorithm) {
					t.Errorf("%s: %v", tt.other, err)
				}
			}
			made, err := c.CreateKey(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			b, err := ParseKeyBlob(made.PEM())
			if err != nil || b.file.rsaParent != tt.rsaParent || b.file.Parent != tpm2.TPMRHOwner || !bytes.Equal(b.PEM(), made.PEM()) {
				t.Fatalf("%+v, %v", b, err)
			}
			b.file.rsaParent = false // as a program writes it that knows RSA by the TPM alone
			unmarked, err := ParseKeyBlob(b.PEM())
			if err != nil || unmarked.file.rsaParent {
				t.Fatalf("%+v, %v", unmarked, err)
			}
			c.Close()
			for _, blob := range []*KeyBlob{made, unmarked} {
				if _, err := signerOf(t, address, blob).SelfTest(); err != nil {
					t.Error(err)
				}
			}

			// Attestation, by a key in a file, one at a handle and the primary key.
			c = connect(t, address)
			kept, err := c.CreateAK()
			if err != nil {
				t.Fatal(err)
			}
			fromFile, err := ParseAK(kept.PEM())
			if err != nil {
				t.Fatal(err)
			}
			atHandle, err := c.PersistentAK(0x81000200)
			if err != nil {
				t.Fatal(err)
			}
			signer := signerOf(t, address, made)
			spki := made.SPKI()
			for _, ak := range []*AK{nil, fromFile, atHandle} {
				if ak != nil {
					if err := c.UseAK(ak); err != nil {
						t.Fatal(err)
					}
				}
				own := device.Key{ID: "device", Role: device.RoleDevice, Public: made.Public(), SPKI: spki}
				encoded := report(t, c, []device.Key{own}, func(digest [32]byte) (*device.Evidence, error) {
					return c.Attest(AttestRequest{Digest: digest, DeviceKey: signer})
				})
				policy := evidence.Policy{Now: time.Now(), EKRoots: roots(t, machine{emulator, address}), Check: passes}
				r := evidence.Verify(encoded, policy)
				_, keys, _ := c.Inventory()
				found := keyByID(t, keys, "tpm-ak")
				if s := statuses(r); found.Algorithm() != tt.ak || s[evidence.LevelReport] != device.Pass || s[evidence.LevelDeviceKey] != device.Warn || s[evidence.LevelHierarchy] != device.Warn {
					t.Errorf("%s: %v", found.Algorithm(), r.Levels)
				}
				// The pair that answers the challenge: everything then passes.
				ek := keyByID(t, keys, tt.ek)
				challenge, expected, err := evidence.NewChallenge(ek.Public, r.Statement.AKName, func(crypto.PublicKey) error { return nil })
				if err != nil {
					t.Fatal(err)
				}
				secret, err := c.Activate(challenge)
				if err != nil {
					t.Fatal(err)
				}
				if policy.Activated, err = expected.Answered(secret); err != nil {
					t.Fatal(err)
				}
				if tt.lacks.Algorithm == tpmtest.RSA { // the certificate in NV that comes first is of the RSA key
					continue
				}
				r = evidence.Verify(encoded, policy)
				if s := statuses(r); s[evidence.LevelSameTPM] != device.Pass || s[evidence.LevelAttestationKey] != device.Pass || s[evidence.LevelDeviceKey] != device.Pass {
					t.Errorf("%v", r.Levels)
				}
			}
			expectNoTransient(t, c)
		})
	}
}

func expectNoTransient(t *testing.T, c *TPM) {
	t.Helper()
	if all := allHandles(t, c); slices.ContainsFunc(all, func(h tpm2.TPMHandle) bool { return h>>24 == 0x80 || h>>24 == 2 || h>>24 == 3 }) {
		t.Errorf("left in the TPM: %x", all)
	}
}

// A TPM that makes no storage key at all says so, and not that it does not make
// the key that was asked for.
func TestNoStorageKey(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	c := connect(t, tpmtest.RunInterposer(t, emulator.Address(), tpmtest.RefuseCommand(0x131, 0x2ca), asIs).Address())
	if _, err := c.CreateKey("rsa-2048"); err == nil || errors.Is(err, ErrAlgorithm) || !strings.Contains(err.Error(), "makes no storage key") {
		t.Error(err)
	}
}

// A key at 0x81000001 that cannot be the parent of others is passed over: the
// owner hierarchy's primary key takes its place, and the reason is told.
func TestAnotherParent(t *testing.T) { byEveryWay(t, testAnotherParent) }

func testAnotherParent(t *testing.T, by *way) {
	signing := keyTemplates["ecdsa-p256"]
	storage := storageRootKey.area
	unrestricted := storage
	unrestricted.ObjectAttributes.Restricted = false
	unrestricted.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256})
	policy := storage
	policy.ObjectAttributes.UserWithAuth = false
	policy.AuthPolicy = tpm2.RSAEKTemplate.AuthPolicy
	sealed := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{
			Scheme: tpm2.TPMAlgHMAC, Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256})}}),
	}
	for name, tt := range map[string]struct {
		area     tpm2.TPMTPublic
		password string
		want     string // of the reason; "" if it is the parent
	}{
		"a storage key":         {storage, "", ""},
		"RSA":                   {tpm2.RSASRKTemplate, "", ""},
		"a signing key":         {signing, "", "is for signing"},
		"a key for agreement":   {unrestricted, "", "is not restricted"},
		"a key with a policy":   {policy, "", "needs a policy"},
		"a key that is secret":  {sealed, "", "has no public key"},
		"a key with a password": {storage, "secret", "password"},
	} {
		t.Run(name, func(t *testing.T) {
			emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
			c := connect(t, emulator.Address())
			putAt(t, c, srkHandle, tt.area, tt.password)
			b, err := c.CreateKey("ecdsa-p256")
			if err != nil {
				t.Fatal(err)
			}
			beside := fmt.Sprint(b.Beside())
			if wanted := tpm2.TPMHandle(srkHandle); tt.want == "" && (b.file.Parent != wanted || b.Beside() != nil) {
				t.Errorf("%#x, %s", b.file.Parent, beside)
			}
			if tt.want != "" && (b.file.Parent != tpm2.TPMRHOwner || !strings.Contains(beside, "0x81000001") || !strings.Contains(beside, tt.want)) {
				t.Errorf("%#x, %s", b.file.Parent, beside)
			}
			if _, err := tpm2.HierarchyChangeAuth(tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}).Execute(c); err != nil {
				t.Fatal(err)
			}
			if _, err := c.CreateKey("ecdsa-p256"); tt.want != "" && (err == nil || errors.Is(err, ErrAlgorithm) || !strings.Contains(err.Error(), "0x81000001") || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "owner hierarchy")) {
				t.Error(err)
			}
			c.Close()
		})
	}
}

// putAt has a primary key of the owner's at a persistent handle.
func putAt(t *testing.T, c *TPM, handle tpm2.TPMHandle, area tpm2.TPMTPublic, password string) {
	t.Helper()
	secret := tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(password)}}}
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InSensitive: secret, InPublic: tpm2.New2B(area)}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, PersistentHandle: handle}.Execute(c)
	if err == nil {
		_, err = tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(c)
	}
	if err != nil {
		t.Fatal(err)
	}
}
