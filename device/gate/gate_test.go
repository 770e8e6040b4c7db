package gate_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// cloud answers each publication by its error and counts them.
type cloud struct {
	err  error
	seen int
}

func (c *cloud) Publish(context.Context, *device.Report) error { c.seen++; return c.err }

type bench struct {
	key  *ecdsa.PrivateKey
	spki []byte
	dir  string
}

func newBench(t *testing.T) bench {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return bench{key, spki, t.TempDir()}
}

func (b bench) credential() gate.Credential {
	return gate.Credential{Key: b.key, SPKI: b.spki, Certificate: append([]byte("certificate "), b.spki...), KeyFile: append([]byte("key "), b.spki...)}
}

// handedOut tells whether other programs have the credential, and nothing else.
func (b bench) handedOut(t *testing.T, dir string) bool {
	t.Helper()
	path := gate.IdentityPath(dir)
	certificate, certErr := os.ReadFile(filepath.Join(path, "certificate.pem"))
	key, keyErr := os.ReadFile(filepath.Join(path, "key.pem"))
	if errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist) {
		return false
	}
	if certErr != nil || keyErr != nil || !bytes.HasSuffix(certificate, b.spki) || !bytes.HasSuffix(key, b.spki) {
		t.Errorf("handed out: %q %v, %q %v", certificate, certErr, key, keyErr)
	}
	info, err := os.Stat(filepath.Join(path, "key.pem"))
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
	return true
}

func (b bench) report(status device.Status) *device.Report {
	inv := device.Inventory{ReadAt: time.Now(), Keys: []device.Key{{ID: "device", Role: device.RoleDevice, Public: b.key.Public(), SPKI: b.spki}}}
	return device.NewReport(inv, []device.Finding{{Check: "debian", Key: "device", Status: status}})
}

func TestAdmit(t *testing.T) {
	offline := errors.New("offline")
	for _, tt := range []struct {
		name   string
		policy gate.Policy
		status device.Status
		cloud  error
		other  bool // the report is on another key
		open   bool
		want   error
	}{
		{"pass", gate.Acknowledged, device.Pass, nil, false, true, nil},
		{"warn", gate.Acknowledged, device.Warn, nil, false, true, nil},
		{"fail", gate.Acknowledged, device.Fail, nil, false, false, gate.ErrShut},
		{"undecided", gate.Acknowledged, device.Undecided, nil, false, false, gate.ErrShut},
		{"not applicable", gate.Acknowledged, device.NotApplicable, nil, false, false, gate.ErrShut},
		{"another key", gate.Acknowledged, device.Pass, nil, true, false, gate.ErrShut},
		{"pass, offline", gate.Acknowledged, device.Pass, offline, false, false, gate.ErrNotAcknowledged},
		{"fail, offline", gate.Acknowledged, device.Fail, offline, false, false, gate.ErrNotAcknowledged},
		{"pass, offline, local", gate.Local, device.Pass, offline, false, true, gate.ErrNotAcknowledged},
		{"fail, offline, local", gate.Local, device.Fail, offline, false, false, gate.ErrShut},
		{"undecided, local", gate.Local, device.Undecided, nil, false, false, gate.ErrShut},
		{"another key, local", gate.Local, device.Pass, nil, true, false, gate.ErrShut},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			g, err := gate.New(tt.policy, b.dir, b.credential())
			if err != nil {
				t.Fatal(err)
			}
			r := b.report(tt.status)
			if tt.other {
				r = newBench(t).report(tt.status)
			}
			c := &cloud{err: tt.cloud}
			if err := g.Admit(t.Context(), c, r); !errors.Is(err, tt.want) {
				t.Errorf("Admit: %v, want %v", err, tt.want)
			}
			if c.seen != 1 {
				t.Errorf("published %d times: every report is told, and once", c.seen)
			}
			check(t, g, b, tt.open)
		})
	}
}

// check compares what the gate, its mark and its signer say.
func check(t *testing.T, g *gate.Gate, b bench, open bool) {
	t.Helper()
	_, statErr := os.Stat(gate.Path(b.dir))
	signer, err := g.Signer()
	if g.Open() != open || (statErr == nil) != open || (err == nil) != open {
		t.Errorf("open %v, mark %v, signer %v: want open %v", g.Open(), statErr, err, open)
	}
	if open && signer != b.key {
		t.Error("another key was handed out")
	}
	if got := b.handedOut(t, b.dir); got != open {
		t.Errorf("other programs have a credential: %v, want %v", got, open)
	}
	if !open && !errors.Is(err, gate.ErrShut) {
		t.Errorf("Signer: %v", err)
	}
}

func TestLaterReports(t *testing.T) {
	b := newBench(t)
	g, err := gate.New(gate.Acknowledged, b.dir, b.credential())
	if err != nil {
		t.Fatal(err)
	}
	check(t, g, b, false)
	if err := g.Admit(t.Context(), &cloud{}, b.report(device.Pass)); err != nil {
		t.Fatal(err)
	}
	if err := g.Admit(t.Context(), &cloud{err: errors.New("offline")}, b.report(device.Pass)); !errors.Is(err, gate.ErrNotAcknowledged) || errors.Is(err, gate.ErrShut) {
		t.Errorf("a passing report that waits: %v", err)
	}
	check(t, g, b, true) // it stands on the first
	if err := g.Admit(t.Context(), &cloud{err: errors.New("offline")}, b.report(device.Fail)); !errors.Is(err, gate.ErrShut) {
		t.Errorf("a failing report: %v", err)
	}
	check(t, g, b, false)

	if err := g.Admit(t.Context(), &cloud{}, b.report(device.Pass)); err != nil {
		t.Fatal(err)
	}
	again, err := gate.New(gate.Acknowledged, b.dir, b.credential()) // a restart
	if err != nil {
		t.Fatal(err)
	}
	check(t, again, b, false)
}

func TestNew(t *testing.T) {
	if _, err := gate.New("open", t.TempDir(), gate.Credential{}); err == nil {
		t.Error("an unknown policy was taken")
	}
	b := newBench(t)
	g, err := gate.New(gate.Local, b.dir, gate.Credential{})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Admit(t.Context(), &cloud{}, b.report(device.Pass)); !errors.Is(err, gate.ErrShut) {
		t.Errorf("a gate without a key: %v", err)
	}
	check(t, g, b, false)
}

func TestMove(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy gate.Policy
		before device.Status // of the report that the gate stands on; zero for a shut one
		status device.Status // of the new key
		ek     device.Status // of another key
		cloud  error
		other  bool // the report is on a third key
		want   error
		moved  bool
		open   bool
	}{
		{"open to open", gate.Acknowledged, device.Pass, device.Pass, device.Pass, nil, false, nil, true, true},
		{"shut to open", gate.Acknowledged, device.Fail, device.Pass, device.Pass, nil, false, nil, true, true},
		{"warning", gate.Acknowledged, device.Pass, device.Warn, device.Pass, nil, false, nil, true, true},
		{"another key fails", gate.Acknowledged, device.Pass, device.Pass, device.Fail, nil, false, nil, true, false},
		{"another key fails, shut", gate.Acknowledged, device.Fail, device.Pass, device.Fail, nil, false, nil, true, false},
		{"the new key fails", gate.Acknowledged, device.Pass, device.Fail, device.Pass, nil, false, gate.ErrRefused, false, true},
		{"the new key is undecided", gate.Acknowledged, device.Pass, device.Undecided, device.Pass, nil, false, gate.ErrRefused, false, true},
		{"not on the new key", gate.Acknowledged, device.Pass, device.Pass, device.Pass, nil, true, gate.ErrRefused, false, true},
		{"not acknowledged", gate.Acknowledged, device.Pass, device.Pass, device.Pass, errors.New("offline"), false, gate.ErrNotAcknowledged, false, true},
		{"not acknowledged, local", gate.Local, device.Pass, device.Pass, device.Pass, errors.New("offline"), false, gate.ErrNotAcknowledged, false, true},
		{"not acknowledged, shut", gate.Local, device.Fail, device.Pass, device.Pass, errors.New("offline"), false, gate.ErrNotAcknowledged, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old, next := newBench(t), newBench(t)
			g, err := gate.New(tt.policy, old.dir, old.credential())
			if err != nil {
				t.Fatal(err)
			}
			_ = g.Admit(t.Context(), &cloud{}, old.report(tt.before))
			reported := next
			if tt.other {
				reported = newBench(t)
			}
			r := device.NewReport(device.Inventory{ReadAt: time.Now(), Keys: []device.Key{
				{ID: "device", Role: device.RoleDevice, Public: reported.key.Public(), SPKI: reported.spki},
				{ID: "ek", Role: device.RoleEK, Public: old.key.Public(), SPKI: old.spki},
			}}, []device.Finding{{Check: "debian", Key: "device", Status: tt.status}, {Check: "roca", Key: "ek", Status: tt.ek}})
			c := &cloud{err: tt.cloud}
			if err := g.Move(t.Context(), c, r, next.credential()); !errors.Is(err, tt.want) {
				t.Errorf("Move: %v, want %v", err, tt.want)
			}
			if c.seen != 1 {
				t.Errorf("published %d times", c.seen)
			}
			before := bench{next.key, next.spki, old.dir}
			if !tt.moved {
				before.key, before.spki = old.key, old.spki
			}
			check(t, g, before, tt.open)
			if tt.moved { // a report on the old key does not open it any more
				if err := g.Admit(t.Context(), &cloud{}, old.report(device.Pass)); !errors.Is(err, gate.ErrShut) {
					t.Errorf("a report on the old key: %v", err)
				}
			}
		})
	}
}

func TestReset(t *testing.T) {
	old, next := newBench(t), newBench(t)
	g, err := gate.New(gate.Acknowledged, old.dir, next.credential())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Admit(t.Context(), &cloud{}, next.report(device.Pass)); err != nil {
		t.Fatal(err)
	}
	if err := g.Reset(old.credential()); err != nil {
		t.Fatal(err)
	}
	check(t, g, old, false)
	if err := g.Admit(t.Context(), &cloud{}, old.report(device.Pass)); err != nil {
		t.Fatal(err)
	}
	check(t, g, old, true)
}
