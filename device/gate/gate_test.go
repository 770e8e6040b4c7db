package gate_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/gate"
)

const dir = "/run/keyvet"

// cloud answers each publication by its error and counts them.
type cloud struct {
	err  error
	seen int
}

func (c *cloud) Publish(context.Context, *device.Report) error { c.seen++; return c.err }

var errOffline = errors.New("offline")

// keyPair is a device key with its certificate.
type keyPair struct {
	key  *ecdsa.PrivateKey
	spki []byte
	leaf *x509.Certificate
}

func newKeyPair(t *testing.T) keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{key: key, spki: spki}.renewed(t, time.Hour)
}

// renewed has another certificate on the same key.
func (k keyPair) renewed(t *testing.T, valid time.Duration) keyPair {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "gw"}, NotAfter: time.Now().Add(valid)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.key.Public(), k.key)
	if err != nil {
		t.Fatal(err)
	}
	if k.leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k keyPair) certificate() []byte { return append([]byte("certificate "), k.leaf.Raw...) }
func (k keyPair) file() []byte        { return append([]byte("key "), k.spki...) }

// vetted is a report on the key that says status of it.
func (k keyPair) vetted(status device.Status) gate.Vetted {
	sum := sha256.Sum256(k.file())
	inv := device.Inventory{ReadAt: time.Now(), Keys: []device.Key{{
		ID: "device", Role: device.RoleDevice, Public: k.key.Public(), SPKI: k.spki, Chain: []*x509.Certificate{k.leaf},
		Private: &device.PrivateFile{SPKI: k.spki, SHA256: hex.EncodeToString(sum[:])},
	}}}
	return gate.Vetted{
		Report:     device.NewReport(inv, []device.Finding{{Check: "debian", Key: "device", Status: status}}),
		Credential: gate.Credential{Proven: true, SPKI: k.spki, Leaf: k.leaf.Raw, Certificate: k.certificate(), KeyFile: k.file()},
	}
}

// newGate is a gate on a disk in memory.
func newGate(t *testing.T, policy gate.Policy) (*gate.Gate, *durabletest.Disk) {
	t.Helper()
	disk := durabletest.New()
	g, err := gate.New(dir, durable.Disk{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	g.Policy, g.By, g.BootID = policy, "test", "boot1"
	return g, disk
}

// check compares what the gate, its mark and the disk say: k is the key pair
// that other programs have if the gate is open.
func check(t *testing.T, g *gate.Gate, disk durable.FS, k keyPair, want gate.State) {
	t.Helper()
	if got := g.State(); got != want {
		t.Errorf("the gate is %v, want %v", got, want)
	}
	seen, mark, err := gate.Look(dir, durable.Disk{FS: disk}, "boot1")
	if err != nil || (seen == gate.Open) != (want == gate.Open) && want != gate.Stuck {
		t.Errorf("others see it %v, %v", seen, err)
	}
	certificate, certErr := disk.ReadFile(gate.IdentityPath(dir)+"/certificate.pem", 1<<20)
	key, keyErr := disk.ReadFile(gate.IdentityPath(dir)+"/key.pem", 1<<20)
	switch want {
	case gate.Open:
		if certErr != nil || keyErr != nil || !bytes.Equal(certificate, k.certificate()) || !bytes.Equal(key, k.file()) {
			t.Errorf("handed out: %q %v, %q %v", certificate, certErr, key, keyErr)
		}
		sum := sha256.Sum256(k.leaf.Raw)
		if mark == nil || mark.CertificateSHA256 != hex.EncodeToString(sum[:]) || !mark.NotAfter.Equal(k.leaf.NotAfter) || mark.By != "test" || mark.BootID != "boot1" {
			t.Errorf("the mark is %+v", mark)
		}
		if info, err := disk.Lstat(gate.IdentityPath(dir)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("identity is %v, %v", info, err)
		}
		entries, _ := disk.ReadDir(dir)
		if len(entries) != 3 { // the mark, identity and where it points
			t.Errorf("the directory holds %v", entries)
		}
	case gate.Shut:
		entries, err := disk.ReadDir(dir)
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == filepath.Base(gate.ShutPath(dir)) })
		if err != nil || len(entries) > 0 {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	}
}

// The conditions of Admit, each with a report that all others would let through.
func TestAdmit(t *testing.T) {
	for _, tt := range []struct {
		name    string
		policy  gate.Policy
		status  device.Status
		cloud   error
		change  func(*testing.T, *gate.Vetted)
		state   gate.State
		refusal string // a part; "" for none
	}{
		{"pass", gate.Acknowledged, device.Pass, nil, nil, gate.Open, ""},
		{"warn", gate.Acknowledged, device.Warn, nil, nil, gate.Open, ""},
		{"fail", gate.Acknowledged, device.Fail, nil, nil, gate.Shut, "the verdict is FAIL"},
		{"undecided", gate.Acknowledged, device.Undecided, nil, nil, gate.Shut, "the verdict is UNDECIDED"},
		{"not applicable", gate.Acknowledged, device.NotApplicable, nil, nil, gate.Shut, "UNDECIDED"},
		{"pass, offline", gate.Acknowledged, device.Pass, errOffline, nil, gate.Shut, ""},
		{"fail, offline", gate.Acknowledged, device.Fail, errOffline, nil, gate.Shut, "FAIL"},
		{"pass, local", gate.Local, device.Pass, nil, nil, gate.Open, ""},
		{"pass, offline, local", gate.Local, device.Pass, errOffline, nil, gate.Open, ""},
		{"fail, offline, local", gate.Local, device.Fail, errOffline, nil, gate.Shut, "FAIL"},
		{"undecided, local", gate.Local, device.Undecided, nil, nil, gate.Shut, "UNDECIDED"},
		{"no policy", "", device.Pass, nil, nil, gate.Shut, "policy"},
		{"unknown policy", "open", device.Pass, nil, nil, gate.Shut, "policy"},
		{"no key", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Credential.SPKI, v.Report.Keys[0].SPKISHA256 = nil, ""
		}, gate.Shut, "no key yet"},
		{"no proof of the private key", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Credential.Proven = false
		}, gate.Shut, "has not shown"},
		{"no report on a device key", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Report.Keys[0].Role = device.RoleFile
		}, gate.Shut, "0 device keys"},
		{"two device keys", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Report.Keys = append(v.Report.Keys, v.Report.Keys[0])
		}, gate.Shut, "2 device keys"},
		{"another key", gate.Local, device.Pass, nil, func(t *testing.T, v *gate.Vetted) {
			v.Report.Keys[0].SPKISHA256 = newKeyPair(t).vetted(device.Pass).Report.Keys[0].SPKISHA256
		}, gate.Shut, "another key"},
		{"another certificate on the key", gate.Local, device.Pass, nil, func(t *testing.T, v *gate.Vetted) {
			v.Report.Keys[0].Certificate = newKeyPair(t).vetted(device.Pass).Report.Keys[0].Certificate
		}, gate.Shut, "another certificate"},
		{"no certificate in the report", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Report.Keys[0].Certificate = nil
		}, gate.Shut, "another certificate"},
		{"no certificate at all", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Report.Keys[0].Certificate, v.Credential.Leaf = nil, nil
		}, gate.Shut, "another certificate"},
		{"another key file", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Credential.KeyFile = append(v.Credential.KeyFile, "and more"...)
		}, gate.Shut, "another key file"},
		{"a key file that nobody vetted", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Report.Keys[0].PrivateSHA256 = ""
		}, gate.Shut, "another key file"},
		{"the key alone fails", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Report = reread(v.Report)
			v.Report.Keys[0].Status = device.Fail
		}, gate.Shut, "the device key is FAIL"},
		{"expired since", gate.Local, device.Pass, nil, func(_ *testing.T, v *gate.Vetted) {
			v.Report.Keys[0].Certificate.NotAfter = time.Now().Add(-time.Second)
		}, gate.Shut, "expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, before := range []bool{false, true} { // that the gate was open
				k := newKeyPair(t)
				g, disk := newGate(t, tt.policy)
				if before {
					g.Policy = gate.Local
					if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass)); o.State != gate.Open {
						t.Fatal(o)
					}
					g.Policy = tt.policy
				}
				v := k.vetted(tt.status)
				if tt.change != nil {
					tt.change(t, &v)
				}
				want := tt.state
				if before && tt.refusal == "" {
					want = gate.Open // it stands on the report before
				}
				c := &cloud{err: tt.cloud}
				o := g.Admit(t.Context(), c, v)
				if c.seen != 1 {
					t.Errorf("published %d times: every report is told, and once", c.seen)
				}
				if o.State != want || o.Acknowledged != (tt.cloud == nil) || !errors.Is(o.Undelivered, tt.cloud) || o.Moved || o.Trouble != nil ||
					(o.Refusal == "") != (tt.refusal == "") || !strings.Contains(o.Refusal, tt.refusal) {
					t.Errorf("open before %v: %+v", before, o)
				}
				check(t, g, disk, k, want)
			}
		})
	}
}

// reread is a report whose verdict is the one it states.
func reread(r *device.Report) *device.Report {
	keys := r.Keys
	b, err := r.MarshalJSON()
	if err != nil {
		panic(err)
	}
	read := new(device.Report)
	if err := read.UnmarshalJSON(b); err != nil {
		panic(err)
	}
	read.Keys = keys // with what stays on the device
	return read
}

// What was read from a file lacks what the gate compares.
func TestReportFromFile(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Local)
	v := k.vetted(device.Pass)
	b, err := v.Report.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	v.Report = new(device.Report)
	if err := v.Report.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	if o := g.Admit(t.Context(), &cloud{}, v); o.State != gate.Shut {
		t.Errorf("%+v", o)
	}
	check(t, g, disk, k, gate.Shut)
}

func TestZeroOutcome(t *testing.T) {
	var o gate.Outcome
	if o.State != gate.Stuck || o.State.String() != "stuck" || o.Acknowledged || o.Moved {
		t.Errorf("%+v", o)
	}
	if o := new(gate.Gate).State(); o != gate.Stuck && o != gate.Shut {
		t.Errorf("a gate of nothing is %v", o)
	}
}

func TestLaterReports(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Acknowledged)
	check(t, g, disk, k, gate.Shut)
	admit := func(k keyPair, s device.Status, online error, want gate.State) {
		t.Helper()
		if o := g.Admit(t.Context(), &cloud{err: online}, k.vetted(s)); o.State != want {
			t.Errorf("%+v, want %v", o, want)
		}
	}
	admit(k, device.Pass, nil, gate.Open)
	admit(k, device.Pass, errOffline, gate.Open) // it stands on the first
	check(t, g, disk, k, gate.Open)
	admit(k, device.Fail, errOffline, gate.Shut)
	check(t, g, disk, k, gate.Shut)
	admit(k, device.Pass, errOffline, gate.Shut)
	admit(k, device.Pass, nil, gate.Open)

	// A certificate that was renewed is handed out once it is acknowledged.
	renewed := k.renewed(t, 2*time.Hour)
	admit(renewed, device.Pass, errOffline, gate.Open)
	check(t, g, disk, k, gate.Open)
	admit(renewed, device.Pass, nil, gate.Open)
	check(t, g, disk, renewed, gate.Open)

	// Another key is not what the gate is open before.
	other := newKeyPair(t)
	admit(other, device.Pass, errOffline, gate.Shut)
	check(t, g, disk, other, gate.Shut)
	admit(other, device.Pass, nil, gate.Open)
	check(t, g, disk, other, gate.Open)

	again, err := gate.New(dir, durable.Disk{FS: disk}) // a restart
	if err != nil {
		t.Fatal(err)
	}
	check(t, again, disk, other, gate.Shut)
}

// The conditions of Move.
func TestMove(t *testing.T) {
	for _, tt := range []struct {
		name    string
		policy  gate.Policy
		before  device.Status // of the report that the gate stands on
		status  device.Status // of the new key
		ek      device.Status // of another key
		cloud   error
		other   bool // the report is about a third key
		refusal string
		moved   bool
		state   gate.State
	}{
		{"open to open", gate.Acknowledged, device.Pass, device.Pass, device.Pass, nil, false, "", true, gate.Open},
		{"shut to open", gate.Acknowledged, device.Fail, device.Pass, device.Pass, nil, false, "", true, gate.Open},
		{"warning", gate.Acknowledged, device.Pass, device.Warn, device.Pass, nil, false, "", true, gate.Open},
		{"another key fails", gate.Acknowledged, device.Pass, device.Pass, device.Fail, nil, false, "the verdict is FAIL", true, gate.Shut},
		{"another key fails, local", gate.Local, device.Pass, device.Pass, device.Fail, nil, false, "the verdict is FAIL", true, gate.Shut},
		{"another key fails, shut", gate.Acknowledged, device.Fail, device.Pass, device.Fail, nil, false, "the verdict is FAIL", true, gate.Shut},
		{"the new key fails", gate.Acknowledged, device.Pass, device.Fail, device.Pass, nil, false, "the device key is FAIL", false, gate.Open},
		{"the new key is undecided", gate.Acknowledged, device.Pass, device.Undecided, device.Pass, nil, false, "the device key is UNDECIDED", false, gate.Open},
		{"not on the new key", gate.Acknowledged, device.Pass, device.Pass, device.Pass, nil, true, "another key", false, gate.Open},
		{"not acknowledged", gate.Acknowledged, device.Pass, device.Pass, device.Pass, errOffline, false, "", false, gate.Open},
		{"not acknowledged, local", gate.Local, device.Pass, device.Pass, device.Pass, errOffline, false, "", false, gate.Open},
		{"not acknowledged, shut", gate.Local, device.Fail, device.Pass, device.Pass, errOffline, false, "", false, gate.Shut},
		{"neither", gate.Acknowledged, device.Pass, device.Fail, device.Pass, errOffline, false, "FAIL", false, gate.Open},
	} {
		t.Run(tt.name, func(t *testing.T) {
			old, next := newKeyPair(t), newKeyPair(t)
			g, disk := newGate(t, tt.policy)
			g.Admit(t.Context(), &cloud{}, old.vetted(tt.before))
			v := next.vetted(tt.status)
			if tt.other {
				v.Report = newKeyPair(t).vetted(tt.status).Report
			}
			v.Report.Keys = append(v.Report.Keys, device.KeyReport{ID: "ek", Role: device.RoleEK, Status: tt.ek})
			c := &cloud{err: tt.cloud}
			o := g.Move(t.Context(), c, v)
			if o.Moved != tt.moved || o.State != tt.state || o.Acknowledged != (tt.cloud == nil) || !errors.Is(o.Undelivered, tt.cloud) ||
				(o.Refusal == "") != (tt.refusal == "") || !strings.Contains(o.Refusal, tt.refusal) {
				t.Errorf("%+v", o)
			}
			if c.seen != 1 {
				t.Errorf("published %d times", c.seen)
			}
			stands := old
			if tt.moved {
				stands = next
			}
			check(t, g, disk, stands, tt.state)
			if tt.moved { // a report on the old key that waits does not keep it open
				if o := g.Admit(t.Context(), &cloud{err: errOffline}, old.vetted(device.Pass)); tt.policy == gate.Acknowledged && o.State != gate.Shut {
					t.Errorf("a report on the old key: %+v", o)
				}
			}
		})
	}
}

// A run directory that turns read-only under an open gate: the report that shuts
// it goes out all the same, and nobody says that it is shut.
func TestReadOnly(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Acknowledged)
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	disk.ReadOnly = true
	c := &cloud{}
	o := g.Admit(t.Context(), c, k.vetted(device.Fail))
	if c.seen != 1 || !o.Acknowledged || o.State != gate.Stuck || !errors.Is(o.Trouble, syscall.EROFS) || o.Refusal != "the verdict is FAIL" || o.Undelivered != nil {
		t.Errorf("published %d times: %+v", c.seen, o)
	}
	c = &cloud{err: errOffline}
	if o := g.Admit(t.Context(), c, k.vetted(device.Fail)); c.seen != 1 || o.Acknowledged || o.State != gate.Stuck {
		t.Errorf("offline: published %d times: %+v", c.seen, o)
	}
	if o := g.Move(t.Context(), &cloud{}, newKeyPair(t).vetted(device.Fail)); !o.Acknowledged || o.Moved || o.State != gate.Stuck {
		t.Errorf("Move: %+v", o)
	}
	if again, err := gate.New(dir, durable.Disk{FS: disk}); !errors.Is(err, syscall.EROFS) || again.State() != gate.Stuck {
		t.Errorf("a start: %v, %v", again.State(), err)
	}
	disk.ReadOnly = false
	if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail)); o.State != gate.Shut || o.Trouble != nil {
		t.Errorf("writable again: %+v", o)
	}
	check(t, g, disk, k, gate.Shut)
}

// One that is read-only from the start holds nothing, so the gate is shut.
func TestReadOnlyFromStart(t *testing.T) {
	k := newKeyPair(t)
	_, disk := newGate(t, gate.Local)
	disk.ReadOnly = true
	g, err := gate.New(dir, durable.Disk{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	g.Policy = gate.Local
	check(t, g, disk, k, gate.Shut)
	c := &cloud{}
	if o := g.Admit(t.Context(), c, k.vetted(device.Pass)); c.seen != 1 || !o.Acknowledged || o.State != gate.Shut || !errors.Is(o.Trouble, syscall.EROFS) {
		t.Errorf("%+v", o)
	}
}

// A full run directory, under both policies.
func TestFullDisk(t *testing.T) {
	for _, policy := range []gate.Policy{gate.Acknowledged, gate.Local} {
		k := newKeyPair(t)
		g, disk := newGate(t, policy)
		disk.Limit = 1
		c := &cloud{}
		o := g.Admit(t.Context(), c, k.vetted(device.Pass))
		if c.seen != 1 || !o.Acknowledged || o.State != gate.Shut || !errors.Is(o.Trouble, syscall.ENOSPC) || o.Refusal != "" {
			t.Errorf("%s: published %d times: %+v", policy, c.seen, o)
		}
		check(t, g, disk, k, gate.Shut)
		disk.Limit = 0
		if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass)); o.State != gate.Open || o.Trouble != nil {
			t.Errorf("with room: %+v", o)
		}
		disk.Limit = disk.Size() + 64 // signatures differ in length by a few bytes
		c, renewed, want := &cloud{}, k.renewed(t, time.Hour), gate.Shut
		if policy == gate.Local {
			want = gate.Open // shutting makes the room for the second try, after the acknowledgement
		}
		if o := g.Admit(t.Context(), c, renewed.vetted(device.Pass)); c.seen != 1 || o.State != want || !o.Acknowledged {
			t.Errorf("full under an open gate: %+v", o)
		}
		check(t, g, disk, renewed, want)
	}
}

// The mark would still fit where the credential does not.
func TestFullDiskForCredential(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Acknowledged)
	disk.Limit = 4 << 10
	v := k.vetted(device.Pass)
	v.Credential.Certificate = make([]byte, 8<<10)
	if o := g.Admit(t.Context(), &cloud{}, v); o.State != gate.Shut || !errors.Is(o.Trouble, syscall.ENOSPC) {
		t.Errorf("%+v", o)
	}
	check(t, g, disk, k, gate.Shut)
}

// broken is a file system on which some operations fail.
type broken struct {
	durable.FS
	readDir, removeIdentity, removeDir, removeMark bool
}

var errBroken = errors.New("broken")

func (b *broken) ReadDir(name string) ([]fs.DirEntry, error) {
	if b.readDir {
		return nil, errBroken
	}
	return b.FS.ReadDir(name)
}

func (b *broken) Remove(name string) error {
	if b.removeIdentity && name == gate.IdentityPath(dir) {
		return errBroken
	}
	if b.removeDir && strings.HasPrefix(name, gate.IdentityPath(dir)+".") {
		return errBroken
	}
	return b.FS.Remove(name)
}

func (b *broken) Rename(from, to string) error {
	if b.removeMark && from == gate.Path(dir) {
		return errBroken
	}
	return b.FS.Rename(from, to)
}

// A gate is stuck where the mark went and the credential did not, and where
// nobody can look.
func TestStuck(t *testing.T) {
	k := newKeyPair(t)
	fs := &broken{FS: durabletest.New()}
	g, err := gate.New(dir, durable.Disk{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	g.Policy = gate.Local
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	fs.removeIdentity = true
	o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail))
	if o.State != gate.Stuck || !errors.Is(o.Trouble, errBroken) {
		t.Errorf("%+v", o)
	}
	if _, err := fs.Lstat(gate.Path(dir)); err == nil {
		t.Error("the mark stayed, though it could go")
	}
	fs.removeIdentity, fs.readDir = false, true
	if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail)); o.State != gate.Stuck {
		t.Errorf("%+v", o)
	}
	fs.readDir = false
	if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail)); o.State != gate.Shut || o.Trouble != nil {
		t.Errorf("%+v", o)
	}
}

func TestStuckMark(t *testing.T) {
	k := newKeyPair(t)
	fs := &broken{FS: durabletest.New()}
	g, err := gate.New(dir, durable.Disk{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	g.Policy = gate.Local
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	fs.removeMark = true
	if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail)); o.State != gate.Stuck || !errors.Is(o.Trouble, errBroken) {
		t.Errorf("%+v", o)
	}
	if _, err := fs.Lstat(gate.IdentityPath(dir)); err == nil {
		t.Error("the credential stayed, though it could go")
	}
}

func TestStuckBehindLink(t *testing.T) {
	k := newKeyPair(t)
	fs := &broken{FS: durabletest.New()}
	g, err := gate.New(dir, durable.Disk{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	g.Policy = gate.Local
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	fs.removeDir = true
	if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail)); o.State != gate.Stuck || !errors.Is(o.Trouble, errBroken) {
		t.Errorf("%+v", o)
	}
}

// A gate opens only once it may.
func TestReady(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Local)
	held := errors.New("not ours")
	g.Ready = func() error { return held }
	if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass)); o.State != gate.Shut || !errors.Is(o.Trouble, held) || !o.Acknowledged {
		t.Errorf("%+v", o)
	}
	check(t, g, disk, k, gate.Shut)
	held = nil
	if o := g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass)); o.State != gate.Open || o.Trouble != nil {
		t.Errorf("%+v", o)
	}
	check(t, g, disk, k, gate.Open)
}

// A power cut, or a kill, at any moment of opening and shutting leaves what the
// next start shuts; and a mark only beside the whole credential.
func TestPowerCut(t *testing.T) {
	k := newKeyPair(t)
	for cutAt := 1; ; cutAt++ {
		disk, power := durabletest.New(), &durabletest.Power{CutAt: cutAt}
		wasCut := power.Run(func() {
			g, err := gate.New(dir, durable.Disk{FS: power.FS(disk)})
			if err != nil {
				panic(err)
			}
			g.Policy, g.By, g.BootID = gate.Acknowledged, "test", "boot1"
			g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
			g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail))
		})
		for _, left := range disk.Cut() {
			if state, _, err := gate.Look(dir, durable.Disk{FS: left}, "boot1"); state == gate.Open && err == nil {
				key, err := left.ReadFile(gate.IdentityPath(dir)+"/key.pem", 1<<20)
				if err != nil || !bytes.Equal(key, k.file()) {
					t.Errorf("cut at %d: the mark stands beside %q, %v", cutAt, key, err)
				}
			}
			if state, _, err := gate.Look(dir, durable.Disk{FS: left}, "boot2"); state == gate.Open {
				t.Errorf("cut at %d: the mark outlives the boot: %v", cutAt, err)
			}
			g, err := gate.New(dir, durable.Disk{FS: left})
			if err != nil || g.State() != gate.Shut {
				t.Fatalf("cut at %d: %v, %v", cutAt, g.State(), err)
			}
			check(t, g, left, k, gate.Shut)
		}
		if !wasCut {
			return
		}
	}
}

// What says that the gate is shut is there whenever the mark is not, and never
// beside it.
func TestShutFile(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Local)
	said := func(when string, want bool) {
		t.Helper()
		_, markErr := disk.Lstat(gate.Path(dir))
		if _, err := disk.Lstat(gate.ShutPath(dir)); (err == nil) != want || (markErr == nil) == want {
			t.Errorf("%s: shut: %v, trusted: %v", when, err, markErr)
		}
	}
	said("new", true)
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	said("a passing report", false)
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail))
	said("a failing report", true)
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Fail))
	said("another", true)
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	said("a passing report again", false)
	disk.Limit = 1 // no room for a further file
	if err := g.Shut(); err != nil {
		t.Error(err)
	}
	said("shut on a full disk", true)
}

func TestExpire(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Acknowledged)
	now := time.Now()
	g.Now = func() time.Time { return now }
	if expired, err := g.Expire(); expired || err != nil || !g.NotAfter().IsZero() {
		t.Error("a shut gate has expired")
	}
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	if !g.NotAfter().Equal(k.leaf.NotAfter) {
		t.Errorf("until %v, want %v", g.NotAfter(), k.leaf.NotAfter)
	}
	now = k.leaf.NotAfter // still valid (RFC 5280, section 4.1.2.5)
	if expired, err := g.Expire(); expired || err != nil {
		t.Errorf("%v, %v", expired, err)
	}
	check(t, g, disk, k, gate.Open)
	now = now.Add(time.Second)
	if expired, err := g.Expire(); !expired || err != nil || !g.NotAfter().IsZero() {
		t.Errorf("%v, %v", expired, err)
	}
	check(t, g, disk, k, gate.Shut)
}

// What is removed from outside is not open any more.
func TestMarkRemovedFromOutside(t *testing.T) {
	k := newKeyPair(t)
	g, disk := newGate(t, gate.Acknowledged)
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	if err := (durable.Disk{FS: disk}).Remove(gate.Path(dir)); err != nil {
		t.Fatal(err)
	}
	if g.State() != gate.Shut {
		t.Errorf("the gate is %v", g.State())
	}
	g.Admit(t.Context(), &cloud{}, k.vetted(device.Pass))
	check(t, g, disk, k, gate.Open)
}

func TestLook(t *testing.T) {
	disk := durable.Disk{FS: durabletest.New()}
	if err := disk.Dir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text, boot string
		want       gate.State
		fails      bool
	}{
		{`{"bootId":"a"}`, "a", gate.Open, false},
		{`{"bootId":"a"}`, "b", gate.Shut, false},
		{`{"bootId":"a"}`, "", gate.Open, false}, // not known
		{`{}`, "a", gate.Open, false},
		{``, "a", gate.Stuck, true},
		{`[`, "a", gate.Stuck, true},
		{strings.Repeat(" ", 5000), "a", gate.Stuck, true},
	} {
		if err := disk.WriteFile(gate.Path(dir), []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		state, mark, err := gate.Look(dir, disk, tt.boot)
		if state != tt.want || (err != nil) != tt.fails || (mark != nil) != (tt.want == gate.Open) {
			t.Errorf("%.20q: %v, %v, %v", tt.text, state, mark, err)
		}
	}
	if err := disk.Remove(gate.Path(dir)); err != nil {
		t.Fatal(err)
	}
	if err := disk.Dir(gate.Path(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if state, _, err := gate.Look(dir, disk, "a"); state != gate.Stuck || !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a directory: %v, %v", state, err)
	}
	var m map[string]any
	b, _ := json.Marshal(gate.Mark{})
	if err := json.Unmarshal(b, &m); err != nil || m["reportId"] == nil || m["spkiSha256"] == nil {
		t.Errorf("%s", b)
	}
}

// TestAccepted opens the gate on findings that the operator accepts, and on an
// expired certificate for as long as he does.
func TestAccepted(t *testing.T) {
	fails := func(v gate.Vetted, code device.ReasonCode) gate.Vetted {
		v.Report.Findings = append(v.Report.Findings, device.Finding{Check: "expiry", Key: "device", Status: device.Fail, ReasonCode: code})
		v.Report.Keys[0].Status = device.Fail
		return v
	}
	k := newKeyPair(t)
	far := k.renewed(t, 1000*time.Hour)
	today := time.Now().UTC().Truncate(24 * time.Hour)
	tomorrow, end := today.AddDate(0, 0, 1).Format(time.DateOnly), today.AddDate(0, 0, 2)
	for name, tt := range map[string]struct {
		k      keyPair
		code   device.ReasonCode
		accept device.Acceptance
		want   gate.State
		until  time.Time
	}{
		"not accepted":      {k, "KEYVET_X", device.Acceptance{}, gate.Shut, time.Time{}},
		"accepted":          {k, "KEYVET_X", device.Acceptance{Code: "KEYVET_X", Key: "device", Why: "w"}, gate.Open, k.leaf.NotAfter},
		"accepted for now":  {far, "KEYVET_X", device.Acceptance{Code: "KEYVET_X", Key: "device", Why: "w", Until: tomorrow}, gate.Open, end},
		"another accepted":  {k, "KEYVET_X", device.Acceptance{Code: "KEYVET_Y", Key: "device", Why: "w"}, gate.Shut, time.Time{}},
		"no longer":         {k, "KEYVET_X", device.Acceptance{Code: "KEYVET_X", Key: "device", Why: "w", Until: "2020-01-01"}, gate.Shut, time.Time{}},
		"expired":           {k.renewed(t, -time.Hour), device.ReasonExpired, device.Acceptance{}, gate.Shut, time.Time{}},
		"expired, accepted": {k.renewed(t, -time.Hour), device.ReasonExpired, device.Acceptance{Code: device.ReasonExpired, Key: "device", Why: "w", Until: tomorrow}, gate.Open, end},
		"expired, for good": {k.renewed(t, -time.Hour), device.ReasonExpired, device.Acceptance{Code: device.ReasonExpired, Key: "device", Why: "w"}, gate.Open, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		g, _ := newGate(t, gate.Acknowledged)
		v := fails(tt.k.vetted(device.Pass), tt.code)
		v.Report.Accept([]device.Acceptance{tt.accept})
		if o := g.Admit(t.Context(), new(cloud), v); o.State != tt.want {
			t.Errorf("%s: %+v", name, o)
		}
		if !g.NotAfter().Equal(tt.until) {
			t.Errorf("%s: open until %v, want %v", name, g.NotAfter(), tt.until)
		}
		if tt.want == gate.Open && !tt.until.IsZero() {
			g.Now = func() time.Time { return tt.until.Add(time.Second) }
			if expired, err := g.Expire(); !expired || err != nil {
				t.Errorf("%s: open after its end: %v, %v", name, expired, err)
			}
		}
	}
}
