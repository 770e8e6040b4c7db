package tpm

import (
	"encoding/base64"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// Quote has the TPM sign digest, which is [device.Digest] of a report, as the
// qualifying data of a quote of PCRs 0 to 7 of the SHA-256 bank (TPM2_Quote,
// Part 3, section 18.4), by the key that [TPM.Inventory] lists as tpm-ak. The
// first EK certificate in NV comes with it, if there is one. The quote is
// verified before it is handed out.
func (t *TPM) Quote(digest [32]byte) (*device.Evidence, error) {
	text := base64.StdEncoding.EncodeToString
	var e device.Evidence
	err := t.withPrimary(attestationKey, func(ak tpm2.NamedHandle, public tpm2.TPM2BPublic) error {
		rsp, err := tpm2.Quote{
			SignHandle:     tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: digest[:]},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, // the key's own
			PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
				{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(0, 1, 2, 3, 4, 5, 6, 7)},
			}},
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("tpm: quote: %w", err)
		}
		if _, err := rsp.Signature.Signature.ECDSA(); err != nil {
			return fmt.Errorf("tpm: quote: %w", err)
		}
		e.AKPublic = text(public.Bytes())
		e.Quote = text(rsp.Quoted.Bytes())
		e.Signature = text(tpm2.Marshal(rsp.Signature))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if _, err := evidence.VerifyDigest(&e, digest); err != nil {
		return nil, fmt.Errorf("tpm: quote: the TPM signed something else: %w", err)
	}
	inv := inventory{t: t}
	if certs, _ := inv.readCertificates(); len(certs) > 0 {
		e.EKCertificate = text(certs[0].der)
	}
	return &e, nil
}
