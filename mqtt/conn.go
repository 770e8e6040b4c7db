package mqtt

import (
	"bytes"
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

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// maxPacket bounds an inbound packet: payload, topic and headers. MQTT allows
// 256 MB at the server's word.
const maxPacket = MaxPayload + 1<<10

// readPacket reads one control packet of bounded length that makes sense on its own.
func readPacket(r io.Reader) (packets.ControlPacket, error) {
	raw, err := readFrame(r)
	if err != nil {
		return nil, err
	}
	p, err := packets.ReadPacket(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("malformed packet: %w", err)
	}
	switch p := p.(type) {
	case *packets.ConnackPacket:
		if len(raw) != 4 {
			return nil, errors.New("CONNACK of a wrong length")
		}
	case *packets.SubackPacket:
		if len(p.ReturnCodes) != 1 { // a SUBSCRIBE of ours has one filter
			return nil, errors.New("SUBACK of a wrong length")
		}
	case *packets.PublishPacket:
		if p.Qos > 1 {
			return nil, errors.New("PUBLISH of a QoS that was not asked for")
		}
	}
	return p, nil
}

// readFrame reads the bytes of one control packet (MQTT 3.1.1, section 2.2), header and all.
func readFrame(r io.Reader) ([]byte, error) {
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
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// open dials endpoint and does the TLS handshake.
func open(ctx context.Context, cfg *Config, endpoint string) (net.Conn, error) {
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
	return secured, nil
}

func tlsConfig(cfg *Config, endpoint string) *tls.Config {
	host, port, _ := net.SplitHostPort(endpoint) // seen by Config.complete
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		MaxVersion: maxVersion(cfg.Certificate),
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

// maxVersion is TLS 1.2 for a key that can only sign by PKCS #1 v1.5, as some
// RSA keys in TPMs, since TLS 1.3 takes no such signature (RFC 8446, section
// 4.2.3); else 0, the newest.
func maxVersion(c tls.Certificate) uint16 {
	for _, scheme := range c.SupportedSignatureAlgorithms {
		switch scheme {
		case tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512:
		default:
			return 0
		}
	}
	if c.SupportedSignatureAlgorithms == nil {
		return 0
	}
	return tls.VersionTLS12
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
