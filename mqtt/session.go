package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// Handler takes one message. Handlers run beside each other, in no order;
// the message is acknowledged once its handlers returned.
type Handler func(topic string, payload []byte)

// Session is one connection to a broker. Its methods may be called from
// several goroutines.
type Session struct {
	client  paho.Client
	conn    *conn
	timeout time.Duration
	log     *slog.Logger

	subscribing chan struct{} // one SUBSCRIBE at a time; holds one token

	mu       sync.Mutex
	handlers map[string][]Handler // by filter; a nil list is a filter of Request
	waiting  map[string][]*waiter // by topic of the request
}

// connect makes one attempt at one endpoint.
func connect(ctx context.Context, cfg *Config, endpoint string, probe func(context.Context, *Session) error) (*Session, error) {
	c, err := open(ctx, cfg, endpoint)
	if err != nil {
		return nil, err
	}
	return establish(ctx, cfg, endpoint, c, probe)
}

// establish makes a session of an open connection, which it closes if it fails.
func establish(ctx context.Context, cfg *Config, endpoint string, c *conn, probe func(context.Context, *Session) error) (*Session, error) {
	s := &Session{
		conn: c, timeout: cfg.Timeout, log: cfg.Log, subscribing: make(chan struct{}, 1),
		handlers: make(map[string][]Handler), waiting: make(map[string][]*waiter),
	}
	s.client = paho.NewClient(s.options(cfg, endpoint))
	err := s.start(ctx)
	if err == nil && probe != nil {
		err = s.probe(ctx, probe)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.log.Info("connected", "endpoint", endpoint)
	return s, nil
}

func (s *Session) options(cfg *Config, endpoint string) *paho.ClientOptions {
	opts := paho.NewClientOptions()
	opts.AddBroker("ssl://" + endpoint)
	opts.SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return s.conn, nil })
	opts.SetClientID(cfg.ClientID)
	opts.SetProtocolVersion(4) // else a refusal is followed by a try of MQTT 3.1
	opts.SetCleanSession(true)
	opts.SetStore(paho.NewMemoryStore())
	opts.SetAutoReconnect(false)
	opts.SetConnectRetry(false)
	opts.SetConnectTimeout(cfg.Timeout)
	opts.SetWriteTimeout(cfg.Timeout)
	opts.SetPingTimeout(cfg.Timeout)
	opts.SetKeepAlive(cfg.KeepAlive)
	opts.SetOrderMatters(false) // a handler may publish
	opts.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { s.deliver(m.Topic(), m.Payload()) })
	opts.SetConnectionLostHandler(func(_ paho.Client, err error) { s.conn.Close() })
	return opts
}

// start sends the CONNECT and waits for the CONNACK.
func (s *Session) start(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	token := s.client.Connect() // ends by the connect timeout
	<-token.Done()
	code, err := s.conn.state()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case code == 0 && token.Error() == nil:
		return nil
	case code == 3:
		return fmt.Errorf("%w: CONNACK 3, server unavailable", ErrUnreachable)
	case code > 0:
		return fmt.Errorf("%w: CONNACK %d, %s", ErrRefused, code, connackReason(code))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: no CONNACK within %v", ErrUnreachable, s.timeout)
	case err != nil && isAlert(err):
		return fmt.Errorf("%w: TLS alert, most often over the client certificate: %w", ErrRefused, err)
	case err != nil && !errors.Is(err, net.ErrClosed):
		return fmt.Errorf("%w: closed before the CONNACK: check that the client certificate is registered, active and has a policy: %w", ErrRefused, err)
	}
	return fmt.Errorf("%w: no CONNACK: %w", ErrUnreachable, token.Error())
}

// connackReason is the meaning of a return code (MQTT 3.1.1, section 3.2.2.3).
func connackReason(code int) string {
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

// Done is closed when the connection has ended, by whatever side.
func (s *Session) Done() <-chan struct{} { return s.conn.done }

// Close ends the session. What is on its way may be lost; it takes no longer
// than half a second.
func (s *Session) Close() error {
	s.client.Disconnect(250)
	s.conn.Close()
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
	_, err := s.await(ctx, "PUBACK", func() paho.Token { return s.client.Publish(topic, 1, false, payload) })
	return err
}

// Subscribe calls h for every message that matches filter, asked for with QoS 1.
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
	case <-s.conn.done:
		return s.lost()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	handlers, known := s.handlers[filter]
	if h != nil {
		s.handlers[filter] = append(handlers, h) // before the SUBACK: messages may overtake it
	}
	s.mu.Unlock()
	if known {
		return nil
	}
	token, err := s.await(ctx, "SUBACK", func() paho.Token { return s.client.Subscribe(filter, 1, nil) })
	if err == nil {
		if granted, ok := token.(*paho.SubscribeToken).Result()[filter]; !ok || granted > 1 {
			err = errors.New("the broker refused: check the policy of the client certificate")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.handlers, filter)
	} else if h == nil {
		s.handlers[filter] = nil
	}
	return err
}

// await bounds one exchange with the broker.
func (s *Session) await(ctx context.Context, what string, begin func() paho.Token) (paho.Token, error) {
	select {
	case <-s.conn.done: // paho would only find out by its write timeout
		return nil, s.lost()
	default:
	}
	timer := time.NewTimer(s.timeout)
	defer timer.Stop()
	begun := make(chan paho.Token, 1)
	go func() { begun <- begin() }() // paho may block for its write timeout
	var token paho.Token
	var answered <-chan struct{}
	for {
		select {
		case token = <-begun:
			answered = token.Done()
		case <-answered:
			if err := token.Error(); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrLost, err)
			}
			return token, nil
		case <-s.conn.done:
			return nil, s.lost()
		case <-timer.C:
			return nil, fmt.Errorf("no %s within %v", what, s.timeout)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Session) lost() error {
	_, err := s.conn.state()
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// deliver hands a message to whoever waits for it.
func (s *Session) deliver(topic string, payload []byte) {
	s.mu.Lock()
	var matched []Handler
	for filter, handlers := range s.handlers {
		if matches(filter, topic) {
			matched = append(matched, handlers...)
		}
	}
	s.answer(topic, payload)
	s.mu.Unlock()
	for _, h := range matched {
		h(topic, payload)
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
