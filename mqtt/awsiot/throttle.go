package awsiot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keyvet/keyvet/mqtt"
)

// ErrThrottled: AWS IoT asked for patience once more after all the patience
// that a call has.
var ErrThrottled = errors.New("throttled by AWS IoT")

// maxTries bounds how often a throttled request is sent.
const maxTries = 5

// request is ask, sent again while AWS IoT throttles it: after a
// random time of 0 to 1, 2, 4 and 8 s, and never beyond the deadline of ctx.
func request(ctx context.Context, s *mqtt.Session, topic string, payload []byte) ([]byte, error) {
	return patiently(ctx, func() ([]byte, error) { return ask(ctx, s, topic, payload) })
}

func patiently(ctx context.Context, try func() ([]byte, error)) ([]byte, error) {
	for n := 0; ; n++ {
		reply, err := try()
		var rejected *Rejected
		if !errors.As(err, &rejected) || !throttled(rejected) {
			return reply, err
		}
		wait := rand.N(time.Second << n)
		if deadline, ok := ctx.Deadline(); n+1 == maxTries || ok && time.Until(deadline) <= wait {
			return nil, fmt.Errorf("%w: %w", ErrThrottled, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
	}
}

// throttled knows the words of Jobs, of the shadow (HTTP's number), of Device
// Defender and of fleet provisioning, which has a number beside the word.
func throttled(r *Rejected) bool {
	switch r.Code {
	case "RequestThrottled", "429", "Throttled", "ThrottlingException":
		return true
	}
	var doc struct {
		StatusCode json.Number `json:"statusCode"`
	}
	return decode(r.Payload, &doc) == nil && doc.StatusCode == "429"
}
