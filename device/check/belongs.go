package check

import (
	"context"
	"slices"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	privateMismatch = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_MISMATCH", Status: device.Fail, Severity: device.High,
		Means: "The private key does not belong to the certificate, request or public key that it stands beside.",
		Do:    "Put the certificate and the key that belong together in place.",
	}
	privateInconsistent = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_INCONSISTENT", Status: device.Fail, Severity: device.High,
		Means: "The numbers of the private key do not fit each other, or not the public key that the file states. Programs refuse it, or make wrong signatures that can give it away.",
		Do:    "Take the key from its source again. If it is so there too, replace it.",
	}
	privateUntested = device.Reason{
		Code: "KEYVET_PRIVATE_KEY_NOT_TESTED", Status: device.Undecided,
		Means: "Whether the private key fits its public half, or what stands beside it, could not be tested.",
		Do:    "Look at the file. Use ECDSA P-256, or RSA, if the algorithm is one that keyvet cannot compute.",
	}
	requestUnsigned = device.Reason{
		Code: "KEYVET_REQUEST_SIGNATURE_INVALID", Status: device.Fail, Severity: device.High,
		Means: "The signature of the certificate request is not by its own key. Every CA refuses it.",
		Do:    "Make the request again, with the private key of its public key.",
	}
	requestUntested = device.Reason{
		Code: "KEYVET_REQUEST_SIGNATURE_UNKNOWN", Status: device.Undecided,
		Means: "The signature of the certificate request is damaged, or of an algorithm that keyvet cannot check.",
		Do:    "Make the request again with ECDSA or RSA and SHA-256.",
	}
)

var belongs = Check{
	ID:      "belongs",
	Cite:    "https://doi.org/10.6028/NIST.SP.800-89", // sections 5 and 6
	Asks:    "Does what stands in one file belong together, and do the numbers of a private key fit each other?",
	Applies: func(k device.Key) bool { return k.Private != nil || k.Request != nil || hasIssuer(k) },
	Reasons: []device.Reason{
		privateMismatch, privateInconsistent, privateUntested, keyUnreadable, requestUnsigned, requestUntested, issuerMismatch, issuerMissing,
	},
	Run: runBelongs,
}

func runBelongs(ctx context.Context, k device.Key, env *Env) []device.Finding {
	var found []device.Finding
	if k.Request != nil {
		found = ofRequest(*k.Request)
	}
	if k.Private != nil {
		found = append(found, ofPrivate(k)...)
	}
	if hasIssuer(k) {
		p := pathOf(ctx, k, env)
		issuer := misissued(k, p)
		if issuer == nil && found == nil {
			return passed("nothing that the certificate was found with contradicts it")
		}
		found = append(found, issuer...)
	}
	return found
}

func ofRequest(a device.Answer) []device.Finding {
	switch a.Status {
	case device.Pass:
		return passed("the certificate request is sound: %s", a.Why)
	case device.Fail:
		return give(requestUnsigned, "the certificate request: %s", a.Why)
	}
	return give(requestUntested, "whether the certificate request is signed by its own key is not known: %s", notAsked(a.Why))
}

func ofPrivate(k device.Key) []device.Finding {
	p := k.Private
	numbers, found := ofNumbers(k), []device.Finding(nil)
	switch {
	case len(k.Chain) == 0 && k.CertificateError == "":
		found = ofPartner(p)
	case len(p.SPKI) == 0 && numbers[0].Status != device.Fail:
		found = give(keyUnreadable, "whether the private key in %s belongs to the certificate could not be told", p.Path)
	case len(p.SPKI) > 0 && !device.SameKey(p.SPKI, k.SPKI):
		found = give(privateMismatch, "the private key in %s does not belong to the certificate", p.Path)
	}
	if found != nil && numbers[0].Status == device.Pass {
		return found
	}
	return slices.Concat(found, numbers)
}

// ofNumbers is one finding.
func ofNumbers(k device.Key) []device.Finding {
	p := k.Private
	if p.InTPM() {
		return notApplicable("the private key of %s is for its TPM only: its numbers cannot be looked at", p.Path)
	}
	switch a := p.Numbers; a.Status {
	case device.Pass:
		public := "its public half"
		if len(k.Chain) > 0 {
			public = "the certificate"
		}
		return passed("the private key in %s belongs to %s: %s", p.Path, public, a.Why)
	case device.NotApplicable:
		return notApplicable("%s: %s", p.Path, a.Why)
	case device.Fail:
		return give(privateInconsistent, "the private key in %s does not belong to its public half: %s", p.Path, a.Why)
	default:
		return give(privateUntested, "whether the private key in %s belongs to its public half is not known: %s", p.Path, notAsked(a.Why))
	}
}

// ofPartner is about a private key that has no certificate: what stands beside it.
func ofPartner(p *device.PrivateFile) []device.Finding {
	switch a := p.Partner; a.Status {
	case device.Pass, device.NotApplicable:
		return nil
	case device.Fail:
		return give(privateMismatch, "the private key in %s %s", p.Path, a.Why)
	default:
		return give(privateUntested, "whether the private key in %s belongs to what stands beside it is not known: %s", p.Path, notAsked(a.Why))
	}
}

// notAsked is why there is no answer.
func notAsked(why string) string {
	if why == "" {
		return "it was not looked at"
	}
	return why
}
