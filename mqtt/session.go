package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// Handler takes one message. Handlers run beside each other, in no order;
// the message is acknowledged once its handlers returned.
type Handler func(topic string, payload []byte)

// Session is one connection to a broker. Its methods may be called from
// several goroutines.
type Session struct {
	conn    net.Conn
	timeout time.Duration // of each step
	log     *slog.Logger

	subscribing chan struct{} // one SUBSCRIBE at a time; holds one token
	writing     sync.Mutex    // one packet at a time
	pong        chan struct{} // holds one token once a PINGRESP came
	inbound     chan struct{} // holds a token for each message that is being handled
	skipped     string        // topic of the last message that was too large; the reader's own

	kept  *filters  // what the broker keeps for a persistent session, else nil
	began time.Time // once it was up

	mu       sync.Mutex
	err      error // why the connection ended
	ended    time.Time
	leaving  bool // its owner ends it
	done     chan struct{}
	lastID   uint16
	replies  map[uint16]chan packets.ControlPacket // by packet id
	handlers map[string][]Handler                  // by filter; a nil list is a filter of Request
	attached chan struct{}                         // closed when another filter has its handlers
	waiting  map[string][]*waiter                  // by topic of the request
}

// maxInbound bounds the messages that are handled at once. AWS IoT leaves at
// most 100 unacknowledged (AWS IoT Core endpoints and quotas, "Maximum outbound
// unacknowledged messages"), which a session that it kept may begin with; a
// broker that sends more is not one to stay with.
const maxInbound = 128

// connect makes one attempt at one endpoint.
func (d *Dialer) connect(ctx context.Context, cfg *Config, endpoint string, probe func(context.Context, *Session) error) (*Session, error) {
	c, err := d.open(ctx, cfg, endpoint)
	if err != nil {
		return nil, err
	}
	return d.establish(ctx, cfg, endpoint, c, probe)
}

// establish makes a session of an open connection, which it closes if it fails.
func (d *Dialer) establish(ctx context.Context, cfg *Config, endpoint string, c net.Conn, probe func(context.Context, *Session) error) (*Session, error) {
	s := &Session{
		conn: c, timeout: cfg.Timeout, log: cfg.Log,
		subscribing: make(chan struct{}, 1), pong: make(chan struct{}, 1), inbound: make(chan struct{}, maxInbound),
		done: make(chan struct{}), replies: make(map[uint16]chan packets.ControlPacket),
		handlers: make(map[string][]Handler), attached: make(chan struct{}), waiting: make(map[string][]*waiter),
	}
	err := s.start(ctx, cfg, func(present bool) { s.kept = d.keptAt(endpoint, present) })
	if err == nil && probe != nil {
		err = s.probe(ctx, probe)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.began = time.Now()
	s.log.Info("connected", "endpoint", endpoint)
	return s, nil
}

// start sends the CONNECT and waits for the CONNACK, whose word on the session
// resume gets before the first message is read.
func (s *Session) start(ctx context.Context, cfg *Config, resume func(present bool)) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion = "MQTT", 4 // 3.1.1
	connect.CleanSession = !cfg.Persistent
	connect.ClientIdentifier = cfg.ClientID
	connect.Keepalive = uint16(cfg.KeepAlive / time.Second) // at most 1200

	err := s.write(connect)
	// Read even if the CONNECT could not be written: the server's reason, a TLS
	// alert, may lie there.
	answer, readErr := s.readWithin(s.timeout)
	if err == nil || isAlert(readErr) {
		err = readErr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return s.connectError(err)
	}
	connack, ok := answer.(*packets.ConnackPacket)
	switch {
	case !ok:
		return fmt.Errorf("%w: the answer to CONNECT is no CONNACK: is it an MQTT broker?", ErrUnreachable)
	case connack.ReturnCode == packets.ErrRefusedServerUnavailable:
		return fmt.Errorf("%w: CONNACK 3, server unavailable", ErrUnreachable)
	case connack.ReturnCode != packets.Accepted:
		return fmt.Errorf("%w: CONNACK %d, %s", ErrRefused, connack.ReturnCode, connackReason(connack.ReturnCode))
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	resume(connack.SessionPresent)
	go s.read()
	go s.keepAlive(cfg.KeepAlive * 3 / 4)
	return nil
}

func (s *Session) readWithin(d time.Duration) (packets.ControlPacket, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return nil, err
	}
	return readPacket(s.conn)
}

// connectError is why there was no CONNACK.
func (s *Session) connectError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no CONNACK within %v", ErrUnreachable, s.timeout)
	case isAlert(err):
		return fmt.Errorf("%w: TLS alert, most often over the client certificate: %w", ErrRefused, err)
	}
	return fmt.Errorf("%w: closed before the CONNACK: check that the client certificate is registered, active and has a policy: %w", ErrRefused, err)
}

// connackReason is the meaning of a return code (MQTT 3.1.1, section 3.2.2.3).
func connackReason(code byte) string {
	switch code {
	case 1:
		return "protocol version not accepted"
	case 2:
		return "client id rejected: check mqtt.client_id"
	case 4, 5, 7: // 7 is AWS IoT's own
		return "not authorized: check the policy of the client certificate"
	}
	return "unknown return code"
}

func (s *Session) probe(ctx context.Context, probe func(context.Context, *Session) error) error {
	probing, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := probe(probing, s)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrLost):
		return fmt.Errorf("%w: closed on the first request: check the policy of the client certificate: %w", ErrRefused, err)
	}
	return fmt.Errorf("%w: connected, but the first request failed: %w", ErrUnreachable, err)
}

// read takes every packet until the connection ends.
func (s *Session) read() {
	for {
		p, err := readPacket(s.conn)
		if err == nil {
			err = s.receive(p)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

func (s *Session) receive(p packets.ControlPacket) error {
	switch p := p.(type) {
	case *packets.PubackPacket, *packets.SubackPacket:
		s.mu.Lock()
		reply := s.replies[p.Details().MessageID]
		delete(s.replies, p.Details().MessageID)
		s.mu.Unlock()
		if reply != nil {
			reply <- p // has room for one
		}
	case *packets.PublishPacket:
		return s.handle(p, func() { s.deliver(p.TopicName, p.Payload) })
	case *oversized:
		if topic := oneLine(p.TopicName); topic != s.skipped { // once, if it comes again
			s.skipped = topic
			s.log.Warn("message is too large and is left alone", "topic", topic, "bytes", p.bytes)
		}
		return s.handle(p.PublishPacket, func() {})
	case *packets.PingrespPacket:
		select {
		case s.pong <- struct{}{}:
		default:
		}
	case *packets.ConnackPacket:
		return errors.New("second CONNACK")
	default:
		return fmt.Errorf("unexpected packet: %s", p)
	}
	return nil
}

// handle runs the handlers of a message beside whatever else comes, and then
// acknowledges it.
func (s *Session) handle(p *packets.PublishPacket, handlers func()) error {
	select {
	case s.inbound <- struct{}{}:
	default:
		return fmt.Errorf("more than %d messages at once", maxInbound)
	}
	go func() {
		defer func() { <-s.inbound }()
		handlers()
		if p.Qos == 1 {
			ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
			ack.MessageID = p.MessageID
			_ = s.write(ack) // an error has ended the session
		}
	}()
	return nil
}

// keepAlive asks for a sign of life every so often (MQTT 3.1.1, section 3.12).
func (s *Session) keepAlive(every time.Duration) {
	for {
		if !s.wait(every, nil) {
			return
		}
		select {
		case <-s.pong: // of nobody's asking
		default:
		}
		if s.write(packets.NewControlPacket(packets.Pingreq)) != nil {
			return
		}
		if s.wait(s.timeout, s.pong) {
			s.end(fmt.Errorf("no PINGRESP within %v", s.timeout))
			return
		}
	}
}

// wait tells whether d passed before the connection ended or something came.
func (s *Session) wait(d time.Duration, came <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-came:
		return false
	case <-s.done:
		return false
	}
}

// write sends one packet; an error ends the session.
func (s *Session) write(p packets.ControlPacket) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout))
	if err == nil {
		err = p.Write(s.conn)
	}
	if err != nil {
		s.end(err)
	}
	return err
}

// end closes the connection and ends every wait on it.
func (s *Session) end(err error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err, s.ended = err, time.Now()
		close(s.done)
	}
	s.mu.Unlock()
	if first {
		s.conn.Close()
	}
}

func (s *Session) lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%w: %w", ErrLost, s.err)
}

// lasted is how long the connection has been there.
func (s *Session) lasted() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return time.Since(s.began)
	}
	return s.ended.Sub(s.began)
}

// left tells whether the owner ended the session, by [Session.Close].
func (s *Session) left() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaving
}

// Done is closed when the connection has ended, by whatever side.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session. What is on its way may be lost.
func (s *Session) Close() error {
	s.mu.Lock()
	ended := s.err != nil
	s.leaving = s.leaving || !ended // the server may hang up first, once it has our DISCONNECT
	s.mu.Unlock()
	if ended {
		return nil
	}
	polite := time.AfterFunc(250*time.Millisecond, func() { s.end(net.ErrClosed) })
	defer polite.Stop()
	_ = s.write(packets.NewControlPacket(packets.Disconnect))
	s.end(net.ErrClosed)
	return nil
}

// Publish sends payload with QoS 1 and waits for the PUBACK. The PUBACK is the
// broker's word alone: whoever needs to know that the application has it uses
// [Session.Request].
func (s *Session) Publish(ctx context.Context, topic string, payload []byte) error {
	if err := s.publish(ctx, topic, payload); err != nil {
		return fmt.Errorf("mqtt: publish to %s: %w", topic, err)
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
	_, err := s.exchange(ctx, "PUBACK", p, &p.MessageID)
	return err
}

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

// exchange sends a packet under a free id and waits for the broker's reply to
// it. Without one it sends the same packet again, twice: AWS IoT leaves out
// what is over its quota of publications (AWS IoT Core endpoints and quotas,
// "Publish requests per second per connection").
func (s *Session) exchange(ctx context.Context, what string, p packets.ControlPacket, id *uint16) (packets.ControlPacket, error) {
	reply := make(chan packets.ControlPacket, 1)
	s.mu.Lock()
	for s.lastID++; s.lastID == 0 || s.replies[s.lastID] != nil; s.lastID++ {
	}
	*id = s.lastID
	s.replies[*id] = reply
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.replies, *id)
		s.mu.Unlock()
	}()
	for range 3 {
		if s.write(p) != nil {
			return nil, s.lost()
		}
		answer, err := s.reply(ctx, reply)
		if answer != nil || err != nil {
			return answer, err
		}
		if publish, ok := p.(*packets.PublishPacket); ok {
			publish.Dup = true
		}
	}
	return nil, fmt.Errorf("no %s within %v", what, s.timeout)
}

// reply waits a third of the timeout; nil is silence.
func (s *Session) reply(ctx context.Context, reply <-chan packets.ControlPacket) (packets.ControlPacket, error) {
	timer := time.NewTimer(s.timeout / 3)
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

// deliver hands a message to whoever waits for it. One that the broker kept
// for this session may come before its handler is back: it waits as long as
// any step does.
func (s *Session) deliver(topic string, payload []byte) {
	s.mu.Lock()
	s.answer(topic, payload)
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

// matches tells whether a topic falls under a filter (MQTT 3.1.1, section 4.7).
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
	case len(topic) > MaxTopic:
		return fmt.Errorf("topic of %d bytes is over %d", len(topic), MaxTopic)
	case !utf8.ValidString(topic) || strings.ContainsRune(topic, 0):
		return errors.New("the topic is not text")
	case !filter && strings.ContainsAny(topic, "+#"):
		return errors.New("the topic has a wildcard")
	}
	return nil
}
