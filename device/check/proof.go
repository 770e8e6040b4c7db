package check

import (
	"context"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	privateGone = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_GONE", Status: device.Fail, Severity: device.High,
		Means: "This TPM does not have the private key and never will: the TPM was cleared, the key was removed from its handle, or the key file is of another TPM.",
		Do:    "Find out who cleared the TPM. The key is lost: re-enrol the device by its claim, `cd STATE_DIR && rm -rf identity credentials rotation.json thing`, then start keyvet (docs/operations.md).",
	}
	privateNotProven = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_NOT_PROVEN", Status: device.Undecided,
		Means: "The TPM could not be asked to sign with the private key.",
		Do:    "See that the TPM answers and that keyvet may use it, then check again.",
	}
)

var proof = Check{
	ID:   "proof",
	Cite: "https://trustedcomputinggroup.org/resource/tpm-library-specification/", // Part 3, TPM2_Load and TPM2_Sign
	Asks: "Does the TPM have the private key, and sign with it?",
	Applies: func(k device.Key) bool {
		return k.Private != nil && (k.Private.Proof != nil || k.Role == device.RoleDevice && k.Private.InTPM())
	},
	Reasons: []device.Reason{privateGone, privateNotProven},
	Run: func(_ context.Context, k device.Key, _ *Env) []device.Finding {
		switch p := k.Private.Proof; {
		case p == nil:
			return give(privateNotProven, "nobody has had the TPM sign with the private key of %s", k.Private.Path)
		case p.Signed:
			return passed("the TPM has the private key, and signed with it")
		case p.Gone:
			return give(privateGone, "the TPM does not have the private key of %s: %s", k.Private.Path, p.Why)
		default:
			return give(privateNotProven, "whether the TPM has the private key of %s is not known: %s", k.Private.Path, p.Why)
		}
	},
}
