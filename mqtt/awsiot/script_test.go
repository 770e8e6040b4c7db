package awsiot_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// request is one request that the script has to answer.
type request struct {
	topic string
	raw   []byte
	doc   map[string]any // of raw
}

// answer is "accepted" or "rejected", with a JSON text that gets the request's
// clientToken. "" says nothing.
type answer struct{ kind, payload string }

func accept(format string, a ...any) answer { return answer{"accepted", fmt.Sprintf(format, a...)} }
func reject(format string, a ...any) answer { return answer{"rejected", fmt.Sprintf(format, a...)} }

// script is a broker with a cloud behind it that answers as the test says,
// also what AWS IoT never would.
type script struct {
	mochi.HookBase
	broker *mochi.Server
	config mqtt.Config // of the device

	mu        sync.Mutex
	answer    func(request) answer
	published []request
	filters   []string
}

func newScript(t *testing.T, answerer func(request) answer) *script {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &script{answer: answerer, broker: mochi.New(&mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})}
	for _, err := range []error{s.broker.AddHook(s, nil), s.broker.AddListener(listeners.NewNet("tls", l)), s.broker.Serve()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { s.broker.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	s.config = mqtt.Config{
		Endpoints: []string{fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)}, ClientID: thing, Roots: roots, Attempts: 1,
		Certificate: pair, Timeout: patience,
	}
	return s
}

func (s *script) ID() string { return "script" }
func (s *script) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnSubscribed || b == mochi.OnPublish || b == mochi.OnPublished
}
func (s *script) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }
func (s *script) OnACLCheck(*mochi.Client, string, bool) bool              { return true }

func (s *script) OnSubscribed(_ *mochi.Client, pk packets.Packet, _ []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range pk.Filters {
		s.filters = append(s.filters, sub.Filter)
	}
}

// OnPublish keeps requests from going to subscribers, and records them before
// their PUBACK.
func (s *script) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	s.mu.Lock()
	s.published = append(s.published, requestOf(pk))
	s.mu.Unlock()
	return pk, packets.CodeSuccessIgnore
}

func (s *script) OnPublished(cl *mochi.Client, pk packets.Packet) {
	if cl.Net.Inline {
		return
	}
	r := requestOf(pk)
	s.mu.Lock()
	answerer := s.answer
	s.mu.Unlock()
	if answerer == nil {
		return
	}
	a := answerer(r)
	if a.kind == "" {
		return
	}
	if token, ok := r.doc["clientToken"].(string); ok {
		a.payload = strings.Replace(a.payload, "{", fmt.Sprintf(`{"clientToken":%q,`, token), 1)
		a.payload = strings.Replace(a.payload, ",}", "}", 1)
	}
	s.send(pk.TopicName+"/"+a.kind, a.payload)
}

func requestOf(pk packets.Packet) request {
	r := request{topic: pk.TopicName, raw: pk.Payload}
	_ = json.Unmarshal(pk.Payload, &r.doc) // not every payload is JSON
	return r
}

// send sends a message of the cloud's own.
func (s *script) send(topic, payload string) {
	if err := s.broker.Publish(topic, []byte(payload), false, 0); err != nil {
		panic(err)
	}
}

func (s *script) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request{}, s.published...)
}

// dialScript connects a client without a probe.
func dialScript(t *testing.T, answerer func(request) answer) (*script, *awsiot.Client) {
	t.Helper()
	s := newScript(t, answerer)
	session, err := mqtt.Dial(t.Context(), s.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	c, err := awsiot.New(session, thing, "keyvet/{thing}/report")
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}
