package check

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/signature"
)

// What the check can give for not passing.
var (
	revokedByIssuer = device.Reason{
		Code: device.ReasonRevoked, Status: device.Fail, Severity: device.Medium,
		Means: "The issuer has revoked the certificate.",
		Do:    "Replace the key and the certificate: `keyvet rotate`, or re-enrol the device (docs/operations.md).",
	}
	issuerRevoked = device.Reason{
		Code: device.ReasonIssuerRevoked, Status: device.Fail, Severity: device.Critical,
		Means: "A CA of the chain was revoked.",
		Do:    "Have certificates issued by another CA.",
	}
	crlUnverified = device.Reason{
		Code: "KEYVET_CRL_UNVERIFIED", Status: device.Undecided,
		Means: "A CRL cannot be checked: its signature does not verify, or it has extensions that keyvet does not know.",
		Do:    "Add the CA certificate that signed the CRL, or take the CRL out of check.crls.",
	}
	crlStale = device.Reason{
		Code: "KEYVET_CRL_STALE", Status: device.Warn, Severity: device.Medium,
		Means: "A CRL is older than its CA promised.",
		Do:    "Fetch the current CRL.",
	}
)

var revoked = Check{
	ID:      "revoked",
	Cite:    "https://docs.aws.amazon.com/iot-device-defender/latest/devguide/audit-chk-revoked-device-cert.html",
	Asks:    "Has a CRL that the operator supplies revoked a certificate?",
	Applies: func(k device.Key) bool { return len(k.Chain) > 0 },
	Reasons: []device.Reason{revokedByIssuer, issuerRevoked, crlUnverified, crlStale},
	Run:     runRevoked,
}

// runRevoked looks every certificate of the best path up in the CRLs of its
// issuer. A certificate on which no CRL speaks was not asked about.
func runRevoked(ctx context.Context, k device.Key, env *Env) []device.Finding {
	if len(env.CRLs) == 0 {
		return notApplicable("no CRL is given")
	}
	switch found, asked := revocation(k, pathOf(ctx, k, env).certificates(), env); {
	case found != nil:
		return found
	case !asked:
		return notApplicable("no CRL is given of who issued this certificate")
	}
	return passed("not revoked by the CRLs given")
}

// revocation is what the CRLs say of the certificates on a path of a key, and
// whether they say anything.
func revocation(k device.Key, certs []*x509.Certificate, env *Env) (found []device.Finding, asked bool) {
	if len(env.CRLs) == 0 {
		return nil, false
	}
	given := env.Roots
	if k.Role == device.RoleEK {
		given = env.EKRoots
	}
	for i, c := range certs {
		if selfSigned(c) {
			continue // who distrusts a root takes it out of the roots
		}
		for _, crl := range env.CRLs {
			if !speaksOf(crl, c) {
				continue
			}
			asked = true
			found = append(found, env.remembered().lookUp(crl, c, i, slices.Concat(certs, given), env.Now)...)
		}
	}
	return found, asked
}

// selfSigned reports whether c claims to be signed by its own key; one that has
// its own name as issuer may be signed by an older key of the same CA.
func selfSigned(c *x509.Certificate) bool {
	return device.SelfIssued(c) &&
		(len(c.AuthorityKeyId) == 0 || len(c.SubjectKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}

// speaksOf reports whether crl is by the CA that issued c, going by its name and,
// where both state it, by its key.
func speaksOf(crl *x509.RevocationList, c *x509.Certificate) bool {
	return device.NameKey(crl.RawIssuer) == device.NameKey(c.RawIssuer) &&
		(len(crl.AuthorityKeyId) == 0 || len(c.AuthorityKeyId) == 0 || bytes.Equal(crl.AuthorityKeyId, c.AuthorityKeyId))
}

// signedCRL reports whether ca is the one that signed crl, and may. A list by a
// hash that can be forged could be another's, which hides what was revoked.
func (m *memory) signedCRL(crl *x509.RevocationList, ca *x509.Certificate) bool {
	key := crlKey{crl, ca}
	if ok, known := m.crls[key]; known {
		return ok
	}
	n, s := m.node(ca), signature.OfSigned(crl.Raw)
	if n.subject != device.NameKey(crl.RawIssuer) || s.Weak != "" || extension(ca, oidKeyUsage) != nil && ca.KeyUsage&x509.KeyUsageCRLSign == 0 || ca.Version >= 3 && !isCA(ca) {
		return false
	}
	m.crls[key] = s.Verify(n.key, crl.RawTBSRevocationList, crl.Signature).Outcome == signature.Good
	return m.crls[key]
}

// lookUp is what crl, by one of issuers, says of the certificate c at place i of a chain. A CRL
// whose time is up still revokes. For what is not in it, it warns instead of
// being undecided: it is the CA's last word, and devices that are offline
// for long would else shut themselves off.
func (m *memory) lookUp(crl *x509.RevocationList, c *x509.Certificate, i int, issuers []*x509.Certificate, now time.Time) []device.Finding {
	if !slices.ContainsFunc(issuers, func(ca *x509.Certificate) bool { return m.signedCRL(crl, ca) }) {
		return give(crlUnverified, "the CRL of %s does not verify with a CA certificate at hand", crl.Issuer)
	}
	if !understood(crl) {
		return give(crlUnverified, "the CRL of %s has critical extensions that keyvet does not know", crl.Issuer)
	}
	for _, entry := range crl.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(c.SerialNumber) != 0 {
			continue
		}
		at := entry.RevocationTime.UTC().Format(time.RFC3339)
		if i > 0 {
			return give(issuerRevoked, "the CA %s in its chain was revoked on %s", c.Subject, at)
		}
		return give(revokedByIssuer, "its issuer revoked the certificate on %s", at)
	}
	if !crl.NextUpdate.IsZero() && now.After(crl.NextUpdate) {
		return give(crlStale, "not in the CRL of %s, but that was due to be replaced on %s", crl.Issuer, crl.NextUpdate.UTC().Format(time.RFC3339))
	}
	return nil
}

var oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}

// understood reports whether crl is a full list of its issuer's own certificates
// (RFC 5280, section 5.2): not a delta, not indirect, nothing critical that is
// unknown. That it may be for one distribution point does no harm: what is in
// it is revoked.
func understood(crl *x509.RevocationList) bool {
	for _, e := range crl.Extensions {
		if !e.Critical {
			continue
		}
		var scope struct { // IssuingDistributionPoint, RFC 5280, section 5.2.5
			DistributionPoint asn1.RawValue  `asn1:"optional,tag:0"`
			OnlyUser          bool           `asn1:"optional,tag:1"`
			OnlyCA            bool           `asn1:"optional,tag:2"`
			OnlySomeReasons   asn1.BitString `asn1:"optional,tag:3"`
			Indirect          bool           `asn1:"optional,tag:4"`
			OnlyAttribute     bool           `asn1:"optional,tag:5"`
		}
		if !e.Id.Equal(oidIssuingDistributionPoint) {
			return false
		}
		if rest, err := asn1.Unmarshal(e.Value, &scope); err != nil || len(rest) > 0 || scope.Indirect {
			return false
		}
	}
	return true
}
