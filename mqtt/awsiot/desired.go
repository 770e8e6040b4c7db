package awsiot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"
)

// maxCheckToken bounds the token of a desired check, which the shadow has to
// hold twice, in bytes.
const maxCheckToken = 128

// OnDesiredCheck calls f with the token of a check that the named shadow
// desires and does not report: now, if there is one, and whenever one comes. It
// calls f once for a token, and f must not take long itself. What the shadow
// desires besides, or in another shape, is left alone and logged once.
func (c *Client) OnDesiredCheck(ctx context.Context, f func(token string)) error {
	var known desires
	tell := func(desired desiredCheck, err error) {
		if err != nil {
			c.logOnce("desired check is left alone", err)
		} else if known.news(desired) {
			f(desired.Token)
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
	var rejected *Rejected
	if errors.As(err, &rejected) && rejected.Code == "404" { // there is no shadow yet
		return nil
	}
	if err != nil {
		return fmt.Errorf("await desired checks: %w", err)
	}
	return nil
}

// AcknowledgeCheck reports that the check that was desired by token is done.
func (c *Client) AcknowledgeCheck(ctx context.Context, token string) error {
	_, err := c.updateShadow(ctx, map[string]any{"check": token})
	return err
}

// desiredCheck is the desired token, "" if there is none, of a version of the shadow.
type desiredCheck struct {
	Token   string
	Version int64
}

// desires remembers the last token that was told.
type desires struct {
	mu   sync.Mutex
	last desiredCheck
}

// news reports whether a token is to be passed on. Messages may overtake each other;
// one whose version is not told is taken for the newest.
func (d *desires) news(desired desiredCheck) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	stale := desired.Version > 0 && desired.Version < d.last.Version
	if stale || desired.Token == "" || desired.Token == d.last.Token {
		return false
	}
	d.last = desired
	return true
}

// parseDelta reads an update/delta.
func parseDelta(payload []byte) (desiredCheck, error) {
	var doc struct {
		State struct {
			Check json.RawMessage `json:"check"`
		} `json:"state"`
		Version int64 `json:"version"`
	}
	if err := decode(payload, &doc); err != nil {
		return desiredCheck{}, err
	}
	token, err := checkToken(doc.State.Check)
	return desiredCheck{token, doc.Version}, err
}

// parseShadow reads a shadow, in which a token that is reported already is desired no more.
func parseShadow(payload []byte) (desiredCheck, error) {
	var doc struct {
		State struct {
			Desired struct {
				Check json.RawMessage `json:"check"`
			} `json:"desired"`
			Reported json.RawMessage `json:"reported"`
		} `json:"state"`
		Version int64 `json:"version"`
	}
	if err := decode(payload, &doc); err != nil {
		return desiredCheck{}, err
	}
	token, err := checkToken(doc.State.Desired.Check)
	var reported struct {
		Check string `json:"check"`
	}
	if len(doc.State.Reported) > 0 && json.Unmarshal(doc.State.Reported, &reported) == nil && reported.Check == token {
		token = ""
	}
	return desiredCheck{token, doc.Version}, err
}

func checkToken(value json.RawMessage) (string, error) {
	if len(value) == 0 || string(value) == "null" {
		return "", nil
	}
	token, ok := (member{value: value}).text()
	if !ok || !utf8.Valid(value) || token == "" || len(token) > maxCheckToken || cleanValue(token) != token {
		return "", fmt.Errorf("check is %.64q, not a token of 1 to %d printable characters", value, maxCheckToken)
	}
	return token, nil
}
