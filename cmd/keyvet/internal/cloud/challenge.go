package cloud

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device/agent"
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
