package cloud

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
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
func (s *Session) hearChallenges(ctx context.Context) error {
	if s.cloud.Config.TPM.Address == "" || s.challenged {
		return nil
	}
	listening := &s.cloud.listening
	began := time.Now()
	if wait := listening.wait(began); wait > 0 {
		s.alarm.set(began.Add(wait))
		return nil
	}
	select {
	case <-s.conn.Done():
		return nil // which says nothing of challenges
	default:
	}
	err := s.onChallenges(ctx)
	s.challenged = err == nil
	listening.learn(time.Now(), outcomeOf(err, time.Since(began), s.cloud.Config.MQTT.Timeout.Duration))
	if wait := listening.wait(time.Now()); wait > 0 {
		return fmt.Errorf("challenges to the TPM are not answered for %s: does the policy allow keyvet/THING/challenge? %w", wait.Round(time.Hour), err)
	}
	if err != nil {
		return fmt.Errorf("challenges to the TPM are not answered yet: %w", err)
	}
	return nil
}

// outcomeOf sorts the error of a subscription that took so long. AWS IoT ends the
// session at once where the policy does not allow one.
func outcomeOf(err error, took, step time.Duration) subscription {
	switch {
	case err == nil:
		return subscribed
	case errors.Is(err, mqtt.ErrDenied):
		return subscriptionRefused
	case errors.Is(err, mqtt.ErrLost) && took < step:
		return subscriptionCut
	}
	return subscriptionFailed
}

// onChallenges subscribes to challenges, each of which waits for the loop.
func (s *Session) onChallenges(ctx context.Context) error {
	return s.OnChallenge(ctx, func(ctx context.Context, asked awsiot.Challenge) (awsiot.ChallengeAnswer, error) {
		done := make(chan answered, 1)
		select {
		case s.challenges <- challenge{asked, done}:
		default:
			return awsiot.ChallengeAnswer{}, errors.New("another challenge waits: ask again")
		}
		s.alarm.ring()
		select {
		case a := <-done:
			return a.ChallengeAnswer, a.err
		case <-ctx.Done():
			return awsiot.ChallengeAnswer{}, errors.New("the device is busy: ask again")
		}
	})
}

// nextChallenge is the challenge that waits, if there is one.
func (s *Session) nextChallenge() *agent.Work {
	select {
	case asked := <-s.challenges:
		return &agent.Work{Operation: "challenge", ID: asked.ID, Do: func(context.Context, agent.Actions) error {
			a, err := s.cloud.Answerer.Answer(&evidence.Challenge{
				EKAlgorithm: asked.EKAlgorithm, EKSPKISHA256: asked.EKSPKISHA256, CredentialBlob: asked.CredentialBlob, Secret: asked.Secret,
			}, asked.Nonce)
			asked.answered <- answered{
				awsiot.ChallengeAnswer{Secret: a.Secret, ReportID: a.ReportID, ReportAge: int64(a.Age / time.Second), Evidence: a.Evidence},
				forOthers(err, s.cloud.Config.TPM.Address),
			}
			if err != nil { // which is the answer: nothing waits to be tried again
				s.cloud.Log.Warn("challenge", "id", asked.ID, "error", err)
			}
			return nil
		}}
	default:
		return nil
	}
}

// forOthers is an error as the fleet may read it: without the device's paths and
// the TPM's address, which the log has.
func forOthers(err error, address string) error {
	if err == nil {
		return nil
	}
	words := strings.Fields(strings.ReplaceAll(err.Error(), address, "the TPM"))
	for i, word := range words {
		if strings.Contains(word, "/") {
			words[i] = "…"
		}
	}
	return errors.New(strings.Join(words, " "))
}
