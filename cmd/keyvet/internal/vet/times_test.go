package vet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// withoutEKs is a TPM whose endorsement keys are not persistent, as most are
// delivered, so that a whole reading makes them.
func withoutEKs(t *testing.T) *tpmtest.SWTPM {
	t.Helper()
	s := tpmtest.Run(t, tpmtest.Options{})
	c, err := tpm.Open(s.Address(), tpm.Options{})
	must(t, err)
	for _, h := range []tpm2.TPMHandle{0x81010001, 0x81010016} {
		rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(c)
		must(t, err)
		_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: h, Name: rsp.Name}, PersistentHandle: h}.Execute(c)
		must(t, err)
	}
	must(t, c.Close())
	return s
}

// keyOn is a new key in a TPM, for a device.
func keyOn(t *testing.T, address string) *tpm.KeyBlob {
	t.Helper()
	c, err := tpm.Open(address, tpm.Options{})
	must(t, err)
	blob, err := c.CreateKey("ecdsa-p256")
	must(t, errors.Join(err, c.Close()))
	return blob
}

// bareMinimum is what a check with its evidence and one TLS handshake cannot do
// without: two parents and the keys under them, a signature to prove the device's
// key, the PCRs, quote, certification and the handshake's signature.
func bareMinimum(s tpmtest.Speed) time.Duration {
	const others = 9 // two loads, four flushes, the PCRs, and a load and a flush for the handshake
	return 2*s.P256 + 4*s.Sign + others*10*time.Millisecond
}

// What the TPM is busy for, on each chip: the first check makes an RSA key, later
// ones none, and none at all in the same boot.
func TestTimes(t *testing.T) {
	s := withoutEKs(t)
	w := &tpmtest.Stopwatch{Speed: tpmtest.Speeds[0]}
	blob := keyOn(t, s.Address())
	cfg := configOn(t, newCA(t), tpmtest.RunProxy(t, s.Address(), w.Rewrite).Address(), blob)
	check := func(v *Vetter) tpmtest.Lap {
		t.Helper()
		vetted := v.Vet(t.Context(), device.TriggerBoot, "")
		if r := vetted.Report; r.Evidence == nil || r.Evidence.DeviceKey == nil || !r.Verdict().Opens() {
			t.Errorf("%v, gaps %v", r.Verdict(), r.Gaps)
		}
		own, err := v.Credentials.Current()
		must(t, err)
		digest := sha256.Sum256([]byte("a handshake"))
		signature, err := own.Signer().Sign(nil, digest[:], crypto.SHA256)
		must(t, err)
		if !ecdsa.VerifyASN1(blob.Public().(*ecdsa.PublicKey), digest[:], signature) {
			t.Error("a handshake would fail")
		}
		return w.Lap()
	}
	must(t, s.Reset())
	if lap := check(vetterOf(t, cfg)); lap.RSA != 2 { // endorsement key and storage root key
		t.Errorf("the first boot makes %d RSA keys", lap.RSA)
	}
	for _, w.Speed = range tpmtest.Speeds {
		must(t, s.Reset())
		cfg.TPM.Address = tpmtest.RunProxy(t, s.Address(), w.Rewrite).Address() // this process knows nothing of it yet
		tpm.AssumeLeftovers(cfg.TPM.Address)
		v := vetterOf(t, cfg)
		boot, _, day, least := check(v), check(v), check(v), bareMinimum(w.Speed)
		t.Logf("%s: a later boot %v (at least %v), the third check of the same boot %v", w.Speed.Chip, boot.Time, least, day.Time)
		if boot.RSA+day.RSA != 0 || boot.Time > 1500*time.Millisecond || boot.Time > least*13/10 {
			t.Errorf("%s: a later boot takes %v and %d RSA keys, and could take %v", w.Speed.Chip, boot.Time, boot.RSA, least)
		}
		for _, c := range day.Commands {
			if c.Command == tpm2.TPMCCCreatePrimary {
				t.Errorf("%s: the third check of the same boot makes a key", w.Speed.Chip)
			}
		}
	}
}

// What is kept of the TPM's keys counts only with the signature of this TPM in this
// boot, and in a file that is whole.
func TestKeptKeys(t *testing.T) {
	s, other := withoutEKs(t), withoutEKs(t)
	authority := newCA(t)
	const quote, fails = 0x158, 0x101 // TPM2_Quote, TPM_RC_FAILURE
	pass := func(_, response []byte) []byte { return response }
	proxies := map[string]string{
		"no quote":       tpmtest.RunInterposer(t, s.Address(), tpmtest.RefuseCommand(quote, fails), pass).Address(),
		"other firmware": tpmtest.RunProxy(t, s.Address(), tpmtest.Pretend{Manufacturer: "IBM", FirmwareVersion: 1}.Rewrite).Address(),
	}
	cfg := configOn(t, authority, s.Address(), nil)
	first := vetterOf(t, cfg).Vet(t.Context(), device.TriggerBoot, "").Report
	if first.Evidence == nil {
		t.Fatalf("gaps %v", first.Gaps)
	}
	kept, err := os.ReadFile(cfg.KeptPath())
	must(t, err)
	ak, err := os.ReadFile(cfg.AKPath())
	must(t, err)
	otherAK := vetterOf(t, configOn(t, authority, other.Address(), nil))
	otherAK.Vet(t.Context(), device.TriggerBoot, "")
	foreign, err := os.ReadFile(otherAK.Config.KeptPath())
	must(t, err)

	rsa := keyOf(first, "tpm-ek-rsa2048").SPKISHA256
	for _, tt := range []struct {
		name    string
		address string
		kept    []byte
		taken   bool // what is kept
		same    bool // the endorsement key is that of the first TPM
		opens   bool
	}{
		{"as it was", s.Address(), kept, true, true, true},
		{"nothing kept", s.Address(), nil, false, true, true},
		{"cut", s.Address(), kept[:len(kept)/2], false, true, true},
		{"empty", s.Address(), []byte{}, false, true, true},
		{"forged", s.Address(), []byte(strings.Replace(string(kept), `"keys":[{"id":"tpm-ek-rsa2048"`, `"keys":[{"id":"tpm-ek-rsa3072"`, 1)), false, true, true},
		{"of a later version", s.Address(), []byte(strings.Replace(string(kept), "keyvet.kept/2", "keyvet.kept/3", 1)), false, true, true},
		{"of another TPM", s.Address(), foreign, false, true, true},
		{"another TPM", other.Address(), kept, false, false, true},
		{"no quote", proxies["no quote"], kept, false, true, false},
		{"other firmware", proxies["other firmware"], kept, false, true, false},
	} {
		must(t, os.WriteFile(cfg.AKPath(), ak, 0o600))
		must(t, errors.Join(os.WriteFile(cfg.KeptPath(), tt.kept, 0o600)))
		if tt.kept == nil {
			must(t, os.Remove(cfg.KeptPath()))
		}
		c := cfg
		c.TPM.Address = tt.address
		r := vetterOf(t, c).Vet(t.Context(), device.TriggerBoot, "").Report
		k := keyOf(r, "tpm-ek-rsa2048")
		if k == nil {
			t.Errorf("%s: no endorsement key; gaps %v", tt.name, r.Gaps)
			continue
		}
		if taken := strings.HasPrefix(k.Source, "tpm:kept:"); taken != tt.taken || (k.SPKISHA256 == rsa) != tt.same || r.Verdict().Opens() != tt.opens {
			t.Errorf("%s: %s, verdict %v, gaps %v", tt.name, k.Source, r.Verdict(), r.Gaps)
		}
		if tt.opens && !tt.taken { // and kept for the next time
			now, err := os.ReadFile(c.KeptPath())
			if err != nil || slices.Equal(now, tt.kept) {
				t.Errorf("%s: it is not kept again: %v", tt.name, err)
			}
			if k := keyOf(vetterOf(t, c).Vet(t.Context(), device.TriggerBoot, "").Report, "tpm-ek-rsa2048"); k == nil || !strings.HasPrefix(k.Source, "tpm:kept:") {
				t.Errorf("%s: the next check reads all again", tt.name)
			}
		}
	}

	// Failure mode is not asked for where keys are kept, and shows all the same.
	failed := cfg
	failed.TPM.Address = tpmtest.Run(t, tpmtest.Options{FailureMode: true}).Address()
	must(t, errors.Join(os.WriteFile(cfg.KeptPath(), kept, 0o600), os.WriteFile(cfg.AKPath(), ak, 0o600)))
	if r := vetterOf(t, failed).Vet(t.Context(), device.TriggerBoot, "").Report; r.TPM.State != device.TPMDegraded || r.Verdict().Opens() {
		t.Errorf("in failure mode: %+v, verdict %v", r.TPM, r.Verdict())
	}

	// A check by hand reads all, whatever is kept.
	c := Check{Config: cfg}
	if k := keyOf(c.Report(t.Context(), device.TriggerManual), "tpm-ek-rsa2048"); k == nil || k.Source != "tpm:template:L-1" {
		t.Errorf("by hand: %+v", k)
	}
}
