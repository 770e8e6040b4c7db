package awsiot_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

const thing = "gateway-0042"

// patience is how long a test that hangs is waited for.
const patience = 2 * time.Minute

// enrol starts an endpoint and returns it with the configuration of a device that it knows.
func enrol(t *testing.T) (*localiot.Server, mqtt.Config, *x509.Certificate) {
	t.Helper()
	cloud, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cloud.Close() })
	cfg, cert := credentialOn(t, cloud, false)
	return cloud, cfg, cert
}

// credentialOn is the configuration of a session as the thing, or by a claim.
func credentialOn(t *testing.T, cloud *localiot.Server, claim bool) (mqtt.Config, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue, clientID := func() ([]byte, error) { return cloud.IssueCertificate(thing, key.Public()) }, thing
	if claim {
		issue, clientID = func() ([]byte, error) { return cloud.IssueClaim(key.Public()) }, awsiot.ClaimClientID(thing)
	}
	chain, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chain)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cloud.CAPEM())
	return mqtt.Config{
		Endpoints: []string{cloud.Endpoint()}, ClientID: clientID, Roots: roots, Attempts: 1,
		Certificate: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key},
	}, cert
}

func dial(t *testing.T, cfg mqtt.Config) *awsiot.Client {
	t.Helper()
	var client *awsiot.Client
	s, err := mqtt.Dial(t.Context(), cfg, func(ctx context.Context, s *mqtt.Session) error {
		var err error
		if client, err = awsiot.New(s, thing, "keyvet/{thing}/report"); err != nil {
			return err
		}
		return client.Probe(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return client
}

func report(cert *x509.Certificate, findings ...device.Finding) *device.Report {
	return device.NewReport(device.Inventory{
		TPM:    &device.TPM{Family: "2.0", FirmwareVersion: "7.85.4555.0", State: device.TPMOK},
		Keys:   []device.Key{{ID: "device", Role: device.RoleDevice, Public: cert.PublicKey, Chain: []*x509.Certificate{cert}}},
		ReadAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}, append(findings, device.Finding{Check: "size", Key: "device", Status: device.Pass}))
}

func shadow(t *testing.T, cloud *localiot.Server) (s awsiot.Summary, raw []byte) {
	t.Helper()
	raw = cloud.Shadow(thing, "keyvet")
	var doc struct{ Reported awsiot.Summary }
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatalf("shadow %q: %v", raw, err)
	}
	return doc.Reported, raw
}

func TestPublish(t *testing.T) {
	cloud, cfg, cert := enrol(t)
	client := dial(t, cfg)
	r := report(cert, device.Finding{Check: "roca", Key: "device", Status: device.Fail, ReasonCode: device.ReasonROCA})
	if err := client.Publish(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if s, raw := shadow(t, cloud); s.Gate != "stuck" { // nobody has said how it stands
		t.Errorf("shadow %s", raw)
	}
	client.SetGate("shut")
	if err := client.Publish(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	sent := cloud.Messages("keyvet/" + thing + "/report")[1:]
	want := r.Encode()
	if len(sent) != 1 || !bytes.Equal(sent[0].Payload, want) || sent[0].QoS != 1 {
		t.Errorf("on the report topic: %+v, want %s", sent, want)
	}
	s, raw := shadow(t, cloud)
	if s.Verdict != "FAIL" || s.ReportID != r.ID || s.Time != "2026-01-02T03:04:05Z" || s.Gate != "shut" || s.FirmwareVersion != "7.85.4555.0" ||
		len(s.Findings) != 1 || s.Findings[0] != device.ReasonROCA || s.CertificateID != localiot.CertificateID(cert.Raw) ||
		s.NotAfter != cert.NotAfter.UTC().Format(time.RFC3339) || strings.Contains(string(raw), `"check"`) {
		t.Errorf("shadow %s", raw)
	}

	// What could not be checked is named, as far as a shadow has room.
	blind := report(cert)
	blind.Gaps = []device.Gap{{What: "minor", Minor: true}}
	for i := range 300 {
		blind.Gaps = append(blind.Gaps, device.Gap{What: fmt.Sprint("file ", i), Why: strings.Repeat("é", 5000)})
		blind.Findings = append(blind.Findings, device.Finding{Check: "x", Key: "device", Status: device.Fail, ReasonCode: fmt.Sprint("KEYVET_CODE_", i)})
	}
	if err := client.Publish(t.Context(), blind); err != nil {
		t.Fatal(err)
	}
	if s, raw := shadow(t, cloud); s.GapCount != 300 || len(s.Gaps) != 8 || s.Gaps[0].What != "file 0" || len(s.Gaps[0].Why) > 210 || s.Findings[len(s.Findings)-1] != awsiot.ReasonCut || len(raw) > 8<<10 {
		t.Errorf("shadow %s", raw)
	}

	if err := client.ReportGate(t.Context(), "open"); err != nil {
		t.Fatal(err)
	}
	// A report without TPM and findings leaves nothing of the one before.
	good := report(cert)
	good.TPM = nil
	if err := client.Publish(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if s, raw := shadow(t, cloud); s.Gate != "open" || s.Verdict != "PASS" || len(s.Findings) != 0 || len(s.Gaps)+s.GapCount != 0 || strings.Contains(string(raw), "firmwareVersion") {
		t.Errorf("shadow %s", raw)
	}
	if err := client.ReportGate(t.Context(), "shut"); err != nil {
		t.Fatal(err)
	}
	if s, raw := shadow(t, cloud); s.Gate != "shut" || s.Verdict != "PASS" {
		t.Errorf("shadow %s", raw)
	}
}

// A report that was spooled goes out as it was.
func TestPublishSpooled(t *testing.T) {
	cloud, cfg, cert := enrol(t)
	b := report(cert).Encode()
	var r device.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if err := dial(t, cfg).Publish(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	if m := cloud.Messages("keyvet/#"); len(m) != 1 || !bytes.Equal(m[0].Payload, b) {
		t.Errorf("sent %+v", m)
	}
	if s, raw := shadow(t, cloud); s.Verdict != "PASS" || s.CertificateID == "" {
		t.Errorf("shadow %s", raw)
	}
}

func TestTooManyFindings(t *testing.T) {
	cloud, cfg, cert := enrol(t)
	var findings []device.Finding
	for i := range 500 {
		code := "KEYVET_" + strings.Repeat("X", 20) + string(rune('A'+i/26)) + string(rune('A'+i%26))
		findings = append(findings, device.Finding{Key: "device", Status: device.Fail, ReasonCode: code})
	}
	if err := dial(t, cfg).Publish(t.Context(), report(cert, findings...)); err != nil {
		t.Fatal(err)
	}
	s, raw := shadow(t, cloud)
	if n := len(s.Findings); len(raw) > 8<<10 || n < 100 || s.Findings[n-1] != awsiot.ReasonCut || s.Findings[0] != findings[0].ReasonCode {
		t.Errorf("%d bytes, %d codes: %.200s", len(raw), n, raw)
	}
	huge := report(cert)
	huge.TPM.FirmwareVersion = strings.Repeat("9", 8<<10)
	if err := dial(t, cfg).Publish(t.Context(), huge); err == nil {
		t.Error("a summary that fits no shadow was acknowledged")
	}
}

// PUBACKs alone are no acknowledgement.
func TestNotAcknowledged(t *testing.T) {
	cloud, cfg, cert := enrol(t)
	cfg.Timeout = 5 * time.Second
	client := dial(t, cfg)
	cloud.SetFaults(localiot.Faults{DropAccepted: true})
	if err := client.Publish(t.Context(), report(cert)); err == nil {
		t.Error("acknowledged without update/accepted")
	} else if !strings.Contains(err.Error(), "no reply within 5s") {
		t.Error(err)
	}
	if len(cloud.Messages("keyvet/#")) != 1 {
		t.Error("the report was not sent")
	}
	if _, err := mqtt.Dial(t.Context(), cfg, func(ctx context.Context, s *mqtt.Session) error {
		probe, err := awsiot.New(s, thing, "keyvet/{thing}/report")
		if err != nil {
			return err
		}
		return probe.Probe(ctx)
	}); !errors.Is(err, mqtt.ErrUnreachable) {
		t.Errorf("a session without an answer to the probe: %v", err)
	}
}

// Over-long documents are rejected, which must not pass for an acknowledgement.
func TestRejected(t *testing.T) {
	cloud, cfg, cert := enrol(t)
	client := dial(t, cfg)
	s, err := mqtt.Dial(t.Context(), mqtt.Config{
		Endpoints: cfg.Endpoints, ClientID: "filler", Roots: cfg.Roots, Attempts: 1, Certificate: cfg.Certificate,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fill := `{"state":{"desired":{"x":"` + strings.Repeat("x", 8000) + `"}}}`
	update := "$aws/things/" + thing + "/shadow/name/keyvet/update"
	if _, err := s.Ask(t.Context(), update, []byte(fill), []string{update + "/accepted"}, func(mqtt.Message) bool { return true }); err != nil {
		t.Fatal(err)
	}
	err = client.Publish(t.Context(), report(cert))
	var rejected *awsiot.Rejected
	if !errors.As(err, &rejected) || rejected.Code != "413" {
		t.Errorf("got %v", err)
	}
	if strings.Contains(string(cloud.Shadow(thing, "keyvet")), "reported") {
		t.Error("the shadow changed")
	}
}

// A device whose policy is for another thing is cut off at the probe.
func TestWrongThing(t *testing.T) {
	_, cfg, _ := enrol(t)
	_, err := mqtt.Dial(t.Context(), cfg, func(ctx context.Context, s *mqtt.Session) error {
		c, err := awsiot.New(s, "another", "keyvet/{thing}/report")
		if err != nil {
			return err
		}
		return c.Probe(ctx)
	})
	if !errors.Is(err, mqtt.ErrRefused) || !strings.Contains(err.Error(), "policy") {
		t.Errorf("got %v", err)
	}
}

func TestNames(t *testing.T) {
	for _, name := range []string{"a", "gateway-0042:x_Y", strings.Repeat("x", 128)} {
		if _, err := awsiot.New(nil, name, "keyvet/{thing}/report"); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "a/b", "a b", "a\n", "+", "ä", "a.b", strings.Repeat("x", 129)} {
		if _, err := awsiot.New(nil, name, "keyvet/{thing}/report"); err == nil {
			t.Errorf("thing name %q was taken", name)
		}
	}
	for _, topic := range []string{"", "#", "keyvet/+/report", "$aws/things/x/shadow/update", "keyvet/{name}/report", strings.Repeat("x", 257)} {
		if _, err := awsiot.New(nil, "gw", topic); err == nil {
			t.Errorf("report topic %q was taken", topic)
		}
	}
}
