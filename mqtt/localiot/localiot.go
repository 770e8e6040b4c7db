// Package localiot is an AWS IoT endpoint for the desk and the tests: an MQTT
// broker with mutual TLS, a local certificate authority, a registry of things,
// and AWS IoT's answers on its reserved topics. It behaves as a device can
// observe of AWS IoT, limits and silent disconnects included.
//
// Not supported yet: jobs that are pending, fleet provisioning, Device
// Defender, just-in-time registration.
package localiot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

// Options says where the endpoint listens and what it keeps.
type Options struct {
	Dir  string       // holds the CA and the registry; made if absent
	Addr string       // "" is "127.0.0.1:0"
	Log  *slog.Logger // nil: none
	// Names are what the server's certificate is for besides localhost.
	Names []string
	// MaxVersion of TLS; 0 is the newest. AWS IoT has security policies of TLS 1.2 alone.
	MaxVersion uint16
}

// Faults are ways to misbehave.
type Faults struct {
	DropAccepted   bool // carry requests out but never answer that they were accepted
	RefuseConnects bool // close each connection after its CONNECT, without a CONNACK
}

// Connection is one TLS connection, whether or not it came to a session.
type Connection struct {
	Time          time.Time
	Remote        string
	ServerName    string // SNI; "" if the client sent none
	ALPN          string
	TLSVersion    uint16 // tls.VersionTLS12 …
	CertificateID string // "" if none was shown and verified
	Thing         string
	Refused       string // why it was closed before MQTT; "" if it was not
}

// Message is one message that a device published.
type Message struct {
	Time     time.Time
	Thing    string // whose certificate it came under
	ClientID string
	Topic    string
	Payload  []byte
	QoS      byte
}

// maxRecorded bounds the messages, and the connections, that are remembered:
// the oldest go first.
const maxRecorded = 10000

// Server is a running endpoint.
type Server struct {
	log      *slog.Logger
	ca       *authority
	broker   *mochi.Server
	listener *listener

	mu          sync.Mutex
	faults      Faults
	registry    registry
	dir         string
	messages    []recorded
	connections []Connection
	changed     chan struct{} // closed, and replaced, with each message
}

type recorded struct {
	Message
	waitedFor bool // WaitMessage returned it
}

// Start makes the CA, if Dir has none yet, and serves until [Server.Close].
func Start(opts Options) (*Server, error) {
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{log: opts.Log, dir: opts.Dir, changed: make(chan struct{})}
	var err error
	if s.ca, err = openAuthority(opts.Dir); err != nil {
		return nil, fmt.Errorf("localiot: certificate authority: %w", err)
	}
	if s.registry, err = openRegistry(opts.Dir); err != nil {
		return nil, fmt.Errorf("localiot: registry: %w", err)
	}
	config, err := s.ca.serverConfig(opts.Names)
	if err != nil {
		return nil, fmt.Errorf("localiot: server certificate: %w", err)
	}
	config.MaxVersion = opts.MaxVersion
	tcp, err := net.Listen("tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("localiot: %w", err)
	}
	s.listener = &listener{Listener: tcp, config: config, server: s}
	capabilities := mochi.NewDefaultServerCapabilities()
	capabilities.MaximumPacketSize = maxPayload + 1<<10
	s.broker = mochi.New(&mochi.Options{Capabilities: capabilities, Logger: opts.Log})
	if err := errors.Join(
		s.broker.AddHook(&cloud{server: s}, nil),
		s.broker.AddListener(s.listener),
		s.broker.Serve(),
	); err != nil {
		tcp.Close()
		return nil, fmt.Errorf("localiot: start broker: %w", err)
	}
	return s, nil
}

// Close ends every connection and stops serving.
func (s *Server) Close() error {
	if err := s.broker.Close(); err != nil {
		return fmt.Errorf("localiot: %w", err)
	}
	return nil
}

// Endpoint is "localhost:port"; the server's certificate is for localhost,
// 127.0.0.1, ::1 and [Options].Names.
func (s *Server) Endpoint() string {
	return fmt.Sprintf("localhost:%d", s.listener.Addr().(*net.TCPAddr).Port)
}

// SetFaults replaces the faults; connections that stand are left standing.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Server) currentFaults() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// Connections are those seen so far, refused ones included, oldest first.
func (s *Server) Connections() []Connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.connections)
}

// Messages are those published so far on topics that match filter, oldest first.
func (s *Server) Messages(filter string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Message
	for _, m := range s.messages {
		if matches(filter, m.Topic) {
			found = append(found, m.Message)
		}
	}
	return found
}

// WaitMessage returns the oldest message on a topic that matches filter which
// no earlier call has returned, and waits for one if there is none.
func (s *Server) WaitMessage(ctx context.Context, filter string) (Message, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		for i := range s.messages {
			if m := &s.messages[i]; !m.waitedFor && matches(filter, m.Topic) {
				m.waitedFor = true
				s.mu.Unlock()
				return m.Message, nil
			}
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Message{}, fmt.Errorf("localiot: wait for a message on %s: %w", filter, context.Cause(ctx))
		}
	}
}

func (s *Server) recordMessage(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, recorded{Message: m})
	if len(s.messages) > maxRecorded {
		s.messages = slices.Delete(s.messages, 0, len(s.messages)-maxRecorded)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) recordConnection(c Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections = append(s.connections, c)
	if len(s.connections) > maxRecorded {
		s.connections = slices.Delete(s.connections, 0, len(s.connections)-maxRecorded)
	}
}

// matches tells whether a topic falls under a filter.
func matches(filter, topic string) bool {
	index := mochi.NewTopicsIndex()
	index.Subscribe("", mochiSubscription(filter))
	return len(index.Subscribers(topic).Subscriptions) > 0
}
