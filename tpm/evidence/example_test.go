package evidence_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/tpm/advisory"
	"github.com/keyvet/keyvet/tpm/evidence"
)

type advisories struct{}

func (advisories) Match(t device.TPM) []device.Advisory { return advisory.Match(t) }

// What a program on the fleet's side does with a report, byte for byte as it
// came from the device.
func ExampleVerify() {
	report, err := os.ReadFile("testdata/report.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	list, err := blocklist.Embedded()
	if err != nil {
		fmt.Println(err)
		return
	}
	r := evidence.Verify(report, evidence.Policy{
		Now: time.Now(), Nonce: []byte("nonce of sixteen"), Require: []string{evidence.LevelSignature},
		Check: func(inv device.Inventory) []device.Finding {
			return check.Run(context.Background(), inv, &check.Env{Now: time.Now(), Blocklist: list, Advisories: advisories{}})
		},
	})
	fmt.Println(r.Verdict)
	for _, l := range r.Levels {
		if l.Status != device.Pass {
			fmt.Printf("%s %s: %s\n", l.Status, l.Name, l.Reason)
		}
	}
	// Output:
	// WARN
	// WARN attestation-key: only if the attestation key is in a TPM, which is not shown: a restricted ECDSA P-256 signing key that says it was made in a TPM and stays there
	// WARN hierarchy: only if the attestation key is in a TPM, which is not shown: the attestation key is a primary key of the endorsement hierarchy
	// WARN pcrs: only if the attestation key is in a TPM, which is not shown: the values of 8 PCRs are those quoted
	// NOT_APPLICABLE boot-log: only the report of a boot carries a boot log
	// WARN firmware: only if the attestation key is in a TPM, which is not shown: 8217.4131.22.13878, as the TPM signed it
	// WARN device-key: only if the attestation key is in a TPM, which is not shown: the device's key was made in the TPM and stays there
	// WARN ek-certificate: issued by CN=swtpm-localca; no roots are given to hold it against
	// WARN same-tpm: a report alone cannot show that the attestation key is in the TPM of the EK certificate: that takes a challenge to the device
}
