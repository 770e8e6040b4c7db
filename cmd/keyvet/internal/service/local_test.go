package service

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"crypto/rand"
	"encoding/pem"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
)

// aside is the jobs that were put aside.
type aside []string

func (a *aside) PutAside(job string, _ time.Duration) { *a = append(*a, job) }

// noCloud refuses every session.
type noCloud struct{ err error }

func (c noCloud) Dial(context.Context, string) (rotate.Session, error) { return nil, c.err }

// finds gives every key the status.
type finds device.Status

func (f finds) Vet(_ context.Context, k device.Key) []device.Finding {
	return []device.Finding{{Check: "point", Key: k.ID, Status: device.Status(f), ReasonCode: "KEYVET_TEST"}}
}

// rotatorOn is a device whose certificate, if it has one, ends after life.
func rotatorOn(t *testing.T, life time.Duration) *rotator {
	t.Helper()
	c := *config.Default()
	dir := t.TempDir()
	c.StateDir, c.RunDir, c.TPM.Address, c.Thing.Name, c.Rotate.Template = filepath.Join(dir, "state"), filepath.Join(dir, "run"), "", "gw", "template"
	must(t, os.MkdirAll(c.StateDir, 0o700))
	if life > 0 {
		chain, key := enrolled(t, func(k *ecdsa.PrivateKey) ([]byte, error) {
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(life)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
			return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
		})
		write(t, filepath.Join(c.StateDir, "identity", "certificate.pem"), chain)
		write(t, filepath.Join(c.StateDir, "identity", "key.pem"), key)
	}
	credentials, err := credential.Open(c)
	must(t, err)
	credentials.Name(device.Inventory{})
	g, err := gate.New(c.RunDir, durable.Disk{})
	must(t, err)
	log := slog.New(slog.DiscardHandler)
	r := &rotator{config: c, credentials: credentials, gate: g, jobs: new(aside), log: log, engine: newEngine(c, credentials, finds(device.Pass), log)}
	r.engine.Cloud, r.engine.Gate, r.engine.Attempts = noCloud{rotate.ErrRejected}, r, 1
	r.engine.Clock.Pause = func(context.Context, time.Duration) {}
	return r
}

// asked is what local work had the device do.
type asked struct {
	agent.Actions
	rotations []agent.Rotation
}

func (a *asked) Rotate(_ context.Context, r agent.Rotation) error {
	a.rotations = append(a.rotations, r)
	return nil
}

func TestLocalRequest(t *testing.T) {
	r := rotatorOn(t, 0)
	if w := r.Local(); w != nil {
		t.Errorf("%+v", w)
	}
	write(t, r.config.RequestPath(), nil)
	w := r.Local()
	if w == nil || w.ID != "by hand" || !w.EndsSession {
		t.Fatalf("%+v", w)
	}
	var a asked
	if err := w.Do(t.Context(), &a); err != nil || len(a.rotations) != 1 || a.rotations[0] != (agent.Rotation{Trigger: device.TriggerManual}) {
		t.Errorf("%+v, %v", a.rotations, err)
	}
	if w := r.Local(); w != nil {
		t.Errorf("the request is taken twice: %+v", w)
	}
	r.config.Rotate.Template = ""
	write(t, r.config.RequestPath(), nil)
	if w = r.Local(); w == nil || w.EndsSession || w.Do(t.Context(), &a) != nil || len(a.rotations) != 1 {
		t.Errorf("without a way to a certificate: %+v, %+v", w, a.rotations)
	}
	must(t, os.MkdirAll(filepath.Join(r.config.RequestPath(), "x"), 0o700)) // which cannot be removed
	if w := r.Local(); w != nil {
		t.Errorf("a request that cannot be removed: %+v", w)
	}
	r.config.StateDir = write(t, filepath.Join(t.TempDir(), "file"), nil)
	if w := r.Local(); w != nil {
		t.Errorf("a request that cannot be seen: %+v", w)
	}
}

func TestLocalWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rotatorOn(t, 100*time.Hour)
		r.config.Rotate.Before.Duration = 10 * time.Hour
		journal := rotate.File{Path: rotate.JournalPath(r.config.StateDir)}
		ids := func() string {
			var all []string
			for range 2 {
				if w := r.Local(); w != nil {
					all = append(all, w.ID)
				}
			}
			return strings.Join(all, ", ")
		}
		if got := ids(); got != "" {
			t.Errorf("at first: %s", got)
		}
		time.Sleep(96 * time.Hour)
		if got := ids(); !strings.HasPrefix(got, "certificate ends ") || strings.Contains(got, ",") {
			t.Errorf("close to the end: %s", got)
		}
		time.Sleep(scheduleAgain - time.Minute)
		if got := ids(); got != "" {
			t.Errorf("again: %s", got)
		}
		time.Sleep(2 * time.Minute)
		w := r.Local()
		var a asked
		if w == nil || w.Do(t.Context(), &a) != nil || len(a.rotations) != 1 || a.rotations[0].Trigger != device.TriggerSchedule {
			t.Errorf("%+v, %+v", w, a.rotations)
		}

		must(t, journal.Save(&rotate.State{Rotation: &rotate.Rotation{Step: "try", Old: rotate.Credential{ID: rotate.Configured}, New: rotate.Credential{ID: "r1"}}}))
		if got := ids(); got != "resumption" {
			t.Errorf("a rotation that waits: %s", got)
		}
		time.Sleep(resumeEvery + time.Second)
		if w := r.Local(); w == nil || !w.EndsSession || w.Do(t.Context(), nil) == nil {
			t.Errorf("it is not resumed: %+v", w)
		}

		must(t, journal.Save(&rotate.State{Leaving: []rotate.Leaving{{ID: "r0", At: time.Now().Add(-time.Minute)}}}))
		if got := ids(); got != "old credentials, old credentials" {
			t.Errorf("a grace that is over: %s", got)
		}
		if w := r.Local(); w.EndsSession || w.Do(t.Context(), nil) != nil {
			t.Error("they are not removed")
		}
		if got := ids(); got != "" {
			t.Errorf("after it: %s", got)
		}
	})
}

// Each failed provisioning takes a key: the third in a row is not tried again at
// once.
func TestProvisioningPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rotatorOn(t, 0)
		if changed, err := r.Prepare(t.Context()); changed || err != nil {
			t.Errorf("without a claim: %t, %v", changed, err)
		}
		r.config.Provision.ClaimCertificate, r.config.Provision.ClaimKey = "/claim.pem", "/claim.key"
		r.engine.Vetter = finds(device.Fail)
		for i := range 3 {
			if changed, err := r.Prepare(t.Context()); changed || !errors.Is(err, agent.ErrNotReady) || strings.Contains(err.Error(), "tried again at") != (i == 2) {
				t.Errorf("%d: %t, %v", i, changed, err)
			}
		}
		if _, err := r.Prepare(t.Context()); !errors.Is(err, agent.ErrNotReady) || !strings.Contains(err.Error(), "tried again at") || r.provisioning.times != 3 {
			t.Errorf("%v, after %d", err, r.provisioning.times)
		}
		time.Sleep(time.Minute + 16*time.Second)
		if _, err := r.Prepare(t.Context()); !errors.Is(err, agent.ErrNotReady) || r.provisioning.times != 4 {
			t.Errorf("%v, after %d", err, r.provisioning.times)
		}
	})
}

func TestRotateAsked(t *testing.T) {
	r := rotatorOn(t, time.Hour)
	var failed *rotate.Error
	err := r.Rotate(t.Context(), agent.Rotation{Trigger: device.TriggerJob, Job: device.Job{ID: "j"}, Key: "rsa-2048"})
	if !errors.As(err, &failed) || failed.Reason != rotate.ReasonKeyNotAllowed {
		t.Errorf("a weaker key by a job: %v", err)
	}
	r.engine.Vetter = finds(device.Fail)
	err = r.Rotate(t.Context(), agent.Rotation{Trigger: device.TriggerManual, Key: "rsa-2048"})
	if !errors.As(err, &failed) || len(*r.jobs.(*aside)) != 0 {
		t.Errorf("%v, put aside %v", err, *r.jobs.(*aside))
	}
	// Two credentials: which one is in use is not for keyvet to guess.
	r.config.Identity.Certificate = "/own.pem"
	err = r.Rotate(t.Context(), agent.Rotation{Trigger: device.TriggerManual})
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "remove the one that is not in use") {
		t.Errorf("%v", err)
	}
	r.config.Identity.Certificate = ""

	// One that waits keeps the job of another aside.
	r.engine.Vetter = finds(device.Pass)
	r.engine.Cloud = noCloud{errors.New("no route")}
	ctx, cancel := context.WithCancel(t.Context())
	r.engine.Clock.Pause = func(context.Context, time.Duration) { cancel() }
	r.engine.Attempts = 5
	if err := r.Rotate(ctx, agent.Rotation{Trigger: device.TriggerJob, Job: device.Job{ID: "k"}}); !errors.Is(err, rotate.ErrWaits) || len(*r.jobs.(*aside)) != 1 {
		t.Errorf("%v, put aside %v", err, *r.jobs.(*aside))
	}
	if changed, err := r.Prepare(ctx); changed || err != nil {
		t.Errorf("a rotation that waits stops no report: %t, %v", changed, err)
	}
	write(t, rotate.JournalPath(r.config.StateDir), []byte("nonsense"))
	if changed, err := r.Prepare(t.Context()); changed || err != nil {
		t.Errorf("a journal that cannot be read stops no report: %t, %v", changed, err)
	}
	if name := r.engine.Name(); name != (rotate.Name{Common: "gw"}) {
		t.Errorf("%+v", name)
	}
	r.config.Thing.Name = "cert:CN"
	if name := nameOf(r.config, r.credentials); name != (rotate.Name{Common: "gw", Strict: true}) {
		t.Errorf("%+v", name)
	}
}

// The operator's own files stay; the claim goes only if that is configured.
func TestEndOld(t *testing.T) {
	dir := t.TempDir()
	c := *config.Default()
	c.StateDir = dir
	c.Provision.ClaimCertificate, c.Provision.ClaimKey = write(t, filepath.Join(dir, "c"), nil), write(t, filepath.Join(dir, "k"), nil)
	for _, tt := range []struct {
		id     string
		remove bool
		stays  bool
	}{{rotate.Configured, true, true}, {rotate.Claim, false, true}, {rotate.Claim, true, false}} {
		c.Provision.DeleteClaim = tt.remove
		if err := newEngine(c, new(credential.Store), nil, nil).EndOld(t.Context(), tt.id); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(c.Provision.ClaimKey); (err == nil) != tt.stays {
			t.Errorf("%s, delete_claim = %t: %v", tt.id, tt.remove, err)
		}
	}
}
