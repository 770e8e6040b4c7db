package mqtt

import (
	"context"
	"fmt"
	"time"
)

// Message is one message as it came.
type Message struct {
	Topic   string
	Payload []byte
}

// question is a message of ours that waits for its reply.
type question struct {
	is    func(Message) bool // the reply to it
	reply chan Message       // has room for one
}

// Ask publishes payload to topic and returns the first message on one of the
// topics of replies that is the reply to it, as is reports. It subscribes to
// these topics first, unless a filter of [Session.Subscribe] covers them, and
// waits as long as any step takes on this network. is may be called by several goroutines.
func (s *Session) Ask(ctx context.Context, topic string, payload []byte, replies []string, is func(Message) bool) (Message, error) {
	reply, err := s.ask(ctx, topic, payload, replies, is)
	if err != nil {
		return Message{}, fmt.Errorf("%w (request %s)", err, topic)
	}
	return reply, nil
}

func (s *Session) ask(ctx context.Context, topic string, payload []byte, replies []string, is func(Message) bool) (Message, error) {
	for _, on := range replies {
		if err := s.subscribe(ctx, on, nil); err != nil {
			return Message{}, err
		}
	}
	q := &question{is: is, reply: make(chan Message, 1)}
	s.inbox.await(replies, q)
	defer s.inbox.forget(replies, q)
	if err := s.publish(ctx, topic, payload); err != nil {
		return Message{}, err
	}
	most := s.pace.limit(replyBytes)
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case m := <-q.reply:
		s.inbox.heard.Store(true)
		return m, nil
	case <-s.done:
		return Message{}, s.lost()
	case <-timer.C:
		s.doubt()
		return Message{}, fmt.Errorf("no reply within %v: %w", most.Round(time.Second), context.DeadlineExceeded)
	case <-ctx.Done():
		return Message{}, context.Cause(ctx)
	}
}
