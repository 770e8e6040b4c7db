package mqtt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{
		0: time.Second, 1: 2 * time.Second, 6: 64 * time.Second, 7: 128 * time.Second, 8: 128 * time.Second, 1 << 30: 128 * time.Second,
	} {
		if got := backoff(n); got != want {
			t.Errorf("backoff(%d) = %v, want %v", n, got, want)
		}
	}
}

// The waits are under 1, 2, 4 … 128 s and spread over all of it, and no two
// devices wait alike.
func TestDialWaits(t *testing.T) {
	const devices, rounds = 200, 12
	waits := make([][]time.Duration, rounds) // by round
	synctest.Test(t, func(t *testing.T) {
		cfg := complete(t, Config{Endpoints: []string{"a:8883"}, Attempts: rounds + 1})
		for range devices {
			var last time.Time
			n := -1
			_, err := dial(t.Context(), cfg, func(context.Context, string) (*Session, error) {
				if n >= 0 {
					waits[n] = append(waits[n], time.Since(last))
				}
				last = time.Now()
				n++
				return nil, ErrUnreachable
			})
			if !errors.Is(err, ErrUnreachable) || n != rounds {
				t.Fatalf("%v after %d rounds", err, n)
			}
		}
	})
	for n, all := range waits {
		longest := time.Duration(min(128, 1<<n)) * time.Second
		slices.Sort(all)
		if all[0] > longest/8 || all[devices-1] > longest || all[devices-1] < longest/8*7 {
			t.Errorf("round %d: waits of %v to %v, want 0 to %v", n, all[0], all[devices-1], longest)
		}
		if len(slices.Compact(all)) < devices-2 {
			t.Errorf("round %d: devices wait alike", n)
		}
	}
}

func complete(t *testing.T, cfg Config) Config {
	t.Helper()
	if cfg.Endpoints == nil {
		cfg.Endpoints = []string{"a:8883", "b:443"}
	}
	cfg.ClientID = "gw"
	cfg.Certificate = newCertificate(t)
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestDialOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		try := func(attempts int, answers ...string) string {
			t.Helper()
			var log []string
			cfg := complete(t, Config{Attempts: attempts})
			s, err := dial(t.Context(), cfg, func(_ context.Context, endpoint string) (*Session, error) {
				answer := answers[0]
				answers = answers[1:]
				log = append(log, endpoint+" "+answer)
				switch answer {
				case "untrusted":
					return nil, fmt.Errorf("%w: x", ErrServerUntrusted)
				case "refused":
					return nil, fmt.Errorf("%w: x", ErrRefused)
				case "unreachable":
					return nil, fmt.Errorf("%w: x", ErrUnreachable)
				}
				return new(Session), nil
			})
			if (s == nil) == (err == nil) {
				t.Errorf("session %v, error %v", s, err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
			return strings.Join(log, ", ")
		}
		for _, tt := range []struct {
			attempts int
			answers  []string
			want     string
		}{
			{0, []string{"up"}, "a:8883 up"},
			{1, []string{"unreachable", "up"}, "a:8883 unreachable, b:443 up"},
			{0, []string{"refused", "unreachable", "refused", "up"}, "a:8883 refused, b:443 unreachable, a:8883 refused, b:443 up"},
			{2, []string{"refused", "unreachable", "refused", "refused"}, "a:8883 refused, b:443 unreachable, a:8883 refused, b:443 refused"},
			{0, []string{"untrusted", "untrusted"}, "a:8883 untrusted, b:443 untrusted"},
			{0, []string{"untrusted", "refused", "untrusted"}, "a:8883 untrusted, b:443 refused, b:443 untrusted"},
			{0, []string{"untrusted", "refused", "up"}, "a:8883 untrusted, b:443 refused, b:443 up"},
		} {
			if got := try(tt.attempts, tt.answers...); got != tt.want {
				t.Errorf("tried %s, want %s", got, tt.want)
			}
		}
	})
}

// The error tells of every endpoint: those given up before, too.
func TestDialError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := complete(t, Config{Attempts: 3})
		_, err := dial(t.Context(), cfg, func(_ context.Context, endpoint string) (*Session, error) {
			if endpoint == "a:8883" {
				return nil, fmt.Errorf("%w: check the CA file", ErrServerUntrusted)
			}
			return nil, fmt.Errorf("%w: check the policy", ErrRefused)
		})
		want := "mqtt: connect to a:8883: server is not trusted: check the CA file; mqtt: connect to b:443: refused by the server: check the policy"
		if err == nil || err.Error() != want || !errors.Is(err, ErrServerUntrusted) || !errors.Is(err, ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDialEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		rounds := 0
		_, err := dial(ctx, complete(t, Config{}), func(context.Context, string) (*Session, error) {
			rounds++
			return nil, ErrUnreachable
		})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnreachable) || rounds < 50 {
			t.Errorf("%v after %d rounds", err, rounds)
		}
	})
}

func TestConfig(t *testing.T) {
	good := complete(t, Config{})
	if good.KeepAlive != 5*time.Minute || good.Timeout != 30*time.Second {
		t.Errorf("defaults %v, %v", good.KeepAlive, good.Timeout)
	}
	for what, spoil := range map[string]func(*Config){
		"no endpoint":    func(c *Config) { c.Endpoints = nil },
		"no port":        func(c *Config) { c.Endpoints = []string{"localhost"} },
		"no host":        func(c *Config) { c.Endpoints = []string{":8883"} },
		"no client id":   func(c *Config) { c.ClientID = "" },
		"long client id": func(c *Config) { c.ClientID = strings.Repeat("x", 129) },
		"no key":         func(c *Config) { c.Certificate.PrivateKey = nil },
		"no certificate": func(c *Config) { c.Certificate.Certificate = nil },
		"short pin":      func(c *Config) { c.Pins = []string{"AAAA"} },
		"pin not base64": func(c *Config) { c.Pins = []string{"++MBgDH5WGvL9Bcn5Be30cRcL0f5O+NyoXuWtQdX1a!="} },
		"keep-alive":     func(c *Config) { c.KeepAlive = time.Second },
		"timeout":        func(c *Config) { c.Timeout = -1 },
	} {
		bad := good
		spoil(&bad)
		if _, err := Dial(t.Context(), bad, nil); err == nil || !strings.HasPrefix(err.Error(), "mqtt: configuration: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
