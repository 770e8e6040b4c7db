package cloud

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm/evidence"
)

const patience = 2 * time.Minute

func start(t *testing.T) *localiot.Server {
	t.Helper()
	server, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

func report() *device.Report {
	key := device.Key{ID: "device", Role: device.RoleDevice, SPKI: []byte("spki")}
	r := device.NewReport(device.Inventory{ReadAt: time.Now(), Keys: []device.Key{key}}, []device.Finding{
		{Check: "size", Key: "device", Status: device.Warn, ReasonCode: "KEYVET_TEST"}, {Check: "point", Key: "device", Status: device.Pass},
	})
	r.ThingName = "gw"
	return r
}

func reported(t *testing.T, server *localiot.Server) map[string]any {
	t.Helper()
	var shadow struct{ Reported map[string]any }
	if err := json.Unmarshal(server.Shadow("gw", "keyvet"), &shadow); err != nil {
		t.Fatal(err)
	}
	return shadow.Reported
}

// The thing and the claim connect through the proxy of the configuration, or else of
// the environment, which alone knows the endpoint's name.
func TestProxy(t *testing.T) {
	server, err := localiot.Start(localiot.Options{Dir: t.TempDir(), Names: []string{"iot.plant.invalid"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	_, port, _ := net.SplitHostPort(server.Endpoint())
	const endpoint = "iot.plant.invalid:8883"
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.Host+" "+r.Header.Get("Proxy-Authorization"))
		out, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Error(err)
			return
		}
		w.WriteHeader(http.StatusOK)
		in, read, err := http.NewResponseController(w).Hijack() // read has what came before
		if err != nil {
			t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(out, read); out.Close() }()
		_, _ = io.Copy(in, out)
		in.Close()
	}))
	t.Cleanup(proxy.Close)
	c := deviceOn(t, server)
	c.Config.MQTT.Endpoints = []string{endpoint}
	if err := c.Config.MQTT.Proxy.UnmarshalText([]byte(strings.Replace(proxy.URL, "//", "//gw:secret@", 1))); err != nil {
		t.Fatal(err)
	}
	connected(t, c).Close()
	c.Config.MQTT.Proxy = mqtt.Proxy{}
	c.dialing.own = nil
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("NO_PROXY", "example.com")
	connected(t, c).Close()
	want := []string{"CONNECT " + endpoint + " Basic Z3c6c2VjcmV0", "CONNECT " + endpoint + " "}
	if !slices.Equal(asked, want) {
		t.Errorf("the proxy was asked %q", asked)
	}
}

// A session as the agent uses it: reports, the gate, metrics, a job, a check that
// the shadow desires.
func TestSession(t *testing.T) {
	server := start(t)
	c := deviceOn(t, server)
	c.Config.TPM.Address = "" // no challenges
	s := connected(t, c)
	r := report()
	var answered time.Time
	s.Answered = func(at time.Time) { answered = at }
	if err := errors.Join(s.Publish(t.Context(), r), s.PublishFindings(t.Context(), r)); err != nil {
		t.Fatal(err)
	}
	if time.Since(answered).Abs() > time.Minute {
		t.Errorf("AWS IoT answered at %v", answered)
	}
	if got := reported(t, server); got["reportId"] != r.ID || got["gate"] != "shut" {
		t.Errorf("%v", got)
	}
	for _, topic := range []string{"keyvet/gw/report", "keyvet/gw/findings"} {
		if n := len(server.Messages(topic)); n != 1 {
			t.Errorf("%d messages on %s", n, topic)
		}
	}
	earlier := report()
	if err := s.PublishEarlier(t.Context(), earlier); err != nil {
		t.Fatal(err)
	}
	if got := reported(t, server); got["reportId"] != r.ID || len(server.Messages("keyvet/gw/report")) != 2 {
		t.Errorf("an earlier report is the newest in the shadow: %v", got)
	}
	if err := s.ReportGate(t.Context(), gate.Open); err != nil || reported(t, server)["gate"] != "open" {
		t.Errorf("%v, %v", err, reported(t, server))
	}
	for range 2 { // the second is too soon, which is no error
		if err := s.ReportMetrics(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	if n := len(server.Messages("$aws/things/gw/defender/metrics/json")); n != 1 {
		t.Errorf("metrics were sent %d times", n)
	}
	c.Config.Defender.Enabled = false
	if err := s.ReportMetrics(t.Context(), r); err != nil {
		t.Error(err)
	}

	if err := server.CreateJob(localiot.Job{ID: "check-1", Things: []string{"gw"}, Document: json.RawMessage(checkDocument)}); err != nil {
		t.Fatal(err)
	}
	if err := server.UpdateShadow("gw", "keyvet", []byte(`{"state":{"desired":{"check":"token"}}}`)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"check-1", "token"} {
		work, err := s.Next(t.Context(), nothing)
		for work == nil && err == nil { // what the shadow desires comes by itself
			<-s.Wanted()
			work, err = s.Next(t.Context(), nothing)
		}
		if err != nil || work.ID != want {
			t.Fatalf("%+v, %v, want %s", work, err, want)
		}
		if err := work.Do(t.Context(), &done{end: device.JobSucceeded}); err != nil {
			t.Error(err)
		}
	}
	if e := server.Executions("check-1"); len(e) != 1 || e[0].Status != localiot.Succeeded {
		t.Errorf("%+v", e)
	}
	if got := reported(t, server); got["check"] != "token" {
		t.Errorf("%v", got)
	}
	s.Close()
	<-s.Done()
	if err := s.Publish(t.Context(), r); err == nil {
		t.Error("published without a session")
	}
}

// What is not carried out stays desired.
func TestDesiredCheckFails(t *testing.T) {
	s := &Session{cloud: &Cloud{}, alarm: newAlarm()}
	s.desire("1")
	if err := s.nextCheck(nothing).Do(t.Context(), &done{end: device.JobFailed}); err != nil {
		t.Error(err)
	}
	if work := s.nextCheck(nothing); work != nil {
		t.Errorf("it is carried out again in the same session: %+v", work)
	}
	for i := range 2 * maxTokens {
		s.desire(string(rune('a' + i)))
	}
	if n := len(s.checks.tokens); n != maxTokens {
		t.Errorf("%d tokens wait", n)
	}
}

func TestNotReady(t *testing.T) {
	server := start(t)
	for _, tt := range []struct {
		name   string
		change func(*Cloud)
		want   string
	}{
		{"no certificate", func(c *Cloud) { os.RemoveAll(filepath.Join(c.Config.StateDir, "identity")) }, "no device certificate"},
		{"no name", func(c *Cloud) { c.Config.Thing.Name = "file:/nonexistent" }, "thing.name"},
		{"no CA file", func(c *Cloud) { c.Config.MQTT.CAFile = "/nonexistent" }, "mqtt.ca_file"},
		{"no CA in it", func(c *Cloud) { c.Config.MQTT.CAFile = os.DevNull }, "holds no certificate"},
	} {
		c := deviceOn(t, server)
		tt.change(c)
		var err error
		if c.Credentials, err = credential.Open(c.Config); err != nil {
			t.Fatal(err)
		}
		c.Credentials.Name(device.Inventory{})
		s, err := c.Connect(t.Context())
		if s != nil || !errors.Is(err, agent.ErrNotReady) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v", tt.name, s, err)
		}
		if s, err := c.Dial(t.Context(), rotate.Configured); s != nil || err == nil {
			t.Errorf("%s: a rotation has %v, %v", tt.name, s, err)
		}
	}
	c := deviceOn(t, server)
	c.Config.MQTT.Endpoints = []string{"127.0.0.1:1"}
	if s, err := c.Connect(t.Context()); s != nil || err == nil || errors.Is(err, agent.ErrNotReady) {
		t.Errorf("nothing listens: %v, %v", s, err)
	}
	if s, err := c.Dial(t.Context(), rotate.Configured); s != nil || err == nil {
		t.Errorf("nothing listens: %v, %v", s, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := c.Connect(ended); s != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", s, err)
	}
	if roots, err := rootsOf(""); roots != nil || err != nil {
		t.Errorf("the system's roots: %v, %v", roots, err)
	}
}

// A rotation has sessions by any credential.
func TestDial(t *testing.T) {
	server := start(t)
	c := deviceOn(t, server)
	if s, err := c.Dial(t.Context(), "r1"); s != nil || !errors.Is(err, rotate.ErrKeyGone) {
		t.Errorf("a credential that is not there: %v, %v", s, err)
	}
	own, err := c.Dial(t.Context(), rotate.Configured)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		t.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request})
	enrol := func(s rotate.Session) {
		t.Helper()
		made, err := s.Create(t.Context(), rotate.Order{}, csr)
		if err != nil {
			t.Fatal(err)
		}
		if thing, err := s.Activate(t.Context(), made); err != nil || thing != "gw" {
			t.Errorf("%q, %v", thing, err)
		}
		s.Close()
	}
	enrol(own)

	chain, err := server.IssueClaim(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c.Config.Provision.ClaimCertificate, c.Config.Provision.ClaimKey, c.Config.Provision.Template = filepath.Join(dir, "c"), filepath.Join(dir, "k"), localiot.Template
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "c"), chain, 0o600),
		os.WriteFile(filepath.Join(dir, "k"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)); err != nil {
		t.Fatal(err)
	}
	if c.Credentials, err = credential.Open(c.Config); err != nil {
		t.Fatal(err)
	}
	c.Credentials.Name(device.Inventory{})
	claim, err := c.Dial(t.Context(), rotate.Claim)
	if err != nil {
		t.Fatal(err)
	}
	enrol(claim)
	c.Config.MQTT.CAFile, c.dialing.claim = "/nonexistent", nil
	if s, err := c.Dial(t.Context(), rotate.Claim); s != nil || err == nil {
		t.Errorf("%v, %v", s, err)
	}
	c.Config.MQTT.CAFile, c.Config.MQTT.Endpoints = server.CAFile(), []string{"127.0.0.1:1"}
	if s, err := c.Dial(t.Context(), rotate.Claim); s != nil || err == nil {
		t.Errorf("nothing listens: %v, %v", s, err)
	}
}

// answers answers each challenge with its secret and nonce.
type answers struct{}

func (answers) Answer(c *evidence.Challenge, nonce []byte) (vet.Answer, error) {
	return vet.Answer{Secret: c.Secret, ReportID: c.EKAlgorithm, Age: 90 * time.Second, Evidence: &device.Evidence{Nonce: string(nonce)}}, nil
}

// A challenge over the wire comes first, and is answered from the loop.
func TestChallengeIsAnswered(t *testing.T) {
	server := start(t)
	c := deviceOn(t, server)
	c.Answerer = answers{}
	s := connected(t, c)
	if work, err := s.Next(t.Context(), nothing); work != nil || err != nil {
		t.Fatalf("%+v, %v", work, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := server.IssueCertificate("gw", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chain)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(server.CAPEM())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fleet, err := mqtt.Dial(ctx, mqtt.Config{
		Endpoints: []string{server.Endpoint()}, ClientID: "fleet", Roots: roots, Attempts: 1,
		Certificate: tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	got := make(chan []byte, 1)
	if err := fleet.Subscribe(ctx, "keyvet/gw/challenge/answer", func(_ string, payload []byte) { got <- payload }); err != nil {
		t.Fatal(err)
	}
	asked, err := json.Marshal(awsiot.Challenge{
		ID: "c-1", EKAlgorithm: "RSA-2048", EKSPKISHA256: strings.Repeat("0", 64),
		CredentialBlob: []byte("blob"), Secret: []byte("secret"), Nonce: make([]byte, 16),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := fleet.Publish(ctx, "keyvet/gw/challenge", asked); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Wanted():
	case <-ctx.Done():
		t.Fatal("the challenge does not wake the loop")
	}
	work, err := s.Next(ctx, nothing)
	if err != nil || work == nil || work.ID != "c-1" {
		t.Fatalf("%+v, %v", work, err)
	}
	if err := work.Do(ctx, nil); err != nil {
		t.Error(err)
	}
	select {
	case payload := <-got:
		a, err := awsiot.ParseChallengeAnswer(payload)
		if err != nil || string(a.Secret) != "secret" || a.ReportAge != 90 || a.ReportID != "RSA-2048" {
			t.Errorf("%+v, %v", a, err)
		}
	case <-ctx.Done():
		t.Fatal("no answer")
	}
}
