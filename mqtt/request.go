package mqtt

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Rejected is AWS IoT's answer on a topic's rejected sibling.
type Rejected struct {
	Topic   string // of the request
	Code    string // "409" from the shadow, "InvalidTopic" from Jobs, "" if it gave none
	Message string // one line of at most 256 bytes
	Payload []byte // as it came, for what else the service says in it
}

func (e *Rejected) Error() string {
	if e.Code == "" {
		return "rejected: " + e.Message
	}
	return "rejected: " + e.Code + ": " + e.Message
}

// waiter is a request that waits for its reply.
type waiter struct {
	token string // its clientToken, or ""
	reply chan reply
}

type reply struct {
	payload  []byte
	rejected *Rejected
}

// Request publishes payload to topic and waits for the reply on topic/accepted
// or topic/rejected, which it has subscribed to first unless a filter of
// [Session.Subscribe] covers them; a rejection is a [*Rejected]. If payload is
// a JSON object with a clientToken, only a reply that carries the same one
// counts; without one, only a reply without one. A rejection that carries none
// counts in either case, since AWS IoT leaves it out where it could not read
// the request.
func (s *Session) Request(ctx context.Context, topic string, payload []byte) ([]byte, error) {
	accepted, err := s.request(ctx, topic, payload)
	if err != nil {
		return nil, fmt.Errorf("mqtt: request %s: %w", topic, err)
	}
	return accepted, nil
}

func (s *Session) request(ctx context.Context, topic string, payload []byte) ([]byte, error) {
	for _, kind := range []string{"/accepted", "/rejected"} {
		if err := s.subscribe(ctx, topic+kind, nil); err != nil {
			return nil, err
		}
	}
	w := &waiter{token: clientToken(payload), reply: make(chan reply, 1)}
	s.mu.Lock()
	s.waiting[topic] = append(s.waiting[topic], w)
	s.mu.Unlock()
	defer s.forget(topic, w)
	if err := s.publish(ctx, topic, payload); err != nil {
		return nil, err
	}
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	select {
	case r := <-w.reply:
		if r.rejected != nil {
			return nil, r.rejected
		}
		return r.payload, nil
	case <-s.done:
		return nil, s.lost()
	case <-timer.C:
		return nil, fmt.Errorf("no reply within %v: %w", s.timeout, context.DeadlineExceeded)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *Session) forget(topic string, w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[topic] = slices.DeleteFunc(s.waiting[topic], func(other *waiter) bool { return other == w })
	if len(s.waiting[topic]) == 0 {
		delete(s.waiting, topic)
	}
}

// answer gives a reply to the requests that wait for it; mu is held.
func (s *Session) answer(topic string, payload []byte) {
	var r reply
	request, ok := strings.CutSuffix(topic, "/accepted")
	if ok {
		r.payload = payload
	} else if request, ok = strings.CutSuffix(topic, "/rejected"); ok {
		r.rejected = parseRejected(request, payload)
	}
	if !ok || len(s.waiting[request]) == 0 {
		return
	}
	token := clientToken(payload)
	for _, w := range s.waiting[request] {
		if w.token == token || r.rejected != nil && token == "" {
			select {
			case w.reply <- r:
			default: // answered before
			}
		}
	}
}

// clientToken is the clientToken of a JSON object, or "".
func clientToken(payload []byte) string {
	var doc struct {
		ClientToken string `json:"clientToken"`
	}
	if json.Unmarshal(payload, &doc) != nil {
		return ""
	}
	return doc.ClientToken
}

// parseRejected reads the rejections of the shadow (a number for a code), of
// Jobs (a word), of fleet provisioning (members of other names) and of Device
// Defender (members of an object).
func parseRejected(topic string, payload []byte) *Rejected {
	var doc struct {
		Code         any    `json:"code"`
		Message      string `json:"message"`
		ErrorCode    string `json:"errorCode"`
		ErrorMessage string `json:"errorMessage"`
		Details      struct {
			Code    string `json:"ErrorCode"`
			Message string `json:"ErrorMessage"`
		} `json:"statusDetails"`
	}
	if err := json.Unmarshal(payload, &doc); err != nil {
		return &Rejected{Topic: topic, Message: "the reason could not be read", Payload: payload}
	}
	r := &Rejected{Topic: topic, Code: doc.ErrorCode + doc.Details.Code, Message: oneLine(doc.Message + doc.ErrorMessage + doc.Details.Message), Payload: payload}
	switch code := doc.Code.(type) {
	case string:
		r.Code = code
	case float64:
		r.Code = fmt.Sprintf("%.0f", code)
	}
	r.Code = oneLine(r.Code)
	return r
}

// oneLine makes what came from outside fit to be shown.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > 256 {
		s = strings.ToValidUTF8(s[:256], "")
	}
	return s
}
