package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt"
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

// hearChallenges has the device answer challenges, if it has a TPM and the
// policy allows it.
func (c *cloud) hearChallenges(ctx context.Context) error {
	if c.run.cfg.TPM.Address == "" || c.challenged {
		return nil
	}
	began := time.Now()
	if wait := c.run.listening.wait(began); wait > 0 {
		c.wakeAt(began.Add(wait))
		return nil
	}
	select {
	case <-c.session.Done():
		return nil // which says nothing of challenges
	default:
	}
	err := c.onChallenges(ctx)
	c.challenged = err == nil
	c.run.listening.learn(time.Now(), outcomeOf(err, time.Since(began)))
	if wait := c.run.listening.wait(time.Now()); wait > 0 {
		return fmt.Errorf("challenges to the TPM are not answered for %s: does the policy allow keyvet/THING/challenge? %w", wait.Round(time.Hour), err)
	}
	if err != nil {
		return fmt.Errorf("challenges to the TPM are not answered yet: %w", err)
	}
	return nil
}

// outcomeOf sorts the error of a subscription that took so long. AWS IoT ends the
// session at once where the policy does not allow one.
func outcomeOf(err error, took time.Duration) subscription {
	switch {
	case err == nil:
		return subscribed
	case errors.Is(err, mqtt.ErrDenied):
		return subscriptionRefused
	case errors.Is(err, mqtt.ErrLost) && took < stepTimeout:
		return subscriptionCut
	}
	return subscriptionFailed
}

// onChallenges subscribes to challenges, each of which waits for the loop.
func (c *cloud) onChallenges(ctx context.Context) error {
	return c.OnChallenge(ctx, func(ctx context.Context, asked awsiot.Challenge) (awsiot.ChallengeAnswer, error) {
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
}

// nextChallenge is the challenge that waits, if there is one.
func (c *cloud) nextChallenge() *agent.Work {
	select {
	case asked := <-c.challenges:
		return &agent.Work{Operation: "challenge", ID: asked.ID, Do: func(context.Context, agent.Actions) error {
			a, err := c.run.answer(asked.Challenge)
			asked.answered <- answered{a, c.run.forOthers(err)}
			if err != nil { // which is the answer: nothing waits to be tried again
				c.run.log.Warn("challenge", "id", asked.ID, "error", err)
			}
			return nil
		}}
	default:
		return nil
	}
}

// forOthers is an error as the fleet may read it: without the device's paths and
// addresses, which the log has.
func (d *deviceRun) forOthers(err error) error {
	if err == nil {
		return nil
	}
	text := strings.ReplaceAll(err.Error(), d.cfg.TPM.Address, "the TPM")
	words := strings.Fields(text)
	for i, word := range words {
		if strings.Contains(word, "/") {
			words[i] = "…"
		}
	}
	return errors.New(strings.Join(words, " "))
}

// answer has the TPM answer a challenge of the fleet's, and sign the last
// report anew with its nonce.
func (d *deviceRun) answer(c awsiot.Challenge) (a awsiot.ChallengeAnswer, err error) {
	if d.signed.id == "" {
		return a, errors.New("the TPM has signed no report")
	}
	t, err := tpm.Open(d.cfg.TPM.Address, d.cfg.TPMOptions())
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
	request := tpm.AttestRequest{Digest: d.signed.digest, Nonce: c.Nonce, Bank: p.Bank, PCRs: p.Indices, DeviceKey: d.deviceKey()}
	a.Evidence, err = t.Attest(request)
	if err != nil && request.DeviceKey != nil { // as the report says
		request.DeviceKey = nil
		a.Evidence, err = t.Attest(request)
	}
	a.ReportID, a.ReportAge = d.signed.id, int64(d.signed.age()/time.Second)
	return a, err
}
