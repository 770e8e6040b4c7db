// Package mqtt is one MQTT 3.1.1 session over mutual TLS: a connect loop with
// jitter, questions that wait for their reply, and a deadline on every step. It
// knows no cloud: what one wants besides MQTT is in [Config].
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
// shows it, and the owner dials again by the same [Dialer]. A publication that the
// connection broke under ends in [ErrLost]; nothing is sent again behind the
// owner's back. An owner that must be sure keeps the message until the
// application has replied.
package mqtt

import (
	"context"
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
	// certificate of its chain is pinned. It is tried again: a captive portal is
	// left, a clock is set.
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

	// ErrCut: it broke, by the server's doing and upon something of ours that was not
	// answered. AWS IoT does so to who does what the policy does not allow.
	ErrCut = errors.New("the server ended the connection")

	// ErrDenied: the broker's answer to a subscription is that it failed (MQTT
	// 3.1.1, section 3.9.3).
	ErrDenied = errors.New("the broker refused")
)

// MaxPayload is how many bytes one message may have, either way: what a small
// device can take of memory for it.
const MaxPayload = 128 << 10

// maxString is how many bytes a topic or a client id may have (MQTT 3.1.1,
// section 1.5.3).
const maxString = 1<<16 - 1

// Config says where to connect and as whom.
type Config struct {
	Endpoints []string // "host:port" in order of preference
	// TLS says what is particular to one of Endpoints. nil: nothing.
	TLS func(endpoint string) TLS

	ClientID string

	// Certificate is the client's, leaf first; its PrivateKey may be any
	// crypto.Signer, such as a key inside a TPM. If SupportedSignatureAlgorithms
	// is set and has PKCS #1 v1.5 alone, TLS 1.2 is the highest version offered.
	Certificate tls.Certificate

	Roots *x509.CertPool // nil: the system's

	// Proxy is what an endpoint is reached through; nil, or the zero Proxy: nothing.
	Proxy func(endpoint string) (Proxy, error)

	// Persistent asks the broker to keep the session while there is no
	// connection: its filters, and the messages of QoS 1 to them.
	Persistent bool
	// Refusals are the meanings of CONNACK codes beyond MQTT 3.1.1's.
	Refusals map[byte]string

	KeepAlive time.Duration // 0: 5 minutes
	Timeout   time.Duration // of a network step on a fast link; 0: 30 s
	Longest   time.Duration // pause between two rounds over the endpoints; 0: 512 s, and longer after ten refusals
	Attempts  int           // rounds over the endpoints; 0: until the context ends
	Log       *slog.Logger  // nil: none

	// Changed receives when the machine's clock was set, or its addresses changed:
	// a pause ends soon then. nil: never.
	Changed <-chan struct{}
	// Network connects to a "host:port"; nil: by TCP, to any of the host's addresses.
	Network func(ctx context.Context, network, address string) (net.Conn, error)
}

// TLS is what is particular to the TLS with one endpoint.
type TLS struct {
	Protocol string // to ask for by ALPN; "": none
	// Pins, where there are any, are base64 SHA-256 of SubjectPublicKeyInfo, one of
	// which must be in the verified chain. One that only the server's own key fits
	// is warned of: it ends with that key.
	Pins []string
	// Advice is what to do where the server is not trusted; "": what mqtt knows.
	Advice string
}

func (cfg *Config) complete() error {
	if len(cfg.Endpoints) == 0 {
		return errors.New("no endpoint is given")
	}
	for _, endpoint := range cfg.Endpoints {
		if host, port, err := net.SplitHostPort(endpoint); err != nil || host == "" || port == "" {
			return fmt.Errorf("endpoint %q is not host:port", endpoint)
		}
		for _, pin := range cfg.tls(endpoint).Pins {
			if err := CheckPin(pin); err != nil {
				return err
			}
		}
	}
	if cfg.ClientID == "" || len(cfg.ClientID) > maxString {
		return fmt.Errorf("client id of %d bytes: it takes 1 to %d", len(cfg.ClientID), maxString)
	}
	if err := checkCertificate(cfg.Certificate); err != nil {
		return err
	}
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = 5 * time.Minute
	}
	if cfg.KeepAlive < time.Second || cfg.KeepAlive > maxKeepAlive {
		return fmt.Errorf("keep-alive of %v: MQTT takes 1s to %v", cfg.KeepAlive, maxKeepAlive)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Timeout < 0 || cfg.Longest < 0 || cfg.Attempts < 0 {
		return errors.New("timeout, pause and attempts cannot be negative")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Endpoints = slices.Clone(cfg.Endpoints)
	return nil
}

// maxKeepAlive is the longest that fits into a CONNECT (MQTT 3.1.1, section 3.1.2.10).
const maxKeepAlive = (1<<16 - 1) * time.Second

func (cfg *Config) tls(endpoint string) TLS {
	if cfg.TLS == nil {
		return TLS{}
	}
	return cfg.TLS(endpoint)
}

func checkCertificate(c tls.Certificate) error {
	if len(c.Certificate) == 0 || c.PrivateKey == nil {
		return errors.New("no client certificate with its key is given")
	}
	return nil
}
