package tpm

import (
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// What a process that was killed left in a TPM is taken out by the next one
// that says so; what looks like nobody's of ours stays.
func TestAssumeLeftovers(t *testing.T) { byEveryWay(t, testAssumeLeftovers) }

func testAssumeLeftovers(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	killed := connect(t, emulator.Address())
	foreign := tpm2.RSASRKTemplate
	foreign.ObjectAttributes.NoDA = false
	for _, template := range []tpm2.TPMTPublic{storageRootKey.area, attestationKey.area, foreign} {
		if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}).Execute(killed.link.Within(rsaCreation)); err != nil {
			t.Fatal(err)
		}
	}
	if err := killed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		assume string
		left   int
	}{{"nothing", 3}, {"our own", 2}, {"all", 1}} {
		switch tt.assume {
		case "our own":
			AssumeOwnLeftovers(emulator.Address(), nil)
		case "all":
			AssumeLeftovers(emulator.Address())
		}
		c := connect(t, emulator.Address())
		handles, err := c.handles(firstTransient, lastTransient)
		if err != nil || len(handles) != tt.left {
			t.Errorf("assumed %v: %v %v, want %d", tt.assume, handles, err, tt.left)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A resource manager leaves nothing to look for.
func TestAssumeNothingOfAManager(t *testing.T) {
	for address, want := range map[string]bool{"/dev/tpmrm0": false, "/dev/tpmrm1": false, "/dev/tpm9": true, "unix:/tpm9": true} {
		AssumeLeftovers(address)
		leftovers.Lock()
		assumed := len(leftovers.areas[address]) > 0
		delete(leftovers.areas, address)
		leftovers.Unlock()
		if assumed != want {
			t.Errorf("%s: %v", address, assumed)
		}
	}
}

// A check that is killed while the device's key signs leaves that key, which no
// other key of its kind is taken for.
func TestAssumeOwnLeftovers(t *testing.T) { byEveryWay(t, testAssumeOwnLeftovers) }

func testAssumeOwnLeftovers(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
	own, other := createKey(t, address, "ecdsa-p256"), createKey(t, address, "ecdsa-p256")
	on(t, address, Options{}, func(killed *TPM) {
		for _, b := range []*KeyBlob{own, other} {
			err := killed.withParent(b.file.parent(), func(_ parent, h tpm2.AuthHandle) error {
				_, err := tpm2.Load{ParentHandle: h, InPrivate: b.file.Privkey, InPublic: b.file.Pubkey}.Execute(killed)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	AssumeOwnLeftovers(address, signerOf(t, address, own))
	on(t, address, Options{}, func(c *TPM) {
		handles, err := c.handles(firstTransient, lastTransient)
		if err != nil || len(handles) != 1 {
			t.Fatalf("%x, %v", handles, err)
		}
		_, area, err := c.readPublic(handles[0])
		if err != nil || !sameKey(area, other.area) {
			t.Errorf("%+v, %v", area, err)
		}
	})
}
