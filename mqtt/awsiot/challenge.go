package awsiot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
)

// Challenge is what the fleet asks of a device's TPM on keyvet/T/challenge: its
// secret, which only the TPM with that endorsement key can give back that has
// the attestation key of the device's evidence, and new evidence over the
// device's last report with this nonce. Package tpm/evidence makes its secret.
type Challenge struct {
	ID             string `json:"id"`             // 1 to 64 of a-z, A-Z, 0-9, underscore and hyphen
	EKAlgorithm    string `json:"ekAlgorithm"`    // as in reports
	EKSPKISHA256   string `json:"ekSpkiSha256"`   // as in reports
	CredentialBlob []byte `json:"credentialBlob"` // TPMS_ID_OBJECT
	Secret         []byte `json:"secret"`         // TPMU_ENCRYPTED_SECRET
	Nonce          []byte `json:"nonce"`          // 16 to 64 bytes
}

// ChallengeAnswer goes to keyvet/T/challenge/answer.
type ChallengeAnswer struct {
	ID       string `json:"id"` // of the challenge; "" if it had none
	Secret   []byte `json:"secret,omitempty"`
	ReportID string `json:"reportId,omitempty"` // what the evidence is over
	// ReportAge is how old that report is by the device's clock, in seconds: the
	// evidence is new, what the report says of keys is as old as this.
	ReportAge int64            `json:"reportAge,omitempty"`
	Evidence  *device.Evidence `json:"evidence,omitempty"`
	Error     string           `json:"error,omitempty"` // why there is nothing else
}

const (
	maxChallenge        = 8 << 10
	maxAnswer           = 48 << 10
	maxChallengeSecret  = 1 << 10 // as long as an RSA key is more than enough
	minNonce, maxNonce  = 16, 64
	challengeTimeout    = 5 * time.Minute // chips make an RSA key in two
	challengeIDAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
)

// ParseChallenge reads a challenge. Where there is an error and the challenge
// has an id, that is given all the same.
func ParseChallenge(payload []byte) (Challenge, error) {
	var c Challenge
	if err := parseStrictly(payload, maxChallenge, &c); err != nil {
		return Challenge{}, fmt.Errorf("challenge: %w", err)
	}
	if len(c.ID) > 64 || strings.Trim(c.ID, challengeIDAlphabet) != "" || c.ID == "" {
		return Challenge{}, errors.New("challenge: id is not 1 to 64 of a-z, A-Z, 0-9, underscore and hyphen")
	}
	var err error
	switch {
	case len(c.EKAlgorithm) > 32 || len(c.EKSPKISHA256) != 64:
		err = errors.New("challenge: ekAlgorithm and ekSpkiSha256 are not those of a key")
	case len(c.CredentialBlob) == 0 || len(c.CredentialBlob) > maxChallengeSecret, len(c.Secret) == 0 || len(c.Secret) > maxChallengeSecret:
		err = errors.New("challenge: credentialBlob and secret are not those of a TPM")
	case len(c.Nonce) < minNonce || len(c.Nonce) > maxNonce:
		err = fmt.Errorf("challenge: a nonce of %d bytes, want %d to %d", len(c.Nonce), minNonce, maxNonce)
	}
	if err != nil {
		return Challenge{ID: c.ID}, err
	}
	return c, nil
}

// ParseChallengeAnswer reads a device's answer, on the fleet's side. It has
// either an error or all the rest.
func ParseChallengeAnswer(payload []byte) (ChallengeAnswer, error) {
	var a ChallengeAnswer
	if err := parseStrictly(payload, maxAnswer, &a); err != nil {
		return ChallengeAnswer{}, fmt.Errorf("answer to a challenge: %w", err)
	}
	if whole := len(a.Secret) > 0 && a.ReportID != "" && a.Evidence != nil; whole == (a.Error != "") {
		return ChallengeAnswer{}, errors.New("answer to a challenge: want secret, reportId and evidence, or else an error")
	}
	return a, nil
}

// parseStrictly reads one JSON object of at most limit bytes, all of whose
// members are known.
func parseStrictly(payload []byte, limit int, to any) error {
	if len(payload) > limit {
		return fmt.Errorf("%d bytes, more than %d", len(payload), limit)
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}

// OnChallenge has answer answer the challenges to this thing until the session
// ends, one at a time: while one is being answered, others are told so. What
// answer cannot do, the fleet is told by its error.
func (c *Client) OnChallenge(ctx context.Context, answer func(context.Context, Challenge) (ChallengeAnswer, error)) error {
	topic := "keyvet/" + strings.TrimSuffix(strings.TrimPrefix(c.prefix, "$aws/things/"), "/") + "/challenge"
	free := make(chan struct{}, 1)
	free <- struct{}{}
	err := c.session.Subscribe(ctx, topic, func(_ string, payload []byte) {
		challenge, err := ParseChallenge(payload)
		if err != nil {
			c.answerChallenge(topic, challenge.ID, ChallengeAnswer{}, err)
			return
		}
		select {
		case <-free:
		default:
			c.answerChallenge(topic, challenge.ID, ChallengeAnswer{}, errors.New("another challenge is being answered: ask again"))
			return
		}
		go func() { // the broker waits for its PUBACK meanwhile, and a TPM may take minutes
			defer func() { free <- struct{}{} }()
			ctx, cancel := context.WithTimeout(context.Background(), challengeTimeout)
			defer cancel()
			a, err := answer(ctx, challenge)
			c.answerChallenge(topic, challenge.ID, a, err)
		}()
	})
	if err != nil {
		return fmt.Errorf("challenges: %w", err)
	}
	return nil
}

// answerChallenge publishes an answer. If that fails, the fleet asks again, and the
// log says why.
func (c *Client) answerChallenge(topic, id string, a ChallengeAnswer, err error) {
	a.ID = id
	if err != nil {
		a = ChallengeAnswer{ID: id, Error: err.Error()}
	}
	payload, err := json.Marshal(a)
	if err != nil {
		return // of strings and bytes
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.session.Publish(ctx, topic+"/answer", payload); err != nil {
		c.logOnce("a challenge is not answered", fmt.Errorf("%s/answer: %w", topic, err))
	}
}
