package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

// operator is a CA of one's own, beside a broker of one's own.
type operator struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64 // serial number
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	o := new(operator)
	der, key := o.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "operator"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	var err error
	if o.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	o.key = key
	return o
}

// sign makes a key and a certificate on it: the first is the operator's own.
func (o *operator) sign(t *testing.T, template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o.next++
	template.SerialNumber = big.NewInt(o.next)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
	parent, signer := o.cert, o.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// issue puts a certificate of that name and its key into dir, as a device has them.
func (o *operator) issue(t *testing.T, dir, name string) tls.Certificate {
	t.Helper()
	der, key := o.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}})
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "certificate.pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", private)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startMosquitto starts the broker, which lets each client publish and read what
// is its own, and returns its endpoint.
func startMosquitto(t *testing.T, o *operator, dir string) string {
	t.Helper()
	own := filepath.Join(dir, "mosquitto")
	o.issue(t, own, "localhost")
	ca, acl := filepath.Join(dir, "ca.pem"), filepath.Join(own, "acl")
	writePEM(t, ca, "CERTIFICATE", o.cert.Raw)
	if err := os.WriteFile(acl, []byte("pattern write keyvet/%u/#\npattern readwrite $aws/things/%u/#\nuser cloud\ntopic read keyvet/#\ntopic readwrite $aws/things/#\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := mqtttest.Files{Certificate: filepath.Join(own, "certificate.pem"), Key: filepath.Join(own, "key.pem")}
	return mqtttest.Mosquitto(t, server, ca, "acl_file "+acl)
}

// responder stands in for what AWS IoT has behind its broker: it answers the
// probe, keeps the reports, and accepts updates of the shadow unless it is mute.
type responder struct {
	session *mqtt.Session
	mu      sync.Mutex
	mute    bool
	reports []string         // verdicts
	shadow  []map[string]any // what was reported to it
}

func respond(t *testing.T, cfg mqtt.Config) *responder {
	t.Helper()
	s, err := mqtt.Dial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	r := &responder{session: s}
	for filter, handler := range map[string]mqtt.Handler{
		"keyvet/+/report": func(topic string, payload []byte) {
			report := new(device.Report)
			if err := json.Unmarshal(payload, report); err != nil || topic != "keyvet/"+report.ThingName+"/report" {
				t.Errorf("%s: %v", topic, err)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.reports = append(r.reports, report.Verdict().String())
		},
		"$aws/things/+/jobs/$next/get": func(topic string, payload []byte) { r.accept(t, topic, payload) },
		"$aws/things/+/shadow/name/keyvet/update": func(topic string, payload []byte) {
			var update struct {
				State struct{ Reported map[string]any }
			}
			if err := json.Unmarshal(payload, &update); err != nil {
				t.Error(err)
			}
			r.mu.Lock()
			r.shadow = append(r.shadow, update.State.Reported)
			mute := r.mute
			r.mu.Unlock()
			if !mute {
				r.accept(t, topic, payload)
			}
		},
	} {
		if err := s.Subscribe(t.Context(), filter, handler); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *responder) accept(t *testing.T, topic string, request []byte) {
	var token struct {
		ClientToken string `json:"clientToken"`
	}
	err := json.Unmarshal(request, &token)
	var reply []byte
	if err == nil {
		reply, err = json.Marshal(token)
	}
	if err == nil {
		err = r.session.Publish(t.Context(), topic+"/accepted", reply)
	}
	if err != nil && t.Context().Err() == nil { // a device is gone before its last answer, and so may the test be
		t.Error(err)
	}
}

func (r *responder) seen() (reports string, last map[string]any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.shadow) > 0 {
		last = r.shadow[len(r.shadow)-1]
	}
	return strings.Join(r.reports, " "), last
}

// TestMosquitto runs the real program against a broker that is neither AWS's
// nor ours, with client certificates of an operator's own CA.
func TestMosquitto(t *testing.T) {
	const thing = "gateway-0042"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	o := newOperator(t)
	endpoint := startMosquitto(t, o, dir)
	roots := x509.NewCertPool()
	roots.AddCert(o.cert)
	cloud := respond(t, mqtt.Config{
		Endpoints: []string{endpoint}, ClientID: "cloud", Roots: roots, Certificate: o.issue(t, filepath.Join(dir, "cloud"), "cloud"),
	})

	state, run := filepath.Join(dir, "state"), filepath.Join(dir, "run")
	o.issue(t, filepath.Join(state, "identity"), thing)
	config := filepath.Join(dir, "keyvet.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `state_dir = %q
run_dir = %q
thing.name = "cert:CN"
tpm.address = ""
identity.ca = [%q]
mqtt.endpoints = [%q]
mqtt.ca_file = %[3]q
`, state, run, filepath.Join(dir, "ca.pem"), endpoint), 0o600); err != nil {
		t.Fatal(err)
	}
	keyvet := func(wantStatus int, wantOpen bool, wantReports, wantGate string) {
		t.Helper()
		cmd := exec.CommandContext(ctx, os.Args[0], "run", "-once", "-config", config)
		cmd.Args[0] = "keyvet" // which TestMain takes for the program
		out, err := cmd.CombinedOutput()
		status := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			status = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(gate.Path(run))
		reports, shadow := cloud.seen()
		if status != wantStatus || (err == nil) != wantOpen || reports != wantReports || shadow["gate"] != wantGate {
			t.Errorf("status %d, open %v, reports %q, shadow %v; want %d, %v, %q, gate %s\n%s",
				status, err == nil, reports, shadow, wantStatus, wantOpen, wantReports, wantGate, out)
		}
	}
	keyvet(cli.Pass, true, "PASS", "open")
	s, err := agent.LoadState(state)
	if err != nil || !s.Acknowledged {
		t.Errorf("kept: %+v, %v", s, err)
	}

	// A PUBACK of the broker alone opens nothing; the report waits.
	cloud.mu.Lock()
	cloud.mute = true
	cloud.mu.Unlock()
	keyvet(cli.Undecided, false, "PASS PASS", "shut")
	cloud.mu.Lock()
	cloud.mute = false
	cloud.mu.Unlock()
	keyvet(cli.Pass, true, "PASS PASS PASS PASS", "open") // the second one again, and a new one

	// A certificate of somebody else's does not get in.
	newOperator(t).issue(t, filepath.Join(state, "identity"), thing)
	keyvet(cli.Fail, false, "PASS PASS PASS PASS", "open") // which does not lead to identity.ca, either
}
