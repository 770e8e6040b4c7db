package service

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/machine"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/quiet"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

// What a device with a fault may cost in a day.
const (
	dayConnects = 60
	dayBytes    = 500_000
	dayLines    = 100
)

// TestDay has a device run for a day with each of many faults. What it costs
// stays small: connections, which are billed, bytes of mobile data, lines of the
// journal.
func TestDay(t *testing.T) {
	for _, tt := range []struct {
		name     string
		region   *region
		claim    bool   // it has no certificate yet
		open     bool   // the gate, at the end of the day
		connects int    // at most; 0: dayConnects
		says     string // in the journal
	}{
		{name: "nothing is wrong", open: true},
		{name: "16 kbit/s and 1 s", region: &region{link: mqtttest.Link{RTT: time.Second, Up: 16_000, Down: 16_000}}, open: true},
		{name: "round trips of 6 s", region: &region{link: mqtttest.Link{RTT: 6 * time.Second}}, open: true},
		{name: "no name", region: &region{unreach: &net.DNSError{Err: "server misbehaving", Name: "region.example"}}},
		{name: "no route", region: &region{unreach: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}}},
		{name: "not trusted", region: &region{foreign: true}},
		{name: "no CONNACK", region: &region{connack: -1}},
		{name: "not authorized", region: &region{connack: 5}},
		{name: "taken by another client", region: &region{life: 2 * time.Second}, open: true},
		{name: "reports are not allowed", region: &region{denied: []string{"gw/report"}}},
		{name: "the shadow is not allowed", region: &region{denied: []string{"/shadow/"}}, connects: 20, says: "/shadow/name/keyvet/update"},
		{name: "desired checks are not allowed", region: &region{denied: []string{"/update/delta"}}, connects: 12, open: true, says: "/shadow/name/keyvet/update/delta"},
		{name: "notices of jobs are not allowed", region: &region{denied: []string{"/jobs/notify"}}, connects: 12, open: true, says: "/jobs/notify"},
		{name: "the shadow is full", region: &region{refused: []string{"/shadow/name/keyvet/update"}}},
		{name: "jobs are not allowed", region: &region{denied: []string{"/jobs/"}}},
		{name: "findings are not allowed", region: &region{denied: []string{"gw/findings"}}, open: true},
		{name: "metrics are not allowed", region: &region{denied: []string{"/defender/"}}, open: true},
		{name: "a session kept without filters", region: &region{kept: true}, open: true},
		{name: "the claim is not authorized", region: &region{connack: 5}, claim: true},
		{name: "provisioning is rejected", region: &region{refused: []string{"create-from-csr"}}, claim: true},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))) // a clock that can be right
			r := tt.region
			if r == nil {
				r = new(region)
			}
			r.ca, r.other, r.reports = newAuthority(t), newAuthority(t), make(map[string]int)
			c := regionDevice(t, dir, r, tt.claim)
			var log logged
			o := Options{
				Config: c, By: "test", Changes: &machine.Changes{}, Network: r.network(t),
				Log: slog.New(quiet.New(slog.NewTextHandler(&log, nil), "connected")),
			}
			s, err := Start(o)
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			state, _, err := gate.Look(c.RunDir, durable.Disk{}, gate.BootID())
			if open := state == gate.Open; open != tt.open || err != nil {
				t.Errorf("%s: the gate is %v, %v", tt.name, state, err)
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			s.Close()
			time.Sleep(2 * time.Hour) // for what waits on the network to end
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Logf("%-32s %3d CONNECTs %7d bytes %4d lines", tt.name, r.connects, r.bytes, log.lines)
			if r.connects > cmp.Or(tt.connects, dayConnects) || r.bytes > dayBytes || log.lines > dayLines {
				t.Errorf("%s: %d CONNECTs, %d bytes, %d lines in a day:\n%s", tt.name, r.connects, r.bytes, log.lines, &log.first)
			}
			if said := log.first.String(); !strings.Contains(said, tt.says) {
				t.Errorf("%s: the journal does not name %s:\n%s", tt.name, tt.says, said)
			}
			for _, n := range r.reports {
				if tt.open && n > 1 {
					t.Errorf("%s: a report came %d times", tt.name, n)
				}
			}
		})
	}
}

// The endpoint is connected to while the device is vetted; by one that has no
// certificate yet, when it needs one.
func TestAhead(t *testing.T) {
	for _, claim := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)))
			r := &region{link: mqtttest.Link{RTT: 300 * time.Millisecond}, ca: newAuthority(t), other: newAuthority(t), reports: make(map[string]int)}
			began := time.Now()
			var dialled []time.Duration
			network := r.network(t)
			s, err := Start(Options{
				Config: regionDevice(t, dir, r, claim), By: "test", Once: true, Changes: &machine.Changes{}, Log: slog.New(slog.DiscardHandler),
				Network: func(ctx context.Context, kind, address string) (net.Conn, error) {
					r.mu.Lock()
					dialled = append(dialled, time.Since(began))
					r.mu.Unlock()
					return network(ctx, kind, address)
				},
				Progress: func(string) (done func()) { time.Sleep(time.Second); return func() {} }, // the vet takes its time
			})
			must(t, err)
			_, o := s.Once(t.Context())
			s.Close()
			if (o.State == gate.Open) == claim || len(dialled) == 0 || (dialled[0] == 0) == claim || !claim && len(dialled) != 1 {
				t.Errorf("claim %v: connected to after %v; the gate is %v", claim, dialled, o)
			}
			time.Sleep(time.Minute)
		})
	}
}

// A run that ends by itself outlasts a captive portal, or a clock, that is put
// right two seconds after the start; one that stays ends it soon, with the reason.
func TestOnceNotTrusted(t *testing.T) {
	for _, stays := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)))
			r := &region{foreign: true, ca: newAuthority(t), other: newAuthority(t), reports: make(map[string]int)}
			portal := r.network(t)
			r.foreign = false
			own, began := r.network(t), time.Now()
			s, err := Start(Options{
				Config: regionDevice(t, dir, r, false), By: "test", Once: true, Changes: &machine.Changes{}, Log: slog.New(slog.DiscardHandler),
				Network: func(ctx context.Context, kind, address string) (net.Conn, error) {
					if stays || time.Since(began) < 2*time.Second {
						return portal(ctx, kind, address)
					}
					return own(ctx, kind, address)
				},
			})
			must(t, err)
			_, o := s.Once(t.Context())
			s.Close()
			told := o.Undelivered != nil && strings.Contains(o.Undelivered.Error(), "not trusted")
			if took := time.Since(began); o.Acknowledged == stays || (o.State == gate.Open) == stays || told != stays || took > 10*time.Second {
				t.Errorf("stays %v: after %v the gate is %+v", stays, took, o)
			}
			time.Sleep(time.Minute)
		})
	}
}

// A device whose session was kept without its filters, so that no notice reaches
// it, does a job within an hour all the same.
func TestJobWithoutNotice(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)))
		r := &region{kept: true, ca: newAuthority(t), reports: make(map[string]int)}
		s, err := Start(Options{
			Config: regionDevice(t, dir, r, false), By: "test", Changes: &machine.Changes{}, Network: r.network(t), Log: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(10 * time.Minute)
		r.mu.Lock()
		r.job = "check"
		r.mu.Unlock()
		began := time.Now()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		r.mu.Lock()
		if took := r.done.Sub(began); r.done.IsZero() || took > time.Hour {
			t.Errorf("the job was done after %v, at %v", took, r.done)
		}
		r.mu.Unlock()
		cancel()
		<-ended
		time.Sleep(time.Hour)
	})
}

// regionDevice is a device of the region, without a TPM.
func regionDevice(t *testing.T, dir string, r *region, claim bool) config.Config {
	t.Helper()
	c := *config.Default()
	c.StateDir, c.RunDir, c.Thing.Name, c.TPM.Address = filepath.Join(dir, "state"), filepath.Join(dir, "run"), "gw", ""
	c.MQTT.Endpoints, c.MQTT.CAFile = []string{"region.example:8883"}, write(t, filepath.Join(dir, "ca.pem"), r.ca.pem())
	c.Check.MaxAge.Duration = time.Minute // a finding, and a warning
	chain, key := enrolled(t, func(k *ecdsa.PrivateKey) ([]byte, error) {
		der, err := r.ca.issue("gw", k)
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
	})
	at := filepath.Join(c.StateDir, "identity")
	if claim {
		at = filepath.Join(dir, "claim")
		c.Provision.ClaimCertificate, c.Provision.ClaimKey, c.Provision.Template = filepath.Join(at, "certificate.pem"), filepath.Join(at, "key.pem"), "first"
	}
	write(t, filepath.Join(at, "certificate.pem"), chain)
	write(t, filepath.Join(at, "key.pem"), key)
	return c
}
