package main

import (
	"context"
	"errors"

	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// connect makes a session and has the device answer challenges on it, unless it
// has no TPM or ends at once. A policy that does not allow them is told once:
// AWS IoT may cut the session for it, and that must not keep reports back.
func (d *deviceRun) connect(ctx context.Context) (agent.Cloud, error) {
	for {
		c, err := d.dial(ctx)
		if err != nil {
			return nil, err
		}
		if d.cfg.TPM.Address == "" || d.attempts > 0 || d.noChallenges {
			return c, nil
		}
		if err = c.OnChallenge(ctx, d.answer); err == nil {
			return c, nil
		}
		d.noChallenges = true
		d.log.Warn("challenges to the TPM are not answered: does the policy allow keyvet/THING/challenge?", "error", err)
		select {
		case <-c.Done():
			c.Close()
		default:
			return c, nil
		}
	}
}

// answer has the TPM answer a challenge of the fleet's, and sign the last
// report anew with its nonce.
func (d *deviceRun) answer(_ context.Context, c awsiot.Challenge) (a awsiot.ChallengeAnswer, err error) {
	if !d.tpm.TryLock() {
		return a, errors.New("the TPM is busy with a self-check: ask again")
	}
	defer d.tpm.Unlock()
	defer func() { d.log.Info("challenge to the TPM", "id", c.ID, "error", err) }()
	if d.signed.id == "" {
		return a, errors.New("the TPM has signed no report")
	}
	t, err := tpm.Open(d.cfg.TPM.Address, d.cfg.tpmOptions())
	if err != nil {
		return a, err
	}
	defer t.Close()
	if err := d.useAK(t, false); err != nil {
		d.log.Warn("kept attestation key", "error", err) // the primary key is then the one that signed the report, or the challenge is not for it
	}
	a.Secret, err = t.Activate(&evidence.Challenge{
		EKAlgorithm: c.EKAlgorithm, EKSPKISHA256: c.EKSPKISHA256, CredentialBlob: c.CredentialBlob, Secret: c.Secret,
	})
	if err != nil {
		return a, err
	}
	p := d.cfg.Evidence.PCRs
	request := tpm.AttestRequest{Digest: d.signed.digest, Nonce: c.Nonce, Bank: p.bank, PCRs: p.indices, DeviceKey: d.deviceKey()}
	a.Evidence, err = t.Attest(request)
	if err != nil && request.DeviceKey != nil { // as the report says
		request.DeviceKey = nil
		a.Evidence, err = t.Attest(request)
	}
	a.ReportID = d.signed.id
	return a, err
}
