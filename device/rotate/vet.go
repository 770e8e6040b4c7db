package rotate

import (
	"context"
	"crypto/x509"
	"slices"

	"github.com/keyvet/keyvet/device"
)

func (w *worker) vet(ctx context.Context) error {
	key, _, err := w.newKey(ctx)
	if err != nil {
		return err
	}
	return w.passes(ctx, key)
}

// passes puts every check to the key. What is undecided does not pass.
func (w *worker) passes(ctx context.Context, key device.Key) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	findings := w.Vetter.Vet(ctx, key)
	statuses := make([]device.Status, len(findings))
	for i, f := range findings {
		statuses[i] = f.Counts()
	}
	worst := device.Worst(statuses...)
	if worst.Opens() {
		return nil
	}
	for _, f := range findings {
		switch {
		case f.Counts() != worst:
		case f.ReasonCode == "KEYVET_CLOCK_IMPLAUSIBLE", f.ReasonCode == "KEYVET_CERTIFICATE_NOT_YET_VALID":
			return because(ReasonClockWrong, "%s: %s", f.Check, f.Message)
		case f.ReasonCode != "":
			return because(f.ReasonCode, "%s: %s", f.Check, f.Message)
		}
	}
	return because(ReasonNotVetted, "the checks say %s", worst)
}

// check looks at the certificate as a stranger's.
func (w *worker) check(ctx context.Context) error {
	r := w.state.Rotation
	key, _, err := w.newKey(ctx)
	if err != nil {
		return err
	}
	chain, err := w.Store.Certificate(r.New.ID)
	if err != nil {
		return ofStore.reason(err)
	}
	if key.Chain, key.Encoding, err = parseChain(chain); err != nil {
		return &Error{ReasonCertificateInvalid, err}
	}
	if err := w.fits(key); err != nil {
		return err
	}
	r.New.describe(key.Leaf())
	return w.passes(ctx, key)
}

// fits returns why this device cannot use a certificate, or nil. Its chain,
// the keys in that and its validity are for the checks.
func (w *worker) fits(key device.Key) error {
	leaf := key.Leaf()
	switch {
	case !device.SameKey(leaf.RawSubjectPublicKeyInfo, key.SPKI):
		return because(ReasonCertificateKey, "the certificate is for another key")
	case leaf.IsCA:
		return because(ReasonCertificateUsage, "the certificate is that of a CA")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return because(ReasonCertificateUsage, "the certificate's key may not sign")
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return because(ReasonCertificateUsage, "the certificate is not for clients")
	}
	if name := w.name(); name.Strict && leaf.Subject.CommonName != name.Common {
		return because(ReasonCertificateSubject, "the certificate is for %q, not for %q", leaf.Subject.CommonName, name.Common)
	}
	return nil
}

func (w *worker) name() Name {
	if w.Name == nil {
		return Name{}
	}
	return w.Name()
}
