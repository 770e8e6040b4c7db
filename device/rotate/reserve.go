package rotate

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"

	"github.com/keyvet/keyvet/device"
)

// reserve notes the old credential. The new one has its id already.
func (w *worker) reserve(_ context.Context) error {
	r := w.state.Rotation
	if r.Old.ID != Claim && r.Old.ID != Configured {
		chain, err := w.Store.Certificate(r.Old.ID)
		if err != nil {
			return ofStore.reason(err)
		}
		if certificates, _, err := parseChain(chain); err == nil { // one that cannot be read can be replaced
			r.Old.describe(certificates[0])
		}
	}
	return nil
}

// describe notes what a certificate says. AWS IoT's id of a certificate is the
// SHA-256 of its DER.
func (c *Credential) describe(leaf *x509.Certificate) {
	notAfter, id := leaf.NotAfter.UTC(), sha256.Sum256(leaf.Raw)
	c.NotAfter, c.Serial = &notAfter, bounded(leaf.SerialNumber.Text(16), maxNameBytes)
	if c.CertificateID == "" {
		c.CertificateID = hex.EncodeToString(id[:])
	}
	if c.SPKISHA256 == "" { // a new key has its own, and its certificate may state it in another form
		c.SPKISHA256 = digest(leaf.RawSubjectPublicKeyInfo)
	}
}

func digest(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// release tells the job of the failure, by the old credential.
func (w *worker) release(ctx context.Context) error {
	r := w.state.Rotation
	if r.Job.ID == "" {
		return nil
	}
	o := w.failure(&Error{r.Reason, errors.New(r.Message)})
	err := w.tellEnd(ctx, r.Old.ID, device.JobFailed, o.details())
	if errors.Is(err, ErrKeyGone) {
		w.log().Error("nobody is left to tell the job that the rotation failed", "job", r.Job.ID, "error", err)
		return nil
	}
	return err
}
