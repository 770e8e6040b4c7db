package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
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
		return fmt.Errorf("mqtt: subscribe to %s: %w", filter, err)
	}
	return nil
}

// subscribe does the round trip for the first handler of a filter; h may be nil.
func (s *Session) subscribe(ctx context.Context, filter string, h Handler) error {
	if err := checkTopic(filter, true); err != nil {
		return err
	}
	select {
	case s.subscribing <- struct{}{}:
		defer func() { <-s.subscribing }()
	case <-s.done:
		return s.lost()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	handlers, known := s.handlers[filter]
	kept := s.kept.has(filter)
	if h == nil {
		for wider := range s.handlers {
			known = known || matches(wider, filter)
		}
		kept = kept || s.kept.match(filter)
	} else {
		handlers = append(handlers, h) // before the SUBACK: messages may overtake it
	}
	if h != nil || kept {
		s.handlers[filter] = handlers
		close(s.attached)
		s.attached = make(chan struct{})
	}
	s.mu.Unlock()
	if known || kept {
		return nil
	}
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.Topics, p.Qoss = []string{filter}, []byte{1}
	reply, err := s.exchange(ctx, "SUBACK", p, &p.MessageID)
	if err == nil {
		if suback, ok := reply.(*packets.SubackPacket); !ok || suback.ReturnCodes[0] > 1 {
			err = fmt.Errorf("%w: check the policy of the client certificate", ErrDenied)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.handlers, filter)
		return err
	}
	if h == nil {
		s.handlers[filter] = nil
	}
	s.kept.add(filter)
	return nil
}

// deliver hands a message to whoever waits for it. One that the broker kept
// for this session may come before its handler is back: it waits as long as
// any step does.
func (s *Session) deliver(topic string, payload []byte) {
	s.mu.Lock()
	s.answer(Message{topic, payload})
	s.mu.Unlock()
	deadline := time.NewTimer(s.timeout)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		known := false
		var matched []Handler
		for filter, handlers := range s.handlers {
			if matches(filter, topic) {
				known, matched = true, append(matched, handlers...)
			}
		}
		attached := s.attached
		s.mu.Unlock()
		for _, h := range matched {
			h(topic, payload)
		}
		if known || !s.kept.match(topic) {
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

// filters are those that a broker keeps for a persistent session and that this
// process has asked for. What an earlier process asked for is not known, and
// asked for again. A nil *filters has none and takes none.
type filters struct {
	mu  sync.Mutex
	set map[string]bool
}

// keptAt is what the broker at endpoint keeps, by the word of its CONNACK.
func (d *Dialer) keptAt(endpoint string, present bool) *filters {
	if !d.cfg.Persistent {
		return nil
	}
	if d.kept[endpoint] == nil || !present {
		d.kept[endpoint] = &filters{set: make(map[string]bool)}
	}
	return d.kept[endpoint]
}

func (f *filters) has(filter string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.set[filter]
}

func (f *filters) add(filter string) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set[filter] = true
}

// match reports whether a topic falls under one of them.
func (f *filters) match(topic string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for filter := range f.set {
		if matches(filter, topic) {
			return true
		}
	}
	return false
}
