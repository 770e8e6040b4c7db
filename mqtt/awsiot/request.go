package awsiot

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
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

// ask publishes payload to topic and returns the reply on topic/accepted; the
// one on topic/rejected is a [*Rejected].
func ask(ctx context.Context, s *mqtt.Session, topic string, payload []byte) ([]byte, error) {
	accepted, rejected := topic+"/accepted", topic+"/rejected"
	reply, err := s.Ask(ctx, topic, payload, []string{accepted, rejected}, isReply(rejected, payload))
	if err != nil {
		return nil, err
	}
	return outcome(topic, rejected, reply)
}

// outcome returns what a reply to the request on topic says.
func outcome(topic, rejected string, reply mqtt.Message) ([]byte, error) {
	if reply.Topic == rejected {
		return nil, fmt.Errorf("request %s: %w", topic, parseRejected(topic, reply.Payload))
	}
	return reply.Payload, nil
}

// isReply tells the reply to request from those to the requests of others. If
// the request is a JSON object with a clientToken, only one that carries the same
// counts; without one, only one without. A rejection that carries none counts in
// either case, since AWS IoT leaves it out where it could not read the request.
func isReply(rejected string, request []byte) func(mqtt.Message) bool {
	ours := clientToken(request)
	return func(m mqtt.Message) bool {
		token := clientToken(m.Payload)
		return token == ours || token == "" && m.Topic == rejected
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
	r := &Rejected{Topic: topic, Code: doc.ErrorCode + doc.Details.Code, Message: device.OneLine(doc.Message+doc.ErrorMessage+doc.Details.Message, 256), Payload: payload}
	switch code := doc.Code.(type) {
	case string:
		r.Code = code
	case float64:
		r.Code = fmt.Sprintf("%.0f", code)
	}
	r.Code = device.OneLine(r.Code, 256)
	return r
}
