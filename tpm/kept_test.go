package tpm

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

var updateKept = flag.Bool("update-kept", false, "write testdata/kept.json")

// keep reads a whole TPM by a new attestation key, and gives what is to be kept.
func keep(t testing.TB, address string) (*AK, *Kept, []device.Key) {
	t.Helper()
	c := connect(t, address)
	defer c.Close()
	ak, err := c.CreateAK()
	if err == nil {
		err = c.UseAK(ak)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, keys, gaps := c.Inventory()
	if c.Shown() == nil {
		t.Fatalf("nothing to be kept: %v", gaps)
	}
	return ak, encoded(t, c.Shown()), keys
}

// encoded is what comes back of a file.
func encoded(t testing.TB, k *Kept) *Kept {
	t.Helper()
	text, err := k.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if k, err = ParseKept(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return k
}

// madeEKs is a TPM without persistent keys, so that all are made.
func madeEKs(t testing.TB, opts tpmtest.Options) *tpmtest.SWTPM {
	t.Helper()
	s := tpmtest.Run(t, opts)
	c := connect(t, s.Address())
	defer c.Close()
	evict(t, c, 0x81010001)
	evict(t, c, 0x81010016)
	return s
}

// brought is what keys are, wherever they came from.
func brought(keys []device.Key) (all []string) {
	for _, k := range keys {
		all = append(all, k.ID+" "+k.SPKISHA256())
	}
	return all
}

func sources(keys []device.Key, prefix string) (n int) {
	for _, k := range keys {
		if strings.HasPrefix(k.Source, prefix) {
			n++
		}
	}
	return n
}

// After a reset the same keys are listed, and none of them was made; the TPM signs
// once.
func TestKept(t *testing.T) {
	s := madeEKs(t, tpmtest.Options{})
	w := &tpmtest.Stopwatch{Speed: tpmtest.Speeds[0]}
	proxy := tpmtest.RunProxy(t, s.Address(), w.Rewrite)
	ak, kept, keys := keep(t, proxy.Address())
	if lap := w.Lap(); lap.RSA != 2 { // endorsement key and storage root key
		t.Errorf("the first time makes %d RSA keys", lap.RSA)
	}
	if *updateKept {
		text, _ := kept.Encode()
		if err := os.WriteFile("testdata/kept.json", text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	c := connect(t, proxy.Address())
	if err := c.UseKept(ak, kept); err != nil {
		t.Fatal(err)
	}
	_, again, gaps := c.Inventory()
	if !slices.Equal(brought(keys), brought(again)) || len(gaps) > 0 {
		t.Errorf("%q, before %q; gaps %v", brought(again), brought(keys), gaps)
	}
	if n := sources(again, "tpm:kept:"); n != 5 {
		t.Errorf("%d keys are kept, of %v", n, again)
	}
	lap := w.Lap()
	for _, c := range lap.Commands {
		if c.Time > 10e6 || c.Command == tpm2.TPMCCNVReadPublic || c.Command == tpm2.TPMCCReadClock {
			t.Errorf("%v takes %v, before the TPM has signed anything", c.Command, c.Time)
		}
	}
	if c.Shown() != nil {
		t.Error("there is something new to be kept")
	}
	if _, err := c.Quote([32]byte{1}); err != nil {
		t.Error(err)
	}
	c.Close()
	if lap := w.Lap(); lap.RSA != 0 {
		t.Errorf("%d RSA keys are made", lap.RSA)
	}

	// A key that is not kept is made, and all of them are signed again.
	c = connect(t, proxy.Address())
	less := *kept
	less.areas = map[string]*tpm2.TPMTPublic{"tpm-ek-rsa2048": kept.areas["tpm-ek-rsa2048"]}
	if err := c.UseKept(ak, &less); err != nil {
		t.Fatal(err)
	}
	_, again, _ = c.Inventory()
	if lap := w.Lap(); lap.RSA != 1 || sources(again, "tpm:kept:") != 1 || sources(again, "tpm:template:") != 4 || !slices.Equal(brought(keys), brought(again)) {
		t.Errorf("%d RSA keys; %v", lap.RSA, again)
	}
	if c.Shown() == nil || len(encoded(t, c.Shown()).areas) != 5 {
		t.Errorf("%+v is to be kept", c.Shown())
	}
}

// The attestation key at a handle is a primary key, which outlives TPM2_Clear: it
// says nothing of the storage root key, which is made.
func TestKeptByHandle(t *testing.T) {
	s := madeEKs(t, tpmtest.Options{})
	c := connect(t, s.Address())
	ak, err := c.PersistentAK(0x81000200)
	if err == nil {
		err = c.UseAK(ak)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Inventory()
	kept := encoded(t, c.Shown())
	c.Close()
	c = connect(t, s.Address())
	if err := c.UseKept(ak, kept); err != nil {
		t.Fatal(err)
	}
	_, keys, _ := c.Inventory()
	if k := keyByID(t, keys, "tpm-srk"); k.Source != "tpm:template:SRK-P256" || sources(keys, "tpm:kept:") != 3 {
		t.Errorf("%+v", keys)
	}
	if _, err := c.Quote([32]byte{}); err != nil {
		t.Error(err)
	}
	c.Close()
	primary := connect(t, s.Address())
	primary.Inventory()
	if primary.Shown() != nil {
		t.Error("an attestation key that is not kept has keys kept")
	}
}

// copyCertificates has the NV of one TPM hold the EK certificates of another.
func copyCertificates(t *testing.T, from, to *TPM) {
	t.Helper()
	inv := inventory{t: from}
	certs, _ := inv.readCertificates()
	if len(certs) == 0 {
		t.Fatal("no EK certificates")
	}
	for _, cert := range certs {
		platform := tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}
		index := tpm2.TPMHandle(cert.index)
		rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(to)
		if err != nil {
			t.Fatal(err)
		}
		public, err := rsp.NVPublic.Contents()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (tpm2.NVUndefineSpace{AuthHandle: platform, NVIndex: tpm2.NamedHandle{Handle: index, Name: rsp.NVName}}).Execute(to); err != nil {
			t.Fatal(err)
		}
		define := *public
		define.DataSize = uint16(len(cert.der))
		define.Attributes.Written, define.Attributes.WriteLocked = false, false
		if _, err := (tpm2.NVDefineSpace{AuthHandle: platform, PublicInfo: tpm2.New2B(define)}).Execute(to); err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(cert.der); at += 512 {
			if rsp, err = (tpm2.NVReadPublic{NVIndex: index}).Execute(to); err != nil {
				t.Fatal(err)
			}
			_, err := tpm2.NVWrite{
				AuthHandle: platform, NVIndex: tpm2.NamedHandle{Handle: index, Name: rsp.NVName},
				Data: tpm2.TPM2BMaxNVBuffer{Buffer: cert.der[at:min(at+512, len(cert.der))]}, Offset: uint16(at),
			}.Execute(to)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What is kept of one TPM does not stand for another, nor for the same in another
// state: before anything is listed, or by the signature that is missing.
func TestKeptOfAnother(t *testing.T) {
	s, other := madeEKs(t, tpmtest.Options{}), madeEKs(t, tpmtest.Options{})
	for range 3 { // more resets than the other one has seen
		if err := s.Reset(); err != nil {
			t.Fatal(err)
		}
	}
	ak, kept, keys := keep(t, s.Address())

	mute := connect(t, s.Address())
	mute.Close()
	if err := mute.UseKept(ak, kept); err == nil || mute.read.kept != nil {
		t.Errorf("a TPM that does not answer: %v", err)
	}

	// A file that says fewer resets, and the certificates of the first TPM in the
	// other's NV: only the signature is missing.
	early := *kept
	early.statement.ResetCount = 0
	c := connect(t, other.Address())
	first := connect(t, s.Address())
	copyCertificates(t, first, c)
	first.Close()
	c.Close()
	c = connect(t, other.Address())
	if err := c.UseKept(ak, &early); err != nil {
		t.Fatal(err)
	}
	_, again, _ := c.Inventory() // its platform certificate is another one, so that the key has to sign
	if same := brought(keys[:len(keys)-1]); !slices.Equal(same, brought(again)) || sources(again, "tpm:kept:") != 5 {
		t.Errorf("the other TPM does not look as the first: %q, %q", brought(again), same)
	}
	if e, err := c.Quote([32]byte{}); !errors.Is(err, ErrAKUnusable) {
		t.Errorf("another TPM signs: %+v, %v", e, err)
	}
	c.Close()
	c = connect(t, other.Address())
	if err := c.UseKept(ak, kept); err != nil {
		t.Fatal(err)
	}
	if e, err := c.Quote([32]byte{}); !errors.Is(err, ErrAKUnusable) {
		t.Errorf("another TPM, of fewer resets, signs: %+v, %v", e, err)
	}
	c.Close()

	pretender := tpmtest.RunProxy(t, s.Address(), tpmtest.Pretend{Manufacturer: "IBM", FirmwareVersion: 1}.Rewrite)
	c = connect(t, pretender.Address())
	if err := c.UseKept(ak, kept); err == nil || !strings.Contains(err.Error(), "other firmware") {
		t.Errorf("other firmware: %v", err)
	}
	c.Close()
	c = connect(t, s.Address())
	another, err := c.CreateAK()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.UseKept(another, kept); err == nil || !strings.Contains(err.Error(), "another attestation key") {
		t.Errorf("another attestation key: %v", err)
	}
	c.Close()

	// What the TPM states is as before, what it signs is not.
	moved, late := *kept, *kept
	moved.statement.FirmwareVersion++
	late.statement.ResetCount++
	for want, was := range map[string]*Kept{"other firmware": &moved, "cleared since": &late} {
		c = connect(t, s.Address())
		if err := c.UseKept(ak, kept); err != nil {
			t.Fatal(err)
		}
		c.read.kept = was
		if _, err := c.Quote([32]byte{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it signs %s: %v", want, err)
		}
		c.Close()
	}

	// Another certificate in NV has all of them made.
	c = connect(t, s.Address())
	copyCertificates(t, third(t), c)
	if err := c.UseKept(ak, kept); err != nil {
		t.Fatal(err)
	}
	if _, again, _ := c.Inventory(); sources(again, "tpm:kept:") != 0 || sources(again, "tpm:template:") < 4 {
		t.Errorf("the certificates in NV are others: %v", again)
	}
	c.Close()

	clearing := connect(t, s.Address())
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(clearing); err != nil {
		t.Fatal(err)
	}
	clearing.Close()
	c = connect(t, s.Address())
	if err := c.UseKept(ak, &early); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Quote([32]byte{}); !errors.Is(err, ErrAKUnusable) {
		t.Errorf("after TPM2_Clear it signs: %v", err)
	}
}

// third is a third TPM, for its certificates.
func third(t *testing.T) *TPM {
	return connect(t, tpmtest.Run(t, tpmtest.Options{}).Address())
}

func TestKeptHolds(t *testing.T) {
	k := &Kept{statement: evidence.Statement{FirmwareVersion: 7, ResetCount: 5, RestartCount: 3}}
	for _, tt := range []struct {
		firmware         uint64
		resets, restarts uint32
		want             bool
	}{
		{7, 5, 3, true}, {7, 5, 4, true}, {7, 6, 0, true}, {7, 5, 2, false}, {7, 4, 9, false}, {7, 0, 0, false}, {8, 5, 3, false}, {6, 6, 3, false},
	} {
		s := &evidence.Statement{FirmwareVersion: tt.firmware, ResetCount: tt.resets, RestartCount: tt.restarts}
		if err := k.holds(s); (err == nil) != tt.want {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// A file that was changed in any way is none.
func TestParseKept(t *testing.T) {
	text, err := os.ReadFile("testdata/kept.json")
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKept(text)
	if err != nil || len(k.areas) != 5 || len(k.indices) != 3 || k.body.NamingKey != "tpm-ek-rsa2048" || len(k.statement.AKName) != 34 {
		t.Fatalf("%+v, %v", k, err)
	}
	if again, err := k.Encode(); err != nil || !bytes.Equal(again, text) {
		t.Errorf("%s, %v", again, err)
	}
	change := func(f func(*keptFile)) []byte {
		var file keptFile
		if err := json.Unmarshal(text, &file); err != nil {
			t.Fatal(err)
		}
		f(&file)
		b, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	last := func(b []byte) *byte { return &b[len(b)-1] }
	for name, bad := range map[string][]byte{
		"nothing":               nil,
		"cut":                   text[:len(text)/2],
		"more after it":         append(slices.Clone(text), '{'),
		"too long":              append(slices.Clone(text), bytes.Repeat([]byte{' '}, MaxKeptBytes)...),
		"another schema":        change(func(f *keptFile) { f.Schema = "keyvet.kept/0" }),
		"another modulus":       change(func(f *keptFile) { *last(f.Keys[0].Public) ^= 2 }),
		"another point":         change(func(f *keptFile) { *last(f.Keys[1].Public) ^= 1 }),
		"other attributes":      change(func(f *keptFile) { f.Keys[0].Public[7] ^= 1 }),
		"a byte more":           change(func(f *keptFile) { f.Keys[0].Public = append(f.Keys[0].Public, 0) }),
		"a byte less":           change(func(f *keptFile) { f.Keys[0].Public = f.Keys[0].Public[:100] }),
		"one of two kinds":      change(func(f *keptFile) { f.Keys[0].ID, f.Keys[1].ID = f.Keys[1].ID, f.Keys[0].ID }),
		"one that is not kept":  change(func(f *keptFile) { f.Keys[0].ID = "tpm-ak" }),
		"one twice":             change(func(f *keptFile) { f.Keys[1] = f.Keys[0] }),
		"one missing":           change(func(f *keptFile) { f.Keys = f.Keys[1:] }),
		"known by another":      change(func(f *keptFile) { f.NamingKey = "tpm-ek-p256" }),
		"another index":         change(func(f *keptFile) { f.Indices[0].Public[3] ^= 1 }),
		"no index":              change(func(f *keptFile) { f.Indices[0].Public = f.Indices[0].Public[:5] }),
		"another name":          change(func(f *keptFile) { f.Indices[0].Name[2] ^= 1 }),
		"an index missing":      change(func(f *keptFile) { f.Indices = f.Indices[1:] }),
		"other certificates":    change(func(f *keptFile) { f.Certificates[0] ^= 1 }),
		"no signature":          change(func(f *keptFile) { f.Evidence = device.Evidence{} }),
		"another nonce":         change(func(f *keptFile) { f.Evidence.Nonce = "" }),
		"another signature":     change(func(f *keptFile) { f.Evidence.Signature = f.Evidence.Quote }),
		"signed by another key": change(func(f *keptFile) { f.Evidence.AKPublic = f.Evidence.AKParent }),
	} {
		k, err := ParseKept(bad)
		if err == nil || !strings.HasPrefix(err.Error(), "kept keys: ") || slices.Contains([]string{"nothing", "cut", "more after it"}, name) && !strings.Contains(err.Error(), "JSON") && !strings.Contains(err.Error(), "character") {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
}

// The attestation key's signature does not make good what cannot be of a TPM.
func TestParseKeptSigned(t *testing.T) {
	s := madeEKs(t, tpmtest.Options{})
	ak, kept, _ := keep(t, s.Address())
	c := connect(t, s.Address())
	if err := c.UseAK(ak); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, want string // of the error; "" for none
		change     func(*keptBody)
	}{
		{"as it was", "", func(*keptBody) {}},
		{"another schema", "is not keyvet.kept/2", func(b *keptBody) { b.Schema = "keyvet.kept/9" }},
		{"a key of another template", "not of its template", func(b *keptBody) { b.Keys[0].Public = b.Keys[1].Public }},
		{"no key that is kept", "no key that is kept", func(b *keptBody) { b.Keys[0].ID = "tpm-ak" }},
		{"a key twice", "is there twice", func(b *keptBody) { b.Keys = append(b.Keys, b.Keys[0]) }},
		{"half an index", "NV index", func(b *keptBody) { b.Indices[0].Public = b.Indices[0].Public[:5] }},
	} {
		k := &Kept{body: kept.body}
		k.body.Keys, k.body.Indices = slices.Clone(kept.body.Keys), slices.Clone(kept.body.Indices)
		tt.change(&k.body)
		err := c.withAK(func(ak loadedAK) error {
			e, _, err := c.signState(ak, k.body.digest())
			if err == nil {
				k.evidence = *e
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		text, err := k.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseKept(text); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// FuzzParseKept: what is read is read the same again.
func FuzzParseKept(f *testing.F) {
	text, err := os.ReadFile("testdata/kept.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"schema":"keyvet.kept/2","keys":[{"id":"tpm-srk","public":"AAE="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKept(b)
		if err != nil {
			return
		}
		again, err := k.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if second, err := ParseKept(again); err != nil || len(second.areas) != len(k.areas) {
			t.Errorf("%v: %s", err, again)
		}
	})
}
