package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Dialer makes one session after another. It holds what outlives a session:
// how often it failed of late, the credential, and the filters that brokers
// keep for it. One Dial at a time.
type Dialer struct {
	cfg     Config
	network func(ctx context.Context, network, address string) (net.Conn, error)

	backoff backoff
	last    *Session            // of the Dial before, until it is accounted for
	latest  time.Time           // when the latest connection was begun
	kept    map[string]*filters // by endpoint

	mu          sync.Mutex
	certificate tls.Certificate
}

// NewDialer checks the configuration and connects to nothing.
func NewDialer(cfg Config) (*Dialer, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return &Dialer{cfg: cfg, network: throughProxy(new(net.Dialer).DialContext, cfg.Proxy), kept: make(map[string]*filters), certificate: cfg.Certificate}, nil
}

// Dial makes one session without a past.
func Dial(ctx context.Context, cfg Config, probe func(context.Context, *Session) error) (*Session, error) {
	d, err := NewDialer(cfg)
	if err != nil {
		return nil, err
	}
	return d.Dial(ctx, probe)
}

// SetCertificate changes the client's certificate for the connections to come;
// the one that is up stays. It needs a key, as Config.Certificate does.
func (d *Dialer) SetCertificate(c tls.Certificate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.certificate = c
}

// Dial connects to the first endpoint, in order of preference, that will have
// us. A session counts as up only once probe, a round trip through the
// application behind the broker, returned nil: a CONNACK is no proof. probe has
// Config.Timeout for the whole of it; nil probes nothing, for brokers that have
// no application behind them.
//
// After a failed round over the endpoints, and after a session that was lost, it
// waits as [backoff] says, in this Dial or the next; after a session that its
// owner closed, until a second has gone by since that began. Only the first
// connection of all comes at once. The session of the Dial before is closed.
//
// It fails at once if the configuration is wrong or every endpoint left is
// [ErrServerUntrusted], else after Config.Attempts rounds or with the context.
func (d *Dialer) Dial(ctx context.Context, probe func(context.Context, *Session) error) (*Session, error) {
	return d.dial(ctx, func(ctx context.Context, endpoint string) (*Session, error) {
		cfg := d.cfg
		d.mu.Lock()
		cfg.Certificate = d.certificate
		d.mu.Unlock()
		return d.connect(ctx, &cfg, endpoint, probe)
	})
}

func (d *Dialer) dial(ctx context.Context, connect func(context.Context, string) (*Session, error)) (*Session, error) {
	if d.last != nil {
		if !d.last.left() {
			d.backoff.lost(d.last.lasted())
		}
		d.last.Close()
		d.last = nil
	}
	endpoints := d.cfg.Endpoints
	var failed roundError
	for n := 1; ; n++ {
		if wait := max(d.backoff.wait(), ConnectSpacing-time.Since(d.latest)); wait > 0 {
			if failed != nil {
				d.cfg.Log.Warn("no connection", "error", failed, "wait", wait.Round(time.Millisecond))
			}
			if err := sleep(ctx, wait); err != nil {
				return nil, append(failed, fmt.Errorf("no connection: %w", err))
			}
		}
		failed = slices.DeleteFunc(failed, func(err error) bool { return !errors.Is(err, ErrServerUntrusted) })
		var again []string
		near := true
		for i, endpoint := range endpoints {
			d.latest = time.Now()
			s, err := connect(ctx, endpoint)
			if err == nil {
				d.last = s
				return s, nil
			}
			failed = append(failed, fmt.Errorf("%s: %w", endpoint, err))
			near = near && isNear(err)
			if !errors.Is(err, ErrServerUntrusted) {
				again = append(again, endpoint)
			}
			if ctx.Err() == nil && errors.Is(err, ErrRefused) && i+1 < len(endpoints) {
				_ = sleep(ctx, ConnectSpacing) // the next may be another port of the same; the context is looked at below
			}
			if ctx.Err() != nil {
				d.backoff.failed(near)
				return nil, failed
			}
		}
		d.backoff.failed(near)
		endpoints = again
		if len(endpoints) == 0 || n == d.cfg.Attempts {
			return nil, failed
		}
	}
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
