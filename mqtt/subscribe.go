package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Handler takes one message. Handlers run beside each other, in no order;
// the message is acknowledged once its handlers returned.
type Handler func(topic string, payload []byte)

// Subscribe calls h for every message that matches filter, asked for with QoS 1.
// h may be nil: then the filter only covers the replies to requests.
func (s *Session) Subscribe(ctx context.Context, filter string, h Handler) error {
	if err := s.subscribe(ctx, filter, h); err != nil {
		return fmt.Errorf("%w (subscription to %s)", err, filter)
	}
	return nil
}

// subscribe does the round trip for the first handler of a filter; h may be nil.
func (s *Session) subscribe(ctx context.Context, filter string, h Handler) error {
	if err := checkTopic(filter, true); err != nil {
		return err
	}
	select {
	case s.inbox.subscribing <- struct{}{}:
		defer func() { <-s.inbox.subscribing }()
	case <-s.done:
		return s.lost()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.inbox.attach(filter, h) {
		return nil
	}
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.Topics, p.Qoss = []string{filter}, []byte{1}
	reply, err := s.exchange(ctx, "SUBACK", p, len(filter), &p.MessageID)
	if err == nil {
		if suback, ok := reply.(*packets.SubackPacket); !ok || suback.ReturnCodes[0] > 1 {
			err = fmt.Errorf("%w: check the policy of the client certificate", ErrDenied)
		}
	}
	s.inbox.subscribed(filter, err == nil)
	return err
}

// deliver hands a message to whoever waits for it. One that the broker kept
// for this session may come before its handler is back: it waits as long as
// any step does.
func (s *Session) deliver(topic string, payload []byte) {
	s.inbox.answer(Message{topic, payload})
	deadline := time.NewTimer(s.pace.limit(0))
	defer deadline.Stop()
	for {
		handlers, known, attached := s.inbox.handlersOf(topic)
		for _, h := range handlers {
			h(topic, payload)
		}
		if known || !s.inbox.kept.match(topic) {
			return
		}
		select {
		case <-attached:
		case <-deadline.C:
			return
		case <-s.done:
			return
		}
	}
}

// matches reports whether a topic falls under a filter (MQTT 3.1.1, section 4.7).
func matches(filter, topic string) bool {
	if topic != "" && topic[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		level, rest, more := strings.Cut(filter, "/")
		if level == "#" {
			return true
		}
		topicLevel, topicRest, topicMore := strings.Cut(topic, "/")
		if level != "+" && level != topicLevel {
			return false
		}
		if !topicMore {
			return !more || rest == "#"
		}
		if !more {
			return false
		}
		filter, topic = rest, topicRest
	}
}

func checkTopic(topic string, filter bool) error {
	switch {
	case topic == "":
		return errors.New("the topic is empty")
	case len(topic) > maxString:
		return fmt.Errorf("topic of %d bytes is over %d", len(topic), maxString)
	case !utf8.ValidString(topic) || strings.ContainsRune(topic, 0):
		return errors.New("the topic is not text")
	case !filter && strings.ContainsAny(topic, "+#"):
		return errors.New("the topic has a wildcard")
	}
	return nil
}
