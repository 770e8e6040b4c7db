package cloud

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm/evidence"
)

// silent is a TPM that answers no challenge.
type silent struct{}

func (silent) Answer(*evidence.Challenge, []byte) (vet.Answer, error) {
	return vet.Answer{}, errors.New("the TPM has signed no report")
}

// One that was answered with a reason is done: the loop must not pause over it,
// as it does over work that is asked for again, and miss the next.
func TestBadChallengeIsDone(t *testing.T) {
	c := &Cloud{Config: *config.Default(), Log: slog.New(slog.DiscardHandler), Answerer: silent{}}
	s := &Session{cloud: c, challenges: make(chan challenge, 1)}
	done := make(chan answered, 1)
	s.challenges <- challenge{awsiot.Challenge{ID: "1"}, done}
	if err := s.nextChallenge().Do(t.Context(), nil); err != nil {
		t.Errorf("not done: %v", err)
	}
	if a := <-done; a.err == nil {
		t.Error("a device without a report answers")
	}
}

// What goes to the fleet names no path and no address of the device.
func TestForOthers(t *testing.T) {
	const address = "unix:/run/swtpm/sock"
	for text, want := range map[string]string{
		"tpm: activate: the challenge is damaged":                           "tpm: activate: the challenge is damaged",
		"/var/lib/keyvet/ak.pem: tpm: attestation key: no":                  "… tpm: attestation key: no",
		"tpm: open unix:/run/swtpm/sock: dial unix /run/swtpm/sock: denied": "tpm: open the TPM: dial unix … denied",
		"two\nlines (/etc/x)":                                               "two lines …",
	} {
		if got := forOthers(errors.New(text), address); got.Error() != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if err := forOthers(nil, address); err != nil {
		t.Error(err)
	}
}

func TestListening(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, tt := range []struct {
		name string
		came []subscription
		off  bool
	}{
		{"refused", []subscription{subscriptionRefused}, true},
		{"cut three times", []subscription{subscriptionCut, subscriptionCut, subscriptionCut}, true},
		{"cut twice", []subscription{subscriptionCut, subscriptionCut}, false},
		{"cut, but not in a row", []subscription{subscriptionCut, subscriptionCut, subscribed, subscriptionCut, subscriptionCut}, false},
		{"failed otherwise", []subscription{subscriptionFailed, subscriptionFailed, subscriptionFailed, subscriptionFailed}, false},
		{"fine", []subscription{subscribed}, false},
	} {
		var l listening
		for _, s := range tt.came {
			l.learn(now, s)
		}
		if off := l.wait(now) > 0; off != tt.off {
			t.Errorf("%s: off is %t", tt.name, off)
		}
		if wait := l.wait(now.Add(day)); wait != 0 {
			t.Errorf("%s: after a day it waits for %s", tt.name, wait)
		}
		if l.wait(now.Add(-1000*day)) > day {
			t.Errorf("%s: a clock that was set back ends it", tt.name)
		}
	}
	for want, err := range map[subscription]error{
		subscribed: nil, subscriptionRefused: fmt.Errorf("x: %w", mqtt.ErrDenied), subscriptionCut: fmt.Errorf("x: %w", mqtt.ErrLost),
		subscriptionFailed: context.DeadlineExceeded,
	} {
		if got := outcomeOf(err, time.Second, 10*time.Second); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
	if got := outcomeOf(mqtt.ErrLost, time.Minute, 10*time.Second); got != subscriptionFailed {
		t.Errorf("lost after a minute: %d", got)
	}
}

// deviceOn is a device that has a certificate of the cloud's, and a TPM that is
// not there.
func deviceOn(t *testing.T, cloud *localiot.Server) *Cloud {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := cloud.IssueCertificate("gw", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.StateDir, c.Thing.Name, c.TPM.Address = filepath.Join(dir, "state"), "gw", "unix:"+dir+"/none"
	c.MQTT.Endpoints, c.MQTT.CAFile, c.Rotate.Template = []string{cloud.Endpoint()}, cloud.CAFile(), localiot.Template
	identity := filepath.Join(c.StateDir, "identity")
	err = errors.Join(os.MkdirAll(identity, 0o700), os.WriteFile(filepath.Join(identity, "certificate.pem"), chain, 0o600),
		os.WriteFile(filepath.Join(identity, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := credential.Open(*c)
	if err != nil {
		t.Fatal(err)
	}
	credentials.Name(device.Inventory{})
	return &Cloud{Config: *c, Credentials: credentials, Answerer: silent{}, Gate: shut{}, Log: slog.New(slog.DiscardHandler), Attempts: 1}
}

// shut is a gate.
type shut struct{}

func (shut) State() gate.State { return gate.Shut }

func connected(t *testing.T, c *Cloud) *Session {
	t.Helper()
	s, err := c.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.(*Session)
}

// Whoever cuts a connection does not end challenges by it; a policy that does not
// allow them does, for a day, after three sessions.
func TestChallengesAndTheNetwork(t *testing.T) {
	server, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d := deviceOn(t, server)
	for range 4 {
		c := connected(t, d)
		c.conn.Close() // between the gate and the SUBSCRIBE
		_ = c.hearChallenges(t.Context())
		if wait := d.listening.wait(time.Now()); wait > 0 || c.challenged {
			t.Fatalf("a connection was lost, and challenges are off for %s", wait)
		}
	}
	c := connected(t, d)
	if err := c.hearChallenges(t.Context()); err != nil || !c.challenged {
		t.Errorf("not heard: %v", err)
	}
}

func TestChallengesNotAllowed(t *testing.T) {
	policy, err := os.ReadFile("../../../../docs/aws/device-policy.json")
	if err != nil {
		t.Fatal(err)
	}
	server, err := localiot.Start(localiot.Options{Dir: t.TempDir(), DevicePolicies: [][]byte{policy}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d := deviceOn(t, server)
	for i := range 3 {
		if wait := d.listening.wait(time.Now()); wait > 0 {
			t.Fatalf("off for %s after %d sessions", wait, i)
		}
		c := connected(t, d)
		if err := c.hearChallenges(t.Context()); err == nil || c.challenged {
			t.Error("the policy does not hold")
		}
	}
	c := connected(t, d)
	if err := c.hearChallenges(t.Context()); err != nil || c.challenged {
		t.Errorf("%v", err)
	}
	if err := c.Probe(t.Context()); err != nil {
		t.Errorf("the fourth session was given up for it: %v", err)
	}
	if wait := d.listening.wait(time.Now()); wait < 23*time.Hour || wait > 24*time.Hour {
		t.Errorf("off for %s", wait)
	}
}
