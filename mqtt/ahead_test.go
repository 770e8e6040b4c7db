package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

// A connection that was made ahead spares its round trip. One that is of no use, for
// any reason, costs the session nothing.
func TestAhead(t *testing.T) {
	const rtt = 300 * time.Millisecond
	for _, tt := range []struct {
		name   string
		ahead  bool
		vet    time.Duration // until the session is asked for
		ends   bool          // the server ends the first connection meanwhile
		refuse int           // that many connections fail
		dials  int
		trips  int // until the session is up: TCP, TLS, and CONNECT behind the last of TLS
	}{
		{"none", false, time.Second, false, 0, 1, 3},
		{"made meanwhile", true, time.Second, false, 0, 1, 2},
		{"not there yet", true, rtt / 2, false, 0, 2, 3},
		{"ended meanwhile", true, time.Second, true, 0, 2, 3},
		{"no network yet", true, time.Second, false, 1, 2, 3},
		{"too old", true, aheadFor + time.Second, false, 0, 2, 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours := newAuthority(t)
			day := time.Now().Add(24 * time.Hour)
			secured := &tls.Config{Certificates: []tls.Certificate{ours.issue(t, day, "localhost")}, ClientAuth: tls.RequestClientCert}
			var dials, open atomic.Int32
			d, err := NewDialer(Config{
				Endpoints: []string{"localhost:8883", "localhost:443"}, ClientID: "gw", Roots: ours.pool(), Certificate: ours.issue(t, day), Timeout: 10 * time.Second,
				Network: func(ctx context.Context, _, _ string) (net.Conn, error) {
					n := int(dials.Add(1))
					if n <= tt.refuse {
						return nil, errors.New("no network")
					}
					device, far, err := mqtttest.Link{RTT: rtt}.Dial(ctx)
					if err != nil {
						return nil, err
					}
					if tt.ends && n == 1 {
						far.Close()
						return device, nil
					}
					open.Add(1)
					go func() {
						server{}.serve(tls.Server(far, secured))
						open.Add(-1)
					}()
					return device, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.ahead {
				d.Ahead(t.Context())
			}
			time.Sleep(tt.vet)
			began := time.Now()
			s, err := d.Dial(t.Context(), nil)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			if took := time.Since(began); int(dials.Load()) != tt.dials || took != time.Duration(tt.trips)*rtt {
				t.Errorf("%s: %d connections, session up after %v, want %d and %v", tt.name, dials.Load(), took, tt.dials, time.Duration(tt.trips)*rtt)
			}
			s.Close()
			synctest.Wait()
			time.Sleep(rtt)
			if open.Load() != 0 {
				t.Errorf("%s: %d connections stay open", tt.name, open.Load())
			}
		})
	}
}

// A connection that nobody asks for ends by itself.
func TestAheadOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var far net.Conn
		cfg := complete(t, Config{Network: func(context.Context, string, string) (net.Conn, error) {
			var device net.Conn
			device, far = net.Pipe()
			return device, nil
		}})
		newDialer(t, cfg).Ahead(t.Context())
		began := time.Now()
		synctest.Wait()
		if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil || time.Since(began) != aheadFor {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(began))
		}
	})
}
