package evidence

import (
	"crypto/ecdsa"
	"crypto/rsa"
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
	if v.certificates == nil {
		return v.unshown(), "there is no EK certificate: no maker vouches for the TPM"
	}
	cert, _, unreadable := ekcert.Parse(v.certificates[0])
	if unreadable != nil {
		return v.unshown(), fmt.Sprintf("the EK certificate cannot be read: %v", unreadable)
	}
	if cert.IsCA {
		return device.Fail, "the EK certificate is one of a CA"
	}
	if statesUsage(cert) && !forEK(cert) {
		return device.Fail, "the EK certificate is not for an EK, by its extended key usage"
	}
	if _, isRSA := cert.PublicKey.(*rsa.PublicKey); isRSA && cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageKeyEncipherment == 0 {
		return device.Fail, "the EK certificate is not for an EK: its key usage does not allow key encipherment"
	}
	if _, isEC := cert.PublicKey.(*ecdsa.PublicKey); isEC && cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageKeyAgreement == 0 {
		return device.Fail, "the EK certificate is not for an EK: its key usage does not allow key agreement"
	}
	if !v.listsCertificate(cert) {
		return device.Fail, "the EK certificate is not one that the report lists"
	}
	maker, noMaker := ekcert.Manufacturer(cert)
	if noMaker != nil {
		return v.unshown(), fmt.Sprintf("the maker of the TPM, by the EK certificate, cannot be read: %v", noMaker)
	}
	if t := v.report.TPM; maker != "" && t != nil && t.Manufacturer != "" && t.Manufacturer != maker {
		return device.Fail, fmt.Sprintf("the report says that %s made the TPM, the EK certificate says %s", t.Manufacturer, maker)
	}
	if len(v.policy.EKRoots) == 0 {
		return device.Warn, fmt.Sprintf("issued by %s; no roots are given to hold it against", cert.Issuer)
	}
	chains, noPath := cert.Verify(v.pathOptions())
	if noPath != nil {
		return device.Fail, fmt.Sprintf("issued by %s, it does not lead to a given root: %v", cert.Issuer, noPath)
	}
	i := slices.IndexFunc(chains, mayIssueEKs)
	if i < 0 {
		return device.Fail, fmt.Sprintf("issued by %s, it leads to a given root only over a CA that is not for EK certificates, by its extended key usage", cert.Issuer)
	}
	leads := fmt.Sprintf("issued by %s, leads to the given %s", cert.Issuer, chains[i][len(chains[i])-1].Subject)
	if !statesUsage(cert) {
		return device.Warn, leads + "; but it does not say that it is for an EK: it has no extended key usage"
	}
	return device.Pass, leads
}

// pathOptions are those of a path from the EK certificate to a given root.
func (v *verification) pathOptions() x509.VerifyOptions {
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: v.policy.Now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // crypto/x509 does not know the one of EKs; mayIssueEKs does
	}
	for _, root := range v.policy.EKRoots {
		options.Roots.AddCert(root)
	}
	for _, der := range v.certificates[1:] {
		if issuer, _, err := ekcert.Parse(der); err == nil { // one that cannot be read leads nowhere
			options.Intermediates.AddCert(issuer)
		}
	}
	return options
}

// statesUsage reports whether a certificate has an extended key usage. The TCG
// EK Credential Profile for TPM Family 2.0 has tcg-kp-EKCertificate in it, but
// certificates of EKs without one have been issued.
func statesUsage(cert *x509.Certificate) bool {
	return len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0
}

// forEK reports whether the extended key usage of a certificate is that of an
// EK. A maker's CA issues others too, and those have their keys outside of TPMs.
func forEK(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.UnknownExtKeyUsage, oidEKCertificate.Equal)
}

// mayIssueEKs reports whether each CA between an EK certificate and the root,
// which is trusted as it is, may issue it: where one has an extended key usage,
// that bounds those of what it issues.
func mayIssueEKs(chain []*x509.Certificate) bool {
	return !slices.ContainsFunc(chain[1:len(chain)-1], func(ca *x509.Certificate) bool {
		return statesUsage(ca) && !forEK(ca) && !slices.Contains(ca.ExtKeyUsage, x509.ExtKeyUsageAny)
	})
}

// listsCertificate reports whether the report lists a key with that
// certificate, or may have before it was cut, which left nothing of EKs out
// since the first version.
func (d *document) listsCertificate(cert *x509.Certificate) bool {
	sum := sha256.Sum256(cert.Raw)
	return d.report.Cut.Uncounted() || slices.ContainsFunc(d.report.Keys, func(k device.KeyReport) bool {
		return k.Role == device.RoleEK && k.Certificate != nil && k.Certificate.SHA256 == hex.EncodeToString(sum[:])
	})
}
