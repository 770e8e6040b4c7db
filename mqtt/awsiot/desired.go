package awsiot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/keyvet/keyvet/mqtt"
)

// maxCheckToken bounds the token of a desired check, which the shadow has to
// hold twice, in bytes.
const maxCheckToken = 128

// OnDesiredCheck calls f with the token of a check that the named shadow
// desires and does not report: now, if there is one, and whenever one comes. It
// calls f once for a token, and f must not take long itself. What the shadow
// desires besides, or in another shape, is left alone and logged once.
func (c *Client) OnDesiredCheck(ctx context.Context, f func(token string)) error {
	var mu sync.Mutex
	last := ""
	tell := func(token string, err error) {
		if err != nil {
			c.logOnce("desired check is left alone", err)
			return
		}
		mu.Lock()
		news := token != "" && token != last
		if news {
			last = token
		}
		mu.Unlock()
		if news {
			f(token)
		}
	}
	// Before the shadow is read, so that no request falls in between.
	delta := c.shadow("update/delta")
	err := c.session.Subscribe(ctx, delta, func(_ string, payload []byte) { tell(parseDelta(payload)) })
	if err == nil {
		var reply []byte
		reply, err = request(ctx, c.session, c.shadow("get"), withToken(nil))
		if err == nil {
			tell(parseShadow(reply))
		}
	}
	var rejected *mqtt.Rejected
	if errors.As(err, &rejected) && rejected.Code == "404" { // there is no shadow yet
		return nil
	}
	if err != nil {
		return fmt.Errorf("awsiot: await desired checks: %w", err)
	}
	return nil
}

// AcknowledgeCheck reports that the check that was desired by token is done.
func (c *Client) AcknowledgeCheck(ctx context.Context, token string) error {
	return c.updateShadow(ctx, map[string]any{"check": token})
}

// parseDelta reads the desired token of an update/delta, "" if it has none.
func parseDelta(payload []byte) (string, error) {
	var doc struct {
		State struct {
			Check json.RawMessage `json:"check"`
		} `json:"state"`
	}
	if err := decode(payload, &doc); err != nil {
		return "", err
	}
	return checkToken(doc.State.Check)
}

// parseShadow reads the desired token of a shadow, "" if there is none or it
// is reported already.
func parseShadow(payload []byte) (string, error) {
	var doc struct {
		State struct {
			Desired struct {
				Check json.RawMessage `json:"check"`
			} `json:"desired"`
			Reported json.RawMessage `json:"reported"`
		} `json:"state"`
	}
	if err := decode(payload, &doc); err != nil {
		return "", err
	}
	desired, err := checkToken(doc.State.Desired.Check)
	if err != nil {
		return "", err
	}
	var reported struct {
		Check string `json:"check"`
	}
	if len(doc.State.Reported) > 0 && json.Unmarshal(doc.State.Reported, &reported) == nil && reported.Check == desired {
		return "", nil
	}
	return desired, nil
}

func checkToken(value json.RawMessage) (string, error) {
	if len(value) == 0 || string(value) == "null" {
		return "", nil
	}
	token, ok := (member{value: value}).text()
	if !ok || token == "" || len(token) > maxCheckToken || cleanValue(token) != token {
		return "", fmt.Errorf("check is %.64q, not a token of 1 to %d printable characters", value, maxCheckToken)
	}
	return token, nil
}
