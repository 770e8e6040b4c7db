package evidence

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm/ekcert"
)

// oidEKCertificate is tcg-kp-EKCertificate, the extended key usage of EK
// certificates (TCG EK Credential Profile for TPM Family 2.0).
var oidEKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 1}

func (v *verification) ekCertificate() (device.Status, string) {
	if v.certificates == nil {
		return v.unshown(), "there is no EK certificate: no maker vouches for the TPM"
	}
	cert, odd, unreadable := keyfile.ParseCertificate(v.certificates[0])
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
	return v.pathToRoot(cert, odd)
}

// pathToRoot asks of an EK certificate what a device asks of it
// (check.ek_roots), and counts what the verifier accepts. What only warns, such
// as of its age or hash, is the maker's, and does not keep it from leading to a root.
func (v *verification) pathToRoot(cert *x509.Certificate, odd string) (device.Status, string) {
	key := device.Key{
		ID: v.idOf(cert), Role: device.RoleEK, Public: cert.PublicKey, SPKI: cert.RawSubjectPublicKeyInfo,
		Chain: []*x509.Certificate{cert}, Encoding: odd,
	}
	for _, der := range v.certificates {
		if c, _, err := keyfile.ParseCertificate(der); err == nil { // one that cannot be read leads nowhere
			key.Beside = append(key.Beside, c)
		}
	}
	inv := device.Inventory{Keys: []device.Key{key}, ReadAt: v.policy.Now}
	found := check.OfInventory(context.Background(), inv, &check.Env{Now: v.policy.Now, EKRoots: v.policy.EKRoots, Only: []string{"ekcert", "expiry"}})
	computed := statuses(found)
	v.leads = statesUsage(cert) && (computed == device.Pass || computed == device.Warn)
	found, accepted := device.Accept(found, v.report.Keys, v.policy.Accept, v.policy.Now)
	v.accept(accepted)
	status, said, leads := statuses(found), []string(nil), ""
	for _, f := range found {
		switch {
		case f.Status != device.Pass:
			v.findings = append(v.findings, f)
			said = append(said, f.Message)
		case f.Check == "ekcert":
			leads = f.Message
		}
	}
	if leads != "" {
		said = append([]string{leads}, said...)
	}
	if !statesUsage(cert) {
		status = device.Worst(status, device.Warn)
		said = append(said, "it does not say that it is for an EK: it has no extended key usage")
	}
	return status, fmt.Sprintf("issued by %s: %s", cert.Issuer, strings.Join(said, "; "))
}

// statuses is the worst of what findings count as.
func statuses(found []device.Finding) device.Status {
	all := make([]device.Status, len(found))
	for i, f := range found {
		all[i] = f.Counts()
	}
	return device.Worst(all...)
}

const unlisted = "evidence: EK certificate"

// idOf returns the id of the EK of that certificate in the report.
func (d *document) idOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	for _, k := range d.report.Keys {
		if k.Role == device.RoleEK && k.Certificate != nil && k.Certificate.SHA256 == hex.EncodeToString(sum[:]) {
			return k.ID
		}
	}
	return unlisted
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

// listsCertificate reports whether the report lists a key with that
// certificate, or may have before it was cut, which left nothing of EKs out
// since the first version.
func (d *document) listsCertificate(cert *x509.Certificate) bool {
	return d.report.Cut.Uncounted() || d.idOf(cert) != unlisted
}
