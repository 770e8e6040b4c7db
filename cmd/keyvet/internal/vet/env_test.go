package vet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
)

// What cannot be loaded is a gap, and keeps nothing else back.
func TestLoadEnv(t *testing.T) {
	authority, dir := newCA(t), t.TempDir()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}, authority.cert, authority.key)
	must(t, err)
	file := func(name string, data []byte) string { return write(t, filepath.Join(dir, name), data) }
	none := filepath.Join(dir, "none")
	caFile, text := file("ca.pem", authority.pem), file("text", []byte("nonsense"))
	advisories := file("advisories.json", []byte("[]"))
	cfg := *config.Default()
	cfg.Identity.CA = []string{caFile, none, text}
	cfg.Check.Blocklists = []string{none}
	cfg.Check.Advisories = []string{advisories, none, text}
	cfg.Check.EKRoots = filepath.Dir(file("roots/ca.pem", authority.pem))
	cfg.Check.CRLs = []string{
		file("crl.der", der), file("crl.pem", pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})), none, text,
	}
	env := new(check.Env)
	lists, gaps := (&Check{Config: cfg}).loadEnv(env)
	defer lists.Close()
	if len(env.Roots) != 1 || len(env.EKRoots) != 1 || len(env.CRLs) != 2 || env.Blocklist == nil {
		t.Errorf("%d roots, %d EK roots, %d CRLs", len(env.Roots), len(env.EKRoots), len(env.CRLs))
	}
	for _, what := range []string{none, text, "blocklist " + none, "advisories " + none, "CRL " + none, "CRL " + text} {
		if !slices.ContainsFunc(gaps, func(g device.Gap) bool { return g.What == what && g.Why != "" && !g.Minor }) {
			t.Errorf("no gap on %s: %v", what, gaps)
		}
	}
	if env.Advisories.Match(device.TPM{}) != nil {
		t.Error("an advisory on nothing")
	}

	for name, roots := range map[string]string{"empty": t.TempDir(), "not there": none} {
		cfg := *config.Default()
		cfg.Check.EKRoots = roots
		env := new(check.Env)
		lists, gaps := (&Check{Config: cfg}).loadEnv(env)
		lists.Close()
		if len(env.EKRoots) != 0 || len(gaps) != 1 || gaps[0].What != "check.ek_roots "+roots {
			t.Errorf("%s: %v", name, gaps)
		}
	}
}

// A list of the command line is asked besides the others.
func TestBlocklistOfCommandLine(t *testing.T) {
	for name, good := range map[string]bool{"../../../../blocklist/embedded.kvf": true, os.DevNull: false, "none": false} {
		env := new(check.Env)
		lists, gaps := (&Check{Config: *config.Default(), Blocklists: []string{name}}).loadEnv(env)
		others, _ := (&Check{Config: *config.Default()}).loadBlocklists(func(what string, err error) { t.Error(what, err) })
		want := len(others)
		if good {
			want++
		}
		others.Close()
		problem := !good && want == 0 // there is none besides
		if len(lists) != want || (env.Blocklist != nil) != (want > 0) || (len(gaps) == 0) != good || (env.BlocklistProblem != "") != problem {
			t.Errorf("%s: %d lists, %v, %q", name, len(lists), gaps, env.BlocklistProblem)
		}
		lists.Close()
	}
}

func TestGlob(t *testing.T) {
	dir := t.TempDir()
	for i := range 3 {
		write(t, filepath.Join(dir, fmt.Sprint(i, ".pem")), nil)
	}
	must(t, os.Mkdir(filepath.Join(dir, "sub.pem"), 0o700))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "broken.pem")))
	for pattern, want := range map[string]int{"*.pem": 4, "none.pem": 1, "x*": 0} { // a broken link is a gap later
		if got, err := glob(filepath.Join(dir, pattern)); err != nil || len(got) != want {
			t.Errorf("%s: %q, %v", pattern, got, err)
		}
	}
	if _, err := glob("["); err == nil {
		t.Error("a pattern that is none")
	}
}

// A CRL on the command line is asked of the certificates beside it.
func TestCRLOnCommandLine(t *testing.T) {
	authority, dir := newCA(t), t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	chain := write(t, filepath.Join(dir, "chain.pem"), append(authority.issue(t, key.Public()), authority.pem...))
	list := func(name string, revoked ...int64) string {
		template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
		for _, n := range revoked {
			template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()})
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, authority.cert, authority.key)
		must(t, err)
		if filepath.Ext(name) == ".pem" {
			der = pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
		}
		return write(t, filepath.Join(dir, name), der)
	}
	for name, tt := range map[string]struct {
		files []string
		want  device.Status
	}{
		"revoked":           {[]string{chain, list("revoked.pem", 2)}, device.Fail},
		"revoked, by DER":   {[]string{list("revoked.crl", 2), chain}, device.Fail},
		"another":           {[]string{chain, list("another.pem", 3)}, device.Pass},
		"a CRL alone":       {[]string{list("alone.pem")}, device.Undecided},
		"what is no CRL":    {[]string{chain, write(t, filepath.Join(dir, "text"), []byte("nonsense"))}, device.Undecided},
		"what is not there": {[]string{chain, filepath.Join(dir, "none")}, device.Undecided},
	} {
		r := (&Check{Config: noTPM(), Files: tt.files}).Report(t.Context(), device.TriggerManual)
		if r.Verdict() != tt.want {
			t.Errorf("%s: %v, %v %v", name, r.Verdict(), r.Findings, r.Gaps)
		}
	}
}
