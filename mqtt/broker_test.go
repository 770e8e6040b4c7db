package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mosquitto starts the broker, which asks for client certificates of ours, and
// returns its endpoint.
func mosquitto(t *testing.T, ours authority) string {
	t.Helper()
	dir := t.TempDir()
	cert := ours.issue(t, time.Now().Add(time.Hour), "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	server := mqtttest.Files{
		Certificate: writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", cert.Certificate[0]),
		Key:         writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", key),
	}
	return mqtttest.Mosquitto(t, server, writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", ours.cert.Raw))
}

// The session works with a broker that is not AWS's and not ours.
func TestMosquitto(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cfg := Config{
		Endpoints: []string{mosquitto(t, ours)}, ClientID: "gw", Roots: ours.pool(),
		Certificate: ours.issue(t, time.Now().Add(time.Hour)),
	}
	// The broker needs a moment to listen; the back-off waits for it.
	s, err := Dial(ctx, cfg, func(ctx context.Context, s *Session) error { return s.Publish(ctx, "keyvet/gw/probe", nil) })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	// A responder stands in for AWS IoT.
	cfg.ClientID = "cloud"
	cloud, err := Dial(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	update := "$aws/things/gw/shadow/name/keyvet/update"
	if err := cloud.Subscribe(ctx, update, func(topic string, payload []byte) {
		if err := cloud.Publish(ctx, topic+"/accepted", payload); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	request := `{"clientToken":"t","state":{"reported":{"gate":"open"}}}`
	all := func(Message) bool { return true }
	if reply, err := s.Ask(ctx, update, []byte(request), []string{update + "/accepted"}, all); err != nil || string(reply.Payload) != request {
		t.Errorf("%q, %v", reply, err)
	}
	large := bytes.Repeat([]byte("x"), MaxPayload)
	got := make(chan int, 1)
	if err := cloud.Subscribe(ctx, "keyvet/+/report", func(_ string, payload []byte) { got <- len(payload) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Publish(ctx, "keyvet/gw/report", large); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != len(large) {
		t.Errorf("%d bytes arrived", n)
	}

	cfg.Attempts = 1
	cfg.Certificate = other.issue(t, time.Now().Add(time.Hour))
	if _, err := Dial(ctx, cfg, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("with a foreign certificate: %v", err)
	}
	cfg.Certificate, cfg.Roots = ours.issue(t, time.Now().Add(time.Hour)), other.pool()
	if _, err := Dial(ctx, cfg, nil); !errors.Is(err, ErrServerUntrusted) {
		t.Errorf("with a foreign CA: %v", err)
	}
}

// A broker that is not ours keeps filters and messages while there is no
// connection, and forgets them when told to.
func TestMosquittoKeeps(t *testing.T) {
	ours := newAuthority(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cfg := Config{
		Endpoints: []string{mosquitto(t, ours)}, ClientID: "cloud", Roots: ours.pool(),
		Certificate: ours.issue(t, time.Now().Add(time.Hour)),
	}
	cloud, err := Dial(ctx, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	cfg.ClientID, cfg.Persistent = "gw", true
	d := newDialer(t, cfg)
	got := make(chan string, 2)
	var s *Session
	again := func() {
		t.Helper()
		if s, err = d.Dial(ctx, nil); err != nil {
			t.Fatal(err)
		}
	}
	subscribe := func() {
		t.Helper()
		if err := s.Subscribe(ctx, "a", func(_ string, payload []byte) { got <- string(payload) }); err != nil {
			t.Fatal(err)
		}
	}
	again()
	subscribe()
	s.end(errors.New("cut"))
	if err := cloud.Publish(ctx, "a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	again()
	if !s.inbox.kept.has("a") {
		t.Error("the session is gone")
	}
	subscribe()
	if m := <-got; m != "kept" {
		t.Errorf("got %q", m)
	}

	s.Close()
	clean := cfg
	clean.Persistent = false
	other, err := Dial(ctx, clean, nil)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	again()
	if s.inbox.kept.has("a") {
		t.Error("the broker has forgotten the session, and we have not")
	}
	subscribe()
	if err := cloud.Publish(ctx, "a", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if m := <-got; m != "new" {
		t.Errorf("got %q", m)
	}
}

// What is refused, and how, at an endpoint that behaves as AWS IoT.
func TestLocalIoT(t *testing.T) {
	cloud, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.Close()
	cert := newCertificate(t) // for its key
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	chain, err := cloud.IssueCertificate("gw", leaf.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chain)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cloud.CAPEM())
	cfg := Config{
		Endpoints: []string{cloud.Endpoint()}, ClientID: "gw", Roots: roots, Attempts: 1,
		Certificate: tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: cert.PrivateKey},
	}
	s, err := Dial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, reply := range []string{"$aws/things/gw/jobs/$next/get/accepted", "$aws/things/gw/shadow/get/rejected"} {
		m, err := s.Ask(t.Context(), path.Dir(reply), nil, []string{reply}, func(Message) bool { return true })
		if err != nil || m.Topic != reply {
			t.Errorf("%+v, %v", m, err)
		}
	}
	if err := s.Publish(t.Context(), "keyvet/another/report", nil); !errors.Is(err, ErrLost) {
		t.Errorf("against the policy: %v", err)
	}
	seen := cloud.Connections()[0]
	if seen.ServerName != "localhost" || seen.ALPN != "" {
		t.Errorf("seen as %+v", seen)
	}

	cloud.SetFaults(localiot.Faults{RefuseConnects: true})
	if _, err := Dial(t.Context(), cfg, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("refused connects: %v", err)
	}
	cloud.SetFaults(localiot.Faults{})
	if err := cloud.Deactivate(localiot.CertificateID(block.Bytes)); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), cfg, nil); !errors.Is(err, ErrRefused) {
		t.Errorf("inactive certificate: %v", err)
	}
}
