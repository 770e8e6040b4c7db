package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Dialer makes one session after another. It holds what outlives a session:
// how often it failed of late, the credential, and the filters that brokers
// keep for it. One Dial at a time.
type Dialer struct {
	cfg     Config
	network network

	backoff backoff
	taken   int // sessions in a row that another client may have taken
	pace    pace
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
	return &Dialer{
		cfg: cfg, network: system(), backoff: backoff{longest: cfg.Longest}, pace: pace{base: cfg.Timeout},
		kept: make(map[string]*filters), certificate: cfg.Certificate,
	}, nil
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
// application behind the broker, returned nil: a CONNACK is no proof. nil probes
// nothing, for brokers that have no application behind them.
//
// After a failed round over the endpoints, and after a session that was lost, it
// waits as [backoff] says, in this Dial or the next, or until Config.Changed;
// after a session that its owner closed, until a second has gone by since that
// began. Only the first connection of all comes at once. The session of the Dial
// before is closed.
//
// It fails after Config.Attempts rounds or with the context.
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
	d.endLast()
	var failed roundError
	for n := 1; ; n++ {
		if wait := max(time.Until(d.backoff.due), ConnectSpacing-time.Since(d.latest)); wait > 0 {
			if failed != nil {
				d.cfg.Log.Warn("no connection", "error", failed, "wait", wait.Round(time.Millisecond))
			}
			if err := d.sleep(ctx, wait); err != nil {
				return nil, append(failed, fmt.Errorf("no connection: %w", err))
			}
		}
		failed = nil
		how := near
		for i, endpoint := range d.cfg.Endpoints {
			d.latest = time.Now()
			s, err := connect(ctx, endpoint)
			if err == nil {
				d.last = s
				return s, nil
			}
			failed = append(failed, fmt.Errorf("%s: %w", endpoint, err))
			how = min(how, howOf(err)) // the one that cost the service most
			if ctx.Err() == nil && errors.Is(err, ErrRefused) && i+1 < len(d.cfg.Endpoints) {
				_ = sleep(ctx, ConnectSpacing) // the next may be another port of the same; the context is looked at below
			}
			if ctx.Err() != nil {
				d.backoff.failed(how)
				return nil, failed
			}
		}
		d.backoff.failed(how)
		if n == d.cfg.Attempts {
			return nil, failed
		}
	}
}

// endLast accounts for the session of the Dial before.
func (d *Dialer) endLast() {
	if d.last == nil {
		return
	}
	if !d.last.left() {
		d.backoff.lost(d.last.lasted())
		d.countTakeover(d.last)
	}
	d.last.Close()
	d.last = nil
	select {
	case <-d.cfg.Changed: // while it was up, or before
	default:
	}
}

// A session that the server ends soon, and upon nothing of ours.
const takeovers = 3 // in a row, that are told of

// countTakeover looks for another client under the same client id, which a server
// ends the session of the one before for (MQTT 3.1.1, section 3.1.4).
func (d *Dialer) countTakeover(s *Session) {
	if !s.taken() {
		d.taken = 0
		return
	}
	if d.taken++; d.taken%takeovers == 0 {
		d.cfg.Log.Warn("session after session is ended by the server: another client may use this client id", "client_id", d.cfg.ClientID, "error", s.lost())
	}
}

// sleep waits, less if the machine's time or address changes meanwhile.
func (d *Dialer) sleep(ctx context.Context, wait time.Duration) error {
	until := time.Now().Add(wait)
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
			return nil
		case <-d.cfg.Changed:
			if soon := ConnectSpacing + rand.N(changedWindow); time.Until(until) > soon && d.backoff.changed() {
				until = time.Now().Add(soon)
				d.backoff.due = until
				t.Reset(soon)
			}
		}
	}
}

// changedWindow spreads what changes for many at once.
const changedWindow = 2 * time.Second

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
