package check

import (
	"context"
	"slices"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	certificateUnparsable = device.Reason{
		Code: "KEYVET_CERTIFICATE_UNPARSABLE", Status: device.Undecided,
		Means: "A certificate could not be parsed.",
		Do:    "Have the certificate issued again by a CA that keeps to RFC 5280.",
	}
	certificateMismatch = device.Reason{
		Code: "KEYVET_KEY_CERTIFICATE_MISMATCH", Status: device.Fail, Severity: device.High,
		Means: "The certificate is for another key.",
		Do:    "Put the certificate and the key that belong together in place.",
	}
	unknownCA = device.Reason{
		Code: "KEYVET_CHAIN_UNKNOWN_CA", Status: device.Fail, Severity: device.High,
		Means: "The certificate does not lead to a CA that the configuration names.",
		Do:    "Add the missing CA certificate to identity.ca or to the chain, or have the certificate issued by the right CA.",
	}
	signedSHA1 = device.Reason{
		Code: "KEYVET_SIGNATURE_SHA1", Status: device.Fail, Severity: device.High,
		Means: "A certificate is signed with SHA-1, which can be forged. WARN for certificates in the TPM.",
		Do:    "Have the certificate issued again with SHA-256; `keyvet rotate` does so for the device's.",
	}
	signedMD5 = device.Reason{
		Code: "KEYVET_SIGNATURE_MD5", Status: device.Fail, Severity: device.High,
		Means: "A certificate is signed with MD5, which can be forged. WARN for certificates in the TPM.",
		Do:    "Have the certificate issued again with SHA-256; `keyvet rotate` does so for the device's.",
	}
	signedMD2 = device.Reason{
		Code: "KEYVET_SIGNATURE_MD2", Status: device.Fail, Severity: device.High,
		Means: "A certificate is signed with MD2, which can be forged. WARN for certificates in the TPM.",
		Do:    "Have the certificate issued again with SHA-256; `keyvet rotate` does so for the device's.",
	}
	issuerNotCA = device.Reason{
		Code: "KEYVET_ISSUER_NOT_CA", Status: device.Fail, Severity: device.High,
		Means: "A certificate of the chain was signed by one that may not sign certificates.",
		Do:    "Have the certificate issued by a CA.",
	}
	signatureUnknown = device.Reason{
		Code: "KEYVET_SIGNATURE_UNKNOWN", Status: device.Undecided,
		Means: "A signature in the chain is of an algorithm that keyvet cannot check, which the message names.",
		Do:    "Check the chain with a program that knows the algorithm; AWS IoT takes ECDSA or RSA with SHA-256.",
	}
	extensionUnknown = device.Reason{
		Code: "KEYVET_EXTENSION_UNKNOWN", Status: device.Undecided,
		Means: "A certificate has a critical extension that keyvet does not know, or cannot judge; the message has its OID.",
		Do:    "Find out what the extension means for those who rely on the certificate, and accept the finding if that is in order.",
	}
	pathsTooMany = device.Reason{
		Code: "KEYVET_CHAIN_TOO_COMPLEX", Status: device.Undecided,
		Means: "So many CA certificates have signed each other that not every way to a given CA was tried.",
		Do:    "Remove the certificates that are not needed from the file.",
	}
	signatureInvalid = device.Reason{
		Code: "KEYVET_CERTIFICATE_SIGNATURE_INVALID", Status: device.Fail, Severity: device.Critical,
		Means: "A signature in the chain does not verify: the certificate is forged or damaged.",
		Do:    "Find out where the certificate came from, and have it issued again.",
	}
	chainConstraint = device.Reason{
		Code: "KEYVET_CHAIN_CONSTRAINT", Status: device.Fail, Severity: device.High,
		Means: "The chain breaks a rule that its own CAs state, such as a name constraint or a path length.",
		Do:    "Have the certificate issued by a CA that may issue it.",
	}
)

// ofPath are the reasons that [pathOf] gives.
var ofPath = []device.Reason{
	signedSHA1, signedMD5, signedMD2, issuerNotCA, signatureUnknown, signatureInvalid, chainConstraint, extensionUnknown, pathsTooMany,
}

var chain = Check{
	ID:   "chain",
	Cite: "https://www.rfc-editor.org/rfc/rfc5280#section-6",
	Asks: "Do the certificates of a chain sign each other, and lead to a given CA?",
	Applies: func(k device.Key) bool { // an EK's chain is the question of ekcert
		return k.Role != device.RoleEK && (len(k.Chain) > 0 || k.CertificateError != "" || k.Encoding != "") || k.SSH != nil
	},
	Reasons: slices.Concat([]device.Reason{
		oddEncoding, certificateUnparsable, certificateMismatch, unknownCA,
	}, ofPath),
	Run: runChain,
}

func runChain(ctx context.Context, k device.Key, env *Env) []device.Finding {
	if k.SSH != nil {
		return sshSignature(k.SSH)
	}
	found := encoding(k)
	if k.CertificateError != "" {
		found = append(found, give(certificateUnparsable, "a certificate could not be parsed: %s", k.CertificateError)...)
	}
	if len(k.Chain) == 0 {
		return found
	}
	if !device.SameKey(k.SPKI, k.Leaf().RawSubjectPublicKeyInfo) {
		found = append(found, give(certificateMismatch, "the certificate is for another key")...)
	}

	p := pathOf(ctx, k, env)
	found = append(found, p.findings()...)
	if len(env.Roots) > 0 && p.anchor == nil && !p.forged {
		found = append(found, underUnknownCA(k.Role, p)...)
	}
	found = append(found, issuerKeys(ctx, k, p, env)...)
	switch {
	case found != nil:
		return found
	case p.anchor != nil:
		return passed("leads to the given CA %s", p.anchor.Subject)
	case p.root:
		return passed("leads to %s; whether that is to be trusted was not asked", p.top())
	case p.cut:
		return passed("leads to %s over %d certificates; whether that is to be trusted was not asked", p.top(), len(p.nodes))
	case len(p.nodes) == 1:
		return passed("the certificate is for this key; its issuer %s is not at hand, so its signature was not checked", p.top())
	}
	return passed("leads to %s, which is not at hand; whether that is to be trusted was not asked", p.top())
}

// findings are what is to be said against a path. If a better one may have been
// missed, it is not known to be bad.
func (p *path) findings() []device.Finding {
	if p.open && p.weight[0] > 0 {
		return give(pathsTooMany, tooMany, p.top())
	}
	return p.problems
}

const tooMany = "the CA certificates make too many ways up for all to be tried; the best of those tried leads to %s"

// underUnknownCA is about a path that leads to none of the CAs given for the
// device's own chain. Certificates in further files may be under other CAs on
// purpose. Claims mostly are: AWS IoT issues them under a CA it does not
// publish; and so are those of keys in the TPM, by the maker of the chip or of
// the device, and CA certificates that are there for another chain.
func underUnknownCA(role device.Role, p *path) []device.Finding {
	const message = "its chain ends in %s, which is not in identity.ca"
	switch role {
	case device.RoleDevice:
		if p.partial {
			return give(pathsTooMany, tooMany, p.top())
		}
		return give(unknownCA, message, p.top())
	case device.RoleFile:
		return giveAs(device.Warn, device.Medium, unknownCA, message, p.top())
	}
	return nil
}

// forgeable are the reasons of hashes that collisions can be made of.
var forgeable = map[string]device.Reason{"SHA1": signedSHA1, "MD5": signedMD5, "MD2": signedMD2}
