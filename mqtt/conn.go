package mqtt

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// maxPacket bounds an inbound packet: payload, topic and headers. paho would
// take 256 MB at the server's word.
const maxPacket = MaxPayload + 1<<10

// The types of control packets that are looked at (MQTT 3.1.1, section 2.2.1).
const (
	typeConnack = 2
	typeSuback  = 9
)

// conn is a TLS connection that hands whole packets of bounded length to paho,
// remembers what the server said and why it ended, and bounds each write.
type conn struct {
	net.Conn
	writeTimeout time.Duration

	packet []byte // what is left of the packet being handed on; of the reader alone

	mu      sync.Mutex
	connack int   // return code; -1 until there was one
	err     error // why it ended
	done    chan struct{}
}

func newConn(c net.Conn, writeTimeout time.Duration) *conn {
	return &conn{Conn: c, writeTimeout: writeTimeout, connack: -1, done: make(chan struct{})}
}

// Read implements [io.Reader] over whole packets.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.packet) == 0 {
		packet, err := readPacket(c.Conn)
		if err == nil {
			err = c.inspect(packet)
		}
		if err != nil {
			c.end(err)
			return 0, err
		}
		c.packet = packet
	}
	n := copy(p, c.packet)
	c.packet = c.packet[n:]
	return n, nil
}

// inspect notes the CONNACK and refuses what paho would fall over: a SUBACK
// with more return codes than the one filter that was asked for.
func (c *conn) inspect(packet []byte) error {
	switch packet[0] >> 4 {
	case typeConnack:
		if len(packet) != 4 {
			return errors.New("CONNACK of a wrong length")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.connack >= 0 {
			return errors.New("second CONNACK")
		}
		c.connack = int(packet[3])
	case typeSuback:
		if len(packet) != 5 {
			return errors.New("SUBACK of a wrong length")
		}
	}
	return nil
}

// Write implements [io.Writer] with a deadline of its own; paho sets one for
// PUBLISH alone. A server that cut us off may show here first, by a reset.
func (c *conn) Write(p []byte) (int, error) {
	n, err := 0, c.Conn.SetWriteDeadline(time.Now().Add(c.writeTimeout))
	if err == nil {
		n, err = c.Conn.Write(p)
	}
	if err != nil {
		c.end(err)
	}
	return n, err
}

// Close ends the connection, and every wait on it.
func (c *conn) Close() error {
	c.end(net.ErrClosed)
	return c.Conn.Close()
}

func (c *conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

// state is the CONNACK's return code, or -1, and why the connection ended, if it did.
func (c *conn) state() (connack int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connack, c.err
}

// readPacket reads one control packet (MQTT 3.1.1, section 2.2), header and all.
func readPacket(r io.Reader) ([]byte, error) {
	packet := make([]byte, 1, 8)
	if _, err := io.ReadFull(r, packet); err != nil {
		return nil, err
	}
	length := 0
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return nil, errors.New("malformed packet length")
		}
		var b [1]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil, noEOF(err)
		}
		packet = append(packet, b[0])
		length |= int(b[0]&0x7f) << shift
		if b[0]&0x80 == 0 {
			break
		}
	}
	if length > maxPacket {
		return nil, fmt.Errorf("packet of %d bytes is too large", length)
	}
	packet = append(packet, make([]byte, length)...)
	if _, err := io.ReadFull(r, packet[len(packet)-length:]); err != nil {
		return nil, noEOF(err)
	}
	return packet, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// open dials endpoint and does the TLS handshake.
func open(ctx context.Context, cfg *Config, endpoint string) (*conn, error) {
	dialer := net.Dialer{Timeout: cfg.Timeout}
	tcp, err := dialer.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return nil, fmt.Errorf("%w: check network and endpoint: %w", ErrUnreachable, err)
	}
	secured := tls.Client(tcp, tlsConfig(cfg, endpoint))
	shaking, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if err := secured.HandshakeContext(shaking); err != nil {
		tcp.Close()
		return nil, handshakeError(err)
	}
	return newConn(secured, cfg.Timeout), nil
}

func tlsConfig(cfg *Config, endpoint string) *tls.Config {
	host, port, _ := net.SplitHostPort(endpoint) // seen by Config.complete
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host, // for an IP address crypto/tls sends no SNI and verifies the address
		RootCAs:    cfg.Roots,
		// Not Certificates: crypto/tls would leave ours out if the server's
		// list of CAs lacked its issuer, and nobody could tell why.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cfg.Certificate, nil },
		VerifyConnection: func(state tls.ConnectionState) error {
			return checkPins(cfg.Pins, state.VerifiedChains)
		},
	}
	if port == "443" {
		config.NextProtos = []string{"x-amzn-mqtt-ca"}
	}
	return config
}

func checkPins(pins []string, chains [][]*x509.Certificate) error {
	if len(pins) == 0 {
		return nil
	}
	for _, chain := range chains {
		for _, cert := range chain {
			sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
			if slices.Contains(pins, base64.StdEncoding.EncodeToString(sum[:])) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: no key of its chain is pinned: check mqtt.pins", ErrServerUntrusted)
}

func handshakeError(err error) error {
	var unverified *tls.CertificateVerificationError
	var foreign tls.RecordHeaderError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	switch {
	case errors.Is(err, ErrServerUntrusted): // the pins
		return err
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("%w: check the clock and the server's certificate: %w", ErrServerUntrusted, err)
	case errors.As(err, &name):
		return fmt.Errorf("%w: its certificate is for another name: check the endpoint: %w", ErrServerUntrusted, err)
	case errors.As(err, &unverified):
		return fmt.Errorf("%w: check the CA file: %w", ErrServerUntrusted, err)
	case isAlert(err):
		return fmt.Errorf("%w: TLS alert, most often over the client certificate: %w", ErrRefused, err)
	case errors.As(err, &foreign):
		return fmt.Errorf("%w: it does not speak TLS: check the port: %w", ErrUnreachable, err)
	}
	return fmt.Errorf("%w: TLS handshake: %w", ErrUnreachable, err)
}

// isAlert tells whether err is a TLS alert from the other side, which
// crypto/tls gives no type of its own.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
