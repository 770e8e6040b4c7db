package localiot

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"

	"github.com/mochi-mqtt/server/v2/listeners"
)

// handshakeTime bounds the TLS handshake and the wait for CONNECT.
const handshakeTime = 10 * time.Second

// peer is a connection whose client certificate is registered and active.
type peer struct {
	*tls.Conn
	certificateID string
	thing         string
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
		go func() {
			defer tcp.Close()
			if p := l.shake(tcp); p != nil {
				if err := establish(l.ID(), p); err != nil {
					l.server.log.Info("connection ended", "thing", p.thing, "remote", tcp.RemoteAddr(), "error", err)
				}
			}
		}()
	}
}

func (l *listener) Close(closeClients listeners.CloseFn) {
	l.Listener.Close()
	closeClients(l.ID())
}

// shake returns nil if the connection is refused.
func (l *listener) shake(tcp net.Conn) *peer {
	c := Connection{Time: time.Now(), Remote: tcp.RemoteAddr().String()}
	defer func() {
		l.server.recordConnection(c)
		if c.Refused != "" {
			l.server.log.Info("connection refused", "remote", c.Remote, "certificate", c.CertificateID, "reason", c.Refused)
		}
	}()
	_ = tcp.SetDeadline(time.Now().Add(handshakeTime)) // the broker sets its own after CONNECT
	p := &peer{Conn: tls.Server(tcp, l.config)}
	err := p.HandshakeContext(context.Background())
	state := p.ConnectionState()
	c.ServerName, c.ALPN, c.TLSVersion = state.ServerName, state.NegotiatedProtocol, state.Version
	if err != nil {
		c.Refused = err.Error()
		return nil
	}
	p.certificateID = CertificateID(state.PeerCertificates[0].Raw)
	c.CertificateID = p.certificateID
	l.server.mu.Lock()
	r, ok := l.server.registry.Certificates[p.certificateID]
	l.server.mu.Unlock()
	switch {
	case !ok:
		c.Refused = "certificate is not registered"
	case !r.Active:
		c.Refused = "certificate is inactive"
	default:
		p.thing, c.Thing = r.Thing, r.Thing
		return p
	}
	return nil
}
