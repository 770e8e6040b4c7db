package vet

import (
	"errors"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// Answer is what the TPM answers to a challenge.
type Answer struct {
	Secret   []byte
	ReportID string        // what the evidence is over
	Age      time.Duration // of that report, by the device's clock
	Evidence *device.Evidence
}

// Answer has the TPM answer a challenge of the fleet's, and sign the last report
// again with its nonce.
func (v *Vetter) Answer(c *evidence.Challenge, nonce []byte) (a Answer, err error) {
	if v.signed.id == "" {
		return a, errors.New("the TPM has signed no report")
	}
	t, err := tpm.Open(v.Config.TPM.Address, v.Config.TPMOptions())
	if err != nil {
		return a, err
	}
	defer t.Close()
	if err := v.useAK(t, false); err != nil {
		v.Log.Warn("kept attestation key", "error", err) // the primary key is then the one that signed the report, or the challenge is not for it
	}
	if a.Secret, err = t.Activate(c); err != nil {
		return a, err
	}
	own, _ := v.Credentials.Current() // one that cannot be used has no signer
	p := v.Config.Evidence.PCRs
	request := tpm.AttestRequest{Digest: v.signed.digest, Nonce: nonce, Bank: p.Bank, PCRs: p.Indices, BootLog: v.signed.log, DeviceKey: own.Signer()}
	a.Evidence, err = t.Attest(request)
	if err != nil && request.DeviceKey != nil { // as the report says
		request.DeviceKey = nil
		a.Evidence, err = t.Attest(request)
	}
	a.ReportID, a.Age = v.signed.id, v.signed.age()
	return a, err
}
