package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

func TestWindow(t *testing.T) {
	now, long := time.Now(), time.Now().Add(-2*silentAfter)
	for _, tt := range []struct {
		b           backoff
		least, most time.Duration
	}{
		{backoff{failures: 1}, 0, time.Second},
		{backoff{failures: 2}, 0, 2 * time.Second},
		{backoff{failures: 5}, 0, 16 * time.Second},
		{backoff{failures: 6, since: now}, 0, 512 * time.Second},
		{backoff{failures: 30, answers: 10, since: now}, 0, 512 * time.Second},
		{backoff{failures: 6, since: long}, 45 * time.Minute, time.Hour},
		{backoff{failures: 5, since: long}, 0, 16 * time.Second},
		{backoff{failures: 31, near: 1, last: near, since: long}, 0, 512 * time.Second},
		{backoff{failures: 31, longest: time.Minute, since: long}, 0, time.Minute},
		{backoff{failures: 11, answers: 11}, 512 * time.Second, 1024 * time.Second},
		{backoff{failures: 1 << 30, answers: 1 << 30}, 30 * time.Minute, time.Hour},
		{backoff{failures: 5, near: 20, last: near}, 0, 16 * time.Second},
		{backoff{failures: 5, near: 1 << 30, last: near}, 28 * time.Second, 56 * time.Second},
		{backoff{failures: 5, near: 30, last: untrusted}, 28 * time.Second, 56 * time.Second},
		{backoff{failures: 5, near: 1 << 30, last: untrusted}, 256 * time.Second, 512 * time.Second},
		{backoff{failures: 6, near: 1 << 30, last: near}, 0, 512 * time.Second}, // the service failed before the network
		{backoff{failures: 1 << 30, answers: 1 << 30, longest: 30 * time.Second}, 0, 30 * time.Second},
		{backoff{failures: 5, near: 1 << 30, last: untrusted, longest: 30 * time.Second}, 15 * time.Second, 30 * time.Second},
		{backoff{failures: 5, longest: 5 * time.Second}, 0, 5 * time.Second},
	} {
		if least, most := tt.b.window(); least != tt.least || most != tt.most {
			t.Errorf("%+v waits %v to %v, want %v to %v", tt.b, least, most, tt.least, tt.most)
		}
	}
}

// What is counted: rounds that reached further than the device's own network,
// and sessions, of which a stable one starts the count again.
func TestBackoffCounts(t *testing.T) {
	for what, tt := range map[string]struct {
		happens func(*backoff)
		want    int
	}{
		"nothing":               {func(*backoff) {}, 0},
		"a failure":             {func(b *backoff) { b.failed(far) }, 1},
		"a hundred":             {func(b *backoff) { times(100, func() { b.failed(far) }) }, 100},
		"no network at boot":    {func(b *backoff) { times(100, func() { b.failed(near) }) }, quickTries},
		"no network, then none": {func(b *backoff) { times(100, func() { b.failed(near) }); b.failed(far) }, quickTries + 1},
		"a network that goes":   {func(b *backoff) { times(9, func() { b.failed(far) }); b.failed(near) }, 9},
		"a session ended":       {func(b *backoff) { b.lost(time.Hour) }, 1},
		"a short one":           {func(b *backoff) { b.failed(far); b.lost(stableAfter - 1) }, 2},
		"a stable one":          {func(b *backoff) { times(100, func() { b.failed(far) }); b.lost(stableAfter) }, 1},
		"short ones":            {func(b *backoff) { times(10, func() { b.lost(time.Second) }) }, 10},
	} {
		var b backoff
		if tt.happens(&b); b.failures != tt.want {
			t.Errorf("%s: %d, want %d", what, b.failures, tt.want)
		}
		if wait := b.wait(); (wait == 0) != (tt.want == 0) {
			t.Errorf("%s: waits %v", what, wait)
		}
	}
}

func TestHowOf(t *testing.T) {
	reach := func(endpoint string) error {
		d := newDialer(t, complete(t, Config{Endpoints: []string{endpoint}, Timeout: time.Minute}))
		_, err := d.open(t.Context(), &d.cfg, endpoint)
		if err == nil {
			t.Fatalf("%s answers", endpoint)
		}
		return err
	}
	refused, err := mqtttest.HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	defer refused.Release()
	for what, tt := range map[string]struct {
		err error
		how failing
	}{
		"no name":       {reach("no-such-endpoint.invalid:8883"), near},
		"nobody there":  {reach(refused.Addr), near},
		"clock":         {ErrClock, untrusted},
		"not the right": {ErrServerUntrusted, untrusted},
		"refused":       {ErrRefused, answered},
		"no CONNACK":    {ErrUnreachable, far},
		"cut in TLS":    {&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, far},
	} {
		if got := howOf(fmt.Errorf("endpoint: %w", tt.err)); got != tt.how {
			t.Errorf("%s: %v: %v, want %v", what, tt.err, got, tt.how)
		}
	}
}

func times(n int, f func()) {
	for range n {
		f()
	}
}

// The waits are a second and up to 1, 2, 4, 8, 16, 512 s, spread over all of
// it, and no two devices wait alike.
func TestDialWaits(t *testing.T) {
	const devices, rounds = 200, 9
	waits := make([][]time.Duration, rounds) // by round
	synctest.Test(t, func(t *testing.T) {
		cfg := complete(t, Config{Endpoints: []string{"a:8883"}, Attempts: rounds + 1})
		for range devices {
			var last time.Time
			n := -1
			_, err := newDialer(t, cfg).dial(t.Context(), func(context.Context, string) (*Session, error) {
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
		_, longest := (&backoff{failures: n + 1, since: time.Now()}).window()
		slices.Sort(all)
		if all[0] < time.Second || all[0] > time.Second+longest/8 || all[devices-1] > time.Second+longest || all[devices-1] < longest/8*7 {
			t.Errorf("round %d: waits of %v to %v, want 1 s and 0 to %v", n, all[0], all[devices-1], longest)
		}
		if len(slices.Compact(all)) < devices-2 {
			t.Errorf("round %d: devices wait alike", n)
		}
	}
}

func newDialer(t *testing.T, cfg Config) *Dialer {
	t.Helper()
	d, err := NewDialer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
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
			s, err := newDialer(t, cfg).dial(t.Context(), func(_ context.Context, endpoint string) (*Session, error) {
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
			{1, []string{"untrusted", "untrusted"}, "a:8883 untrusted, b:443 untrusted"},
			{0, []string{"untrusted", "untrusted", "up"}, "a:8883 untrusted, b:443 untrusted, a:8883 up"}, // a captive portal that was left
			{0, []string{"untrusted", "refused", "untrusted", "up"}, "a:8883 untrusted, b:443 refused, a:8883 untrusted, b:443 up"},
		} {
			if got := try(tt.attempts, tt.answers...); got != tt.want {
				t.Errorf("tried %s, want %s", got, tt.want)
			}
		}
	})
}

// The error is why each endpoint failed.
func TestDialError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := complete(t, Config{Attempts: 3})
		_, err := newDialer(t, cfg).dial(t.Context(), func(_ context.Context, endpoint string) (*Session, error) {
			if endpoint == "a:8883" {
				return nil, fmt.Errorf("%w: check the CA file", ErrServerUntrusted)
			}
			return nil, fmt.Errorf("%w: check the policy", ErrRefused)
		})
		want := "a:8883: server is not trusted: check the CA file; b:443: refused by the server: check the policy"
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
		_, err := newDialer(t, complete(t, Config{})).dial(ctx, func(context.Context, string) (*Session, error) {
			rounds++
			return nil, ErrUnreachable
		})
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnreachable) || rounds < 8 {
			t.Errorf("%v after %d rounds", err, rounds)
		}
	})
}

// One who gives up waiting, again and again, is back when the pause is over: it
// does not begin again.
func TestDialGoesOnWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883"}}))
		tries := 0
		refuses := func(context.Context, string) (*Session, error) {
			tries++
			return nil, ErrRefused
		}
		for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			d.dial(ctx, refuses)
			cancel()
		}
		if tries < 30 || tries > 60 {
			t.Errorf("%d tries in a day", tries)
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
		"long client id": func(c *Config) { c.ClientID = strings.Repeat("x", 1<<16) },
		"no key":         func(c *Config) { c.Certificate.PrivateKey = nil },
		"no certificate": func(c *Config) { c.Certificate.Certificate = nil },
		"short pin":      func(c *Config) { c.TLS = pinned("AAAA") },
		"unknown pins":   func(c *Config) { c.TLS = pinned("amazon") },
		"pin not base64": func(c *Config) { c.TLS = pinned("++MBgDH5WGvL9Bcn5Be30cRcL0f5O+NyoXuWtQdX1a!=") },
		"keep-alive":     func(c *Config) { c.KeepAlive = 24 * time.Hour },
		"timeout":        func(c *Config) { c.Timeout = -1 },
	} {
		bad := good
		spoil(&bad)
		if _, err := Dial(t.Context(), bad, nil); err == nil || !strings.HasPrefix(err.Error(), "configuration: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// dialTo dials a server behind a pipe, without TLS.
func dialTo(t *testing.T, d *Dialer, srv server) *Session {
	t.Helper()
	s, err := d.dial(t.Context(), func(ctx context.Context, endpoint string) (*Session, error) {
		near, far := net.Pipe()
		go srv.serve(far)
		return d.establish(ctx, &d.cfg, endpoint, near, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// The count goes on from one Dial to the next, and ends with a session that
// was stable.
func TestBackoffAcrossDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883"}, Attempts: 2}))
		down := func(context.Context, string) (*Session, error) { return nil, ErrUnreachable }
		dialled := func(want int, lowest, highest time.Duration, dial func()) {
			t.Helper()
			began := time.Now()
			dial()
			if waited := time.Since(began); waited < lowest || waited > highest || d.backoff.failures != want {
				t.Errorf("waited %v, want %v to %v; %d failures, want %d", waited, lowest, highest, d.backoff.failures, want)
			}
		}
		var s *Session
		up := func() { s = dialTo(t, d, server{}) }
		dialled(0, 0, 0, up) // the first comes at once
		s.Close()            // on purpose: only the spacing is kept
		dialled(0, time.Second, time.Second, up)
		time.Sleep(59 * time.Second)
		s.end(errors.New("cut"))
		dialled(1, time.Second, 2*time.Second, up)
		s.end(errors.New("cut"))
		time.Sleep(time.Hour) // does not make a short session long
		dialled(2, time.Second, 3*time.Second, up)
		s.end(errors.New("cut"))
		dialled(5, 2*time.Second, 14*time.Second, func() { d.dial(t.Context(), down) })
		dialled(5, time.Second, 17*time.Second, up)
		time.Sleep(stableAfter)
		dialled(1, time.Second, 2*time.Second, up) // which closes the one before
	})
}

// A preferred endpoint that is back is gone to at the next Dial, not before.
func TestPreferredEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883", "b:8883"}}))
		var tried []string
		aDown := true
		dial := func() *Session {
			s, err := d.dial(t.Context(), func(ctx context.Context, endpoint string) (*Session, error) {
				tried = append(tried, endpoint)
				if endpoint == "a:8883" && aDown {
					return nil, fmt.Errorf("%w: no CONNACK", ErrUnreachable)
				}
				near, far := net.Pipe()
				go server{}.serve(far)
				return d.establish(ctx, &d.cfg, endpoint, near, nil)
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		dial()
		aDown = false
		dial()
		dial().Close()
		if got := strings.Join(tried, " "); got != "a:8883 b:8883 a:8883 a:8883" {
			t.Errorf("tried %s", got)
		}
	})
}

// Two CONNECTs of one client id are a second apart, also at two ports of one
// broker.
func TestConnectSpacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		d := newDialer(t, complete(t, Config{Attempts: 3}))
		d.dial(t.Context(), func(context.Context, string) (*Session, error) {
			at = append(at, time.Now())
			return nil, ErrRefused
		})
		if len(at) != 6 {
			t.Fatalf("%d CONNECTs", len(at))
		}
		for i := range at[1:] {
			if gap := at[i+1].Sub(at[i]); gap < time.Second {
				t.Errorf("%v between CONNECTs %d and %d", gap, i+1, i+2)
			}
		}
	})
}

// The next connection, also of a Dial under way, uses the certificate that was
// set last.
func TestSetCertificate(t *testing.T) {
	ours := newAuthority(t)
	server := tls.Config{
		Certificates: []tls.Certificate{ours.issue(t, time.Now().Add(time.Hour), "localhost")},
		ClientAuth:   tls.RequireAnyClientCert,
	}
	seen := make(chan []byte, 10)
	port := listen(t, func(conn net.Conn) {
		c := tls.Server(conn, &server)
		c.Handshake()
		seen <- c.ConnectionState().PeerCertificates[0].Raw
		c.Close()
	})
	first, second := ours.issue(t, time.Now().Add(time.Hour)), ours.issue(t, time.Now().Add(time.Hour))
	d := newDialer(t, Config{Endpoints: []string{"localhost:" + port}, ClientID: "gw", Roots: ours.pool(), Certificate: first, Attempts: 2})
	ended := make(chan error)
	go func() {
		_, err := d.Dial(t.Context(), nil)
		ended <- err
	}()
	if got := <-seen; !bytes.Equal(got, first.Certificate[0]) {
		t.Error("the first connection shows another certificate")
	}
	d.SetCertificate(second)
	if got := <-seen; !bytes.Equal(got, second.Certificate[0]) {
		t.Error("the second connection does not show the new certificate")
	}
	if err := <-ended; !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// broker is the far end of persistent sessions: it answers a CONNECT with
// present or not, and counts the filters of SUBSCRIBEs.
type broker struct {
	present    byte
	clean      bool
	subscribed []string
	queued     []byte // sent behind the CONNACK
}

func (b *broker) server() server {
	return server{
		packets.Connect: func(p packets.ControlPacket) []byte {
			b.clean = p.(*packets.ConnectPacket).CleanSession
			return append([]byte{0x20, 2, b.present, 0}, b.queued...)
		},
		packets.Subscribe: func(p packets.ControlPacket) []byte {
			s := p.(*packets.SubscribePacket)
			b.subscribed = append(b.subscribed, s.Topics...)
			return []byte{0x90, 3, byte(s.MessageID >> 8), byte(s.MessageID), 1}
		},
	}
}

func TestPersistentSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, tt := range map[string]struct {
			persistent bool
			present    byte
			want       string // SUBSCRIBEs of the second session
		}{
			"kept":                      {true, 1, "c"},
			"expired":                   {true, 0, "a b r/accepted c"},
			"clean":                     {false, 0, "a b r/accepted c"},
			"clean, the broker says no": {false, 1, "a b r/accepted c"},
		} {
			d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883"}, Persistent: tt.persistent}))
			subscribe := func(s *Session, filter string, h Handler) {
				t.Helper()
				if err := s.subscribe(t.Context(), filter, h); err != nil {
					t.Fatal(err)
				}
			}
			none := func(string, []byte) {}
			first := &broker{present: 1} // from an earlier process, whose filters nobody knows
			s := dialTo(t, d, first.server())
			subscribe(s, "a", none)
			subscribe(s, "b", none)
			subscribe(s, "r/accepted", nil)
			s.end(errors.New("cut"))
			if first.clean == tt.persistent || len(first.subscribed) != 3 {
				t.Errorf("%s: clean %v, subscribed %v", what, first.clean, first.subscribed)
			}

			second := &broker{present: tt.present, queued: message("a", "queued")}
			s = dialTo(t, d, second.server())
			synctest.Wait() // the message is there before its handler
			got := make(chan string, 3)
			subscribe(s, "a", func(topic string, payload []byte) { got <- topic + " " + string(payload) })
			subscribe(s, "b", none)
			subscribe(s, "r/accepted", nil)
			subscribe(s, "r/accepted", nil)
			subscribe(s, "c", none)
			synctest.Wait()
			if list := strings.Join(second.subscribed, " "); list != tt.want {
				t.Errorf("%s: SUBSCRIBEs %q, want %q", what, list, tt.want)
			}
			if kept := tt.persistent && tt.present == 1; kept != (len(got) == 1) {
				t.Errorf("%s: %d messages", what, len(got))
			}
			s.Close()
		}
	})
}

// A message whose handler does not come back is acknowledged after the timeout,
// and a reply that nobody waits for holds nothing up.
func TestKeptMessageWithoutHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883"}, Persistent: true}))
		s := dialTo(t, d, (&broker{}).server())
		for _, filter := range []string{"a", "r/accepted"} {
			if err := s.subscribe(t.Context(), filter, nil); err != nil {
				t.Fatal(err)
			}
		}
		queued := []byte{0x32, 7, 0, 1, 'a', 0, 9, 'h', 'i'} // QoS 1, id 9
		srv := (&broker{present: 1, queued: queued}).server()
		acked := make(chan time.Time, 1)
		srv[packets.Puback] = func(packets.ControlPacket) []byte { acked <- time.Now(); return nil }
		began := time.Now()
		s = dialTo(t, d, srv)
		connected := time.Now()
		if waited := (<-acked).Sub(connected); waited != d.cfg.Timeout {
			t.Errorf("acknowledged after %v, dialled in %v", waited, connected.Sub(began))
		}
		if err := s.subscribe(t.Context(), "r/accepted", nil); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		s.deliver("r/accepted", []byte("{}"))
		if waited := time.Since(before); waited != 0 {
			t.Errorf("a reply waited %v", waited)
		}
	})
}
