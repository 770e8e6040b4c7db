package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/keyvet/keyvet/device"
)

// open dials endpoint, or takes the connection that was made ahead, and does the
// TLS handshake. That connection may have ended by now, unnoticed.
func (d *Dialer) open(ctx context.Context, cfg *Config, endpoint string) (net.Conn, error) {
	if tcp := d.made(endpoint); tcp != nil {
		if c, err := d.shake(ctx, cfg, endpoint, tcp); err == nil || !errors.Is(err, ErrUnreachable) {
			return c, err
		}
	}
	reaching, cancel := context.WithTimeout(ctx, d.pace.limit(0))
	defer cancel()
	tcp, err := d.through(cfg)(reaching, "tcp", endpoint)
	var told failure
	switch {
	case errors.As(err, &told): // of a proxy
		told.cause = notReached{told.cause}
		return nil, told
	case err != nil:
		d.pace.timedOut(err, 0)
		return nil, failure{ErrUnreachable, "", notReached{err}, "check network and endpoint"}
	}
	return d.shake(ctx, cfg, endpoint, tcp)
}

// shake does the TLS handshake.
func (d *Dialer) shake(ctx context.Context, cfg *Config, endpoint string, tcp net.Conn) (net.Conn, error) {
	wire := &counted{Conn: tcp}
	secured := tls.Client(wire, tlsConfig(cfg, endpoint))
	shaking, cancel := context.WithTimeout(ctx, d.pace.limit(handshakeBytes))
	defer cancel()
	began := time.Now()
	if err := secured.HandshakeContext(shaking); err != nil {
		tcp.Close()
		d.pace.timedOut(err, 0)
		err = handshakeError(err, time.Now())
		if advice := cfg.tls(endpoint).Advice; advice != "" && errors.Is(err, ErrServerUntrusted) {
			err = fmt.Errorf("%w: %s", err, advice)
		}
		return nil, err
	}
	d.pace.shaken(wire.bytes(), time.Since(began))
	return secured, nil
}

// suites are those of TLS 1.2 with forward secrecy and an AEAD; TLS 1.3 has its
// own, all of them good.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
}

func tlsConfig(cfg *Config, endpoint string) *tls.Config {
	host, _, _ := net.SplitHostPort(endpoint) // seen by Config.complete
	particular := cfg.tls(endpoint)
	config := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   maxVersion(cfg.Certificate),
		CipherSuites: suites,
		ServerName:   host, // for an IP address crypto/tls sends no SNI and verifies the address
		RootCAs:      cfg.Roots,
		// Not Certificates: crypto/tls would leave ours out if the server's
		// list of CAs lacked its issuer, and the reason would not show.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cfg.Certificate, nil },
		VerifyConnection: func(state tls.ConnectionState) error {
			leafOnly, err := checkPins(particular.Pins, state.VerifiedChains)
			if leafOnly {
				cfg.Log.Warn("mqtt.pins has the server's own key alone, which its next certificate need not have: pin its CAs", "endpoint", endpoint)
			}
			return err
		},
	}
	if particular.Protocol != "" {
		config.NextProtos = []string{particular.Protocol}
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

func handshakeError(err error, now time.Time) error {
	var unverified *tls.CertificateVerificationError
	var foreign tls.RecordHeaderError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	switch {
	case errors.Is(err, ErrServerUntrusted): // the pins
		return err
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore) && device.ClockBehind(now):
		return failure{ErrClock, "", err, "set it: it says " + now.UTC().Format(time.RFC3339)}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return failure{ErrServerUntrusted, "", err, "check the clock and the server's certificate"}
	case errors.As(err, &name):
		return failure{ErrServerUntrusted, "", err, "check the endpoint"}
	case errors.As(err, &unverified):
		return failure{ErrServerUntrusted, "", err, "check the CA file"}
	case isAlert(err):
		return refusedByAlert(err)
	case errors.As(err, &foreign):
		return failure{ErrUnreachable, "it does not speak TLS", err, "check the port"}
	}
	return failure{ErrUnreachable, "TLS handshake", err, "check network and endpoint"}
}

// refusedByAlert is the refusal that a TLS alert is.
func refusedByAlert(err error) error {
	return failure{ErrRefused, "TLS alert", err, "check that the client certificate is registered and active"}
}

// isAlert reports whether err is a TLS alert from the other side, which
// crypto/tls gives no type of its own.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
