package check

import (
	"context"
	"slices"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	ekUnparsable = device.Reason{
		Code: "KEYVET_EK_CERTIFICATE_UNPARSABLE", Status: device.Warn, Severity: device.Low,
		Means: "The certificate of the endorsement key could not be parsed.",
		Do:    "Nothing on the device. The fleet can compare the key with what the maker of the TPM publishes.",
	}
	ekMismatch = device.Reason{
		Code: "KEYVET_EK_CERTIFICATE_MISMATCH", Status: device.Fail, Severity: device.High,
		Means: "The certificate is not of the endorsement key that the TPM shows.",
		Do:    "Find out who wrote it into the TPM; the TPM may have been exchanged.",
	}
	ekUnknownCA = device.Reason{
		Code: "KEYVET_EK_CERTIFICATE_UNKNOWN_CA", Status: device.Fail, Severity: device.High,
		Means: "The certificate of the endorsement key does not lead to a root in check.ek_roots.",
		Do:    "Add the maker's root to check.ek_roots, if the maker is one that you accept.",
	}
	ekAbsent = device.Reason{
		Code: "KEYVET_EK_CERTIFICATE_ABSENT", Status: device.Warn, Severity: device.Low,
		Means: "Roots are given, but the TPM has no certificate for an endorsement key.",
		Do:    "Nothing, if the maker supplies none (firmware TPMs often do not); else find out why it is missing.",
	}
)

var ekcert = Check{
	ID:      "ekcert",
	Cite:    "https://trustedcomputinggroup.org/resource/tcg-ek-credential-profile-for-tpm-family-2-0/",
	Asks:    "Is the certificate of the endorsement key this key's, and does it lead to a given root?",
	Applies: func(k device.Key) bool { return k.Role == device.RoleEK },
	Reasons: slices.Concat([]device.Reason{oddEncoding, ekUnparsable, ekMismatch, ekUnknownCA, ekAbsent}, ofPath),
	Run: func(ctx context.Context, k device.Key, env *Env) []device.Finding {
		return append(encoding(k), runEKCert(ctx, k, env)...)
	},
}

func runEKCert(ctx context.Context, k device.Key, env *Env) []device.Finding {
	if len(k.Chain) == 0 {
		if k.CertificateError != "" {
			// Certificates of real chips break rules of DER and RFC 5280; their keys are good all the same.
			return give(ekUnparsable, "the EK certificate could not be parsed: %s", k.CertificateError)
		}
		return missingEKCert(env)
	}
	if !device.SameKey(k.SPKI, k.Leaf().RawSubjectPublicKeyInfo) {
		return give(ekMismatch, "the EK certificate is for another key")
	}
	p := pathOf(ctx, k, env)
	problems := slices.Clip(p.findings())
	if len(env.EKRoots) == 0 && len(p.nodes) == 1 && len(p.others) == 0 {
		problems = nil // nothing is asked of who issued it
	}
	if len(env.EKRoots) > 0 && p.anchor == nil && !p.forged {
		problems = append(problems, give(ekUnknownCA, "the EK certificate does not lead to a given root: it is issued by %s", p.top())...)
	}
	switch {
	case problems != nil:
		return problems
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
		return give(ekAbsent, "roots are given, but the TPM has no EK certificate to hold against them")
	}
	return passed("there is no certificate for this EK")
}
