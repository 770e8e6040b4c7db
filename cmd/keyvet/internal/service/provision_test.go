package service

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/rotate"
)

// issuer is a cloud that takes claims, and refuses what refuse says.
type issuer struct {
	rotate.Session
	requests []time.Time
	create   func() error
	activate func() error
}

func (i *issuer) Dial(context.Context, string) (rotate.Session, error) { return i, nil }
func (i *issuer) Close()                                               {}
func (i *issuer) Tell(context.Context, device.Job, device.JobState, map[string]string) error {
	return nil
}

func (i *issuer) Create(context.Context, rotate.Order, []byte) (rotate.Certificate, error) {
	i.requests = append(i.requests, time.Now())
	if i.create != nil {
		return rotate.Certificate{}, i.create()
	}
	return rotate.Certificate{ID: "c", PEM: []byte("chain"), Token: "token"}, nil
}

func (i *issuer) Activate(context.Context, rotate.Certificate) (string, error) {
	i.requests = append(i.requests, time.Now())
	return "", i.activate()
}

// busiestHour is the most requests within an hour.
func (i *issuer) busiestHour() (most int) {
	for n, from := range i.requests {
		in := 0
		for _, at := range i.requests[n:] {
			if at.Sub(from) < time.Hour {
				in++
			}
		}
		most = max(most, in)
	}
	return most
}

func claimed(t *testing.T, i *issuer) *rotator {
	t.Helper()
	r := rotatorOn(t, 0)
	r.config.Provision.ClaimCertificate, r.config.Provision.ClaimKey, r.config.Provision.Template = "/claim.pem", "/claim.key", "first"
	r.engine.Cloud = i
	return r
}

// days has the agent's loop come by for so long: it pauses a minute at most.
func days(t *testing.T, r *rotator, d time.Duration) (last error) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(30 * time.Second) {
		if _, last = r.Prepare(t.Context()); !errors.Is(last, agent.ErrNotReady) {
			t.Fatalf("provisioned: %v", last)
		}
	}
	return last
}

// A provisioning that AWS IoT rejects costs it six requests an hour at most.
func TestRejectedProvisioning(t *testing.T) {
	rejected := func() error { return errors.Join(rotate.ErrRejected, errors.New("the hook denies it")) }
	for what, i := range map[string]*issuer{
		"the certificate": {create: rejected}, "the thing": {activate: rejected},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := claimed(t, i)
			last := days(t, r, 24*time.Hour)
			if most := i.busiestHour(); most > 6 || len(i.requests) < 10 || len(i.requests) > 60 {
				t.Errorf("%s: %d requests in an hour, %d in a day", what, most, len(i.requests))
			}
			if !strings.Contains(last.Error(), "tried again at") {
				t.Errorf("%s: %v", what, last)
			}
		})
	}
}

// A template that names another thing makes one certificate, whatever restarts,
// until what decides the name changes.
func TestMisnamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := new(issuer)
		r := claimed(t, i)
		again := func() *rotator {
			next := *r
			next.provisioning = trouble{}
			next.engine.Gate = &next
			i.activate = func() error {
				next.misname(next.config.Provision.Template, "other")
				return rotate.ErrRejected
			}
			return &next
		}
		r = again()
		last := days(t, r, 24*time.Hour)
		if n := len(i.requests); n != 2 {
			t.Errorf("%d requests in a day", n)
		}
		for _, want := range []string{`template first makes this device the thing "other"`, `thing.name says "gw"`, `thing.name = "template"`} {
			if !strings.Contains(last.Error(), want) {
				t.Errorf("%v lacks %s", last, want)
			}
		}
		r = again()
		days(t, r, time.Hour)
		if n := len(i.requests); n != 2 {
			t.Errorf("%d requests after a restart", n)
		}
		r = again()
		r.config.Rotate.Template = "first" // which a rotation would ask for the next
		if err := r.Rotate(t.Context(), agent.Rotation{Trigger: device.TriggerManual}); err == nil || len(i.requests) != 2 {
			t.Errorf("a rotation: %v, %d requests", err, len(i.requests))
		}
		r = again()
		r.config.Provision.Parameters = map[string]string{"ThingName": "gw"}
		days(t, r, time.Hour)
		if n := len(i.requests); n != 4 {
			t.Errorf("%d requests after the parameters changed", n)
		}
	})
}
