package service

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o700))
	must(t, os.WriteFile(name, data, 0o600))
	return name
}

// enrolled gives a key in PEM, and what issue makes of it.
func enrolled(t *testing.T, issue func(*ecdsa.PrivateKey) ([]byte, error)) (chain, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	chain, err = issue(private)
	must(t, err)
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// deviceOn is the configuration of a device without a TPM that has a certificate
// of the cloud's, or a claim alone.
func deviceOn(t *testing.T, cloud *localiot.Server, claim bool) config.Config {
	t.Helper()
	dir := t.TempDir()
	c := *config.Default()
	c.StateDir, c.RunDir, c.Thing.Name, c.TPM.Address = filepath.Join(dir, "state"), filepath.Join(dir, "run"), "gw", ""
	c.MQTT.Endpoints, c.MQTT.CAFile, c.Rotate.Template = []string{cloud.Endpoint()}, cloud.CAFile(), localiot.Template
	if claim {
		chain, key := enrolled(t, func(k *ecdsa.PrivateKey) ([]byte, error) { return cloud.IssueClaim(k.Public()) })
		c.Provision.ClaimCertificate, c.Provision.ClaimKey = write(t, filepath.Join(dir, "claim.pem"), chain), write(t, filepath.Join(dir, "claim.key"), key)
		c.Provision.Template, c.Provision.DeleteClaim, c.Rotate.Grace.Duration = localiot.Template, true, 0
		return c
	}
	chain, key := enrolled(t, func(k *ecdsa.PrivateKey) ([]byte, error) { return cloud.IssueCertificate("gw", k.Public()) })
	write(t, filepath.Join(c.StateDir, "identity", "certificate.pem"), chain)
	write(t, filepath.Join(c.StateDir, "identity", "key.pem"), key)
	return c
}

func startCloud(t *testing.T) *localiot.Server {
	t.Helper()
	server, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { server.Close() })
	return server
}

func optionsOf(c config.Config) Options {
	return Options{Config: c, Once: true, By: "test", Agent: device.Agent{Version: "v"}, Log: slog.New(slog.DiscardHandler)}
}

func started(t *testing.T, o Options) *Service {
	t.Helper()
	s, err := Start(o)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func mark(t *testing.T, c config.Config) *gate.Mark {
	t.Helper()
	state, m, err := gate.Look(c.RunDir, durable.Disk{}, gate.BootID())
	if err != nil || (state == gate.Open) != (m != nil) {
		t.Errorf("%v, %+v, %v", state, m, err)
	}
	return m
}

// A device is vetted, reports, and its gate is open; then it gets another key.
func TestService(t *testing.T) {
	cloud := startCloud(t)
	c := deviceOn(t, cloud, false)
	s := started(t, optionsOf(c))
	if _, err := Start(optionsOf(c)); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one on the state directory: %v", err)
	}
	other := c
	other.StateDir = filepath.Join(t.TempDir(), "state")
	if _, err := Start(optionsOf(other)); !errors.Is(err, gate.ErrHeld) {
		t.Errorf("a second one on the run directory: %v", err)
	}
	r, o := s.Once(t.Context())
	if o.State != gate.Open || !o.Acknowledged || r.ThingName != "gw" || r.Agent.Version != "v" || r.Trigger != device.TriggerFirstBoot {
		t.Fatalf("%+v, %+v", o, r)
	}
	s.Close()
	if m := mark(t, c); m == nil || m.By != "test" || m.ReportID != r.ID {
		t.Errorf("Close shut the gate: %+v", m)
	}

	var steps []string
	options := optionsOf(c)
	options.Watch = func(step string, back bool) {
		if back {
			step = "undo " + step
		}
		steps = append(steps, step)
	}
	s = started(t, options)
	before, _ := s.credentials.Current()
	old := *before
	rotated := s.Rotate(t.Context())
	if rotated.Err != nil || rotated.Trouble != nil {
		t.Fatalf("%+v", rotated)
	}
	if now, err := s.credentials.Current(); err != nil || now.Same(&old) || !slices.Contains(steps, "prove") {
		t.Errorf("the credential is the one of before: %v; steps %q", err, steps)
	}
	if mark(t, c) != nil {
		t.Error("the gate stays open, and nothing vouches for it")
	}
	s.Close()

	// A rotation that is rolled back leaves the credential in use.
	cloud.SetFaults(localiot.Faults{CreateRejected: true})
	s = started(t, optionsOf(c))
	before, _ = s.credentials.Current()
	old = *before
	rotated = s.Rotate(t.Context())
	var failed *rotate.Error
	if !errors.As(rotated.Err, &failed) || failed.Reason != rotate.ReasonCreateRejected {
		t.Errorf("%+v", rotated)
	}
	if now, err := s.credentials.Current(); err != nil || !now.Same(&old) {
		t.Errorf("another credential is in use: %v", err)
	}
	s.Close()

	if err := os.RemoveAll(filepath.Join(c.StateDir, "identity")); err != nil {
		t.Fatal(err)
	}
	if rotated := started(t, optionsOf(c)).Rotate(t.Context()); rotated.Err == nil || !strings.Contains(rotated.Err.Error(), "no device certificate") {
		t.Errorf("%+v", rotated)
	}
}

// A device with a claim alone is provisioned, and the claim removed.
func TestProvisioned(t *testing.T) {
	cloud := startCloud(t)
	c := deviceOn(t, cloud, true)
	s := started(t, optionsOf(c))
	r, o := s.Once(t.Context())
	if o.State != gate.Open || r.Credential != device.RoleDevice {
		t.Fatalf("%+v, %q", o, r.Credential)
	}
	for w := s.rotator.Local(); w != nil; w = s.rotator.Local() {
		must(t, w.Do(t.Context(), nil))
	}
	for _, name := range []string{c.Provision.ClaimCertificate, c.Provision.ClaimKey} {
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The service ends with its context, and the gate is shut then.
func TestServiceRuns(t *testing.T) {
	c := deviceOn(t, startCloud(t), false)
	options := optionsOf(c)
	options.Once = false
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan struct{}, 1)
	options.Alive = func() {
		if _, err := os.Stat(gate.Path(c.RunDir)); err == nil {
			select {
			case opened <- struct{}{}:
			default:
			}
		}
	}
	s := started(t, options)
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	<-opened
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || mark(t, c) != nil {
		t.Errorf("%v", err)
	}
}

// A state directory that cannot be used lets nothing begin, and nothing stays held.
func TestStartFails(t *testing.T) {
	c := *config.Default()
	dir := t.TempDir()
	c.StateDir, c.RunDir, c.TPM.Address = write(t, filepath.Join(dir, "file"), nil), filepath.Join(dir, "run"), ""
	if s, err := Start(optionsOf(c)); s != nil || err == nil {
		t.Error("a file for a state directory")
	}
	c.StateDir = filepath.Join(dir, "state")
	write(t, filepath.Join(c.StateDir, "credentials"), nil) // no directory
	c.TPM.Address, c.TPM.Wait.Duration = "unix:"+dir+"/none", 0
	if s, err := Start(optionsOf(c)); s != nil || err == nil {
		t.Error("a file for the credentials")
	}
	must(t, os.Remove(filepath.Join(c.StateDir, "credentials")))
	s, again := Start(optionsOf(c))
	if again != nil {
		t.Fatalf("after one that failed: %v", again)
	}
	defer s.Close()
	if _, o := s.Once(t.Context()); !errors.Is(o.Undelivered, agent.ErrNotReady) || o.State != gate.Shut {
		t.Errorf("%+v", o)
	}
}

// A run directory that cannot be held lets no gate open, and the report goes out.
func TestRunDirNotHeld(t *testing.T) {
	cloud := startCloud(t)
	c := deviceOn(t, cloud, false)
	c.RunDir = filepath.Join(write(t, filepath.Join(t.TempDir(), "file"), nil), "run")
	_, o := started(t, optionsOf(c)).Once(t.Context())
	if o.State == gate.Open || !o.Acknowledged || o.Trouble == nil {
		t.Errorf("%+v", o)
	}
	if n := len(cloud.Messages("keyvet/gw/report")); n != 1 {
		t.Errorf("%d reports", n)
	}
	if bytes.Contains(cloud.Shadow("gw", "keyvet"), []byte(`"gate":"open"`)) {
		t.Error("the shadow says open")
	}
}
