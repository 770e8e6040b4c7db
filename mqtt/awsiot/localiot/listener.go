package localiot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"
)

// handshakeTime bounds the TLS handshake and the wait for CONNECT.
const handshakeTime = 10 * time.Second

// maxQueued bounds what waits to be sent to one connection.
const maxQueued = 1000

// peer is a connection whose client certificate is registered and active.
type peer struct {
	*tls.Conn
	wire          *wire
	certificateID string
	thing         string // "" for a claim
	claim         bool
	out           chan outgoing // what the cloud says to it
	ended         chan struct{} // closed once the broker has let go of it

	published int       // messages in this second, its own goroutine's
	second    time.Time // when that began
}

type outgoing struct {
	client *mochi.Client
	packet packets.Packet
}

// wire is the TCP connection below the TLS, where nothing passes in a partition.
type wire struct {
	net.Conn
	server *Server
	closed chan struct{}
	once   sync.Once
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.passable()
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	w.passable()
	if slow := w.server.Faults().Slow; slow > 0 {
		w.wait(time.After(slow))
	}
	return w.Conn.Write(b)
}

// passable waits for the end of a partition, or of the connection.
func (w *wire) passable() {
	w.server.mu.Lock()
	healed := w.server.healed
	w.server.mu.Unlock()
	if healed != nil {
		select {
		case <-healed:
		case <-w.closed:
		}
	}
}

func (w *wire) wait(c <-chan time.Time) {
	select {
	case <-c:
	case <-w.closed:
	}
}

// Close says so to the client, if words pass.
func (p *peer) Close() error {
	if f := p.wire.server.Faults(); f.Partition || f.Slow > 0 {
		return p.wire.Close()
	}
	return p.Conn.Close()
}

// deliver sends what is queued until the connection ends.
func (p *peer) deliver(log *slog.Logger) {
	for {
		select {
		case o := <-p.out:
			if err := o.client.WritePacket(o.packet); err != nil {
				log.Warn("message not sent", "client", o.client.ID, "topic", o.packet.TopicName, "error", err)
			}
		case <-p.wire.closed:
			return
		}
	}
}

// listener does the TLS handshakes and lets only registered certificates on
// to the broker. It implements [listeners.Listener].
type listener struct {
	net.Listener
	config *tls.Config
	server *Server
}

func (l *listener) Init(*slog.Logger) error { return nil }
func (l *listener) ID() string              { return "tls" }
func (l *listener) Address() string         { return l.Addr().String() }
func (l *listener) Protocol() string        { return "mqtts" }

func (l *listener) Serve(establish listeners.EstablishFn) {
	for {
		tcp, err := l.Accept()
		if err != nil {
			return
		}
		w := &wire{Conn: tcp, server: l.server, closed: make(chan struct{})}
		if !l.server.hold(w) {
			return
		}
		go func() {
			defer l.server.release(w)
			p := l.shake(w)
			if p == nil {
				return
			}
			defer close(p.ended)
			go p.deliver(l.server.log)
			if err := establish(l.ID(), p); err != nil {
				l.server.log.Info("connection ended", "thing", p.thing, "remote", tcp.RemoteAddr(), "error", err)
			}
		}()
	}
}

func (l *listener) Close(closeClients listeners.CloseFn) {
	l.Listener.Close()
	closeClients(l.ID())
}

// hold keeps track of a connection, unless the server is being closed.
func (s *Server) hold(w *wire) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wires == nil {
		w.Close()
		return false
	}
	s.wires[w] = true
	s.serving.Add(1)
	return true
}

func (s *Server) release(w *wire) {
	defer s.serving.Done()
	w.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.wires, w)
}

// shake returns nil if the connection is refused.
func (l *listener) shake(w *wire) *peer {
	c := Connection{Time: time.Now(), Remote: w.RemoteAddr().String()}
	defer func() {
		l.server.recordConnection(c)
		if c.Refused != "" {
			l.server.log.Info("connection refused", "remote", c.Remote, "certificate", c.CertificateID, "reason", c.Refused)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTime)
	defer cancel()
	_ = w.SetDeadline(time.Now().Add(handshakeTime)) // the broker sets its own after CONNECT
	p := &peer{Conn: tls.Server(w, l.config), wire: w, out: make(chan outgoing, maxQueued), ended: make(chan struct{})}
	err := p.HandshakeContext(ctx)
	state := p.ConnectionState()
	c.ServerName, c.ALPN, c.TLSVersion = state.ServerName, state.NegotiatedProtocol, state.Version
	if err != nil {
		c.Refused = err.Error()
		return nil
	}
	c.CertificateID = CertificateID(state.PeerCertificates[0].Raw)
	r, err := l.server.admit(state.PeerCertificates)
	c.Thing = r.Thing
	if err != nil {
		c.Refused = err.Error()
		return nil
	}
	p.certificateID, p.thing, p.claim = c.CertificateID, r.Thing, r.Claim
	return p
}

// verify is the part of letting a client in that the TLS handshake does: a
// certificate that is neither registered nor the CA's is refused by an alert.
func (s *Server) verify(chain [][]byte) error {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	if now := time.Now(); now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return errors.New("certificate has expired or is not yet valid")
	}
	s.mu.Lock()
	_, registered := s.registry.Certificates[CertificateID(chain[0])]
	s.mu.Unlock()
	if registered {
		return nil
	}
	return leaf.CheckSignatureFrom(s.ca.certificate)
}

// admit is the part that comes after the handshake. It does just-in-time
// registration (AWS IoT Developer Guide, "Just-in-time registration"): the
// first connection of an unknown certificate that brings its CA certificate
// along is cut; what AWS leaves to a rule and a Lambda, making the thing and
// activating the certificate, is done at once.
func (s *Server) admit(chain []*x509.Certificate) (registration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.registry.Certificates[CertificateID(chain[0].Raw)]
	if !known {
		thing := chain[0].Subject.CommonName
		if !s.jitr || len(chain) < 2 || !validName(thing) {
			return registration{}, errors.New("certificate is not registered")
		}
		status := Active
		if s.strikesLocked(func(f Faults) bool { return f.NeverActivated }) {
			status = PendingActivation
		}
		s.registry.register(chain[0].Raw, registration{Thing: thing, Status: status})
		return registration{Thing: thing}, errors.Join(errors.New("certificate is registered just now"), s.registry.save(s.dir))
	}
	if r.Requested && !r.Used && s.strikesLocked(func(f Faults) bool { return f.DeactivatedAtUse }) {
		r.Status = Inactive
	}
	var err error
	if !r.Used {
		r.Used = true
		err = s.registry.save(s.dir)
	}
	if err == nil && r.Status != Active {
		err = errors.New("certificate is " + string(r.Status))
	}
	return *r, err
}
