package evidence

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/ekcert"
)

// oidEKCertificate is tcg-kp-EKCertificate, the extended key usage of EK
// certificates (TCG EK Credential Profile for TPM Family 2.0).
var oidEKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

func (v *verification) ekCertificate() (device.Status, string) {
	unshown := device.Warn
	if len(v.policy.EKRoots) > 0 { // then it was asked for
		unshown = device.Undecided
	}
	if v.certificates == nil {
		return unshown, "there is no EK certificate: no maker vouches for the TPM"
	}
	cert, err := ekcert.Parse(v.certificates[0])
	if err != nil {
		return unshown, fmt.Sprintf("the EK certificate cannot be read: %v", err)
	}
	if reason := notEK(cert); reason != "" {
		return device.Fail, reason
	}
	if !v.listsCertificate(cert) {
		return device.Fail, "the EK certificate is not one that the report lists"
	}
	if len(v.policy.EKRoots) == 0 {
		return device.Warn, fmt.Sprintf("issued by %s; no roots are given to hold it against", cert.Issuer)
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: v.policy.Now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // crypto/x509 does not know the one of EKs
	}
	for _, root := range v.policy.EKRoots {
		options.Roots.AddCert(root)
	}
	for _, der := range v.certificates[1:] {
		if issuer, err := ekcert.Parse(der); err == nil { // one that cannot be read leads nowhere
			options.Intermediates.AddCert(issuer)
		}
	}
	chains, err := cert.Verify(options)
	if err != nil {
		return device.Fail, fmt.Sprintf("issued by %s, it does not lead to a given root: %v", cert.Issuer, err)
	}
	root := chains[0][len(chains[0])-1]
	return device.Pass, fmt.Sprintf("issued by %s, leads to the given %s", cert.Issuer, root.Subject)
}

// notEK tells why a certificate cannot be one of an EK. A maker's CA issues
// others too, and those have their keys outside of TPMs.
func notEK(cert *x509.Certificate) string {
	if cert.IsCA {
		return "the EK certificate is one of a CA"
	}
	usages := len(cert.ExtKeyUsage) + len(cert.UnknownExtKeyUsage)
	if usages > 0 && !slices.ContainsFunc(cert.UnknownExtKeyUsage, oidEKCertificate.Equal) {
		return "the EK certificate is not for an EK, by its extended key usage"
	}
	return ""
}

// listsCertificate tells whether the report, unless it was cut, lists a key
// with that certificate.
func (v *verification) listsCertificate(cert *x509.Certificate) bool {
	sum := sha256.Sum256(cert.Raw)
	return len(v.report.Cut) > 0 || slices.ContainsFunc(v.report.Keys, func(k device.KeyReport) bool {
		return k.Role == device.RoleEK && k.Certificate != nil && k.Certificate.SHA256 == hex.EncodeToString(sum[:])
	})
}
