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
		assume bool
		left   int
	}{{false, 3}, {true, 1}} {
		if tt.assume {
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
