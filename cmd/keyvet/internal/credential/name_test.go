package credential

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
)

// aTPM is a TPM that is known by its RSA key, and the two names of its keys.
func aTPM(t *testing.T) (inv device.Inventory, byRSA, byEC string) {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	key := func(id string, public any) device.Key {
		spki, err := x509.MarshalPKIXPublicKey(public)
		must(t, err)
		return device.Key{ID: id, Role: device.RoleEK, Public: public, SPKI: spki}
	}
	ec, rs := key("tpm-ek-p256", e.Public()), key("tpm-ek-rsa2048", r.Public())
	name := func(k device.Key) string { sum := sha256.Sum256(k.SPKI); return hex.EncodeToString(sum[:]) }
	byRSA, byEC = name(rs), name(ec)
	rs.SPKI = []byte("as a certificate for RSAES-OAEP has it")
	return device.Inventory{TPM: &device.TPM{State: device.TPMOK, NamingKey: "tpm-ek-rsa2048"}, Keys: []device.Key{ec, rs}}, byRSA, byEC
}

func TestName(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "hostname"), []byte("gw-7\n"))
	long := write(t, filepath.Join(dir, "long"), make([]byte, maxNameBytes+1))
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "gw-8"}}
	unreadable, none := errors.New("unreadable certificate"), &fs.PathError{Op: "open", Err: fs.ErrNotExist}
	whole, byRSA, byEC := aTPM(t)
	canceled, eccOnly, mute := whole, whole, whole
	canceled.Keys, canceled.Gaps = whole.Keys[:1], []device.Gap{{What: "tpm-ek-rsa2048", Why: "TPM_RC_CANCELED"}}
	eccOnly.TPM, eccOnly.Keys = &device.TPM{NamingKey: "tpm-ek-p256"}, whole.Keys[:1]
	mute.TPM = &device.TPM{State: device.TPMOK}
	for _, tt := range []struct {
		configured string
		leaf       *x509.Certificate
		why        error // the credential cannot be used
		inv        device.Inventory
		kept       string
		want       string
		wantErr    string
	}{
		{configured: "gw-1", why: none, want: "gw-1"},
		{configured: "cert:CN", leaf: leaf, want: "gw-8"},
		{configured: "cert:CN", why: unreadable, wantErr: `thing.name = "cert:CN": unreadable certificate`},
		{configured: "cert:CN", why: none, wantErr: "the first certificate gives the name"},
		{configured: "cert:CN", leaf: &x509.Certificate{}, wantErr: "thing"},
		{configured: "file:" + file, want: "gw-7"},
		{configured: "file:" + filepath.Join(dir, "none"), wantErr: "thing.name: open"},
		{configured: "file:" + long, wantErr: "more than"},
		{configured: "two words", want: "two words", wantErr: "thing"},
		// One key gives the name, or none does.
		{configured: "ek:sha256", why: none, inv: whole, want: byRSA},
		{configured: "ek:sha256", why: none, inv: canceled, wantErr: "tpm-ek-rsa2048 gives the name, and no other: TPM_RC_CANCELED"},
		{configured: "ek:sha256", inv: canceled, wantErr: "TPM_RC_CANCELED"},
		{configured: "ek:sha256", why: none, inv: eccOnly, want: byEC},
		{configured: "ek:sha256", why: none, inv: mute, wantErr: "could not be asked"},
		{configured: "ek:sha256", why: none, wantErr: "no TPM"},
		// An enrolled device keeps its name, whatever can be read this time.
		{configured: "ek:sha256", inv: canceled, kept: byRSA, want: byRSA},
		{configured: "ek:sha256", why: unreadable, kept: byEC, want: byEC},
		{configured: "ek:sha256", inv: whole, kept: byEC, want: byEC},
		{configured: "ek:sha256", why: none, inv: whole, kept: byEC, want: byRSA}, // to be enrolled again
		{configured: "ek:sha256", inv: whole, kept: "not a name", wantErr: "the kept name of the thing"},
		{configured: "template", why: none, wantErr: "the first certificate gives the name"},
		{configured: "template", why: none, kept: "gw-9", want: "gw-9"}, // the power went between the name and the certificate
		{configured: "template", kept: "gw-9", want: "gw-9"},
		{configured: "template", wantErr: "its name was not kept: write it to "},
		{configured: "template", kept: strings.Repeat("x", 200), wantErr: "the kept name of the thing"},
	} {
		c := *config.Default()
		c.StateDir, c.Thing.Name = t.TempDir(), tt.configured
		if tt.kept != "" {
			write(t, filepath.Join(c.StateDir, "thing"), []byte(tt.kept+"\n"))
		}
		got, err := thingName(c, tt.leaf, tt.why, tt.inv)
		if tt.wantErr == "" && (got != tt.want || err != nil) || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
		if later := errors.Is(err, ErrNamedLater); later != strings.Contains(tt.wantErr, "first certificate") {
			t.Errorf("%+v: named later: %v", tt, later)
		}
	}
	s := &Store{config: *config.Default()}
	s.config.Thing.Name = "gw-1"
	if thing, err := s.Thing(); thing != "" || err != nil {
		t.Errorf("before a self-check: %q, %v", thing, err)
	}
	s.Name(device.Inventory{})
	if thing, err := s.Thing(); thing != "gw-1" || err != nil {
		t.Errorf("%q, %v", thing, err)
	}
}

func TestKeep(t *testing.T) {
	for configured, kept := range map[string]bool{"gw-1": false, "cert:CN": false, "file:/etc/hostname": false, "ek:sha256": true, "template": true} {
		s := &Store{config: *config.Default(), thingErr: ErrNamedLater}
		s.config.StateDir, s.config.Thing.Name = t.TempDir(), configured
		must(t, s.Keep("gw-2"))
		b, err := os.ReadFile(filepath.Join(s.config.StateDir, "thing"))
		if kept != (err == nil) || kept && string(b) != "gw-2\n" {
			t.Errorf("%s: %q, %v", configured, b, err)
		}
		if thing, err := s.Thing(); kept && (thing != "gw-2" || err != nil) {
			t.Errorf("%s: %q, %v", configured, thing, err)
		}
		must(t, s.Keep("gw-3"))
		must(t, s.Keep("gw-3"))
		if name, err := readKept(s.config); err != nil || kept && name != "gw-3" {
			t.Errorf("%s: %q, %v", configured, name, err)
		}
		if err := s.Keep("two words"); kept && err == nil {
			t.Errorf("%s keeps what is no name", configured)
		}
	}
}

// Another TPM is told, and renames nothing.
func TestNameFindings(t *testing.T) {
	inv, byRSA, byEC := aTPM(t)
	c := *config.Default()
	for _, tt := range []struct {
		configured, kept string
		found            bool
	}{
		{"ek:sha256", "", false}, {"ek:sha256", byRSA, false}, {"ek:sha256", byEC, true}, {"gw-1", byEC, false}, {"template", "gw-1", false},
	} {
		c.StateDir, c.Thing.Name = t.TempDir(), tt.configured
		if tt.kept != "" {
			write(t, filepath.Join(c.StateDir, "thing"), []byte(tt.kept))
		}
		f := NameFindings(c, inv)
		if (len(f) == 1) != tt.found || tt.found && (f[0].Status != device.Warn || f[0].ReasonCode != "KEYVET_TPM_OTHER" || !strings.Contains(f[0].Message, byEC)) {
			t.Errorf("%+v: %+v", tt, f)
		}
	}
}
