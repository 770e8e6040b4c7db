package mqtt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Publish sends payload with QoS 1 and waits for the PUBACK. The PUBACK is the
// broker's word alone: whoever needs to know that the application has it uses
// [Session.Ask].
func (s *Session) Publish(ctx context.Context, topic string, payload []byte) error {
	if err := s.publish(ctx, topic, payload); err != nil {
		return fmt.Errorf("%w (publication to %s)", err, topic)
	}
	return nil
}

func (s *Session) publish(ctx context.Context, topic string, payload []byte) error {
	if err := checkTopic(topic, false); err != nil {
		return err
	}
	if len(payload) > MaxPayload {
		return fmt.Errorf("payload of %d bytes is over %d", len(payload), MaxPayload)
	}
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.Qos, p.TopicName, p.Payload = 1, topic, payload
	_, err := s.exchange(ctx, "PUBACK", p, len(topic)+len(payload), &p.MessageID)
	return err
}

// exchange sends a packet under a free id and waits for the broker's reply to
// it. Without one it sends the same packet again, twice, or once if it is large:
// a broker may leave out what is over a quota. It does so only once the packet
// and its reply have had their time on this network, since TCP repeats by itself.
func (s *Session) exchange(ctx context.Context, what string, p packets.ControlPacket, size int, id *uint16) (packets.ControlPacket, error) {
	var reply <-chan packets.ControlPacket
	*id, reply = s.sent.add(topicOf(p), size)
	defer s.sent.forget(*id, size)
	tries := 3
	if size >= bulk {
		tries = 2
	}
	began := time.Now()
	silence := s.pace.silence(s.sent.waiting())
	for n := range tries {
		if s.write(p, size) != nil {
			return nil, s.lost()
		}
		answer, err := s.reply(ctx, reply, silence)
		if answer != nil && n == 0 {
			s.pace.carried(size, time.Since(began))
		}
		if answer != nil || err != nil {
			return answer, err
		}
		if publish, ok := p.(*packets.PublishPacket); ok {
			publish.Dup = true
		}
	}
	s.pace.timedOut(context.DeadlineExceeded, size)
	return nil, fmt.Errorf("no %s within %v", what, time.Since(began).Round(time.Second))
}

// reply waits for so long; nil is silence.
func (s *Session) reply(ctx context.Context, reply <-chan packets.ControlPacket, most time.Duration) (packets.ControlPacket, error) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case p := <-reply:
		return p, nil
	case <-s.done:
		select {
		case p := <-reply: // the last that came
			return p, nil
		default:
			return nil, s.lost()
		}
	case <-timer.C:
		return nil, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// sent are the packets of ours that the broker has yet to reply to, by their
// ids. The zero value is ready.
type sent struct {
	mu      sync.Mutex
	last    uint16
	bytes   int                                   // of all of them
	replies map[uint16]chan packets.ControlPacket // each has room for one
	oldest  string                                // topic of the first of those there are
}

// topicOf is the topic that a packet of ours names.
func topicOf(p packets.ControlPacket) string {
	switch p := p.(type) {
	case *packets.PublishPacket:
		return p.TopicName
	case *packets.SubscribePacket:
		return p.Topics[0]
	}
	return ""
}

// add takes a free id for a packet of so many bytes.
func (s *sent) add(topic string, size int) (id uint16, reply <-chan packets.ControlPacket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replies == nil {
		s.replies = make(map[uint16]chan packets.ControlPacket)
	}
	for s.last++; s.last == 0 || s.replies[s.last] != nil; s.last++ {
	}
	c := make(chan packets.ControlPacket, 1)
	if len(s.replies) == 0 {
		s.oldest = topic
	}
	s.replies[s.last] = c
	s.bytes += size
	return s.last, c
}

// answer hands a reply over; one that nobody waits for is dropped.
func (s *sent) answer(p packets.ControlPacket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := p.Details().MessageID
	if reply := s.replies[id]; reply != nil {
		delete(s.replies, id)
		reply <- p
	}
}

func (s *sent) forget(id uint16, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.replies, id)
	s.bytes -= size
}

// upon is the topic of a packet that nobody has replied to, or "".
func (s *sent) upon() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.replies) == 0 {
		return ""
	}
	return s.oldest
}

// waiting is how many bytes may be on their way.
func (s *sent) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}
