package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

// What is sent over a slow link arrives, once, and the session stays: with TLS, a
// probe of three round trips, a report and a ping.
func TestSlowLinks(t *testing.T) {
	const report = 51 << 10
	for what, tt := range map[string]struct {
		link mqtttest.Link
		most time.Duration // until the report is acknowledged
	}{
		"satellite, 3.5 s":         {mqtttest.Link{RTT: 3500 * time.Millisecond}, 30 * time.Second},
		"6 s behind a near hop":    {mqtttest.Link{RTT: 6 * time.Second, Near: true}, 90 * time.Second},
		"two satellites, 6 s":      {mqtttest.Link{RTT: 6 * time.Second}, time.Minute},
		"a network that is 12 s":   {mqtttest.Link{RTT: 12 * time.Second}, 4 * time.Minute},
		"64 kbit/s":                {mqtttest.Link{RTT: 300 * time.Millisecond, Up: 64_000, Down: 64_000}, 30 * time.Second},
		"16 kbit/s":                {mqtttest.Link{RTT: 600 * time.Millisecond, Up: 16_000, Down: 16_000}, time.Minute},
		"6.4 kbit/s":               {mqtttest.Link{RTT: time.Second, Up: 6_400, Down: 6_400}, 3 * time.Minute},
		"no limit, no way to be":   {mqtttest.Link{}, time.Second},
		"16 kbit/s up, fast down":  {mqtttest.Link{RTT: 100 * time.Millisecond, Up: 16_000}, time.Minute},
		"2 s, and 32 kbit/s there": {mqtttest.Link{RTT: 2 * time.Second, Up: 32_000, Down: 32_000}, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours := newAuthority(t)
			day := time.Now().Add(24 * time.Hour)
			server0 := &tls.Config{Certificates: []tls.Certificate{ours.issue(t, day, "localhost")}, ClientAuth: tls.RequestClientCert}
			var published []int
			srv := server{packets.Publish: func(p packets.ControlPacket) []byte {
				pub := p.(*packets.PublishPacket)
				published = append(published, len(pub.Payload))
				return []byte{0x40, 2, byte(pub.MessageID >> 8), byte(pub.MessageID)}
			}}
			cfg := Config{
				Endpoints: []string{"localhost:8883"}, ClientID: "gw", Roots: ours.pool(), Certificate: ours.issue(t, day), Timeout: 10 * time.Second,
			}
			d, err := NewDialer(cfg)
			if err != nil {
				t.Fatal(err)
			}
			d.network.lookup = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{netip.IPv6Loopback()}, nil }
			d.network.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				device, far, err := tt.link.Dial(ctx)
				if err != nil {
					return nil, err
				}
				go srv.serve(tls.Server(far, server0))
				return device, nil
			}
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			s, err := d.Dial(ctx, func(ctx context.Context, s *Session) error {
				for _, filter := range []string{"a", "b"} {
					if err := s.Subscribe(ctx, filter, nil); err != nil {
						return err
					}
				}
				return s.Publish(ctx, "c", nil)
			})
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if err := s.Publish(t.Context(), "report", make([]byte, report)); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(began); took > tt.most {
				t.Errorf("%s: the report took %v", what, took)
			} else {
				t.Logf("%s: the report took %v", what, took.Round(time.Millisecond))
			}
			if len(published) != 2 || published[1] != report {
				t.Errorf("%s: published %v", what, published)
			}
			time.Sleep(time.Hour) // of pings
			if err := s.Err(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			s.Close()
			time.Sleep(time.Hour)
		})
	}
}

// Of the addresses of a name one answers, behind many that are dead: one that says
// nothing holds back no other, and one that refuses no time at all.
func TestDeadAddresses(t *testing.T) {
	for what, tt := range map[string]struct {
		dead, refuse, alive int
		most                time.Duration
		fails               bool
	}{
		"one":                      {0, 0, 1, 0, false},
		"five dead":                {5, 0, 1, 2 * time.Second, false},
		"fifteen dead":             {15, 0, 1, 4 * time.Second, false},
		"ten refuse":               {0, 10, 1, 0, false},
		"all dead":                 {5, 0, 0, 10 * time.Second, true},
		"all refuse":               {0, 3, 0, 0, true},
		"more than are looked at":  {100, 0, 1, 10 * time.Second, true},
		"two dead, three that are": {2, 0, 3, time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDialer(t, complete(t, Config{Endpoints: []string{"gw.example:8883"}, Timeout: 10 * time.Second}))
			kind := make(map[string]string)
			var all []netip.Addr
			for i, n := range []int{tt.dead, tt.refuse, tt.alive} {
				for range n {
					a := netip.AddrFrom4([4]byte{192, 0, 2, byte(len(all))})
					all = append(all, a)
					kind[a.String()+":8883"] = []string{"dead", "refuses", "lives"}[i]
				}
			}
			d.network.lookup = func(context.Context, string) ([]netip.Addr, error) { return all, nil }
			open := 0
			d.network.dial = func(ctx context.Context, _, address string) (net.Conn, error) {
				switch kind[address] {
				case "lives":
					open++
					near, _ := net.Pipe()
					return near, nil
				case "refuses":
					return nil, fmt.Errorf("%s refuses", address)
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			ctx, cancel := context.WithTimeout(t.Context(), d.pace.limit(0))
			defer cancel()
			began := time.Now()
			c, err := d.reach(ctx, "tcp", "gw.example:8883")
			if took := time.Since(began); took > tt.most || (err != nil) != tt.fails {
				t.Errorf("%s: %v after %v", what, err, took)
			}
			if c != nil {
				c.Close()
			}
			cancel()
			synctest.Wait()
		})
	}
	mixed := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.1")}
	if got := fmt.Sprint(alternate(mixed)); got != "[2001:db8::1 192.0.2.1 2001:db8::2]" {
		t.Errorf("tried in the order %s", got)
	}
}

// A pause ends soon once the machine has another address or time, but not as often
// as somebody likes.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed := make(chan struct{}, 1)
		var tries []time.Time
		d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883"}, Changed: changed}))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go d.dial(ctx, func(context.Context, string) (*Session, error) {
			tries = append(tries, time.Now())
			return nil, ErrUnreachable
		})
		time.Sleep(2 * time.Hour)
		for range 3 {
			began := time.Now()
			before := len(tries)
			changed <- struct{}{}
			time.Sleep(4 * time.Second)
			if len(tries) == before {
				t.Errorf("not tried within %v of a change", time.Since(began))
			}
			time.Sleep(40 * time.Minute)
		}
		before := len(tries)
		for range 24 * 60 { // an address that comes and goes
			changed <- struct{}{}
			time.Sleep(time.Minute)
		}
		if n := len(tries) - before; n > 1000 {
			t.Errorf("%d tries in a day with a change each minute", n)
		}
		cancel()
		synctest.Wait()
	})
}

// A session that the broker says it kept, and in which nothing is answered, is not
// believed: the next one asks for its filters.
func TestKeptSessionWithoutFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883"}, Persistent: true, Timeout: 10 * time.Second}))
		var subscribed []string
		has := make(map[string]bool) // what the broker has in truth
		present := byte(0)
		srv := server{
			packets.Connect: func(packets.ControlPacket) []byte { return []byte{0x20, 2, present, 0} },
			packets.Subscribe: func(p packets.ControlPacket) []byte {
				sub := p.(*packets.SubscribePacket)
				subscribed = append(subscribed, sub.Topics[0])
				has[sub.Topics[0]] = true
				return []byte{0x90, 3, byte(sub.MessageID >> 8), byte(sub.MessageID), 1}
			},
			packets.Publish: func(p packets.ControlPacket) []byte {
				pub := p.(*packets.PublishPacket)
				answer := []byte{0x40, 2, byte(pub.MessageID >> 8), byte(pub.MessageID)}
				if has["reply"] {
					answer = append(answer, message("reply", "yes")...)
				}
				return answer
			},
		}
		question := func(s *Session) error {
			_, err := s.Ask(t.Context(), "question", nil, []string{"reply"}, func(Message) bool { return true })
			return err
		}
		s := dialTo(t, d, srv)
		if err := question(s); err != nil {
			t.Fatal(err)
		}
		s.Close()
		present = 1
		s = dialTo(t, d, srv)
		if err := question(s); err != nil || len(subscribed) != 1 {
			t.Fatalf("a session that was kept: %v, subscribed to %v", err, subscribed)
		}
		s.Close()
		clear(has) // another client with the id has taken them
		s = dialTo(t, d, srv)
		if err := question(s); err == nil {
			t.Fatal("answered without a filter")
		}
		<-s.Done()
		s = dialTo(t, d, srv)
		if err := question(s); err != nil || strings.Join(subscribed, " ") != "reply reply" {
			t.Errorf("the next session: %v, subscribed to %v", err, subscribed)
		}
		s.Close()
	})
}

// Sessions that the server ends soon are told of by what they have in common:
// another client with the same id, or what the policy does not allow.
func TestWhyTheServerEnds(t *testing.T) {
	for what, tt := range map[string]struct {
		asks  bool          // something that is not answered
		lasts time.Duration // each session
		want  string
		never string
	}{
		"another client":    {false, 10 * time.Second, "another client may use this client id", "policy"},
		"a policy":          {true, 10 * time.Second, "", "another client"},
		"a nightly restart": {false, time.Hour, "", "another client"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			d := newDialer(t, complete(t, Config{Endpoints: []string{"a:8883"}, Log: slog.New(slog.NewTextHandler(&log, nil))}))
			for range takeovers + 1 {
				ended := make(chan struct{})
				srv := server{packets.Publish: closes}
				s, err := d.dial(t.Context(), func(ctx context.Context, endpoint string) (*Session, error) {
					near, far := net.Pipe()
					go func() {
						<-ended
						far.Close()
					}()
					go srv.serve(far)
					return d.establish(ctx, &d.cfg, endpoint, near, nil)
				})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.lasts)
				if tt.asks {
					err := s.Publish(t.Context(), "keyvet/gw/report", nil)
					if err == nil || !strings.Contains(err.Error(), "ended by the server upon keyvet/gw/report: does the policy of the client certificate allow that?") || !strings.Contains(s.Err().Error(), "keyvet/gw/report") {
						t.Errorf("%s: %v", what, err)
					}
				}
				close(ended)
				<-s.Done()
			}
			if got := log.String(); !strings.Contains(got, tt.want) || strings.Contains(got, tt.never) {
				t.Errorf("%s: log %s", what, got)
			}
			if d.last != nil {
				d.last.Close()
			}
		})
	}
}
