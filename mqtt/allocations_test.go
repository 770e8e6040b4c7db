package mqtt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

// A signature of a handshake by a P-256 key allocates little, also on a 32-bit
// device and with the flags that the program is shipped with: without inlining in
// crypto/internal/fips140/bigmod it is 801 allocations on 386 (make test-386).
func TestSigningAllocations(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("transcript"))
	n := testing.AllocsPerRun(20, func() {
		if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%.0f allocations a signature", n)
	if n > 80 {
		t.Errorf("%.0f allocations a signature, more than 80", n)
	}
}
