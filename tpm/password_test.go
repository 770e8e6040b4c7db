package tpm

import (
	"bytes"
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/attempts"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// failures is TPM2_PT_LOCKOUT_COUNTER.
func failures(t *testing.T, c *TPM) uint32 {
	t.Helper()
	l, err := c.readLockout()
	if err != nil {
		t.Fatal(err)
	}
	return l.Failures
}

// setLockout has the TPM lock at a number of failures, and forgive one in two
// hours.
func setLockout(t *testing.T, c *TPM, tries byte) {
	t.Helper()
	const dictionaryAttackParameters = 0x13a
	command(t, c, dictionaryAttackParameters, uint32(tpm2.TPMRHLockout), 0, 0, 0, tries, 0, 0, 0x1c, 0x20, 0, 1, 0x51, 0x80)
}

// on has a TPM open for as long as use runs.
func on(t *testing.T, address string, o Options, use func(*TPM)) {
	t.Helper()
	c, err := Open(address, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	use(c)
}

func clearLockout(t *testing.T, c *TPM) {
	t.Helper()
	const dictionaryAttackLockReset = 0x139
	command(t, c, dictionaryAttackLockReset, uint32(tpm2.TPMRHLockout))
}

// persistPrimary puts a primary key with a password at a persistent handle.
func persistPrimary(t *testing.T, c *TPM, area tpm2.TPMTPublic, hierarchy, handle tpm2.TPMHandle, password string) {
	t.Helper()
	made, err := tpm2.CreatePrimary{
		PrimaryHandle: hierarchy, InPublic: tpm2.New2B(area),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(password)}}},
	}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: handle,
	}.Execute(c)
	if err == nil {
		_, err = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(c)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// protectedBlob is a signing key whose wrong passwords count.
func protectedBlob(t *testing.T, address, password string) *KeyBlob {
	t.Helper()
	template := keyTemplates["ecdsa-p256"]
	template.ObjectAttributes.NoDA = false
	b, err := ParseKeyBlob(blobOf(createTemplate(t, address, password, template)).PEM())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever holds a key with a password, and whatever of keyvet asks for it: one
// attempt in all is made, however often it is asked, also after a restart.
func TestLockoutCounter(t *testing.T) { byEveryWay(t, testLockoutCounter) }

func testLockoutCounter(t *testing.T, by *way) {
	const handle = 0x81000100
	storage := storageRootKey.area
	storage.ObjectAttributes.NoDA = false
	for name, prepare := range map[string]func(t *testing.T, address string) func(Options) error{
		"device key at a handle": func(t *testing.T, address string) func(Options) error {
			b := protectedBlob(t, address, "secret")
			persistBlob(t, address, b, handle)
			return func(o Options) error {
				s, err := NewPersistentSigner(address, o, handle, b.Public())
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.SelfTest()
				return err
			}
		},
		"device key in a file": func(t *testing.T, address string) func(Options) error {
			b := protectedBlob(t, address, "secret")
			return func(o Options) error {
				s, err := NewSigner(address, o, b)
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.SelfTest()
				return err
			}
		},
		"storage key, for a new key": func(t *testing.T, address string) func(Options) error {
			on(t, address, Options{}, func(c *TPM) { persistPrimary(t, c, storage, tpm2.TPMRHOwner, srkHandle, "secret") })
			return func(o Options) (err error) {
				on(t, address, o, func(c *TPM) {
					var b *KeyBlob
					if b, err = c.CreateKey("ecdsa-p256"); err == nil {
						err = b.Beside() // it is under another key
					}
				})
				return err
			}
		},
		"endorsement key, for a challenge": func(t *testing.T, address string) func(Options) error {
			var challenge *evidence.Challenge
			on(t, address, Options{}, func(c *TPM) {
				evict(t, c, 0x81010016)
				persistPrimary(t, c, endorsementKeys[2].area, tpm2.TPMRHEndorsement, 0x81010016, "secret")
				_, keys, _ := c.Inventory()
				challenge, _ = challengeTo(t, c, keyByID(t, keys, "tpm-ek-p384"))
			})
			return func(o Options) (err error) {
				on(t, address, o, func(c *TPM) { _, err = c.Activate(challenge) })
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
			use := prepare(t, address)
			on(t, address, Options{}, func(c *TPM) { setLockout(t, c, 32) })
			counts := func(what string, want uint32) {
				t.Helper()
				on(t, address, Options{}, func(c *TPM) {
					if n := failures(t, c); n != want {
						t.Errorf("%s: %d failures count, want %d", what, n, want)
					}
				})
			}
			path := filepath.Join(t.TempDir(), "attempts.json")
			o := Options{Attempts: attempts.Of(path)}
			for n := range 4 {
				err := use(o)
				if !errors.Is(err, tpm2.TPMRCAuthFail) || !strings.Contains(err.Error(), "has a password") || strings.Contains(err.Error(), "hierarchy") {
					t.Errorf("attempt %d: %v", n, err)
				}
			}
			counts("one process", 1)
			o.Attempts.Order()
			if err := use(o); !errors.Is(err, attempts.ErrRefused) {
				t.Errorf("a job: %v", err)
			}
			counts("a job", 1)
			for n := range 3 { // each of which has a file of its own to remember by
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				restarted := filepath.Join(t.TempDir(), "attempts.json")
				if err := os.WriteFile(restarted, text, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := use(Options{Attempts: attempts.Of(restarted)}); !errors.Is(err, attempts.ErrRefused) {
					t.Errorf("restart %d: %v", n, err)
				}
			}
			counts("restarts", 1)
			on(t, address, Options{}, func(c *TPM) { clearLockout(t, c) })
			o.Attempts.Order()
			if err := use(o); !errors.Is(err, tpm2.TPMRCAuthFail) {
				t.Errorf("an order, when no failure counts: %v", err)
			}
			on(t, address, Options{}, func(c *TPM) { clearLockout(t, c) })
			if err := use(o); !errors.Is(err, attempts.ErrRefused) {
				t.Errorf("no order: %v", err)
			}
			counts("no order", 0)
		})
	}
}

// A key that counts failures and has no password is used as ever, even while
// the failures of others count; once it was seen to work, up to the limit.
func TestDAProtectedKeyWithoutPassword(t *testing.T) {
	byEveryWay(t, testDAProtectedKeyWithoutPassword)
}

func testDAProtectedKeyWithoutPassword(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
	good := protectedBlob(t, address, "")
	other := protectedBlob(t, address, "")
	bad := protectedBlob(t, address, "secret")
	on(t, address, Options{}, func(c *TPM) { setLockout(t, c, 4) })
	use := func(b *KeyBlob, memory *attempts.Memory) error {
		_, err := signerWith(t, address, b, memory).SelfTest()
		return err
	}
	memory := new(attempts.Memory)
	if err := use(good, memory); err != nil {
		t.Error(err)
	}
	for range 2 { // others' failures
		if err := use(bad, new(attempts.Memory)); !errors.Is(err, tpm2.TPMRCAuthFail) {
			t.Error(err)
		}
	}
	for range 2 {
		if err := use(good, memory); err != nil {
			t.Error(err)
		}
	}
	if err := use(other, memory); !errors.Is(err, attempts.ErrTooClose) || !strings.Contains(err.Error(), "2 of 4 failures") {
		t.Errorf("a key that nothing is known of: %v", err)
	}
	on(t, address, Options{}, func(c *TPM) { clearLockout(t, c) })
	if err := use(other, memory); err != nil {
		t.Error(err)
	}
}

// challengeTo is a challenge to an endorsement key for the attestation key.
func challengeTo(t *testing.T, c *TPM, ek device.Key) (*evidence.Challenge, evidence.Expected) {
	t.Helper()
	e, err := c.Quote([32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := evidence.VerifyDigest(e, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	challenge, expected, err := evidence.NewChallenge(ek.Public, s.AKName, func(crypto.PublicKey) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return challenge, expected
}

// An endorsement key that was made just now has no password, however many
// failures of others count.
func TestFreshKeyNeedsNoCare(t *testing.T) { byEveryWay(t, testFreshKeyNeedsNoCare) }

func testFreshKeyNeedsNoCare(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{NoEKCertificates: true}).Address()
	bad := protectedBlob(t, address, "secret")
	on(t, address, Options{}, func(c *TPM) { setLockout(t, c, 32) })
	for range 2 {
		if _, err := signerWith(t, address, bad, new(attempts.Memory)).SelfTest(); !errors.Is(err, tpm2.TPMRCAuthFail) {
			t.Error(err)
		}
	}
	on(t, address, Options{}, func(c *TPM) {
		evict(t, c, 0x81010016)
		_, keys, _ := c.Inventory()
		challenge, expected := challengeTo(t, c, keyByID(t, keys, "tpm-ek-p384"))
		if got, err := c.Activate(challenge); err != nil || !bytes.Equal(got, expected.Secret) || failures(t, c) != 2 {
			t.Errorf("%x, %v", got, err)
		}
	})
}

func signerWith(t *testing.T, address string, b *KeyBlob, memory *attempts.Memory) *Signer {
	t.Helper()
	s, err := NewSigner(address, Options{Attempts: memory}, b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// passwordFile makes a file with a password.
func passwordFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func changeAuth(t *testing.T, c *TPM, hierarchy tpm2.TPMHandle, password string) {
	t.Helper()
	_, err := tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(password)},
	}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
}

// An owned TPM gives with its passwords what it gives without any.
func TestOwnedTPM(t *testing.T) { byEveryWay(t, testOwnedTPM) }

func testOwnedTPM(t *testing.T, by *way) {
	address := by.run(t, tpmtest.Options{}).Address()
	under := createKey(t, address, "ecdsa-p256")
	c, err := Open(address, Options{})
	if err != nil {
		t.Fatal(err)
	}
	store(t, c, 0x01c00020, tpm2.TPMANV{OwnerRead: true, OwnerWrite: true, AuthWrite: true}, []byte("no certificate"))
	evict(t, c, 0x81010001)
	_, want, wantGaps := c.Inventory()
	changeAuth(t, c, tpm2.TPMRHOwner, "owner")
	changeAuth(t, c, tpm2.TPMRHEndorsement, "endorsement\x00\x01")
	changeAuth(t, c, tpm2.TPMRHLockout, "lockout")
	c.Close()

	o := Options{OwnerAuthFile: passwordFile(t, "owner\n"), EndorsementAuthFile: passwordFile(t, "hex:656e646f7273656d656e740001\n")}
	if c, err = Open(address, o); err != nil {
		t.Fatal(err)
	}
	before := allHandles(t, c)
	_, keys, gaps := c.Inventory()
	if got, want := brief(keys, gaps), brief(want, wantGaps); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q: %+v", got, want, gaps)
	}
	for _, id := range []string{"tpm-ek-rsa2048", "tpm-ek-p256", "tpm-ek-p384"} { // by its template, by its template, by its own password
		challenge, expected := challengeTo(t, c, keyByID(t, keys, id))
		if got, err := c.Activate(challenge); err != nil || !bytes.Equal(got, expected.Secret) {
			t.Errorf("%s: %x, %v", id, got, err)
		}
	}
	if ak, err := c.CreateAK(); err != nil || c.UseAK(ak) != nil {
		t.Errorf("attestation key in a file: %v", err)
	}
	if _, err := c.PersistentAK(0x81000020); err != nil {
		t.Errorf("attestation key at a handle: %v", err)
	}
	if _, err := c.CreateKey("ecdsa-p256"); err != nil {
		t.Error(err)
	}
	if after := allHandles(t, c); !slices.Equal(slices.DeleteFunc(after, func(h tpm2.TPMHandle) bool { return h == 0x81000020 }), before) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
	c.Close()
	signer, err := NewSigner(address, o, under)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.SelfTest(); err != nil {
		t.Errorf("a key under the owner hierarchy: %v", err)
	}

	// Other passwords than those count towards no lockout, and are named.
	o.EndorsementAuthFile, o.OwnerAuthFile = passwordFile(t, "other"), filepath.Join(t.TempDir(), "absent")
	if c, err = Open(address, o); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Quote([32]byte{})
	if err == nil || !strings.Contains(err.Error(), o.EndorsementAuthFile) || !strings.Contains(err.Error(), "another password") {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := c.CreateKey("ecdsa-p256"); err == nil || !strings.Contains(err.Error(), "tpm.owner_auth_file: open "+o.OwnerAuthFile) {
		t.Errorf("a file that is absent: %v", err)
	}
	if n := failures(t, c); n != 0 {
		t.Errorf("%d failures count", n)
	}
}

// A TPM with passwords that keyvet does not have is read as far as it goes: what
// nobody ever made is no matter where an endorsement key was read.
func TestPasswordsNotGiven(t *testing.T) { byEveryWay(t, testPasswordsNotGiven) }

func testPasswordsNotGiven(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	byOwner := tpm2.TPMANV{OwnerRead: true, OwnerWrite: true, AuthWrite: true}
	store(t, c, 0x01c00020, byOwner, []byte("of the owner"))
	store(t, c, 0x01c00002, byOwner, []byte("beside the key"))
	store(t, c, 0x01c0000a, byOwner, []byte("somebody did make a P-256 key"))
	changeAuth(t, c, tpm2.TPMRHOwner, "owner")
	changeAuth(t, c, tpm2.TPMRHEndorsement, "endorsement")
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 0",
		"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 0",
		"gap tpm:nv:0x01c00002 minor=true",
		"gap tpm:nv:0x01c0000a minor=false",
		"gap tpm:nv:0x01c00020 minor=true",
		"gap tpm-ek-p256 minor=false",
		"gap tpm-srk minor=true",
		"gap tpm-srk-rsa2048 minor=true",
		"gap tpm-ak minor=true",
	)
}

// Without one endorsement key nothing is excused.
func TestNoKeyNothingExcused(t *testing.T) { byEveryWay(t, testNoKeyNothingExcused) }

func testNoKeyNothingExcused(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	evict(t, c, 0x81010001)
	evict(t, c, 0x81010016)
	changeAuth(t, c, tpm2.TPMRHOwner, "owner")
	changeAuth(t, c, tpm2.TPMRHEndorsement, "endorsement")
	_, keys, gaps := c.Inventory()
	expect(t, brief(keys, gaps),
		"gap tpm-ek-rsa2048 minor=false",
		"gap tpm-ek-p256 minor=false",
		"gap tpm-ek-p384 minor=false",
		"gap tpm-srk minor=false",
		"gap tpm-srk-rsa2048 minor=false",
		"gap tpm-ak minor=true",
	)
}

// What refuses keys in the name of a password that the TPM does not have is not
// believed.
func TestPretendedPassword(t *testing.T) { byEveryWay(t, testPretendedPassword) }

func testPretendedPassword(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	refuses := by.proxy(t, emulator, func(command, response []byte) []byte {
		if bytes.Equal(command[6:10], []byte{0, 0, 1, 0x31}) { // TPM2_CreatePrimary
			return frame(0x8001, 0x9a2) // TPM_RC_BAD_AUTH, session 1
		}
		return response
	})
	_, _, gaps := connect(t, refuses.Address()).Inventory()
	for _, g := range gaps {
		if g.Minor {
			t.Errorf("%+v", g)
		}
	}
	if len(gaps) != 4 {
		t.Errorf("%+v", gaps)
	}
}

func TestReadPassword(t *testing.T) {
	for text, want := range map[string]string{
		"secret": "secret", "secret\n": "secret", "secret\r\n": "secret", "two lines\n\n": "two lines", " spaces ": " spaces ", "a\nb\n": "a\nb",
		"str:hex:6162\n": "hex:6162", "hex:6162\n": "ab", "hex:00ff": "\x00\xff", "hex:": "", "": "", "\n": "", "\x00\x01": "\x00\x01",
		strings.Repeat("x", maxPassword): strings.Repeat("x", maxPassword), "hex:" + strings.Repeat("61", maxPassword): strings.Repeat("a", maxPassword),
	} {
		got, err := readPassword(passwordFile(t, text))
		if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"hex:0", "hex:secret", strings.Repeat("x", maxPassword+1), strings.Repeat("\n", maxPasswordFile+1)} {
		if got, err := readPassword(passwordFile(t, text)); err == nil || got != nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o440: true, 0o644: false, 0o604: false, 0o620: false, 0o602: false} {
		path := passwordFile(t, "secret")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readPassword(path); (err == nil) != good {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if _, err := readPassword(path); err == nil {
			t.Error(path)
		}
	}
}
