// Package mqtt is one MQTT 3.1.1 session over mutual TLS: a connect loop with
// jitter, requests that wait for AWS IoT's accepted and rejected replies, and a
// deadline on every step.
//
// The packets are those of paho.mqtt.golang/packets. paho's client on top of
// them is not used: it takes CONNACK 7 for success, may say that a message went
// out when nobody knows, and brings net/http and a WebSocket library along,
// which are 1.0 MB of the device binary.
//
// It publishes with QoS 1 and subscribes with QoS 1; the session is clean, or
// with Config.Persistent outlives the connection at the broker.
//
// It does not reconnect: a session that is lost is closed, [Session.Done]
// tells, and the owner dials anew by the same [Dialer]. A publication that the
// connection broke under is told as [ErrLost], so that nobody waits for it any
// more and nothing is sent again behind the owner's back; who has to be sure
// keeps the message until the application's reply.
package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"
)

// What a caller of [Dialer.Dial] may test for. Each error is one line that says what
// to look at.
var (
	// ErrServerUntrusted: the server's certificate does not verify, or no
	// certificate of its chain is pinned. Waiting mends nothing, so that
	// endpoint is not tried again.
	ErrServerUntrusted = errors.New("server is not trusted")

	// ErrRefused: the server is the right one and does not want us: a TLS
	// alert, a connection cut before the CONNACK, a CONNACK that says no. AWS
	// IoT answers the first connection of just-in-time registration so; it is
	// tried again.
	ErrRefused = errors.New("refused by the server")

	// ErrUnreachable: there was no such answer within the time given. It is
	// tried again.
	ErrUnreachable = errors.New("server is unreachable")

	// ErrClock: the server's certificate is not valid yet by a clock that is
	// behind this program's own age. Something may set the clock, so it is tried
	// again; nothing here does, for no time from an unproven server is to be trusted.
	ErrClock = errors.New("the clock is wrong")

	// ErrLost: the connection broke under an established session.
	ErrLost = errors.New("connection is lost")

	// ErrDenied: the broker's answer to a subscription is that it failed (MQTT
	// 3.1.1, section 3.9.3).
	ErrDenied = errors.New("the broker refused")
)

// The limits of AWS IoT Core (AWS IoT Core endpoints and quotas, "Message
// broker and protocol limits"), kept here for every broker.
const (
	MaxPayload  = 128 << 10 // bytes
	MaxTopic    = 256       // bytes
	MaxClientID = 128       // bytes
)

// Config says where to connect and as whom.
type Config struct {
	// Endpoints are "host:port" in order of preference. Port 443 speaks ALPN
	// x-amzn-mqtt-ca (AWS IoT Developer Guide, "Device communication protocols").
	Endpoints []string

	ClientID string // 1 to 128 bytes

	// Certificate is the client's, leaf first; its PrivateKey may be any
	// crypto.Signer, such as a key inside a TPM. If SupportedSignatureAlgorithms
	// is set and has PKCS #1 v1.5 alone, TLS 1.2 is the highest version offered.
	Certificate tls.Certificate

	Roots *x509.CertPool // nil: the system's
	// Pins, where there are any, are [AmazonRoots] or base64 SHA-256 of
	// SubjectPublicKeyInfo, one of which has to be in the verified chain. One that
	// only the server's own key fits is warned of: it ends with that key.
	Pins []string

	// Persistent asks the broker to keep the session while there is no
	// connection: its filters, and the messages of QoS 1 to them. AWS IoT does so
	// for an hour by default.
	Persistent bool

	KeepAlive time.Duration // 0: 5 minutes; AWS takes 30 s to 20 min
	Timeout   time.Duration // of each network step; 0: 30 s
	Attempts  int           // rounds over the endpoints; 0: until the context ends
	Log       *slog.Logger  // nil: none
}

func (cfg *Config) complete() error {
	if len(cfg.Endpoints) == 0 {
		return errors.New("no endpoint is given")
	}
	for _, endpoint := range cfg.Endpoints {
		if host, port, err := net.SplitHostPort(endpoint); err != nil || host == "" || port == "" {
			return fmt.Errorf("endpoint %q is not host:port", endpoint)
		}
	}
	if cfg.ClientID == "" || len(cfg.ClientID) > MaxClientID {
		return fmt.Errorf("client id of %d bytes: it takes 1 to %d", len(cfg.ClientID), MaxClientID)
	}
	if err := checkCertificate(cfg.Certificate); err != nil {
		return err
	}
	for _, pin := range cfg.Pins {
		if err := CheckPin(pin); err != nil {
			return err
		}
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = 5 * time.Minute
	}
	if cfg.KeepAlive < 30*time.Second || cfg.KeepAlive > 20*time.Minute {
		return fmt.Errorf("keep-alive of %v: AWS IoT takes 30s to 20m", cfg.KeepAlive)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Timeout < 0 || cfg.Attempts < 0 {
		return errors.New("timeout and attempts cannot be negative")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Endpoints, cfg.Pins = slices.Clone(cfg.Endpoints), slices.Clone(cfg.Pins)
	return nil
}

func checkCertificate(c tls.Certificate) error {
	if len(c.Certificate) == 0 || c.PrivateKey == nil {
		return errors.New("no client certificate with its key is given")
	}
	return nil
}
