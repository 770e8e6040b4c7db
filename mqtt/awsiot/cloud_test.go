package awsiot_test

// The protocols from end to end, at an endpoint that behaves as AWS IoT.

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
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

func execution(t *testing.T, cloud *localiot.Server, id string) localiot.Execution {
	t.Helper()
	all := cloud.Executions(id)
	if len(all) == 0 {
		t.Fatalf("job %s has no execution", id)
	}
	return all[len(all)-1]
}

// A queue with another agent's job at its head, ours as an object, ours as a
// string, and a malformed one.
func TestJobsFromEndToEnd(t *testing.T) {
	cloud, cfg, _ := enrol(t)
	c := dial(t, cfg)
	if job, err := c.DescribeJob(t.Context(), awsiot.NextJob); job != nil || err != nil {
		t.Fatalf("of an empty queue: %+v, %v", job, err)
	}
	looks := make(chan bool, 20)
	if err := c.OnJobs(t.Context(), func(*awsiot.Job) { looks <- true }); err != nil {
		t.Fatal(err)
	}
	for _, j := range []localiot.Job{
		{ID: "foreign", Document: json.RawMessage(`{"operation":"reboot"}`)},
		{ID: "object", Document: json.RawMessage(`{"operation":"keyvet.check","version":"1.0"}`)},
		{ID: "string", Document: json.RawMessage(`{"operation":"keyvet.rotate","version":"1.0","key":"rsa-3072"}`), DocumentAsString: true},
		{ID: "bad", Document: json.RawMessage(`{"operation":"keyvet.rotate","version":"2.0"}`)},
	} {
		j.Things = []string{thing}
		if err := cloud.CreateJob(j); err != nil {
			t.Fatal(err)
		}
	}
	<-looks
	ids, err := c.PendingJobs(t.Context())
	if err != nil || strings.Join(ids, " ") != "foreign object string bad" {
		t.Fatalf("pending %q, %v", ids, err)
	}
	got := ""
	for _, id := range ids {
		job, err := c.DescribeJob(t.Context(), id)
		if err != nil || job == nil || job.Status != device.JobQueued {
			t.Fatalf("%s: %+v, %v", id, job, err)
		}
		op, err := awsiot.ParseOperation(job.Document)
		var bad *awsiot.DocumentError
		switch {
		case errors.Is(err, awsiot.ErrForeign):
			got += "leave "
			continue
		case errors.As(err, &bad):
			got += "reject "
			err = c.UpdateJob(t.Context(), job, device.JobRejected, map[string]string{"reasonCode": bad.Reason + "\n"})
		case err == nil:
			got += op.Name + op.Key + " "
			if err = c.UpdateJob(t.Context(), job, device.JobInProgress, map[string]string{"step": "vet"}); err == nil {
				err = c.UpdateJob(t.Context(), job, device.JobSucceeded, nil)
			}
		}
		if err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if e := execution(t, cloud, id); string(job.Status) != e.Status || job.Version != e.Version {
			t.Errorf("%s: here %s of version %d, there %s of %d", id, job.Status, job.Version, e.Status, e.Version)
		}
	}
	if got != "leave keyvet.check keyvet.rotatersa-3072 reject " {
		t.Errorf("did %s", got)
	}
	if e := execution(t, cloud, "foreign"); e.Status != localiot.Queued || e.Version != 1 && e.Version != 0 {
		t.Errorf("another agent's job: %+v", e)
	}
	if e := execution(t, cloud, "bad"); e.Status != "REJECTED" || !strings.Contains(e.StatusDetails["reasonCode"], `version "2.0"`) {
		t.Errorf("the malformed job: %+v", e)
	}
	if e := execution(t, cloud, "object"); e.StatusDetails["step"] != "vet" {
		t.Errorf("details are gone: %+v", e)
	}
	if job, err := c.DescribeJob(t.Context(), "nothing"); job != nil || err != nil {
		t.Errorf("a job that is not there: %+v, %v", job, err)
	}
}

func TestJobFaults(t *testing.T) {
	cloud, cfg, _ := enrol(t)
	cfg.Timeout = 5 * time.Second
	c := dial(t, cfg)
	begin := func(id string) *awsiot.Job {
		t.Helper()
		if err := cloud.CreateJob(localiot.Job{ID: id, Things: []string{thing}, Document: json.RawMessage(`{}`)}); err != nil {
			t.Fatal(err)
		}
		job, err := c.DescribeJob(t.Context(), id)
		if err == nil {
			err = c.UpdateJob(t.Context(), job, device.JobInProgress, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return job
	}
	details := map[string]string{"step": "done"}

	job := begin("mismatch")
	cloud.SetFaults(localiot.Faults{VersionMismatch: true, Times: 1})
	if err := c.UpdateJob(t.Context(), job, device.JobSucceeded, details); !errors.Is(err, awsiot.ErrVersionMismatch) {
		t.Errorf("mismatch: %v", err)
	}
	if err := c.UpdateJob(t.Context(), job, device.JobSucceeded, details); err != nil || execution(t, cloud, "mismatch").Status != "SUCCEEDED" {
		t.Errorf("once more: %v", err)
	}

	// The update went through, the reply did not; the next one finds out.
	job = begin("lost")
	cloud.SetFaults(localiot.Faults{DropAccepted: true})
	if err := c.UpdateJob(t.Context(), job, device.JobInProgress, details); err == nil || !strings.Contains(err.Error(), "no reply") {
		t.Errorf("lost: %v", err)
	}
	cloud.SetFaults(localiot.Faults{})
	version := execution(t, cloud, "lost").Version
	if err := c.UpdateJob(t.Context(), job, device.JobInProgress, details); err != nil || job.Version != version {
		t.Errorf("once more: %v, version %d, not %d", err, job.Version, version)
	}

	job = begin("cancelled")
	if err := cloud.CancelJob("cancelled", true); err != nil {
		t.Fatal(err)
	}
	if err := c.UpdateJob(t.Context(), job, device.JobSucceeded, nil); !errors.Is(err, awsiot.ErrJobEnded) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.DescribeJob(t.Context(), "cancelled"); !errors.Is(err, awsiot.ErrJobEnded) {
		t.Errorf("a cancelled one, read: %v", err)
	}
	job = begin("timed-out")
	if err := cloud.TimeOutJob("timed-out"); err != nil {
		t.Fatal(err)
	}
	if err := c.UpdateJob(t.Context(), job, device.JobSucceeded, nil); !errors.Is(err, awsiot.ErrJobEnded) {
		t.Errorf("timed out: %v", err)
	}

	job = begin("throttled")
	cloud.SetFaults(localiot.Faults{Throttle: true, Times: 1})
	if err := c.UpdateJob(t.Context(), job, device.JobSucceeded, nil); err != nil {
		t.Errorf("throttled once: %v", err)
	}
	cloud.SetFaults(localiot.Faults{Throttle: true})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.PendingJobs(ctx); !errors.Is(err, awsiot.ErrThrottled) {
		t.Errorf("throttled: %v", err)
	}
}

// Sixty jobs one after another stay within the 50 subscriptions of a connection.
func TestManyJobs(t *testing.T) {
	cloud, cfg, _ := enrol(t)
	c := dial(t, cfg)
	for i := range 60 {
		id := fmt.Sprintf("job-%d", i)
		if err := cloud.CreateJob(localiot.Job{ID: id, Things: []string{thing}, Document: json.RawMessage(`{}`)}); err != nil {
			t.Fatal(err)
		}
		job, err := c.DescribeJob(t.Context(), id)
		if err == nil {
			err = c.UpdateJob(t.Context(), job, device.JobSucceeded, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newCSR(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// credential is the pair of a certificate as it was issued.
func credential(t *testing.T, c awsiot.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	pair := tls.Certificate{PrivateKey: key}
	for rest := c.PEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		pair.Certificate = append(pair.Certificate, block.Bytes)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil || !key.PublicKey.Equal(leaf.PublicKey) {
		t.Fatalf("the certificate is not on our key: %v", err)
	}
	if localiot.CertificateID(leaf.Raw) != c.ID {
		t.Errorf("certificate id %s", c.ID)
	}
	return pair
}

func TestClaimFromEndToEnd(t *testing.T) {
	cloud, cfg, _ := enrol(t)
	if err := cloud.AddTemplate("keyvet-first", readDoc(t, "provisioning-template.json")); err != nil {
		t.Fatal(err)
	}
	claim, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := cloud.IssueClaim(claim.Public())
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chain)
	cfg.ClientID, cfg.Certificate = awsiot.ClaimClientID("new"), tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: claim}
	session, err := mqtt.Dial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	p := awsiot.NewProvisioner(session)
	key, csr := newCSR(t)
	cert, err := p.CreateCertificate(t.Context(), csr)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.RegisterThing(t.Context(), "keyvet-first", cert.OwnershipToken+"x", map[string]string{"ThingName": "new"}); err == nil {
		t.Error("a wrong token was taken")
	}
	name, _, err := p.RegisterThing(t.Context(), "keyvet-first", cert.OwnershipToken, map[string]string{"ThingName": "new"})
	if err != nil || name != "new" {
		t.Fatalf("%q, %v", name, err)
	}
	cfg.ClientID, cfg.Certificate = name, credential(t, cert, key)
	own, err := mqtt.Dial(t.Context(), cfg, func(ctx context.Context, s *mqtt.Session) error {
		c, err := awsiot.New(s, name, "keyvet/{thing}/report")
		if err != nil {
			return err
		}
		return c.Probe(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	own.Close()
	if _, err := p.CreateCertificate(t.Context(), []byte("no CSR")); err == nil {
		t.Error("no CSR was signed")
	}
}

func TestIssuerFromEndToEnd(t *testing.T) {
	cloud, cfg, old := enrol(t)
	c := dial(t, cfg)
	key, csr := newCSR(t)
	cert, err := c.RequestCertificate(t.Context(), "job-1", csr)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CommitCertificate(t.Context(), "job-1", cert.ID); err == nil {
		t.Error("the old certificate committed the new one")
	}
	cfg.Certificate = credential(t, cert, key)
	if len(cfg.Certificate.Certificate) < 2 {
		t.Error("the chain is gone")
	}
	if err := dial(t, cfg).CommitCertificate(t.Context(), "job-1", cert.ID); err != nil {
		t.Error(err)
	}
	for _, known := range cloud.Certificates(thing) {
		want := localiot.Active
		if known.ID == localiot.CertificateID(old.Raw) {
			want = localiot.Inactive
		}
		if known.Status != want {
			t.Errorf("certificate %s is %s", known.ID, known.Status)
		}
	}
}

func TestDesiredFromEndToEnd(t *testing.T) {
	cloud, cfg, _ := enrol(t)
	c := dial(t, cfg)
	tokens := make(chan string, 10)
	await := func(c *awsiot.Client) {
		t.Helper()
		if err := c.OnDesiredCheck(t.Context(), func(token string) { tokens <- token }); err != nil {
			t.Fatal(err)
		}
	}
	desire := func(update string) {
		t.Helper()
		if err := cloud.UpdateShadow(thing, "keyvet", []byte(update)); err != nil {
			t.Fatal(err)
		}
	}
	await(c) // there is no shadow yet
	desire(`{"state":{"desired":{"check":"one"}}}`)
	if token := <-tokens; token != "one" {
		t.Errorf("token %q", token)
	}
	// A session that comes later finds it, until it is acknowledged.
	second := dial(t, cfg)
	await(second)
	if token := <-tokens; token != "one" {
		t.Errorf("token %q", token)
	}
	if err := second.AcknowledgeCheck(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	third := dial(t, cfg)
	await(third)
	desire(`{"state":{"desired":{"check":"two","other":[1]}}}`)
	if token := <-tokens; token != "two" {
		t.Errorf("token %q", token)
	}
	if s, raw := shadow(t, cloud); s.Check != "one" {
		t.Errorf("shadow %s", raw)
	}
}

func TestMetricsFromEndToEnd(t *testing.T) {
	_, cfg, cert := enrol(t)
	c := dial(t, cfg)
	r := report(cert, device.Finding{Key: "device", Status: device.Fail, ReasonCode: device.ReasonROCA})
	if err := c.ReportMetrics(t.Context(), awsiot.MetricsOf(r, false)); err != nil {
		t.Error(err)
	}
	// A new process knows nothing of it, AWS IoT does.
	if err := dial(t, cfg).ReportMetrics(t.Context(), awsiot.MetricsOf(r, true)); !errors.Is(err, awsiot.ErrTooSoon) {
		t.Error(err)
	}
}
