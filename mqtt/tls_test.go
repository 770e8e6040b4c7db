package mqtt

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

// authority is a CA of the tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a authority) pin() string {
	sum := sha256.Sum256(a.cert.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// issue makes a certificate for names, host names or IP addresses.
func (a authority) issue(t *testing.T, notAfter time.Time, names ...string) tls.Certificate {
	t.Helper()
	return a.issueFrom(t, time.Now().Add(-24*time.Hour), notAfter, names...)
}

func (a authority) issueFrom(t *testing.T, notBefore, notAfter time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gw"},
		NotBefore: notBefore, NotAfter: notAfter,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// listen serves each TCP connection and returns the port.
func listen(t *testing.T, serve func(net.Conn)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// What a server may be that is not ours, or that does not want us.
func TestTLS(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	day := time.Now().Add(24 * time.Hour)
	good := &tls.Config{Certificates: []tls.Certificate{ours.issue(t, day, "localhost", "127.0.0.1")}}
	mutual := func(clients authority, version uint16) *tls.Config {
		return &tls.Config{
			Certificates: good.Certificates, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients.pool(), MaxVersion: version,
		}
	}
	const advice = "this is a legacy endpoint"
	for what, tt := range map[string]struct {
		server *tls.Config
		host   string
		pins   []string
		want   error
		says   string
	}{
		"good":                         {good, "localhost", nil, nil, ""},
		"mutual, TLS 1.3":              {mutual(ours, 0), "localhost", nil, nil, ""},
		"mutual, TLS 1.2":              {mutual(ours, tls.VersionTLS12), "localhost", nil, nil, ""},
		"IP address":                   {good, "127.0.0.1", nil, nil, ""},
		"CA is pinned":                 {good, "localhost", []string{other.pin(), ours.pin()}, nil, ""},
		"another CA is pinned":         {good, "localhost", []string{other.pin()}, ErrServerUntrusted, "pins"},
		"another CA":                   {&tls.Config{Certificates: []tls.Certificate{other.issue(t, day, "localhost")}}, "localhost", nil, ErrServerUntrusted, "CA file"},
		"another CA, though pinned":    {&tls.Config{Certificates: []tls.Certificate{other.issue(t, day, "localhost")}}, "localhost", []string{other.pin()}, ErrServerUntrusted, "CA file"},
		"another name":                 {&tls.Config{Certificates: []tls.Certificate{ours.issue(t, day, "example.com")}}, "localhost", nil, ErrServerUntrusted, "check the endpoint"},
		"another address":              {&tls.Config{Certificates: []tls.Certificate{ours.issue(t, day, "localhost")}}, "127.0.0.1", nil, ErrServerUntrusted, "check the endpoint"},
		"expired":                      {&tls.Config{Certificates: []tls.Certificate{ours.issue(t, time.Now().Add(-time.Hour), "localhost")}}, "localhost", nil, ErrServerUntrusted, "clock"},
		"refuses ours in TLS 1.3":      {mutual(other, 0), "localhost", nil, ErrRefused, "client certificate"},
		"refuses ours in TLS 1.2":      {mutual(other, tls.VersionTLS12), "localhost", nil, ErrRefused, "client certificate"},
		"speaks TLS 1.1 at most":       {&tls.Config{Certificates: good.Certificates, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "localhost", nil, ErrRefused, "version"},
		"large certificate, fragments": {&tls.Config{Certificates: []tls.Certificate{ours.issue(t, day, append(manyNames(), "localhost")...)}}, "localhost", nil, nil, ""},
	} {
		t.Run(what, func(t *testing.T) {
			port := listen(t, func(conn net.Conn) { server{}.serve(tls.Server(conn, tt.server)) })
			cfg := Config{
				Endpoints: []string{net.JoinHostPort(tt.host, port)}, ClientID: "gw", Roots: ours.pool(),
				TLS:         func(string) TLS { return TLS{Pins: tt.pins, Advice: advice} },
				Certificate: ours.issue(t, day), Attempts: 1,
			}
			s, err := Dial(t.Context(), cfg, func(ctx context.Context, s *Session) error { return s.Publish(ctx, "a", nil) })
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, tt.want) || err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), advice) != (tt.want == ErrServerUntrusted) {
				t.Errorf("the endpoint's advice is for a server that is not trusted: %v", err)
			}
		})
	}
}

// pinned has the same pins for every endpoint.
func pinned(pins ...string) func(string) TLS {
	return func(string) TLS { return TLS{Pins: pins} }
}

// Which certificate of a chain a pin fits decides.
func TestPins(t *testing.T) {
	root, other := newAuthority(t), newAuthority(t)
	leaf, err := x509.ParseCertificate(root.issue(t, time.Now().Add(time.Hour), "localhost").Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	leafPin := authority{cert: leaf}.pin()
	chain, alone := []*x509.Certificate{leaf, root.cert}, []*x509.Certificate{root.cert}
	for what, tt := range map[string]struct {
		pins     []string
		chains   [][]*x509.Certificate
		leafOnly bool
		want     error
	}{
		"no pins":              {nil, [][]*x509.Certificate{chain}, false, nil},
		"root":                 {[]string{root.pin()}, [][]*x509.Certificate{chain}, false, nil},
		"root and leaf":        {[]string{leafPin, root.pin()}, [][]*x509.Certificate{chain}, false, nil},
		"leaf":                 {[]string{leafPin}, [][]*x509.Certificate{chain}, true, nil},
		"another":              {[]string{other.pin()}, [][]*x509.Certificate{chain}, false, ErrServerUntrusted},
		"second of two chains": {[]string{other.pin()}, [][]*x509.Certificate{chain, {leaf, other.cert}}, false, nil},
		"its own root":         {[]string{root.pin()}, [][]*x509.Certificate{alone}, false, nil},
	} {
		if leafOnly, err := checkPins(tt.pins, tt.chains); leafOnly != tt.leafOnly || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, %v", what, leafOnly, err)
		}
	}
}

// The leaf's pin is warned of, and works.
func TestLeafPin(t *testing.T) {
	ours := newAuthority(t)
	cert := ours.issue(t, time.Now().Add(time.Hour), "localhost")
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	port := listen(t, func(conn net.Conn) {
		server{}.serve(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}))
	})
	for pin, warns := range map[string]bool{authority{cert: leaf}.pin(): true, ours.pin(): false} {
		var log bytes.Buffer
		s, err := Dial(t.Context(), Config{
			Endpoints: []string{"localhost:" + port}, ClientID: "gw", Roots: ours.pool(), TLS: pinned(pin), Attempts: 1,
			Certificate: ours.issue(t, time.Now().Add(time.Hour)), Log: slog.New(slog.NewTextHandler(&log, nil)),
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got := strings.Contains(log.String(), "pin its CAs"); got != warns {
			t.Errorf("log %s", &log)
		}
	}
}

// A certificate that is not valid yet is the clock's fault where the clock
// cannot be right, and only there.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock starts in the year 2000
		now := time.Now()
		ours := newAuthority(t)
		for what, tt := range map[string]struct {
			notBefore, notAfter time.Time
			now                 time.Time
			want                error
			says                string
		}{
			"a clock of 2000":         {device.ClockFloor(), device.ClockFloor().AddDate(1, 0, 0), now, ErrClock, "2000-01-01T00:00:00Z"},
			"a plausible clock":       {device.ClockFloor().AddDate(1, 0, 0), device.ClockFloor().AddDate(2, 0, 0), device.ClockFloor(), ErrServerUntrusted, "clock"},
			"expired, by 2000 even":   {now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0), now, ErrServerUntrusted, "clock"},
			"expired, rightly so":     {device.ClockFloor(), device.ClockFloor().AddDate(0, 0, 1), device.ClockFloor().AddDate(1, 0, 0), ErrServerUntrusted, "clock"},
			"a clock before the root": {device.ClockFloor(), device.ClockFloor().AddDate(1, 0, 0), time.Unix(0, 0), ErrClock, "1970-01-01"},
		} {
			cert, err := x509.ParseCertificate(ours.issueFrom(t, tt.notBefore, tt.notAfter, "localhost").Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			_, err = cert.Verify(x509.VerifyOptions{Roots: ours.pool(), CurrentTime: tt.now, DNSName: "localhost"})
			if err == nil {
				t.Fatalf("%s: verified", what)
			}
			err = handshakeError(&tls.CertificateVerificationError{Err: err}, tt.now)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func manyNames() []string {
	var names []string
	for range 1000 {
		names = append(names, rand.Text()+".example.com") // more than one TLS record
	}
	return names
}

func TestNoTLS(t *testing.T) {
	ours := newAuthority(t)
	closed, err := mqtttest.HoldPort()
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Release()
	_, closedPort, _ := net.SplitHostPort(closed.Addr)
	for what, tt := range map[string]struct {
		port string
		want error
		says string
	}{
		"nobody listens": {closedPort, ErrUnreachable, "network"},
		"speaks HTTP":    {listen(t, func(c net.Conn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); c.Close() }), ErrUnreachable, "TLS"},
		"hangs up":       {listen(t, func(c net.Conn) { c.Close() }), ErrUnreachable, "TLS handshake"},
		"says nothing":   {listen(t, func(net.Conn) {}), ErrUnreachable, "TLS handshake"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := Dial(t.Context(), Config{
				Endpoints: []string{"localhost:" + tt.port}, ClientID: "gw", Roots: ours.pool(),
				Certificate: ours.issue(t, time.Now().Add(time.Hour)), Attempts: 1, Timeout: time.Second,
			}, nil)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// EOF after the handshake is the first answer of just-in-time registration;
// the next attempt comes through.
func TestSecondAttempt(t *testing.T) {
	ours := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ours.issue(t, time.Now().Add(time.Hour), "localhost")}}
	first := make(chan bool, 1)
	first <- true
	port := listen(t, func(conn net.Conn) {
		secured := tls.Server(conn, config)
		select {
		case <-first:
			secured.Handshake()
			secured.Close()
		default:
			server{}.serve(secured)
		}
	})
	s, err := Dial(t.Context(), Config{
		Endpoints: []string{"localhost:" + port}, ClientID: "gw", Roots: ours.pool(),
		Certificate: ours.issue(t, time.Now().Add(time.Hour)), Attempts: 2,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestTLSConfig(t *testing.T) {
	for endpoint, want := range map[string]struct{ name, alpn string }{
		"broker.example:8883": {"broker.example", ""},
		"broker.example:443":  {"broker.example", "mqtt"},
		"[::1]:443":           {"::1", "mqtt"},
	} {
		c := tlsConfig(&Config{TLS: func(of string) TLS {
			if strings.HasSuffix(of, ":443") {
				return TLS{Protocol: "mqtt"}
			}
			return TLS{}
		}}, endpoint)
		if c.ServerName != want.name || strings.Join(c.NextProtos, " ") != want.alpn || c.InsecureSkipVerify || c.MinVersion != tls.VersionTLS12 {
			t.Errorf("%s: %+v", endpoint, c)
		}
	}
}
