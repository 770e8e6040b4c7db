package check

import (
	"slices"

	"github.com/keyvet/keyvet/device"
)

// What the check belongs can give about the issuer of a certificate.
var (
	issuerMismatch = device.Reason{
		Code: "KEYVET_ISSUER_MISMATCH", Status: device.Fail, Severity: device.High,
		Means: "A CA certificate of the issuer's name is there, but it did not sign the certificate: the chain does not verify.",
		Do:    "Put the CA certificate in place that issued the certificate; the CA has changed its key, or the file mixes two chains.",
	}
	issuerMissing = device.Reason{
		Code: "KEYVET_ISSUER_MISSING", Status: device.Warn, Severity: device.Low,
		Means: "A file has a certificate and CA certificates, and none of them issued it.",
		Do:    "Add the certificate of the issuer, or remove the CA certificates that do not belong to the chain.",
	}
)

// hasIssuer reports whether a key has a certificate that the check belongs asks
// of. That of an EK is the question of ekcert.
func hasIssuer(k device.Key) bool { return len(k.Chain) > 0 && k.Role != device.RoleEK }

// misissued asks of a certificate whether the certificates that were found with it
// are those of its issuers: they were put there to belong together. CA
// certificates are in many a file each for itself; of them, one that has the key
// identifier of its issuer says itself that a namesake is another CA.
func misissued(k device.Key, p *path) []device.Finding {
	last := p.nodes[len(p.nodes)-1]
	if p.anchor != nil || p.root || p.cut || p.forged {
		return nil
	}
	leaf := p.nodes[0]
	ca := isCA(leaf.Certificate)
	switch namesake := slices.IndexFunc(p.others, func(o *node) bool { return isCA(o.Certificate) && (!ca || keyIDs(last, o) >= 0) }); {
	case namesake >= 0:
		return give(issuerMismatch, "%s is issued by %s, and the CA certificate of that name which is there did not sign it", called(k, last), last.Issuer)
	case len(p.nodes) > 1 || ca || p.cas == 0 || inTPM(k.Role):
	case len(p.others) > 0:
	default:
		return give(issuerMissing, "no certificate in the file issued it: its issuer %s is not in the file", leaf.Issuer)
	}
	return nil
}
