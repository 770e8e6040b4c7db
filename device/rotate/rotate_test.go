package rotate_test

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
)

// bench is a device with a job, not cut.
type bench struct {
	*testing.T
	*world
	disk   *durabletest.Disk
	engine *rotate.Engine
}

func newBench(t *testing.T) *bench {
	w, disk := device0(t, "a")
	w.jobs["job1"] = device.JobInProgress
	return &bench{t, w, disk, boot(w, disk, new(durabletest.Power))}
}

var byJob = rotate.Request{Trigger: device.TriggerJob, Job: device.Job{ID: "job1", Execution: 1}}

// expect wants a rotation to have failed, or been refused, for a reason.
func (b *bench) expect(err error, want device.ReasonCode) {
	b.Helper()
	var named *rotate.Error
	if !errors.As(err, &named) || named.Reason != want {
		b.Errorf("%v, want %s", err, want)
	}
}

// expectOld wants the old credential alone to be in use, and usable.
func (b *bench) expectOld() {
	b.Helper()
	ids, _ := b.engine.Store.List()
	if current, err := b.engine.Store.Current(); current != "a" || len(ids) != 1 {
		b.Errorf("%q of %v is in use: %v", current, ids, err)
	}
	if _, err := usable(b.world, b.engine.Store, "a"); err != nil {
		b.Error(err)
	}
}

// TestRefusals has everything fail in turn: each ends in its own reason code,
// with the old credential in use and the job told.
func TestRefusals(t *testing.T) {
	wrap := func(err error) answer { return answer{fmt.Errorf("adapter: %w", err), false} }
	for _, tt := range []struct {
		name string
		set  func(*bench)
		want device.ReasonCode
	}{
		{"create throttled", func(b *bench) { b.script["create"] = []answer{wrap(rotate.ErrThrottled)} }, rotate.ReasonCreateThrottled},
		{"create rejected", func(b *bench) { b.script["create"] = []answer{wrap(rotate.ErrRejected)} }, rotate.ReasonCreateRejected},
		{"create timed out", func(b *bench) { b.script["create"] = []answer{wrap(context.DeadlineExceeded)} }, rotate.ReasonCreateTimeout},
		{"create broken off", func(b *bench) { b.script["create"] = []answer{wrap(errors.New("connection lost"))} }, rotate.ReasonCreateFailed},
		{"activation rejected", func(b *bench) { b.script["activate"] = []answer{wrap(rotate.ErrRejected)} }, rotate.ReasonNotActivated},
		{"activation throttled", func(b *bench) { b.script["activate"] = []answer{wrap(rotate.ErrThrottled)} }, rotate.ReasonNotActivated},
		{"never activated", func(b *bench) { b.script["activate"] = []answer{{nil, false}} }, rotate.ReasonTryRefused},
		{"confirmation rejected", func(b *bench) { b.script["confirm"] = []answer{wrap(rotate.ErrRejected)} }, rotate.ReasonCommitRejected},
		{"confirmation timed out", func(b *bench) { b.script["confirm"] = []answer{wrap(context.DeadlineExceeded)} }, rotate.ReasonCommitTimeout},
		{"confirmation broken off", func(b *bench) { b.script["confirm"] = []answer{wrap(errors.New("lost"))} }, rotate.ReasonCommitFailed},
		{"report refused", func(b *bench) { b.script["move"] = []answer{wrap(rotate.ErrRejected)} }, rotate.ReasonGateRefused},
		{"TPM full", func(b *bench) { b.script["make"] = []answer{wrap(rotate.ErrTPMFull)} }, rotate.ReasonTPMFull},
		{"TPM slow", func(b *bench) { b.script["make"] = []answer{wrap(context.DeadlineExceeded)} }, rotate.ReasonMakeTimeout},
		{"TPM broken", func(b *bench) { b.script["make"] = []answer{wrap(errors.New("TPM_RC_FAILURE"))} }, rotate.ReasonMakeFailed},
		{"RSA on firmware with ROCA", func(b *bench) { b.script["make"] = []answer{wrap(rotate.ErrAlgorithm)} }, rotate.ReasonAlgorithm},
		{"weak key", func(b *bench) { b.badKey = device.ReasonROCA }, device.ReasonROCA},
		{"checks without an answer", func(b *bench) { b.engine.Vetter = silent{} }, rotate.ReasonNotVetted},
		{"TPM reset before the request", func(b *bench) { b.gone[1] = true }, rotate.ReasonKeyGone},
		{"certificate for another key", func(b *bench) { b.engine.Cloud = twisted{b.engine.Cloud, b.world} }, rotate.ReasonCertificateKey},
		{"certificate of a CA", func(b *bench) {
			b.shape = func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }
		}, rotate.ReasonCertificateUsage},
		{"certificate for encryption", func(b *bench) { b.shape = func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment } }, rotate.ReasonCertificateUsage},
		{"certificate of a server", func(b *bench) {
			b.shape = func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
		}, rotate.ReasonCertificateUsage},
		{"certificate for another device", func(b *bench) {
			b.engine.Name = func() rotate.Name { return rotate.Name{Common: thing, Strict: true} }
			b.shape = func(c *x509.Certificate) { c.Subject.CommonName = "gateway-2" }
		}, rotate.ReasonCertificateSubject},
		{"clock behind", func(b *bench) { b.shape = func(c *x509.Certificate) { c.NotBefore = b.now.Add(time.Hour) } }, rotate.ReasonClockWrong},
		{"no certificate", func(b *bench) {
			b.engine.Cloud = bent{b.engine.Cloud, rotate.Certificate{ID: "1", PEM: []byte("none")}}
		}, rotate.ReasonCertificateInvalid},
		{"damaged certificate", func(b *bench) { b.encode = func(der []byte) []byte { return der[:len(der)/2] } }, rotate.ReasonCertificateInvalid},
		{"huge token", func(b *bench) {
			b.engine.Cloud = bent{b.engine.Cloud, rotate.Certificate{ID: "1", PEM: []byte("x"), Token: strings.Repeat("x", 1<<20)}}
		}, rotate.ReasonCertificateInvalid},
		{"huge certificate", func(b *bench) {
			b.engine.Cloud = bent{b.engine.Cloud, rotate.Certificate{ID: "1", PEM: make([]byte, 1<<20)}}
		}, rotate.ReasonCertificateInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			tt.set(b)
			o, err := b.engine.Run(t.Context(), byJob)
			b.expect(err, tt.want)
			if o.Status != device.JobFailed || o.Reason != tt.want || b.jobs["job1"] != device.JobFailed || b.details["job1"]["reasonCode"] != tt.want {
				t.Errorf("outcome %+v, job %s %v", o, b.jobs["job1"], b.details["job1"])
			}
			b.expectOld()
			if _, err := b.engine.Resume(t.Context()); !errors.Is(err, rotate.ErrNothing) {
				t.Errorf("something is under way still: %v", err)
			}
		})
	}
}

// TestOddCertificates rotates to certificates that crypto/x509 refuses for how they
// are encoded, which a CA that is not in the operator's power may issue.
func TestOddCertificates(t *testing.T) {
	replaced := func(der []byte, field int, change func(asn1.RawValue) []byte) []byte {
		var outer struct{ Body, Algorithm, Signature asn1.RawValue }
		var body []asn1.RawValue
		if _, err := asn1.Unmarshal(der, &outer); err != nil {
			t.Fatal(err)
		}
		if _, err := asn1.Unmarshal(outer.Body.FullBytes, &body); err != nil {
			t.Fatal(err)
		}
		body[field] = asn1.RawValue{FullBytes: change(body[field])}
		var err error
		if outer.Body.FullBytes, err = asn1.Marshal(body); err == nil {
			der, err = asn1.Marshal(outer)
		}
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for name, encode := range map[string]func([]byte) []byte{
		"negative serial number": func(der []byte) []byte {
			return replaced(der, 1, func(asn1.RawValue) []byte { return []byte{2, 1, 0xff} })
		},
		"compressed point": func(der []byte) []byte { // the key in another form than the device's own
			return replaced(der, 6, func(spki asn1.RawValue) []byte {
				var key struct {
					Algorithm asn1.RawValue
					Point     asn1.BitString
				}
				if _, err := asn1.Unmarshal(spki.FullBytes, &key); err != nil {
					t.Fatal(err)
				}
				xy := key.Point.Bytes
				key.Point = asn1.BitString{Bytes: append([]byte{2 + xy[64]&1}, xy[1:33]...), BitLength: 33 * 8}
				der, err := asn1.Marshal(key)
				if err != nil {
					t.Fatal(err)
				}
				return der
			})
		},
	} {
		b := newBench(t)
		b.encode = encode
		o, err := b.engine.Run(t.Context(), byJob)
		if err != nil || o.Status != device.JobSucceeded {
			t.Errorf("%s: %+v, %v", name, o, err)
			continue
		}
		current, err := b.engine.Store.Current()
		if err != nil || current == "a" {
			t.Errorf("%s: %q is in use, %v", name, current, err)
		}
		chain, err := b.engine.Store.Certificate(current)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(chain)
		if _, err := x509.ParseCertificate(block.Bytes); err == nil {
			t.Errorf("%s: crypto/x509 takes it", name)
		}
	}
}

type silent struct{}

func (silent) Vet(context.Context, device.Key) []device.Finding { return nil }

// bent is a cloud whose issuer gives what it likes.
type bent struct {
	rotate.Cloud
	given rotate.Certificate
}

type bentSession struct {
	rotate.Session
	given rotate.Certificate
}

func (b bent) Dial(ctx context.Context, id string) (rotate.Session, error) {
	s, err := b.Cloud.Dial(ctx, id)
	return bentSession{s, b.given}, err
}

func (b bentSession) Create(context.Context, rotate.Order, []byte) (rotate.Certificate, error) {
	return b.given, nil
}
func (b bentSession) Activate(context.Context, rotate.Certificate) (string, error) {
	return "", nil
}

// twisted is a cloud that gives certificates for another key.
type twisted struct {
	rotate.Cloud
	world *world
}

func (c twisted) Dial(ctx context.Context, id string) (rotate.Session, error) {
	other, err := open(pool()[40])
	if err != nil {
		return nil, err
	}
	s, err := c.Cloud.Dial(ctx, id)
	return bentSession{s, c.world.issue(other.Public(), thing)}, err
}

// TestOdds goes through calls that fail for a while.
func TestOdds(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*world)
	}{
		{"create throttled twice", script("create", answer{rotate.ErrThrottled, false}, answer{rotate.ErrThrottled, false}, answer{nil, true})},
		{"first session refused", func(w *world) { w.script["dial"] = []answer{{nil, true}, {errors.New("EOF"), false}, {nil, true}} }},
		{"steps not told", script("tell IN_PROGRESS", answer{rotate.ErrThrottled, false})},
		{"gate not acknowledged twice", script("move", answer{context.DeadlineExceeded, false}, answer{context.DeadlineExceeded, false}, answer{nil, true})},
		{"job does not take its end", script("tell SUCCEEDED", answer{rotate.ErrRejected, false})},
		{"job timed out at its end", script("tell SUCCEEDED", answer{rotate.ErrJobEnded, false})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			tt.set(b.world)
			o, err := b.engine.Run(t.Context(), byJob)
			if err != nil || o.Status != device.JobSucceeded || o.New == "" || o.Old == "" || o.New == o.Old {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
}

func TestReplay(t *testing.T) {
	b := newBench(t)
	first, err := b.engine.Run(t.Context(), byJob)
	must(t, err)
	if d := b.details["job1"]; d["oldCertificateId"] != first.Old || d["newCertificateId"] != first.New {
		t.Errorf("the job says %v", d)
	}
	b.jobs["job1"] = device.JobInProgress // our answer was lost in the cloud
	again, err := b.engine.Run(t.Context(), byJob)
	if err != nil || again.Status != device.JobSucceeded || again.New != first.New || b.calls["make"] != 1 || b.jobs["job1"] != device.JobSucceeded {
		t.Errorf("again: %+v, %v, %d keys, job %s", again, err, b.calls["make"], b.jobs["job1"])
	}

	// A failed job is answered again, but its next execution is another try.
	b.jobs["job2"] = device.JobInProgress
	req := rotate.Request{Job: device.Job{ID: "job2", Execution: 1}}
	b.script["create"] = []answer{{rotate.ErrRejected, false}}
	_, err = b.engine.Run(t.Context(), req)
	b.expect(err, rotate.ReasonCreateRejected)
	made := b.calls["make"]
	delete(b.script, "create")
	b.jobs["job2"] = device.JobInProgress
	o, err := b.engine.Run(t.Context(), req)
	if err != nil || o.Reason != rotate.ReasonCreateRejected || b.calls["make"] != made || b.jobs["job2"] != device.JobFailed {
		t.Errorf("the same execution: %+v, %v", o, err)
	}
	b.jobs["job2"] = device.JobInProgress
	req.Job.Execution = 2
	if o, err = b.engine.Run(t.Context(), req); err != nil || o.Status != device.JobSucceeded {
		t.Errorf("the next execution: %+v, %v", o, err)
	}
}

func TestNewerJob(t *testing.T) {
	b := newBench(t)
	b.jobs["job2"] = device.JobInProgress
	b.offline = true
	_, err := b.engine.Run(t.Context(), byJob)
	if !errors.Is(err, rotate.ErrWaits) {
		t.Fatal(err)
	}
	newer := rotate.Request{Job: device.Job{ID: "job2", Execution: 1}}
	_, err = b.engine.Run(t.Context(), newer)
	b.expect(err, rotate.ReasonBusy)
	b.offline = false
	if o, err := b.engine.Run(t.Context(), byJob); err != nil || o.Status != device.JobSucceeded { // as AWS IoT sends it again
		t.Fatalf("%+v, %v", o, err)
	}
	// Within the grace the newer one begins, and the old key keeps its own.
	b.now = b.now.Add(grace / 2)
	if o, err := b.engine.Run(t.Context(), newer); err != nil || o.Status != device.JobSucceeded {
		t.Fatalf("%+v, %v", o, err)
	}
	b.expectCredentials(3)
	b.now = b.now.Add(grace / 2)
	b.expectCredentials(2)
	b.now = b.now.Add(grace / 2)
	b.expectCredentials(1)
}

// TestTooSoon has job after job come. Whoever has the device is not held up, and
// a clock that is set back locks nobody out.
func TestTooSoon(t *testing.T) {
	b := newBench(t)
	b.engine.Jobs.MinInterval = time.Hour
	n := 0
	job := func(want device.ReasonCode) {
		t.Helper()
		n++
		req := rotate.Request{Trigger: device.TriggerJob, Job: device.Job{ID: fmt.Sprint("job", n), Execution: 1}}
		b.jobs[req.Job.ID] = device.JobInProgress
		made := b.calls["make"]
		_, err := b.engine.Run(t.Context(), req)
		if want == "" {
			if err != nil || b.jobs[req.Job.ID] != device.JobSucceeded {
				t.Errorf("%s: %v, %s", req.Job.ID, err, b.jobs[req.Job.ID])
			}
			return
		}
		b.expect(err, want)
		if d := b.details[req.Job.ID]; b.jobs[req.Job.ID] != device.JobFailed || d["reasonCode"] != want || want == rotate.ReasonTooSoon && b.calls["make"] != made {
			t.Errorf("%s: %s %v, %d keys", req.Job.ID, b.jobs[req.Job.ID], d, b.calls["make"]-made)
		}
	}
	job("")
	job(rotate.ReasonTooSoon)
	b.now = b.now.Add(50 * time.Minute)
	job(rotate.ReasonTooSoon)
	b.now = b.now.Add(11 * time.Minute)
	b.script["create"] = []answer{{rotate.ErrRejected, false}, {nil, true}}
	job(rotate.ReasonCreateRejected)
	job("") // after a failure at once
	job(rotate.ReasonTooSoon)
	b.now = b.now.Add(-1000 * time.Hour)
	job("")
	job(rotate.ReasonTooSoon)
	for range 10 { // which fill the outcomes
		b.script["create"] = []answer{{rotate.ErrRejected, false}, {nil, true}}
		_, err := b.engine.Run(t.Context(), rotate.Request{Job: device.Job{}})
		b.expect(err, rotate.ReasonCreateRejected)
	}
	job(rotate.ReasonTooSoon)

	// Old keys in their grace are never too many by jobs.
	b.engine.Jobs.MinInterval = 0
	for len(b.journal().Leaving) < 8 {
		job("")
	}
	job(rotate.ReasonTooSoon)
	b.now = b.now.Add(grace)
	b.expectCredentials(1)
	job("")
}

func TestJobKeys(t *testing.T) {
	b := newBench(t)
	b.engine.Jobs.Keys = device.NotWeaker("ecdsa-p256")
	req := byJob
	req.Key = "rsa-2048"
	_, err := b.engine.Run(t.Context(), req)
	b.expect(err, rotate.ReasonKeyNotAllowed)
	if b.jobs["job1"] != device.JobRejected || b.details["job1"]["reasonCode"] != rotate.ReasonKeyNotAllowed || b.calls["make"] != 0 {
		t.Errorf("job %s %v, %d keys", b.jobs["job1"], b.details["job1"], b.calls["make"])
	}
	b.expectOld()
	_, err = b.engine.Run(t.Context(), rotate.Request{Key: "rsa-2048"}) // the operator's word
	b.expect(err, rotate.ReasonMakeFailed)                              // the fake makes P-256 alone
	b.jobs["job2"] = device.JobInProgress
	if _, err := b.engine.Run(t.Context(), rotate.Request{Key: "ecdsa-p256", Job: device.Job{ID: "job2"}}); err != nil {
		t.Error(err)
	}
}

func TestNotWeaker(t *testing.T) {
	for than, want := range map[string]string{
		"":           "ecdsa-p256 ecdsa-p384 rsa-2048 rsa-3072",
		"rsa-2048":   "ecdsa-p256 ecdsa-p384 rsa-2048 rsa-3072",
		"ecdsa-p256": "ecdsa-p256 ecdsa-p384 rsa-3072",
		"rsa-3072":   "ecdsa-p256 ecdsa-p384 rsa-3072",
		"ecdsa-p384": "ecdsa-p384",
	} {
		if got := strings.Join(device.NotWeaker(than), " "); got != want {
			t.Errorf("no weaker than %q: %s, want %s", than, got, want)
		}
	}
}

func TestGrace(t *testing.T) {
	b := newBench(t)
	if _, err := b.engine.Run(t.Context(), byJob); err != nil {
		t.Fatal(err)
	}
	b.expectCredentials(2)
	b.now = b.now.Add(grace / 2)
	b.expectCredentials(2)
	b.now = b.now.Add(-50 * 365 * 24 * time.Hour) // the clock is set back
	b.expectCredentials(2)
	b.now = b.now.Add(grace)
	b.expectCredentials(1)
	if next := b.journal().NextClear(); !next.IsZero() {
		t.Errorf("something is to go at %s", next)
	}
}

// expectCredentials clears, and wants as many credentials to be left.
func (b *bench) expectCredentials(want int) {
	b.Helper()
	if _, err := b.engine.Resume(b.Context()); !errors.Is(err, rotate.ErrNothing) {
		b.Errorf("something is under way: %v", err)
	}
	must(b.T, b.engine.Clear(b.Context()))
	if ids, err := b.engine.Store.List(); err != nil || len(ids) != want {
		b.Errorf("credentials %v, %v, want %d", ids, err, want)
	}
}

func (b *bench) journal() *rotate.State {
	b.Helper()
	s, err := b.engine.Journal.Load()
	must(b.T, err)
	return s
}

// TestNotRemoved has an old credential, and a claim, that cannot be removed for
// days. They keep nothing back, are tried again ever more seldom, and go in the end.
func TestNotRemoved(t *testing.T) {
	for _, tt := range []struct {
		first, call string
	}{{"a", "destroy"}, {rotate.Claim, "end"}, {atHandle, "end"}} {
		t.Run(tt.first, func(t *testing.T) {
			w, disk := device0(t, tt.first)
			b := &bench{t, w, disk, boot(w, disk, new(durabletest.Power))}
			b.script[tt.call] = []answer{{fmt.Errorf("remove: %w", syscall.EROFS), false}}
			req := rotate.Request{}
			if tt.first == rotate.Claim {
				req.From = rotate.Claim
			}
			if _, err := b.engine.Run(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			for range 40 * 24 { // each hour
				b.now = b.now.Add(time.Hour)
				if _, err := b.engine.Resume(t.Context()); !errors.Is(err, rotate.ErrNothing) {
					t.Fatal(err)
				}
			}
			if tries := b.calls[tt.call]; tries < 40 || tries > 50 {
				t.Errorf("tried %d times in 40 days", tries)
			}
			if left := b.journal().Leaving; len(left) != 1 || left[0].Tries == 0 || !strings.Contains(left[0].Why, "read-only") {
				t.Errorf("leaving: %+v", left)
			}
			b.jobs["job1"] = device.JobInProgress
			if o, err := b.engine.Run(t.Context(), byJob); err != nil || o.Status != device.JobSucceeded || b.jobs["job1"] != device.JobSucceeded {
				t.Errorf("the next rotation: %+v, %v, job %s", o, err, b.jobs["job1"])
			}
			b.script[tt.call] = []answer{{nil, true}}
			b.now = b.now.Add(2 * grace)
			b.expectCredentials(1)
			if left := b.journal().Leaving; len(left) != 0 {
				t.Errorf("leaving: %+v", left)
			}
		})
	}
}

// TestNewKeyNotRemoved has a rotation fail whose key cannot be removed: it ends,
// and the next begins.
func TestNewKeyNotRemoved(t *testing.T) {
	b := newBench(t)
	b.script["create"] = []answer{{rotate.ErrRejected, false}, {nil, true}}
	b.script["destroy"] = []answer{{syscall.EIO, false}, {nil, true}}
	_, err := b.engine.Run(t.Context(), byJob)
	b.expect(err, rotate.ReasonCreateRejected)
	if left := b.journal().Leaving; len(left) != 1 || left[0].Tries != 1 {
		t.Errorf("leaving: %+v", left)
	}
	b.jobs["job2"] = device.JobInProgress
	if o, err := b.engine.Run(t.Context(), rotate.Request{Job: device.Job{ID: "job2"}}); err != nil {
		t.Errorf("%+v, %v", o, err)
	}
	b.now = b.now.Add(2 * grace)
	b.expectCredentials(1)
}

// TestManyLeave rotates by hand over and over within one grace.
func TestManyLeave(t *testing.T) {
	b := newBench(t)
	delete(b.jobs, "job1")
	for range 12 {
		b.now = b.now.Add(time.Minute)
		if _, err := b.engine.Run(t.Context(), rotate.Request{}); err != nil {
			t.Fatal(err)
		}
	}
	if left := b.journal().Leaving; len(left) != 8 {
		t.Errorf("%d credentials leave", len(left))
	}
	b.expectCredentials(9)
	b.now = b.now.Add(grace)
	b.expectCredentials(1)
}

// TestJobsWaitForGrace has as many old keys in their grace as there may be: no
// job makes one more. Old keys that cannot be removed do not count.
func TestJobsWaitForGrace(t *testing.T) {
	b := newBench(t)
	n := 0
	job := func() error {
		n++
		b.now = b.now.Add(time.Minute)
		req := rotate.Request{Trigger: device.TriggerJob, Job: device.Job{ID: fmt.Sprint("job", n), Execution: 1}}
		b.jobs[req.Job.ID] = device.JobInProgress
		_, err := b.engine.Run(t.Context(), req)
		return err
	}
	for range 8 {
		if err := job(); err != nil {
			t.Fatal(err)
		}
	}
	err := job()
	b.expect(err, rotate.ReasonTooSoon)
	if err == nil || !strings.Contains(err.Error(), "8 old keys have their grace") || len(b.journal().Leaving) != 8 {
		t.Errorf("%v, leaving %+v", err, b.journal().Leaving)
	}
	b.script["destroy"] = []answer{{syscall.EROFS, false}}
	b.now = b.now.Add(2 * grace)
	if err := b.engine.Clear(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := b.journal().Leaving; len(left) != 8 || left[0].Tries == 0 {
		t.Errorf("leaving %+v", left)
	}
	if err := job(); err != nil {
		t.Errorf("with old keys that cannot be removed: %v", err)
	}
}

// TestCurrentUnreadable has a link that leads to no credential: nothing is
// replaced that cannot be read.
func TestCurrentUnreadable(t *testing.T) {
	b := newBench(t)
	link := stateDir + "/identity"
	must(t, b.disk.Remove(link))
	must(t, b.disk.Symlink("elsewhere", link))
	_, err := b.engine.Run(t.Context(), rotate.Request{})
	if err == nil || !strings.Contains(err.Error(), "which is no credential") || b.calls["make"] != 0 || b.journal().Rotation != nil {
		t.Errorf("%v, %d keys made, %+v", err, b.calls["make"], b.journal().Rotation)
	}
}

// TestOldKeyGone is a TPM that was reset: nobody can ask for a certificate, nor
// tell the job, and the rotation ends all the same.
func TestOldKeyGone(t *testing.T) {
	b := newBench(t)
	b.gone[0] = true
	b.engine.Cloud = resetTPM{b.engine.Cloud, b.world, map[string]bool{"a": true}}
	o, err := b.engine.Run(t.Context(), byJob)
	b.expect(err, rotate.ReasonOldKeyGone)
	if o.Reason != rotate.ReasonOldKeyGone || b.jobs["job1"] != device.JobInProgress {
		t.Errorf("%+v, job %s", o, b.jobs["job1"])
	}
}

// resetTPM has lost the keys of some credentials.
type resetTPM struct {
	rotate.Cloud
	*world
	lost map[string]bool
}

func (r resetTPM) Dial(ctx context.Context, id string) (rotate.Session, error) {
	if r.lost[id] {
		return nil, fmt.Errorf("dial: %w", rotate.ErrKeyGone)
	}
	return r.Cloud.Dial(ctx, id)
}

// TestOldKeyGoneInGrace ends in peace: it was to go anyway.
func TestOldKeyGoneInGrace(t *testing.T) {
	b := newBench(t)
	if _, err := b.engine.Run(t.Context(), byJob); err != nil {
		t.Fatal(err)
	}
	b.script["destroy"] = []answer{{rotate.ErrKeyGone, false}}
	b.now = b.now.Add(grace)
	b.expectCredentials(1)
}

// TestNoWayBack has the power go just after the job was told of the success,
// and then the new credential fail while the old one works: the job says what is.
func TestNoWayBack(t *testing.T) {
	for cutAt := 1; ; cutAt++ {
		b := newBench(t)
		power := &durabletest.Power{CutAt: cutAt}
		e := boot(b.world, b.disk, power)
		if !power.Run(func() { _, _ = e.Run(t.Context(), byJob) }) {
			t.Fatal("the job was never told")
		}
		if b.jobs["job1"] != device.JobSucceeded {
			continue
		}
		for id, c := range b.certificates {
			c.active = !c.active
			b.certificates[id] = c
		}
		e = boot(b.world, b.disk.Cut()[0], new(durabletest.Power))
		for range 5 {
			if o, err := e.Resume(t.Context()); !errors.Is(err, rotate.ErrWaits) {
				t.Fatalf("%+v, %v", o, err)
			}
		}
		if current, err := e.Store.Current(); current == "a" {
			t.Errorf("it went back: %v", err)
		}
		return
	}
}

// TestOffline goes forward and back as far as it can, and on later.
func TestOffline(t *testing.T) {
	b := newBench(t)
	b.offline = true
	for range 3 {
		_, err := b.engine.Run(t.Context(), byJob)
		if !errors.Is(err, rotate.ErrWaits) {
			t.Fatal(err)
		}
	}
	b.expectStep("enrol", false)
	b.offline, b.script["create"] = false, []answer{{rotate.ErrRejected, false}}
	b.script["tell FAILED"] = []answer{{errors.New("lost"), false}}
	_, err := b.engine.Resume(t.Context())
	if !errors.Is(err, rotate.ErrWaits) {
		t.Fatal(err)
	}
	b.expectStep("reserve", true)
	delete(b.script, "tell FAILED")
	_, err = b.engine.Resume(t.Context())
	b.expect(err, rotate.ReasonCreateRejected)
	b.expectOld()
}

func (b *bench) expectStep(step string, back bool) {
	b.Helper()
	s, err := b.engine.Journal.Load()
	if err != nil || s.Rotation == nil || s.Rotation.Step != step || s.Rotation.Back != back {
		b.Fatalf("journal: %+v, %v", s, err)
	}
}

func TestInterrupted(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.engine.Watch = func(step string, _ bool) {
		if step == "try" {
			cancel()
		}
	}
	if _, err := b.engine.Run(ctx, byJob); !errors.Is(err, rotate.ErrWaits) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.expectStep("try", false)
	if o, err := b.engine.Resume(t.Context()); err != nil || o.Status != device.JobSucceeded {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestBadRequests(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first string
		req   rotate.Request
		want  device.ReasonCode
	}{
		{"algorithm", "a", rotate.Request{Key: "ed25519"}, rotate.ReasonRequestInvalid},
		{"credential", "a", rotate.Request{From: "b"}, rotate.ReasonRequestInvalid},
		{"claim with a credential", "a", rotate.Request{From: rotate.Claim}, rotate.ReasonRequestInvalid},
		{"unknown credential without one", rotate.Claim, rotate.Request{From: "b"}, rotate.ReasonRequestInvalid},
		{"no credential", rotate.Claim, rotate.Request{}, rotate.ReasonNoCredential},
		{"job id", "a", rotate.Request{Job: device.Job{ID: strings.Repeat("x", 1000)}}, rotate.ReasonRequestInvalid},
		{"algorithm the TPM lacks", "a", rotate.Request{Key: "rsa-2048"}, rotate.ReasonMakeFailed}, // the fake makes P-256 alone
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, disk := device0(t, tt.first)
			b := &bench{t, w, disk, boot(w, disk, new(durabletest.Power))}
			_, err := b.engine.Run(t.Context(), tt.req)
			b.expect(err, tt.want)
		})
	}
}

// TestFullDisk has every amount of room: the rotation succeeds, or fails for
// lack of it with the old credential in use.
func TestFullDisk(t *testing.T) {
	var failed, succeeded int
	for room := 0; room < 40<<10; room += 200 {
		b := newBench(t)
		size := 0
		for _, name := range []string{"key.pem", "certificate.pem"} {
			data, err := b.disk.ReadFile(stateDir+"/identity/"+name, 1<<20)
			must(t, err)
			size += len(data)
		}
		b.disk.Limit = size + len("credentials/a") + room
		o, err := b.engine.Run(t.Context(), byJob)
		if err == nil {
			succeeded++
			continue
		}
		failed++
		b.expect(err, rotate.ReasonDiskFull)
		if room < 16<<10 && b.calls["make"] != 0 { // the room for going back comes first
			t.Errorf("room of %d: a key was made", room)
		}
		if o.Reason != rotate.ReasonDiskFull || b.jobs["job1"] != device.JobFailed {
			t.Errorf("room of %d: %+v, %v, job %s", room, o, err, b.jobs["job1"])
		}
		b.expectOld()
	}
	if failed < 20 || succeeded < 20 {
		t.Errorf("%d failed, %d succeeded", failed, succeeded)
	}
}

// TestFillingDisk has the disk fill up when a step begins.
func TestFillingDisk(t *testing.T) {
	for _, step := range []string{"make", "vet", "enrol", "check", "try", "commit"} {
		b := newBench(t)
		b.engine.Watch = func(at string, back bool) {
			if at == step && !back && b.disk.Limit == 0 {
				b.disk.Limit = b.disk.Size()
			}
		}
		_, err := b.engine.Run(t.Context(), byJob)
		b.expect(err, rotate.ReasonDiskFull)
		if b.jobs["job1"] != device.JobFailed {
			t.Errorf("%s: job %s", step, b.jobs["job1"])
		}
		b.expectOld()
	}
	// From proving on there is room enough, since what was kept is freed.
	b := newBench(t)
	b.engine.Watch = func(at string, back bool) {
		if at == "prove" {
			b.disk.Limit = b.disk.Size()
		}
	}
	if o, err := b.engine.Run(t.Context(), byJob); err != nil || o.Status != device.JobSucceeded {
		t.Errorf("prove: %+v, %v", o, err)
	}
}

// TestBrokenDisk does not get past a disk that takes nothing, and goes on when
// it does again.
func TestBrokenDisk(t *testing.T) {
	b := newBench(t)
	b.disk.Limit = 1
	_, err := b.engine.Run(t.Context(), byJob)
	b.expect(err, rotate.ReasonDiskFull)
	if !errors.Is(err, syscall.ENOSPC) || b.jobs["job1"] != device.JobFailed {
		t.Errorf("%v, job %s", err, b.jobs["job1"])
	}
	b.expectOld()
}

func TestConfigured(t *testing.T) {
	w, disk := device0(t, rotate.Configured)
	e := boot(w, disk, new(durabletest.Power))
	o, err := e.Run(t.Context(), rotate.Request{From: rotate.Configured})
	if err != nil || o.Thing != thing {
		t.Fatalf("%+v, %v", o, err)
	}
	if current, err := e.Store.Current(); err != nil || current == identity.First {
		t.Errorf("%q, %v", current, err)
	}
}
