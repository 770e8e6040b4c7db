package evidence_test

import (
	"fmt"
	"os"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// What a program on the fleet's side does with a report, byte for byte as it
// came from the device.
func ExampleVerify() {
	report, err := os.ReadFile("testdata/report.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	r := evidence.Verify(report, evidence.Policy{Now: time.Now(), Nonce: []byte("nonce of sixteen")})
	fmt.Println(r.Verdict)
	for _, l := range r.Levels {
		if l.Status != device.Pass {
			fmt.Printf("%s %s: %s\n", l.Status, l.Name, l.Reason)
		}
	}
	// Output:
	// WARN
	// WARN ek-certificate: issued by CN=swtpm-localca; no roots are given to hold it against
	// WARN same-tpm: a report alone cannot show that the attestation key is in the TPM of the EK certificate: that takes a challenge to the device
}
