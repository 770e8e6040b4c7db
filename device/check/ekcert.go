package check

import (
	"context"
	"slices"

	"github.com/keyvet/keyvet/device"
)

var ekcert = Check{
	ID:      "ekcert",
	Cite:    "https://trustedcomputinggroup.org/resource/tcg-ek-credential-profile-for-tpm-family-2-0/",
	Applies: func(k device.Key) bool { return k.Role == device.RoleEK },
	Run:     runEKCert,
}

func runEKCert(_ context.Context, k device.Key, env *Env) []device.Finding {
	if len(k.Chain) == 0 {
		if k.CertificateError != "" {
			// Certificates of real chips break rules of DER and RFC 5280; their keys are good all the same.
			return warned(device.Low, "KEYVET_EK_CERTIFICATE_UNPARSABLE", "the EK certificate could not be parsed: %s", k.CertificateError)
		}
		return missingEKCert(env)
	}
	if !sameKey(k.SPKI, k.Leaf().RawSubjectPublicKeyInfo) {
		return failed(device.High, "KEYVET_EK_CERTIFICATE_MISMATCH", "the EK certificate is for another key")
	}
	p := trace(k.Chain, env.EKRoots)
	switch {
	case len(env.EKRoots) > 0 && p.problems == nil && p.anchor == nil:
		return failed(device.High, "KEYVET_EK_CERTIFICATE_UNKNOWN_CA", "the EK certificate does not lead to a given root: it is issued by %s", p.top())
	case p.problems != nil && (len(env.EKRoots) > 0 || len(k.Chain) > 1):
		return p.problems
	case p.anchor != nil:
		return passed("the EK certificate leads to the given root %s", p.anchor.Subject)
	}
	return passed("the EK certificate is for this EK; no roots were given to hold it against")
}

// missingEKCert passes: many chips and all firmware TPMs have no certificate in
// the TPM, or one for one of their EKs only, and that is no fault of a key. Only
// who gives roots wants one: one EK of the TPM has to have it.
func missingEKCert(env *Env) []device.Finding {
	certified := slices.ContainsFunc(env.Keys, func(k device.Key) bool { return k.Role == device.RoleEK && len(k.Chain) > 0 })
	if len(env.EKRoots) > 0 && !certified {
		return warned(device.Low, "KEYVET_EK_CERTIFICATE_ABSENT", "roots are given, but the TPM has no EK certificate to hold against them")
	}
	return passed("there is no certificate for this EK")
}
