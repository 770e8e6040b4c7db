package vet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/blocklist/debian"
	"github.com/keyvet/keyvet/device"
)

// TestThorough searches for weak keys of a size and a curve that no list has, and
// for a good one: what is found fails, with its seed, and what was searched for
// is no longer counted as not looked up. An interrupted search is a gap, and is
// resumed from its state.
func TestThorough(t *testing.T) {
	seed := debian.Seed{Arch: debian.BE32, Variant: debian.SSH, PID: 9}
	k, err := debian.RSA(t.Context(), 544, 65537, seed)
	if err != nil {
		t.Fatal(err)
	}
	x, err := debian.EC(elliptic.P521(), debian.Seed{Arch: debian.LE64, Variant: debian.NoRnd, PID: 11})
	if err != nil {
		t.Fatal(err)
	}
	good := big.NewInt(1)
	for range 2 {
		p, err := rand.Prime(rand.Reader, 272)
		if err != nil {
			t.Fatal(err)
		}
		good.Mul(good, p)
	}
	dir := t.TempDir()
	weak, curve, sound := filepath.Join(dir, "weak.pem"), filepath.Join(dir, "curve.pem"), filepath.Join(dir, "sound.pem")
	for path, pub := range map[string]any{
		weak:  &rsa.PublicKey{N: k.N, E: 65537},
		curve: &ecdsa.PublicKey{Curve: elliptic.P521(), X: x.X, Y: x.Y}, //nolint:staticcheck // it is a point
		sound: &rsa.PublicKey{N: good, E: 65537},
	} {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	check := func(ctx context.Context, show func(SearchState)) *device.Report {
		state := filepath.Join(dir, "cache", "keyvet")
		c := &Check{Config: noTPM(), Files: []string{weak, curve, sound}, Only: []string{"debian"}, Verbose: true, Thorough: &Thorough{Dir: state, Show: show, lastPID: 31}}
		return c.Report(ctx, device.TriggerManual)
	}
	files := func() int {
		all, err := os.ReadDir(filepath.Join(dir, "cache", "keyvet"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}

	ctx, cancel := context.WithCancel(t.Context())
	half := check(ctx, func(s SearchState) {
		if s.Found > 0 || s.Done > 0.5 {
			cancel()
		}
	})
	if half.Verdict() != device.Fail && half.Verdict() != device.Undecided || len(half.Gaps) == 0 || !strings.Contains(half.Gaps[len(half.Gaps)-1].Why, "the same command resumes it") || files() != 1 {
		t.Errorf("interrupted: %v, gaps %+v, %d states", half.Verdict(), half.Gaps, files())
	}

	// A hit that is none is not believed, though it stands in the state.
	names, err := filepath.Glob(filepath.Join(dir, "cache", "keyvet", "*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	kept, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	var state debian.State
	must(t, json.Unmarshal(kept, &state))
	state.Hits = []debian.Hit{{Target: 0, Factor: big.NewInt(3)}, {Target: 1}, {Target: 2, Factor: big.NewInt(3)}}
	lie, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	write(t, names[0], lie)
	for _, k := range check(t.Context(), nil).Keys {
		if (k.Status == device.Pass) != (k.ID == sound) {
			t.Errorf("%s of a state with false hits: %v", k.ID, k.Status)
		}
	}
	write(t, names[0], kept)

	begun := -1.0
	r := check(t.Context(), func(s SearchState) {
		if begun < 0 {
			begun = s.Done
		}
		if s.Keys != 3 {
			t.Errorf("%+v", s)
		}
	})
	if begun < 0.01 || files() != 0 {
		t.Errorf("begun at %v, %d states are left", begun, files())
	}
	for path, want := range map[string]device.Status{weak: device.Fail, curve: device.Fail, sound: device.Pass} {
		found := false
		for _, f := range r.Findings {
			if f.Key != path || f.Check != "debian" || f.Status == device.NotApplicable {
				continue
			}
			found = true
			if f.Status != want || want == device.Fail && (f.ReasonCode != device.ReasonDebian || f.Proof["pid"] == nil || !strings.HasPrefix(f.Message, "Debian's OpenSSL made the key: ")) || want == device.Pass && !strings.Contains(f.Message, "each to 150 candidates") {
				t.Errorf("%s: %+v", path, f)
			}
			if path == weak && (f.Proof["factor"] != k.P.Text(16) || f.Proof["pid"] != 9 || f.Proof["variant"] != "ssh") {
				t.Errorf("proof %v", f.Proof)
			}
		}
		if !found {
			t.Errorf("%s: no answer", path)
		}
	}
	for _, k := range r.Keys { // only the search has an answer
		if want := (map[string]device.Status{weak: device.Fail, curve: device.Fail, sound: device.Pass})[k.ID]; k.Status != want {
			t.Errorf("%s is %v, want %v", k.ID, k.Status, want)
		}
	}
	if len(r.NotLookedUp) != 0 || r.NotLookedUpLine() != "" {
		t.Errorf("not looked up: %v, %q", r.NotLookedUp, r.NotLookedUpLine())
	}
}
