// Package localiot is an AWS IoT endpoint for the desk and the tests: an MQTT
// broker with mutual TLS, a local certificate authority, a registry of things,
// and AWS IoT's answers on its reserved topics: Jobs, shadows, fleet
// provisioning by claim, Device Defender's metrics; besides, just-in-time
// registration and keyvet's own issuer "topics". It behaves like
// AWS IoT as far as a device can see, limits and silent disconnects included, and has a switch
// for every [Faults].
//
// Unless it is given other policies, a device has $aws/things/{thing}/…,
// keyvet/{thing}/… and the topics of fleet provisioning, under any client id; a
// claim has the last alone.
//
// Not supported: CBOR payloads, policies of single certificates, basic ingest, MQTT over
// WebSocket, metrics that Device Defender defines itself (they are taken
// unread).
package localiot

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
)

// Options says where the endpoint listens and what it keeps.
type Options struct {
	Dir  string       // holds the CA and the registry; made if absent
	Addr string       // "" is "127.0.0.1:0"
	Log  *slog.Logger // nil: none
	// MaxVersion of TLS; 0 is the newest. AWS IoT has security policies of TLS 1.2 alone.
	MaxVersion uint16
	// Names are hosts and addresses that the server's certificate is for besides
	// localhost; Endpoint gives the first.
	Names []string
	// Quotas are kept that count by time: one CONNECT a second per client id,
	// 100 messages a second per connection. Off, so that tests need not wait.
	Quotas bool
	// JITR registers an unknown certificate of the CA as it first connects.
	JITR bool
	// Life of a client certificate; 0 is a year.
	Life time.Duration
	// Provider is an account's certificate provider: it answers a device's CSR
	// with a chain, leaf first, DER. nil: the CA of Dir, and the CSR's subject.
	Provider func(*x509.CertificateRequest) ([][]byte, error)
	// Hook is the pre-provisioning hook of every template; nil: all may be provisioned.
	// It may be called by many at a time.
	Hook func(Asked) bool
	// Issuer is the issuer "topics": it gets what devices publish to
	// keyvet/{thing}/certificate/create and /commit, and answers by [Server.Say].
	// nil: the endpoint's own. It may be called by many at a time.
	Issuer func(Message)
	// DevicePolicies and ClaimPolicies are what certificates may do, AWS IoT
	// policies in JSON; nil: what the package's comment says.
	DevicePolicies, ClaimPolicies [][]byte
	// OnPacket is called with every packet of a device before it is acted upon,
	// and with every packet to one before it is sent, which waits for it to return:
	// the place to cut a device's power. It may be called by many at a time.
	OnPacket func(Packet)
	// Rewrite changes what the cloud says on a topic before it is sent, to what
	// AWS IoT would never say. nil: nothing. It may be called by many at a time.
	Rewrite func(topic string, payload []byte) []byte
}

// Asked is what the hook of a template is asked (AWS IoT Developer Guide,
// "Pre-provisioning hooks").
type Asked struct {
	Template           string
	ClaimCertificateID string // of the connection: a claim's, or a device's
	CertificateID      string // the one to be provisioned
	ClientID           string
	Parameters         map[string]string
}

// Packet is one MQTT packet.
type Packet struct {
	In            bool   // from the device
	Type          byte   // as MQTT numbers them: 1 CONNECT, 3 PUBLISH …
	Topic         string // of a PUBLISH
	Payload       []byte // of a PUBLISH
	Thing         string // whose certificate the connection is under, or ""
	CertificateID string
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
	// CertificateID is which certificate that was.
	CertificateID string
}

// maxRecorded bounds the messages, and the connections, that are remembered:
// the oldest go first.
const maxRecorded = 10000

// Server is a running endpoint.
type Server struct {
	log      *slog.Logger
	host     string
	ca       *authority
	broker   *mochi.Server
	cloud    *cloud
	listener *listener
	dir      string
	life     time.Duration
	quotas   bool
	jitr     bool
	provider func(*x509.CertificateRequest) ([][]byte, error)
	hook     func(Asked) bool
	issuer   func(Message)
	onPacket func(Packet)
	rewrite  func(topic string, payload []byte) []byte

	devicePolicy, claimPolicy policy

	mu          sync.Mutex
	faults      Faults
	serving     sync.WaitGroup // for every connection
	healed      chan struct{}  // closed at the end of a partition; nil without one
	wires       map[*wire]bool // every connection; nil once the server is being closed
	registry    registry
	templates   map[string]*template
	alarm       *time.Timer         // for the first execution that runs out of time
	defended    map[string]defended // the last report to Device Defender, by thing
	messages    []recorded
	connections []Connection
	changed     chan struct{} // closed, and replaced, with each message, subscription and change of a job
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
	if opts.Life == 0 {
		opts.Life = year
	}
	s := &Server{
		host: "localhost", log: opts.Log, dir: opts.Dir, life: opts.Life, quotas: opts.Quotas, jitr: opts.JITR, provider: opts.Provider, hook: opts.Hook, issuer: opts.Issuer, onPacket: opts.OnPacket, rewrite: opts.Rewrite,
		wires: make(map[*wire]bool), templates: make(map[string]*template), defended: make(map[string]defended), changed: make(chan struct{}),
	}
	if len(opts.Names) > 0 {
		s.host = opts.Names[0]
	}
	s.cloud = &cloud{server: s, connected: make(map[string]time.Time)}
	if err := s.AddTemplate(Template, []byte(templateBody)); err != nil {
		return nil, err
	}
	var err error
	if s.devicePolicy, err = parsePolicies(orDefault(opts.DevicePolicies, devicePolicy)...); err != nil {
		return nil, fmt.Errorf("device policy: %w", err)
	}
	if s.claimPolicy, err = parsePolicies(orDefault(opts.ClaimPolicies, claimPolicy)...); err != nil {
		return nil, fmt.Errorf("claim policy: %w", err)
	}
	if s.ca, err = openAuthority(opts.Dir); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if s.registry, err = openRegistry(opts.Dir); err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	config, err := s.ca.serverConfig(opts.Names, s.verify)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	config.MaxVersion = opts.MaxVersion
	tcp, err := net.Listen("tcp", opts.Addr)
	if err != nil {
		return nil, err
	}
	s.listener = &listener{Listener: tcp, config: config, server: s}
	capabilities := mochi.NewDefaultServerCapabilities()
	capabilities.MaximumPacketSize = maxPayload + 1<<10
	capabilities.MaximumQos = 1
	s.broker = mochi.New(&mochi.Options{Capabilities: capabilities, Logger: opts.Log})
	if err := errors.Join(
		s.broker.AddHook(s.cloud, nil),
		s.broker.AddListener(s.listener),
		s.broker.Serve(),
	); err != nil {
		tcp.Close()
		return nil, fmt.Errorf("start broker: %w", err)
	}
	s.mu.Lock()
	s.setAlarm(time.Now())
	s.mu.Unlock()
	return s, nil
}

func orDefault(policies [][]byte, otherwise string) [][]byte {
	if policies == nil {
		return [][]byte{[]byte(otherwise)}
	}
	return policies
}

// Close ends every connection and stops serving. Closing again does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	wires := s.wires
	s.wires = nil
	s.setFaults(Faults{})
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.mu.Unlock()
	if wires == nil {
		return nil
	}
	for w := range wires { // before the broker says a DISCONNECT, which MQTT 3.1.1 does not know
		w.Close()
	}
	s.serving.Wait() // the broker's list of clients must not change under its closing: it would lock up
	if err := s.broker.Close(); err != nil {
		return err
	}
	return nil
}

// Endpoint is "localhost:port", or the first of Options.Names with the port;
// the server's certificate is for localhost, 127.0.0.1 and ::1 in any case.
func (s *Server) Endpoint() string {
	return net.JoinHostPort(s.host, strconv.Itoa(s.listener.Addr().(*net.TCPAddr).Port))
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
			return Message{}, fmt.Errorf("wait for a message on %s: %w", filter, context.Cause(ctx))
		}
	}
}

// WaitSubscriber waits until a client has subscribed to topic: what is published
// there before reaches nobody.
func (s *Server) WaitSubscriber(ctx context.Context, topic string) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if len(s.broker.Topics.Subscribers(topic).Subscriptions) > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for a subscriber to %s: %w", topic, context.Cause(ctx))
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
	s.wake()
}

// wake lets those that wait for a change look again; mu is held.
func (s *Server) wake() {
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

// Say sends payload, as it is, in the cloud's name to the subscribers of topic.
func (s *Server) Say(topic string, payload []byte) { s.cloud.sendBytes(nil, topic, payload) }

// matches reports whether a topic falls under a filter.
func matches(filter, topic string) bool {
	index := mochi.NewTopicsIndex()
	index.Subscribe("", mochiSubscription(filter))
	return len(index.Subscribers(topic).Subscriptions) > 0
}
