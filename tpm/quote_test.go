package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/evidence"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// roots are the CA certificates of an emulator's EK certificates.
func roots(t *testing.T, emulator machine) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for _, file := range emulator.CAFiles() {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(b)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cert)
	}
	return all
}

// report is a report of the TPM's inventory and those further keys, all of
// which passed, with the evidence that attest gives on its digest.
func report(t *testing.T, c *TPM, further []device.Key, attest func(digest [32]byte) (*device.Evidence, error)) []byte {
	t.Helper()
	info, keys, gaps := c.Inventory()
	keys = append(keys, further...)
	var findings []device.Finding
	for _, k := range keys {
		findings = append(findings, device.Finding{Check: "size", Key: k.ID, Status: device.Pass})
	}
	r := device.NewReport(device.Inventory{TPM: &info, Keys: keys, Gaps: gaps, ReadAt: time.Now()}, findings)
	digest, err := device.Digest(r.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if r.Evidence, err = attest(digest); err != nil {
		t.Fatal(err)
	}
	return r.Encode()
}

// statuses are the levels of a result.
func statuses(r *evidence.Result) map[string]device.Status {
	m := make(map[string]device.Status)
	for _, l := range r.Levels {
		m[l.Name] = l.Status
	}
	return m
}

// loadedKey is a key that is in the TPM already.
type loadedKey struct {
	tpm2.AuthHandle
	area *tpm2.TPMTPublic
}

func (k loadedKey) with(_ *TPM, use func(tpm2.AuthHandle, *tpm2.TPMTPublic) error) error {
	return use(k.AuthHandle, k.area)
}

func (k loadedKey) where() string { return "loaded" }

func (k loadedKey) String() string { return "a loaded key" }

// loadKey loads a new P-256 signing key of the owner.
func loadKey(t *testing.T, c *TPM, fixed bool) (loadedKey, device.Key) {
	t.Helper()
	area := attestationKey.area
	area.ObjectAttributes.Restricted = false
	if !fixed {
		area.ObjectAttributes.FixedTPM, area.ObjectAttributes.FixedParent = false, false
	}
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(area)}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(c) })
	contents, err := rsp.OutPublic.Contents()
	if err != nil {
		t.Fatal(err)
	}
	public, spki, err := publicKey(contents)
	if err != nil {
		t.Fatal(err)
	}
	return loadedKey{emptyAuth(tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}), contents}, device.Key{ID: "device", Role: device.RoleDevice, Public: public, SPKI: spki}
}

// Evidence of a TPM with all there is to it holds, level by level.
func TestAttest(t *testing.T) { byEveryWay(t, testAttest) }

func testAttest(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{})
	c := connect(t, emulator.Address())
	if _, err := (tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: 5, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: bytes.Repeat([]byte{7}, 32)}}},
	}).Execute(c); err != nil {
		t.Fatal(err)
	}
	before := allHandles(t, c)
	key, listed := loadKey(t, c, true)
	nonce := []byte("a nonce of the verifier")
	good := report(t, c, []device.Key{listed}, func(digest [32]byte) (*device.Evidence, error) {
		return c.Attest(AttestRequest{Digest: digest, Nonce: nonce, PCRs: []uint{23, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5}, DeviceKey: &Signer{key: key}})
	})
	policy := evidence.Policy{Check: passes, Now: time.Now(), Nonce: nonce, EKRoots: roots(t, emulator)}
	r := evidence.Verify(good, policy)
	want := map[string]device.Status{}
	for _, l := range r.Levels {
		want[l.Name] = device.Pass
	}
	// Until it answered a challenge.
	want[evidence.LevelSameTPM] = device.Undecided
	want[evidence.LevelBootLog] = device.NotApplicable
	for _, name := range []string{evidence.LevelAttestationKey, evidence.LevelHierarchy, evidence.LevelPCRs, evidence.LevelFirmware, evidence.LevelDeviceKey} {
		want[name] = device.Warn
	}
	if got := statuses(r); !maps.Equal(got, want) || r.Verdict != device.Undecided {
		t.Errorf("%v: %+v", r.Verdict, r.Levels)
	}
	var indices []int
	for _, pcr := range r.Statement.PCRs {
		indices = append(indices, pcr.Index)
		if zero := bytes.Equal(pcr.Value, make([]byte, 32)); pcr.Bank != "sha256" || zero == (pcr.Index == 5) {
			t.Errorf("PCR %+v", pcr)
		}
	}
	if !slices.Equal(indices, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 23}) {
		t.Errorf("PCRs %v", indices)
	}

	// With the challenge answered, nothing is left open.
	_, keys, _ := c.Inventory()
	challenge, expected, err := evidence.NewChallenge(keyByID(t, keys, "tpm-ek-rsa2048").Leaf().PublicKey, r.Statement.AKName, func(crypto.PublicKey) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := c.Activate(challenge); err != nil || !bytes.Equal(answer, expected.Secret) {
		t.Fatalf("%x, %v", answer, err)
	}
	policy.Activated = expected.Activated
	if r := evidence.Verify(good, policy); r.Verdict != device.Pass {
		t.Errorf("%v: %+v", r.Verdict, r.Levels)
	}
	if _, err := (tpm2.FlushContext{FlushHandle: key.Handle}).Execute(c); err != nil {
		t.Fatal(err)
	}
	if after := allHandles(t, c); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
}

// A key that is not fixed to the TPM, or is another than the report lists.
func TestAttestDeviceKey(t *testing.T) { byEveryWay(t, testAttestDeviceKey) }

func testAttestDeviceKey(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	key, listed := loadKey(t, c, false)
	other := keyByID(t, func() []device.Key { _, keys, _ := c.Inventory(); return keys }(), "tpm-srk")
	other.ID, other.Role = "other", device.RoleDevice
	for _, tt := range []struct {
		name   string
		listed []device.Key
		key    signingKey
		want   device.Status
		reason string
	}{
		{"not fixed", []device.Key{listed}, key, device.Warn, "may leave it"},
		{"another", []device.Key{other}, key, device.Fail, "not the device's key"},
		{"none listed", nil, key, device.Warn, "lists no device key"},
		{"not certified", []device.Key{listed}, nil, device.Warn, "nothing shows that it is in the TPM"},
		{"no key", nil, nil, device.NotApplicable, "lists no device key"},
	} {
		encoded := report(t, c, tt.listed, func(digest [32]byte) (*device.Evidence, error) {
			r := AttestRequest{Digest: digest, PCRs: []uint{}}
			if tt.key != nil {
				r.DeviceKey = &Signer{key: tt.key}
			}
			return c.Attest(r)
		})
		r := evidence.Verify(encoded, evidence.Policy{Check: passes, Now: time.Now()})
		for _, l := range r.Levels {
			if l.Name == evidence.LevelDeviceKey && (l.Status != tt.want || !strings.Contains(l.Reason, tt.reason)) {
				t.Errorf("%s: %+v", tt.name, l)
			}
		}
		if got := statuses(r)[evidence.LevelPCRs]; got != device.NotApplicable {
			t.Errorf("%s: pcrs %v", tt.name, got)
		}
	}
	bad := key
	bad.Auth = tpm2.PasswordAuth([]byte("wrong"))
	signer := &Signer{key: bad}
	for range 2 { // the second time, the TPM is not asked
		if _, err := c.Attest(AttestRequest{DeviceKey: signer}); err == nil || !strings.Contains(err.Error(), "the key has a password") {
			t.Errorf("%v", err)
		}
	}
	if _, err := c.Attest(AttestRequest{Nonce: make([]byte, evidence.MaxNonce+1)}); err == nil {
		t.Error("a nonce of any length is taken")
	}
}

// What a TPM signs by a key that must not count, and what another TPM signs.
func TestEvidenceRefused(t *testing.T) { byEveryWay(t, testEvidenceRefused) }

func testEvidenceRefused(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{})
	c := connect(t, emulator.Address())
	otherEmulator := by.run(t, tpmtest.Options{})
	other := connect(t, otherEmulator.Address())
	certs, _ := (&inventory{t: c}).readCertificates()

	// signedBy has the TPM sign as Attest does, but by another key and unseen.
	signedBy := func(change func(*primary)) func([32]byte) (*device.Evidence, error) {
		ak := attestationKey
		change(&ak)
		return func(digest [32]byte) (*device.Evidence, error) {
			e, err := c.Quote(digest)
			if err != nil {
				return nil, err
			}
			return e, c.withPrimary(ak, func(h tpm2.NamedHandle, public tpm2.TPM2BPublic) error {
				e.AKPublic = base64.StdEncoding.EncodeToString(public.Bytes())
				return c.quotePCRs(e, h, evidence.QualifyingData(digest, nil, nil, certs[0].der), tpm2.TPMAlgSHA256, []uint{0})
			})
		}
	}
	own := roots(t, emulator)
	for _, tt := range []struct {
		name   string
		attest func([32]byte) (*device.Evidence, error)
		policy evidence.Policy
		level  string // the one that fails
		reason string
	}{
		{"another TPM's evidence", other.Quote, evidence.Policy{EKRoots: own}, evidence.LevelReport, "another TPM's"},
		{"another TPM's quote", func(d [32]byte) (*device.Evidence, error) {
			e, err := c.Quote(d)
			if err != nil {
				return nil, err
			}
			theirs, err := other.Quote(d)
			e.Quote, e.Signature = theirs.Quote, theirs.Signature
			return e, err
		}, evidence.Policy{EKRoots: own}, evidence.LevelSignature, "does not verify by the attestation key"},
		{"another TPM's EK certificate", func(d [32]byte) (*device.Evidence, error) {
			e, err := c.Quote(d)
			if err != nil {
				return nil, err
			}
			theirs, err := other.Quote(d)
			e.EKCertificate = theirs.EKCertificate
			return e, err
		}, evidence.Policy{}, evidence.LevelReport, "another report, nonce, EK certificate or boot log"},
		{"a quote over another report", func([32]byte) (*device.Evidence, error) { return c.Quote([32]byte{1}) }, evidence.Policy{}, evidence.LevelReport, "over another report"},
		{"an old nonce", func(d [32]byte) (*device.Evidence, error) {
			return c.Attest(AttestRequest{Digest: d, Nonce: []byte("yesterday's")})
		}, evidence.Policy{Nonce: []byte("today's")}, evidence.LevelFreshness, "another nonce"},
		{"no nonce", c.Quote, evidence.Policy{Nonce: []byte("today's")}, evidence.LevelFreshness, "carries no nonce"},
		{"a chain to an unknown root", c.Quote, evidence.Policy{EKRoots: roots(t, otherEmulator)}, evidence.LevelEKCertificate, "does not verify"},
		{"none of these", c.Quote, evidence.Policy{EKRoots: own}, "", ""},
		{"an owner-hierarchy AK", signedBy(func(p *primary) { p.hierarchy = tpm2.TPMRHOwner }), evidence.Policy{}, evidence.LevelHierarchy, "not a primary key of the endorsement hierarchy"},
		{"a key that is not restricted", signedBy(func(p *primary) { p.area.ObjectAttributes.Restricted = false }), evidence.Policy{}, evidence.LevelAttestationKey, "not a restricted signing key"},
		{"a key that may leave its TPM", signedBy(func(p *primary) {
			p.area.ObjectAttributes.FixedTPM, p.area.ObjectAttributes.FixedParent = false, false
		}), evidence.Policy{}, evidence.LevelAttestationKey, "stays there"},
	} {
		encoded := report(t, c, nil, tt.attest)
		tt.policy.Now, tt.policy.Check = time.Now(), passes
		r := evidence.Verify(encoded, tt.policy)
		fails := slices.IndexFunc(r.Levels, func(l evidence.Level) bool { return l.Status == device.Fail })
		if tt.level == "" {
			if fails >= 0 || r.Verdict != device.Undecided {
				t.Errorf("%s: %+v", tt.name, r.Levels)
			}
		} else if fails < 0 || r.Levels[fails].Name != tt.level || !strings.Contains(r.Levels[fails].Reason, tt.reason) || r.Verdict != device.Fail {
			t.Errorf("%s: %+v", tt.name, r.Levels)
		}
	}
}

// Whoever changes what the TPM states of its firmware is found out, and what
// it then states still counts for the advisories.
func TestFirmwareVersionIsHeldAgainstTheSigned(t *testing.T) {
	byEveryWay(t, testFirmwareVersionIsHeldAgainstTheSigned)
}

func testFirmwareVersionIsHeldAgainstTheSigned(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	proxy := by.proxy(t, emulator, tpmtest.Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x0007003d000ae100}.Rewrite)
	c := connect(t, proxy.Address())
	info, _, gaps := c.Inventory()
	if info.FirmwareVersion != "7.61.2785.0" || len(gaps) != 1 || gaps[0].Minor || !strings.Contains(gaps[0].Why, "states 7.61.2785.0, but signs 8217.") {
		t.Errorf("%+v %+v", info, gaps)
	}
	r := evidence.Verify(report(t, c, nil, c.Quote), evidence.Policy{Check: passes, Now: time.Now()})
	if got := statuses(r); got[evidence.LevelFirmware] != device.Fail || got[evidence.LevelReport] != device.Pass || r.Verdict != device.Fail {
		t.Errorf("%+v", r.Levels)
	}
}

// A TPM that signs something else gives no evidence.
func TestQuoteIsVerified(t *testing.T) { byEveryWay(t, testQuoteIsVerified) }

func testQuoteIsVerified(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
		if bytes.HasPrefix(command[6:], []byte{0, 0, 1, 0x58}) && len(response) > 60 { // TPM2_Quote
			response[60] ^= 1
		}
		return response
	})
	c := connect(t, proxy.Address())
	before := allHandles(t, c)
	if e, err := c.Quote([32]byte{}); err == nil || !strings.Contains(err.Error(), "signed something else") {
		t.Errorf("%+v, %v", e, err)
	}
	if after := allHandles(t, c); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
}

// PCRs that change between reading and signing are read again, not for ever;
// of a TPM without the bank, none are quoted.
func TestQuotePCRs(t *testing.T) { byEveryWay(t, testQuotePCRs) }

func testQuotePCRs(t *testing.T, by *way) {
	emulator := by.run(t, tpmtest.Options{NoEKCertificates: true})
	pieces := func(most, ticks int) func(int32, []byte) []byte { // of an answer, each with another counter by so many ticks
		return func(n int32, b []byte) []byte {
			given, kept := b[21:24], append([]byte(nil), b[:28]...)
			count := 0
			for i := range 24 {
				if given[i/8]>>(i%8)&1 == 0 {
					continue
				}
				if count++; count > most {
					kept[21+i/8] &^= 1 << (i % 8)
					count--
				}
			}
			kept = append(kept, b[28:28+34*count]...)
			kept[27], kept[5], kept[4] = byte(count), byte(len(kept)), byte(len(kept)>>8)
			kept[13] += byte(int(n) * ticks)
			return kept
		}
	}
	none := append([]byte{0x80, 1, 0, 0, 0, 22, 0, 0, 0, 0}, make([]byte, 12)...) // no selection, no digests
	for _, tt := range []struct {
		name    string
		rewrite func(n int32, response []byte) []byte
		pcrs    int
		err     string
	}{
		{"changed once", func(n int32, b []byte) []byte { b[len(b)-1] ^= byte(n & 1); return b }, 8, ""},
		{"changing", func(_ int32, b []byte) []byte { b[len(b)-1] ^= 1; return b }, 0, "keep changing"},
		{"no bank", func(int32, []byte) []byte { return none }, 0, ""},
		{"less than asked for", func(_ int32, b []byte) []byte {
			b = append(b[:24:24], 0, 0, 0, 1, 0, 32)
			b = append(b, make([]byte, 32)...)
			b[5], b[4] = byte(len(b)), 0
			return b
		}, 0, "1 values of 8 PCRs"},
		{"one at a time", pieces(1, 0), 8, ""},
		{"four at a time", pieces(4, 0), 8, ""},
		{"of another moment once", func(n int32, b []byte) []byte { return pieces(4, int(max(0, 2-n)))(1, b) }, 8, ""},
		{"each of another moment", pieces(4, 1), 0, "keep changing"},
		{"no more after some", func(n int32, b []byte) []byte {
			if n > 1 {
				return none
			}
			return pieces(4, 0)(n, b)
		}, 0, "4 instead of 8"},
		{"others than asked for", func(_ int32, b []byte) []byte { b[21], b[22] = b[22], b[21]; return b }, 0, "not asked for"},
	} {
		var read atomic.Int32
		proxy := by.proxy(t, emulator, func(command, response []byte) []byte {
			if bytes.HasPrefix(command[6:], []byte{0, 0, 1, 0x7e}) { // TPM2_PCR_Read
				return tt.rewrite(read.Add(1), response)
			}
			return response
		})
		c, err := Open(proxy.Address(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.Quote([32]byte{})
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		default:
			if s, err := evidence.VerifyDigest(e, [32]byte{}); err != nil || len(s.PCRs) != tt.pcrs {
				t.Errorf("%s: %+v, %v", tt.name, s, err)
			}
		}
		c.Close()
		proxy.Close()
	}
}

// The issuers that a TPM holds go along.
func TestAttestIssuers(t *testing.T) { byEveryWay(t, testAttestIssuers) }

func testAttestIssuers(t *testing.T, by *way) {
	root := newCA(t, "root", nil)
	intermediate := newCA(t, "intermediate", root)
	c := connect(t, by.run(t, tpmtest.Options{NoEKCertificates: true}).Address())
	_, keys, _ := c.Inventory()
	byAuth := tpm2.TPMANV{AuthRead: true, OwnerRead: true, NoDA: true}
	store(t, c, 0x01c00002, byAuth, intermediate.issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "EK"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
	}, keyByID(t, keys, "tpm-ek-rsa2048").Public))
	store(t, c, 0x01c00100, byAuth, intermediate.cert.Raw)
	c.Inventory() // evidence has the certificates that were read last
	r := evidence.Verify(report(t, c, nil, c.Quote), evidence.Policy{Check: passes, Now: time.Now(), EKRoots: []*x509.Certificate{root.cert}})
	if got := statuses(r); got[evidence.LevelEKCertificate] != device.Pass {
		t.Errorf("%+v", r.Levels)
	}
}

type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T, name string, issuer *ca) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	if issuer == nil {
		issuer = &ca{template, key}
	}
	cert, err := x509.ParseCertificate(issuer.issue(t, template, &key.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return &ca{cert, key}
}

func (c *ca) issue(t *testing.T, template *x509.Certificate, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, public, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// passes are checks that find nothing.
func passes(inv device.Inventory) (all []device.Finding) {
	for _, k := range inv.Keys {
		all = append(all, device.Finding{Check: "roca", Key: k.ID, Status: device.Pass})
	}
	return all
}

func TestActivate(t *testing.T) { byEveryWay(t, testActivate) }

func testActivate(t *testing.T, by *way) {
	c := connect(t, by.run(t, tpmtest.Options{}).Address())
	_, keys, _ := c.Inventory()
	before := allHandles(t, c)
	e, err := c.Quote([32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := evidence.VerifyDigest(e, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	answer := func(id string) {
		t.Helper()
		challenge, expected, err := evidence.NewChallenge(keyByID(t, keys, id).Public, s.AKName, func(crypto.PublicKey) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Activate(challenge); err != nil || !bytes.Equal(got, expected.Secret) {
			t.Errorf("%s: %x, %v", id, got, err)
		}
	}
	for _, id := range []string{"tpm-ek-rsa2048", "tpm-ek-p256", "tpm-ek-p384"} {
		answer(id)
	}
	challenge, _, err := evidence.NewChallenge(keyByID(t, keys, "tpm-ek-p256").Public, s.AKName, func(crypto.PublicKey) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	refused := func(name, want string, change func(*evidence.Challenge)) {
		t.Helper()
		bad := *challenge
		bad.CredentialBlob, bad.Secret = bytes.Clone(bad.CredentialBlob), bytes.Clone(bad.Secret)
		change(&bad)
		if got, err := c.Activate(&bad); err == nil || got != nil || !strings.HasPrefix(err.Error(), "activate: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	refused("a damaged challenge", "damaged", func(c *evidence.Challenge) { c.CredentialBlob[len(c.CredentialBlob)-1] ^= 1 })
	refused("a damaged secret", "activate", func(c *evidence.Challenge) { c.Secret = c.Secret[:3] })
	refused("too large", "too large", func(c *evidence.Challenge) { c.CredentialBlob = make([]byte, 70000) })
	refused("nothing", "does not have", func(c *evidence.Challenge) { *c = evidence.Challenge{} })
	refused("to another EK", "another TPM's", func(c *evidence.Challenge) { c.EKSPKISHA256 = keyByID(t, keys, "tpm-ek-p384").SPKISHA256() })
	refused("for another AK", "another attestation key", func(c *evidence.Challenge) {
		name := bytes.Clone(s.AKName)
		name[9] ^= 1
		other, _, err := evidence.NewChallenge(keyByID(t, keys, "tpm-ek-p256").Public, name, func(crypto.PublicKey) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		*c = *other
	})
	if after := allHandles(t, c); !slices.Equal(before, after) {
		t.Errorf("handles before: %x, after: %x", before, after)
	}
	evict(t, c, 0x81010001)
	evict(t, c, 0x81010016)
	answer("tpm-ek-rsa2048")
	answer("tpm-ek-p384")
}
