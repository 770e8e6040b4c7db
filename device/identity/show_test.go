package identity_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/durable/durabletest"
	"github.com/keyvet/keyvet/device/identity"
)

func TestShow(t *testing.T) {
	s := &identity.Store{Dir: filepath.Join(t.TempDir(), "state")}
	run := &identity.Store{Dir: filepath.Join(t.TempDir(), "run"), Shared: true}
	must(t, s.Recover())
	if s.Show(run) == nil {
		t.Error("a credential was shown where there is none")
	}
	must(t, run.Hide())
	for _, id := range []string{"a", "a", "b", "a"} {
		if current, _ := s.Current(); current != id {
			must(t, s.Put(id, []byte("chain "+id), []byte("key "+id)))
			must(t, s.Use(id))
		}
		must(t, s.Show(run))
		for name, want := range map[string]string{"certificate.pem": "chain " + id, "key.pem": "key " + id} {
			path := filepath.Join(run.Dir, "identity", name)
			if b, err := os.ReadFile(path); string(b) != want {
				t.Errorf("%s shows %q: %v", name, b, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
				t.Errorf("%s: %v, %v", name, info, err)
			}
		}
		if ids, _ := run.List(); !slices.Equal(ids, []string{id}) {
			t.Errorf("shown: %v", ids)
		}
	}
	// Another pair in the same place.
	must(t, s.UseNone())
	must(t, s.Put("a", []byte("chain 2"), []byte("key 2")))
	must(t, s.Use("a"))
	must(t, s.Show(run))
	if b, err := run.Key(""); string(b) != "key 2" {
		t.Errorf("shows %q: %v", b, err)
	}
	must(t, run.Hide())
	must(t, run.Hide())
	if ids, _ := run.List(); len(ids) != 0 {
		t.Errorf("after hiding: %v", ids)
	}
	if _, err := os.Lstat(filepath.Join(run.Dir, "identity")); !os.IsNotExist(err) {
		t.Errorf("after hiding: %v", err)
	}
}

// TestShowPair reads at every moment of a change, and never finds one half.
func TestShowPair(t *testing.T) {
	disk := durabletest.New()
	d := durable.Disk{FS: disk}
	s, run := &identity.Store{Dir: "/state", Disk: d}, &identity.Store{Dir: "/run", Disk: d}
	must(t, s.Recover())
	must(t, s.Put("a", []byte("cert a"), []byte("key a")))
	must(t, s.Put("b", []byte("cert b"), []byte("key b")))
	must(t, s.Use("a"))
	must(t, s.Show(run))
	must(t, s.Use("b"))
	for cutAt := 1; ; cutAt++ {
		power := &durabletest.Power{CutAt: cutAt}
		now := disk.Cut()[0]
		if !power.Run(func() { must(t, s.Show(&identity.Store{Dir: "/run", Disk: durable.Disk{FS: power.FS(now)}})) }) {
			if cutAt < 10 {
				t.Errorf("only %d points", cutAt)
			}
			return
		}
		chain, err1 := now.ReadFile("/run/identity/certificate.pem", 99)
		key, err2 := now.ReadFile("/run/identity/key.pem", 99)
		if pair := string(chain) + string(key); pair != "cert akey a" && pair != "cert bkey b" {
			t.Fatalf("cut at %d: %q, %v, %v", cutAt, pair, err1, err2)
		}
	}
}
