// Package mqtt is one MQTT 3.1.1 session over mutual TLS: a connect loop with
// jitter, requests that wait for AWS IoT's accepted and rejected replies, and a
// deadline on every step.
//
// The packets are those of paho.mqtt.golang/packets. paho's client on top of
// them is not used: it takes CONNACK 7 for success, may say that a message went
// out when nobody knows, and brings net/http and a WebSocket library along,
// which are 1.0 MB of the device binary.
//
// QoS 0 and 1 only, as AWS IoT has them; always a clean session.
//
// It does not reconnect: a session that is lost is closed, [Session.Done]
// tells, and the owner dials anew.
package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"
)

// What a caller of [Dial] may test for. Each error is one line that says what
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

	// ErrLost: the connection broke under an established session.
	ErrLost = errors.New("connection is lost")
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
	// Pins, where there are any, are base64 SHA-256 of SubjectPublicKeyInfo,
	// one of which has to be in the verified chain.
	Pins []string

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
	if len(cfg.Certificate.Certificate) == 0 || cfg.Certificate.PrivateKey == nil {
		return errors.New("no client certificate with its key is given")
	}
	for _, pin := range cfg.Pins {
		if b, err := base64.StdEncoding.DecodeString(pin); err != nil || len(b) != 32 {
			return fmt.Errorf("pin %q is not the base64 of a SHA-256", pin)
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
	return nil
}

// Dial connects to the first endpoint that will have us. A session counts as
// up only once probe, a round trip through the application behind the broker,
// returned nil: a CONNACK is no proof. probe has Config.Timeout for the whole of it; nil probes
// nothing, for brokers that have no application behind them.
//
// Between rounds over the endpoints Dial waits a random time of 0 to
// min(128 s, 1 s·2^n) (full jitter), n being the rounds that failed. It counts
// from 0 each time: whoever dials again after a loss has to wait first, unless
// the session before had been stable.
//
// It fails at once if the configuration is wrong or every endpoint left is
// [ErrServerUntrusted], else after Config.Attempts rounds or with the context.
func Dial(ctx context.Context, cfg Config, probe func(context.Context, *Session) error) (*Session, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("mqtt: configuration: %w", err)
	}
	return dial(ctx, cfg, func(ctx context.Context, endpoint string) (*Session, error) {
		return connect(ctx, &cfg, endpoint, probe)
	})
}

func dial(ctx context.Context, cfg Config, connect func(context.Context, string) (*Session, error)) (*Session, error) {
	endpoints := slices.Clone(cfg.Endpoints)
	var failed roundError
	for n := 0; ; n++ {
		failed = slices.DeleteFunc(failed, func(err error) bool { return !errors.Is(err, ErrServerUntrusted) })
		var again []string
		for _, endpoint := range endpoints {
			s, err := connect(ctx, endpoint)
			if err == nil {
				return s, nil
			}
			failed = append(failed, fmt.Errorf("mqtt: connect to %s: %w", endpoint, err))
			if ctx.Err() != nil {
				return nil, failed
			}
			if !errors.Is(err, ErrServerUntrusted) {
				again = append(again, endpoint)
			}
		}
		endpoints = again
		if len(endpoints) == 0 || n+1 == cfg.Attempts {
			return nil, failed
		}
		wait := rand.N(backoff(n))
		cfg.Log.Warn("no connection", "error", failed, "wait", wait.Round(time.Millisecond))
		if err := sleep(ctx, wait); err != nil {
			return nil, append(failed, fmt.Errorf("mqtt: connect: %w", err))
		}
	}
}

// backoff is the longest wait after n+1 failed rounds.
func backoff(n int) time.Duration {
	return min(128*time.Second, time.Second<<min(n, 7))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// roundError is why each endpoint failed, in one line.
type roundError []error

func (e roundError) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "; ")
}

func (e roundError) Unwrap() []error { return e }
