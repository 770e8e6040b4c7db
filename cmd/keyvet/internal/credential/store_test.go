package credential

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device/identity"
	"github.com/keyvet/keyvet/device/rotate"
)

func TestPaths(t *testing.T) {
	for _, tt := range []struct {
		name             string
		key, certificate string // of the configuration
		id               string
		want             string
	}{
		{"the claim", "", "", rotate.Claim, "/claim.pem /claim.key"},
		{"configured, by default", "", "", rotate.Configured, "/state/identity/certificate.pem /state/identity/key.pem"},
		{"configured", "tpm:0x81000100", "/own.pem", rotate.Configured, "/own.pem tpm:0x81000100"},
		{"the first", "", "", identity.First, "/state/credentials/first/certificate.pem /state/credentials/first/key.pem"},
		{"the first, its key elsewhere", "tpm:0x81000100", "", identity.First, "/state/credentials/first/certificate.pem tpm:0x81000100"},
		{"one that was made", "tpm:0x81000100", "/own.pem", "r1", "/state/credentials/r1/certificate.pem /state/credentials/r1/key.pem"},
	} {
		c := *config.Default()
		c.StateDir, c.Identity.Key, c.Identity.Certificate = "/state", tt.key, tt.certificate
		c.Provision.ClaimCertificate, c.Provision.ClaimKey = "/claim.pem", "/claim.key"
		s := &Store{Files: &identity.Store{Dir: c.StateDir}, config: c}
		certificate, key := s.Paths(tt.id)
		if got := certificate + " " + key; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// The credential in hand is that of the last self-check until it is another one.
func TestStore(t *testing.T) {
	ca, key, next := newAuthority(t, "ca", nil), newKey(t), newKey(t)
	c := on(t, ca.issue(t, "gw", key.Public()), keyPEM(t, key))
	c.Provision.ClaimCertificate, c.Provision.ClaimKey = filepath.Join(c.StateDir, "claim.pem"), filepath.Join(c.StateDir, "claim.key")
	s, err := Open(c)
	must(t, err)
	own, err := s.Current()
	must(t, err)
	first := *own
	own.Prove(nil)
	s.Reload()
	if own, _ := s.Current(); !own.Guarded().Proven {
		t.Error("the same credential was taken again, and its proof is lost")
	}
	must(t, s.Files.Put("r1", ca.issue(t, "gw", next.Public()), keyPEM(t, next)))
	s.Take("r1")
	if own, err := s.Current(); err != nil || own.Same(&first) {
		t.Errorf("not taken: %v", err)
	}
	s.Reload()
	if own, err := s.Current(); err != nil || !own.Same(&first) {
		t.Errorf("the one in use was not taken again: %v", err)
	}
	must(t, s.Files.Use("r1"))
	s.Reload()
	if own, err := s.Current(); err != nil || own.Same(&first) || own.Guarded().Proven {
		t.Errorf("another one is in use: %v, proven %t", err, own.Guarded().Proven)
	}
	s.Take(rotate.Claim)
	if _, err := s.Current(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a claim that is not there: %v", err)
	}
	write(t, c.Provision.ClaimCertificate, ca.issue(t, "claim", key.Public()))
	write(t, c.Provision.ClaimKey, keyPEM(t, key))
	if claim, err := Claim(c); err != nil || claim.Leaf.Subject.CommonName != "claim" {
		t.Errorf("%v", err)
	}
	write(t, filepath.Join(c.StateDir, "other"))
	c.StateDir = filepath.Join(c.StateDir, "other")
	if _, err := Open(c); err == nil {
		t.Error("a state directory that is a file")
	}
}
