package vet

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ca issues certificates.
type ca struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newCA(t *testing.T) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10000 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &ca{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (c *ca) issue(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gw"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(5000 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, public, c.key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o700))
	must(t, os.WriteFile(name, data, 0o600))
	return name
}

// device on a desk: its key is in software unless a blob is given.
func configOn(t *testing.T, c *ca, address string, blob *tpm.KeyBlob) config.Config {
	t.Helper()
	cfg := *config.Default()
	cfg.StateDir, cfg.TPM.Address, cfg.Thing.Name = t.TempDir(), address, "gw"
	identity := filepath.Join(cfg.StateDir, "identity")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	public, private := crypto.PublicKey(key.Public()), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if blob != nil {
		public, private = blob.Public(), blob.PEM()
	}
	write(t, filepath.Join(identity, "certificate.pem"), c.issue(t, public))
	write(t, filepath.Join(identity, "key.pem"), private)
	cfg.Identity.CA = []string{write(t, filepath.Join(cfg.StateDir, "ca.pem"), c.pem)}
	return cfg
}

func vetterOf(t *testing.T, cfg config.Config) *Vetter {
	t.Helper()
	credentials, err := credential.Open(cfg)
	must(t, err)
	return &Vetter{
		Check: Check{Config: cfg, Agent: device.Agent{Version: "v"}}, Credentials: credentials,
		Journal: rotate.File{Path: rotate.JournalPath(cfg.StateDir)}, Log: slog.New(slog.DiscardHandler),
	}
}

func gapOn(r *device.Report, what string) *device.Gap {
	if i := slices.IndexFunc(r.Gaps, func(g device.Gap) bool { return strings.Contains(g.What, what) }); i >= 0 {
		return &r.Gaps[i]
	}
	return nil
}

func keyOf(r *device.Report, id string) *device.KeyReport {
	if i := slices.IndexFunc(r.Keys, func(k device.KeyReport) bool { return k.ID == id }); i >= 0 {
		return &r.Keys[i]
	}
	return nil
}

// A report of files, of the standard input and of what the configuration names.
func TestReport(t *testing.T) {
	authority := newCA(t)
	cfg := configOn(t, authority, "", nil)
	dir := t.TempDir()
	one, two := write(t, filepath.Join(dir, "1.pem"), authority.pem), write(t, filepath.Join(dir, "2.pem"), authority.pem)
	var said []string
	c := Check{
		Config: cfg, Agent: device.Agent{Version: "v"}, Files: []string{one, two, "-", filepath.Join(dir, "none")},
		Stdin: Stdin{bytes.NewReader(authority.pem), true}, Progress: func(what string) func() { said = append(said, what); return func() {} },
	}
	r := c.Report(t.Context(), device.TriggerManual)
	var ids []string
	for _, k := range r.Keys {
		ids = append(ids, k.ID)
	}
	if len(ids) != 3 || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 3 || gapOn(r, "none") == nil || r.TPM != nil {
		t.Errorf("keys %q, gaps %v", ids, r.Gaps)
	}
	if r.Trigger != device.TriggerManual || r.Agent.Version != "v" || !slices.Contains(said, "reading keys from the keyboard, end with Ctrl-D") {
		t.Errorf("%+v, said %q", r.Agent, said)
	}

	cfg.Check.Files = []string{filepath.Join(dir, "*.pem"), filepath.Join(dir, "none"), "[", filepath.Join(dir, "x*")}
	cfg.Provision.ClaimCertificate, cfg.Provision.ClaimKey = one, filepath.Join(dir, "none.key")
	cfg.TPM.Address = "unix:" + dir + "/none"
	c = Check{Config: cfg}
	r = c.Report(t.Context(), device.TriggerManual)
	for id, role := range map[string]device.Role{"device": device.RoleDevice, "claim": device.RoleClaim} {
		if k := keyOf(r, id); k == nil || k.Role != role {
			t.Errorf("no key %s: %+v", id, r.Keys)
		}
	}
	for _, what := range []string{"TPM unix:", "none", "none.key", "check.files ["} {
		if gapOn(r, what) == nil {
			t.Errorf("no gap on %s: %v", what, r.Gaps)
		}
	}
	if r.TPM == nil || r.TPM.State != device.TPMAbsent || r.Evidence != nil || r.Verdict() != device.Undecided {
		t.Errorf("%+v, %v", r.TPM, r.Verdict())
	}
	cfg.TPM.Address = config.Default().TPM.Address + "-none"
	if g := gapOn((&Check{Config: cfg}).Report(t.Context(), device.TriggerManual), "TPM"); g == nil || strings.Contains(g.Why, "tpm.address") {
		t.Errorf("%+v", g)
	}
}

// The TPM signs what Vet reports, and answers a challenge on it.
func TestVetAndAnswer(t *testing.T) {
	s := tpmtest.Run(t, tpmtest.Options{})
	c, err := tpm.Open(s.Address(), tpm.Options{})
	must(t, err)
	blob, err := c.CreateKey("ecdsa-p256")
	must(t, errors.Join(err, c.Close()))
	cfg := configOn(t, newCA(t), s.Address(), blob)
	v := vetterOf(t, cfg)
	if _, err := v.Answer(new(evidence.Challenge), nil); err == nil {
		t.Error("a challenge before the first report")
	}
	vetted := v.Vet(t.Context(), device.TriggerBoot, "")
	r := vetted.Report
	if r.Evidence == nil || r.Evidence.DeviceKey == nil || r.ThingName != "gw" || r.Credential != device.RoleDevice || r.Trigger != device.TriggerBoot {
		t.Fatalf("evidence %+v, thing %q, credential %q, gaps %v", r.Evidence, r.ThingName, r.Credential, r.Gaps)
	}
	if !vetted.Credential.Proven || keyOf(r, "device") == nil || !r.Verdict().Opens() {
		t.Errorf("%v, gaps %v", r.Verdict(), r.Gaps)
	}
	if _, err := os.Stat(cfg.AKPath()); err != nil {
		t.Errorf("no attestation key is kept: %v", err)
	}
	digest, err := device.Digest(r.Encode())
	must(t, err)
	statement, err := evidence.VerifyDigest(r.Evidence, digest)
	must(t, err)

	c, err = tpm.Open(s.Address(), tpm.Options{})
	must(t, err)
	_, keys, _ := c.Inventory()
	must(t, c.Close())
	ek := keys[slices.IndexFunc(keys, func(k device.Key) bool { return k.ID == "tpm-ek-rsa2048" })]
	challenge, expected, err := evidence.NewChallenge(ek.Public, statement.AKName, func(crypto.PublicKey) error { return nil })
	must(t, err)
	a, err := v.Answer(challenge, make([]byte, 16))
	must(t, err)
	if !bytes.Equal(a.Secret, expected.Secret) || a.ReportID != r.ID || a.Age > time.Hour || a.Evidence == nil || a.Evidence.DeviceKey == nil || a.Evidence.Nonce == "" {
		t.Errorf("%+v", a)
	}
	challenge.Secret[0] ^= 1
	if a, err := v.Answer(challenge, nil); err == nil || a.Evidence != nil {
		t.Errorf("a damaged challenge: %+v, %v", a, err)
	}

	// Without its certificate the key is another's, and the report says so.
	must(t, os.Remove(filepath.Join(cfg.StateDir, "identity", "certificate.pem")))
	vetted = v.Vet(t.Context(), device.TriggerSchedule, "")
	if r := vetted.Report; r.Credential != "" || vetted.Credential.Proven || r.Evidence == nil || r.Evidence.DeviceKey != nil || r.Verdict().Opens() && gapOn(r, "device") == nil {
		t.Errorf("%v, credential %q, gaps %v", r.Verdict(), r.Credential, r.Gaps)
	}
}

// What does not let the TPM sign is a gap, minor only if the operator accepts it;
// what touches nothing but the quote is minor.
func TestNotSigned(t *testing.T) {
	s := tpmtest.Run(t, tpmtest.Options{})
	authority := newCA(t)
	const quote, fails = 0x158, 0x101 // TPM2_Quote, TPM_RC_FAILURE
	noQuote := tpmtest.RunInterposer(t, s.Address(), tpmtest.RefuseCommand(quote, fails), func(_, response []byte) []byte { return response })
	for _, tt := range []struct {
		name    string
		address string
		change  func(*config.Config)
		gap     string
		minor   bool
		signed  bool
	}{
		{"signed", s.Address(), func(*config.Config) {}, "", false, true},
		{"no bank", s.Address(), func(c *config.Config) { c.Evidence.PCRs.Bank = "sha3-512" }, "PCRs", true, true},
		{"no PCRs", s.Address(), func(c *config.Config) { c.Evidence.PCRs.Indices = nil }, "", false, true},
		{"wrong handle", s.Address(), func(c *config.Config) { c.TPM.AK = "nonsense" }, "kept attestation key", true, true},
		{"refused", noQuote.Address(), func(*config.Config) {}, "evidence", false, false},
		{"refused, accepted", noQuote.Address(), func(c *config.Config) { c.Evidence.Required = false }, "evidence", true, false},
	} {
		cfg := configOn(t, authority, tt.address, nil)
		tt.change(&cfg)
		r := vetterOf(t, cfg).Vet(t.Context(), device.TriggerBoot, "").Report
		if (r.Evidence != nil) != tt.signed && tt.name != "no bank" {
			t.Errorf("%s: signed %t; gaps %v", tt.name, r.Evidence != nil, r.Gaps)
		}
		g := gapOn(r, tt.gap)
		if tt.gap == "" && gapOn(r, "evidence") != nil || tt.gap != "" && (g == nil || g.Minor != tt.minor) {
			t.Errorf("%s: %+v of %v", tt.name, g, r.Gaps)
		}
	}
}

// A journal that cannot be read is in the report, and no reason to shut the gate.
func TestJournalUnreadable(t *testing.T) {
	cfg := configOn(t, newCA(t), "", nil)
	write(t, rotate.JournalPath(cfg.StateDir), []byte("nonsense"))
	r := vetterOf(t, cfg).Vet(t.Context(), device.TriggerBoot, "").Report
	if g := gapOn(r, "rotation journal"); g == nil || !g.Minor {
		t.Errorf("%v", r.Gaps)
	}
}

// The attestation key that is kept is used as long as this TPM can.
func TestUseAK(t *testing.T) {
	s, other := tpmtest.Run(t, tpmtest.Options{}), tpmtest.Run(t, tpmtest.Options{})
	const handle = "0x81010020"
	v := &Vetter{Check: Check{Config: *config.Default()}, Log: slog.New(slog.DiscardHandler)}
	v.Config.StateDir = t.TempDir()
	use := func(address string, mayMake bool) error {
		t.Helper()
		c, err := tpm.Open(address, tpm.Options{})
		must(t, err)
		defer c.Close()
		return v.useAK(c, mayMake)
	}
	path := v.Config.AKPath()
	kept := func() string {
		b, _ := os.ReadFile(path)
		return string(b)
	}
	if err := use(s.Address(), false); err == nil || kept() != "" {
		t.Errorf("none is kept, and none may be made: %v", err)
	}
	if err := use(s.Address(), true); err != nil || kept() == "" {
		t.Fatalf("none was made: %v", err)
	}
	first := kept()
	if err := use(s.Address(), true); err != nil || kept() != first {
		t.Errorf("another was made: %v", err)
	}
	if err := use(other.Address(), false); !errors.Is(err, tpm.ErrAKUnusable) || kept() != first {
		t.Errorf("another TPM's: %v", err)
	}
	if err := use(other.Address(), true); err == nil || !strings.Contains(err.Error(), "another was made") || kept() == first {
		t.Errorf("another TPM's: %v", err)
	}
	write(t, path, []byte("nonsense"))
	if err := use(s.Address(), false); !errors.Is(err, tpm.ErrAKUnusable) || !strings.Contains(err.Error(), path) {
		t.Errorf("nonsense: %v", err)
	}
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	if err := use(s.Address(), true); err == nil {
		t.Error("a directory in its place")
	}
	v.Config.TPM.AK = handle
	for range 2 { // put there, then found there
		if err := use(s.Address(), true); err != nil {
			t.Errorf("at a handle: %v", err)
		}
	}
	v.Config.TPM.AK = "0x80000001"
	if err := use(s.Address(), true); err == nil {
		t.Error("a handle that is not persistent")
	}
}

func TestAge(t *testing.T) {
	now := time.Now()
	for name, tt := range map[string]struct {
		at   time.Time
		want time.Duration
	}{
		"an hour ago":             {now.Add(-time.Hour), time.Hour},
		"the clock was set back":  {now.Add(time.Hour), 0},
		"by the wall clock alone": {now.Add(-time.Hour).Round(0), time.Hour},
	} {
		if got := (signed{at: tt.at}).age(); got < tt.want || got > tt.want+time.Minute {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	k := Key{Check{Config: *config.Default()}}
	for _, f := range k.Vet(t.Context(), device.Key{ID: "new", Role: device.RoleDevice, Public: key.Public(), SPKI: spki}) {
		if f.Status == device.Fail || f.Key != "device" && f.Key != device.TPMKeyID {
			t.Errorf("%+v", f)
		}
	}
	if found := k.Vet(t.Context(), device.Key{ID: "new", Role: device.RoleDevice, Public: tpmtest.ROCAKey("vet").Public()}); !slices.ContainsFunc(found, func(f device.Finding) bool { return f.Status == device.Fail }) {
		t.Errorf("a key of the flawed library: %+v", found)
	}
}
