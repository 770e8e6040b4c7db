package tpm

import (
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// What is held is loaded once, makes room for what needs it, and is out of the TPM
// when the connection is closed.
func TestHold(t *testing.T) {
	s := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	w := &tpmtest.Stopwatch{Speed: tpmtest.Speeds[0]}
	address := tpmtest.RunProxy(t, s.Address(), w.Rewrite).Address()
	blob := createKey(t, address, "ecdsa-p256")
	first := connect(t, address)
	ak, err := first.CreateAK()
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	for _, tt := range []struct {
		name            string
		hold            bool
		foreign         int // keys of another program, in a TPM that has room for three
		loads, restores int
		left            int // keys in the TPM before the connection is closed
	}{
		{"nothing held", false, 0, 3, 2, 0},
		{"held", true, 0, 2, 0, 2},
		{"no room for both and a parent", true, 1, 3, 1, 3}, // one load finds it full
	} {
		contexts.Lock()
		clear(contexts.saved) // as another process
		clear(contexts.loaded)
		contexts.Unlock()
		c := connect(t, address)
		for range tt.foreign {
			if _, err := (tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(storageRootKey.area)}).Execute(c); err != nil {
				t.Fatal(err)
			}
		}
		if tt.hold {
			c.Hold()
		}
		w.Lap()
		c.ak = ak
		signer := signerOf(t, address, blob)
		_, err := signer.SelfTestOn(c)
		for range 2 {
			if err == nil {
				_, err = c.Attest(AttestRequest{DeviceKey: signer})
			}
		}
		n := make(map[tpm2.TPMCC]int)
		for _, c := range w.Lap().Commands {
			n[c.Command]++
		}
		if loads, restores := n[tpm2.TPMCCLoad], n[tpm2.TPMCCContextLoad]; err != nil || loads != tt.loads || restores != tt.restores {
			t.Errorf("%s: %d loads and %d restored, want %d and %d; %v", tt.name, loads, restores, tt.loads, tt.restores, err)
		}
		for _, want := range []int{tt.left, tt.foreign} {
			handles, err := c.handles(firstTransient, lastTransient)
			if err != nil || len(handles) != want {
				t.Errorf("%s: %v, %v, want %d", tt.name, handles, err, want)
			}
			c.Close()
			c = connect(t, s.Address())
		}
		c.Close()
	}
}
