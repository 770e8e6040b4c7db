package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// challenge is one that waits for the loop to have the TPM answer it.
type challenge struct {
	awsiot.Challenge
	answered chan<- answered
}

type answered struct {
	awsiot.ChallengeAnswer
	err error
}

// onChallenges has the device answer challenges, if it has a TPM. A policy that
// does not allow them is told once: AWS IoT may cut the session for it, and that
// must not keep reports back.
func (c *cloud) onChallenges(ctx context.Context) error {
	if c.run.cfg.TPM.Address == "" || c.run.noChallenges {
		return nil
	}
	err := c.OnChallenge(ctx, func(ctx context.Context, asked awsiot.Challenge) (awsiot.ChallengeAnswer, error) {
		done := make(chan answered, 1)
		select {
		case c.challenges <- challenge{asked, done}:
		default:
			return awsiot.ChallengeAnswer{}, errors.New("another challenge waits: ask again")
		}
		c.wake()
		select {
		case a := <-done:
			return a.ChallengeAnswer, a.err
		case <-ctx.Done():
			return awsiot.ChallengeAnswer{}, errors.New("the device is busy: ask again")
		}
	})
	if err != nil {
		c.run.noChallenges = true
		return fmt.Errorf("challenges to the TPM are not answered: does the policy allow keyvet/THING/challenge? %w", err)
	}
	return nil
}

// nextChallenge is the challenge that waits, if there is one.
func (c *cloud) nextChallenge() *agent.Work {
	select {
	case asked := <-c.challenges:
		return &agent.Work{Operation: agent.OperationChallenge, ID: asked.ID, Do: func(context.Context) error {
			a, err := c.run.answer(asked.Challenge)
			asked.answered <- answered{a, err}
			if err != nil { // which is the answer: nothing waits to be tried again
				c.run.log.Warn("challenge", "id", asked.ID, "error", err)
			}
			return nil
		}}
	default:
		return nil
	}
}

// answer has the TPM answer a challenge of the fleet's, and sign the last
// report anew with its nonce.
func (d *deviceRun) answer(c awsiot.Challenge) (a awsiot.ChallengeAnswer, err error) {
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
