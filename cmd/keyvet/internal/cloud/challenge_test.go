package cloud

import (
	"bytes"
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
	"strings"
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
		"activate: the challenge is damaged":                           "activate: the challenge is damaged",
		"/var/lib/keyvet/ak.pem: attestation key: no":                  "… attestation key: no",
		"open unix:/run/swtpm/sock: dial unix /run/swtpm/sock: denied": "open the TPM: dial unix … denied",
		"two\nlines (/etc/x)":                                          "two lines …",
	} {
		if got := forOthers(errors.New(text), address); got.Error() != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if err := forOthers(nil, address); err != nil {
		t.Error(err)
	}
}

func TestPermission(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	for _, tt := range []struct {
		name string
		came []trial
		off  time.Duration
	}{
		{"denied", []trial{denied}, time.Hour},
		{"cut three times", []trial{cut, cut, cut}, time.Hour},
		{"cut twice", []trial{cut, cut}, 0},
		{"cut, but not in a row", []trial{cut, cut, allowed, cut, cut}, 0},
		{"failed otherwise", []trial{failed, failed, failed, failed}, 0},
		{"fine", []trial{allowed}, 0},
		{"cut again", []trial{cut, cut, cut, cut}, 2 * time.Hour},
		{"cut for days", []trial{cut, cut, cut, cut, cut, cut, cut, cut, cut, cut, cut, cut, cut, cut, cut, cut, cut}, day},
		{"allowed meanwhile", []trial{cut, cut, cut, cut, allowed, cut, cut}, 0},
	} {
		p := permission{optional: notices}
		for _, c := range tt.came {
			now = now.Add(p.wait(now)) // it is not tried before
			p.learn(now, c)
		}
		if off := p.wait(now); off != tt.off {
			t.Errorf("%s: left out for %v, want %v", tt.name, off, tt.off)
		}
		if p.wait(now.Add(day)) != 0 {
			t.Errorf("%s: after a day it is left out", tt.name)
		}
		if p.wait(now.Add(-1000*day)) > day {
			t.Errorf("%s: a clock that was set back ends it", tt.name)
		}
	}
	for want, err := range map[trial]error{
		allowed: nil, denied: fmt.Errorf("x: %w", mqtt.ErrDenied), cut: fmt.Errorf("x: %w", mqtt.ErrCut), failed: fmt.Errorf("x: %w", mqtt.ErrLost),
	} {
		if got := trialOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
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

type openGate struct{}

func (openGate) State() gate.State { return gate.Open }

// The shadow never says that the gate is shut while it is open, not for a moment.
func TestShadowShowsTheOpenGate(t *testing.T) {
	server, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	d := deviceOn(t, server)
	d.Gate = openGate{}
	s := connected(t, d)
	if err := s.Publish(t.Context(), &device.Report{ID: "r1", Schema: device.Schema, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if shadow := string(server.Shadow("gw", "keyvet")); !strings.Contains(shadow, `"gate":"open"`) {
		t.Errorf("the shadow is %s", shadow)
	}
}

func connected(t *testing.T, c *Cloud) *Session {
	t.Helper()
	s, err := c.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s.(*Session)
}

// heard reports whether the session listens to everything.
func (s *Session) heard() bool { return len(s.unheard) == 0 }

// Whoever cuts a connection does not end challenges by it.
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
		_ = c.listen(t.Context())
		if wait := d.policy.of(challenges).wait(time.Now()); wait > 0 || c.heard() {
			t.Fatalf("a connection was lost, and challenges are off for %s", wait)
		}
	}
	c := connected(t, d)
	if err := c.listen(t.Context()); err != nil || !c.heard() {
		t.Errorf("not heard: %v", err)
	}
}

// Where the policy lacks a line that a session can do without, three sessions are cut
// upon it, then none for a while: the log names the line.
func TestPolicyLacksALine(t *testing.T) {
	for name, tt := range map[string]struct {
		what optional
		line string // of the device's policy, but for the last of its levels
		off  time.Duration
		try  func(context.Context, *Session) error
	}{
		"challenges": {challenges, "/challenge", 24 * time.Hour, func(ctx context.Context, s *Session) error { return s.listen(ctx) }},
		"notices":    {notices, "/jobs/notify", time.Hour, func(ctx context.Context, s *Session) error { return s.listen(ctx) }},
		"desired":    {desired, "/shadow/name/keyvet/update/delta", time.Hour, func(ctx context.Context, s *Session) error { return s.listen(ctx) }},
		"gate":       {shadow, "/shadow/name/keyvet/update", time.Hour, func(ctx context.Context, s *Session) error { return s.ReportGate(ctx, gate.Shut) }},
		"report": {shadow, "/shadow/name/keyvet/update", time.Hour, func(ctx context.Context, s *Session) error {
			return s.Publish(ctx, &device.Report{ID: "r1", Schema: device.Schema, Time: time.Now()})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			policy := `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"},
				{"Effect": "Deny", "Action": ["iot:Publish", "iot:Subscribe"], "Resource": ["arn:aws:iot:::topic/*` + tt.line + `", "arn:aws:iot:::topicfilter/*` + tt.line + `*"]}]}`
			server, err := localiot.Start(localiot.Options{Dir: t.TempDir(), DevicePolicies: [][]byte{[]byte(policy)}})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			d := deviceOn(t, server)
			var log bytes.Buffer
			d.Log = slog.New(slog.NewTextHandler(&log, nil))
			for i := range 3 {
				if wait := d.policy.of(tt.what).wait(time.Now()); wait > 0 {
					t.Fatalf("left out for %s after %d sessions", wait, i)
				}
				c := connected(t, d)
				if err := tt.try(t.Context(), c); err == nil || c.Lost() == nil {
					t.Errorf("the policy does not hold: %v", err)
				}
			}
			c := connected(t, d)
			err = tt.try(t.Context(), c)
			if left := errors.Is(err, errLeftOut); left != (tt.what == shadow) || !left && err != nil || left && !strings.Contains(err.Error(), tt.line) {
				t.Errorf("%v", err)
			}
			if err := c.Probe(t.Context()); err != nil {
				t.Errorf("the fourth session was given up for it: %v", err)
			}
			if wait := d.policy.of(tt.what).wait(time.Now()); wait < tt.off-time.Minute || wait > tt.off {
				t.Errorf("left out for %s", wait)
			}
			if n := strings.Count(log.String(), "goes on without"); n != 1 || !strings.Contains(log.String(), tt.line) {
				t.Errorf("%s is told of %d times: %s", tt.line, n, &log)
			}
			for range 3 {
				_ = tt.try(t.Context(), c)
			}
			if sent := len(server.Messages("keyvet/gw/report")); sent > 3 {
				t.Errorf("the report is sent %d times", sent)
			}
		})
	}
}
