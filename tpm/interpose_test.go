package tpm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// fixedInfineon is a false firmware version: one that no advisory affects.
var fixedInfineon = tpmtest.Pretend{Manufacturer: "IFX", VendorString: "SLB9670", FirmwareVersion: 0x00070055_0011cb00}

// holdsUp reports whether the inventory leaves the verdict undecided.
func holdsUp(gaps []device.Gap) bool {
	return slices.ContainsFunc(gaps, func(g device.Gap) bool { return !g.Minor })
}

// The keys that stand against a false firmware version cannot be refused away.
func TestHiddenKeys(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	for name, c := range map[string]struct {
		refuse tpmtest.Refuse
		gap    string
	}{
		"nothing":  {nil, "tpm firmware version"},
		"AK":       {tpmtest.HideAK, "tpm-ak"},
		"all keys": {tpmtest.HideAllKeys, "tpm-ak"},
	} {
		c2 := connect(t, tpmtest.RunInterposer(t, emulator.Address(), c.refuse, fixedInfineon.Rewrite).Address())
		info, keys, gaps := c2.Inventory()
		if info.FirmwareVersion != "7.85.4555.0" || info.State != device.TPMOK {
			t.Errorf("%s: %+v", name, info)
		}
		if !slices.ContainsFunc(gaps, func(g device.Gap) bool { return g.What == c.gap && !g.Minor }) {
			t.Errorf("%s: %v", name, brief(keys, gaps))
		}
		if _, err := c2.CreateAK(); (err == nil) != (name == "nothing") {
			t.Errorf("%s: create AK: %v", name, err)
		}
		c2.Close() // an emulator serves one at a time
	}
}

// responses are answers that somebody on the bus may choose: each looks like a
// harmless one somewhere.
var responses = map[string]uint32{
	"curve of parameter 2": 0x2e6, "value of parameter 2": 0x2c4, "value of parameter 1": 0x1c4, "integrity of parameter 1": 0x1df,
	"handle 1": 0x18b, "value of session 1": 0x984, "no such command": 0x143, "authorization failed": 0x98e, "bad authorization": 0x9a2,
	"lockout": 0x921, "failure": 0x101, "not started": 0x100, "TPM 1.2: bad ordinal": 0x00a, "NV unwritten": 0x14a, "hierarchy": 0x085,
}

// Whichever command is refused, and however: a TPM that states a false firmware
// version is never found in order.
func TestRefusals(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	seen := make(map[uint32]bool)
	c := connect(t, tpmtest.RunProxy(t, emulator.Address(), func(command, response []byte) []byte {
		seen[binary.BigEndian.Uint32(command[6:])] = true
		return fixedInfineon.Rewrite(command, response)
	}).Address())
	if _, _, gaps := c.Inventory(); !holdsUp(gaps) {
		t.Fatal("the lie is not seen at all")
	}
	c.Close()
	if len(seen) < 8 {
		t.Fatalf("the inventory takes %d kinds of command", len(seen))
	}
	var command, response atomic.Uint32
	proxy := tpmtest.RunInterposer(t, emulator.Address(), func(c []byte) []byte {
		return tpmtest.RefuseCommand(command.Load(), response.Load())(c)
	}, fixedInfineon.Rewrite)
	for code := range seen {
		for name, rc := range responses {
			command.Store(code)
			response.Store(rc)
			c := connect(t, proxy.Address())
			info, keys, gaps := c.Inventory()
			if !holdsUp(gaps) {
				t.Errorf("%v refused by %s (%#x): %+v\n%s", tpm2.TPMCC(code), name, rc, info, strings.Join(brief(keys, gaps), "\n"))
			}
			c.Close()
		}
	}
}

// A key that would fail a check cannot be refused away either, be it persistent
// or made by its template.
func TestRefusedKey(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	if err := tpmtest.ImportRSA(emulator.Address(), tpmtest.ROCAKey("refused"), 0x81000100); err != nil {
		t.Fatal(err)
	}
	c := connect(t, emulator.Address())
	evict(t, c, 0x81010001)
	c.Close()
	const createPrimary, readPublic = 0x131, 0x173
	for name, rc := range responses {
		for what, refuse := range map[string]tpmtest.Refuse{
			"tpm:0x81000100": func(c []byte) []byte {
				if strings.HasSuffix(string(c), "\x81\x00\x01\x00") {
					return tpmtest.RefuseCommand(readPublic, rc)(c)
				}
				return nil
			},
			"tpm-ek-rsa2048": func(c []byte) []byte {
				if strings.Contains(string(c), string(tpm2.Marshal(tpm2.RSAEKTemplate))) {
					return tpmtest.RefuseCommand(createPrimary, rc)(c)
				}
				return nil
			},
		} {
			c := connect(t, tpmtest.RunInterposer(t, emulator.Address(), refuse, func(_, response []byte) []byte { return response }).Address())
			_, keys, gaps := c.Inventory()
			c.Close()
			if !holdsUp(gaps) {
				t.Errorf("%s refused by %s:\n%s", what, name, strings.Join(brief(keys, gaps), "\n"))
			}
		}
	}
}

// A TPM that makes no attestation key, be it of P-256 or of RSA, is accepted by
// the operator's word, and only then; not so a TPM that says two things of itself.
func TestWithoutAK(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	p256 := func(command []byte) []byte { // refused wherever a template has it, and not listed
		const curves = 8
		switch {
		case binary.BigEndian.Uint32(command[6:]) == 0x17a && binary.BigEndian.Uint32(command[10:]) == curves:
			return []byte{0x80, 0x01, 0, 0, 0, 21, 0, 0, 0, 0, 0, 0, 0, 0, curves, 0, 0, 0, 1, 0, 4}
		case strings.Contains(string(command), "\x00\x03\x00\x10") || strings.Contains(string(command), "\x00\x18\x00\x0b\x00\x03"):
			return tpmtest.RefuseCommand(0x131, 0x2e6)(command)
		}
		return tpmtest.HideAK(command)
	}
	for _, optional := range []bool{false, true} {
		proxy := tpmtest.RunInterposer(t, emulator.Address(), p256, func(_, response []byte) []byte { return response })
		c, err := Open(proxy.Address(), Options{AKOptional: optional})
		if err != nil {
			t.Fatal(err)
		}
		_, keys, gaps := c.Inventory()
		c.Close()
		expect(t, brief(keys, gaps),
			"tpm-ek-rsa2048 EK RSA-2048 tpm:0x81010001 1",
			"tpm-ek-p384 EK ECDSA-P384 tpm:0x81010016 1",
			"tpm-srk-rsa2048 SRK RSA-2048 tpm:template:SRK-RSA2048 0",
			"gap tpm-ek-p256 minor=true", "gap tpm-srk minor=true", fmt.Sprintf("gap tpm-ak minor=%v", optional),
		)
	}
	c, err := Open(tpmtest.RunProxy(t, emulator.Address(), fixedInfineon.Rewrite).Address(), Options{AKOptional: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, keys, gaps := c.Inventory(); !holdsUp(gaps) {
		t.Errorf("a false version is accepted: %v", brief(keys, gaps))
	}
}

func asIs(_, response []byte) []byte { return response }

// What the profile leaves to the maker may be unsupported; refused for another
// reason it is a gap like any other.
func TestOptionalKeyRefused(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	c := connect(t, emulator.Address())
	evict(t, c, 0x81010016)
	c.Close()
	template := string(tpm2.Marshal(highECC(tpm2.TPMAlgSHA384, 256, tpm2.TPMECCNistP384)))
	for name, minor := range map[string]bool{"curve of parameter 2": true, "lockout": false, "no such command": false} {
		refuse := func(command []byte) []byte {
			if strings.Contains(string(command), template) {
				return tpmtest.RefuseCommand(0x131, responses[name])(command)
			}
			return nil
		}
		c := connect(t, tpmtest.RunInterposer(t, emulator.Address(), refuse, asIs).Address())
		_, keys, gaps := c.Inventory()
		c.Close()
		if want := fmt.Sprintf("gap tpm-ek-p384 minor=%v", minor); !slices.Contains(brief(keys, gaps), want) {
			t.Errorf("%s: want %s in\n%s", name, want, strings.Join(brief(keys, gaps), "\n"))
		}
	}
}

// A TPM that lists no algorithm and no curve has no EK either: that is a gap of
// its own, since every TPM 2.0 has one.
func TestNoEndorsementKey(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{NoEKCertificates: true})
	refuse := func(command []byte) []byte {
		const algorithms, curves = 0, 8
		if binary.BigEndian.Uint32(command[6:]) == 0x17a {
			if kind := binary.BigEndian.Uint32(command[10:]); kind == algorithms || kind == curves {
				return []byte{0x80, 0x01, 0, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0, 0, byte(kind), 0, 0, 0, 0}
			}
		}
		return tpmtest.HideAllKeys(command)
	}
	c := connect(t, tpmtest.RunInterposer(t, emulator.Address(), refuse, asIs).Address())
	defer c.Close()
	_, keys, gaps := c.Inventory()
	for _, want := range []string{"gap tpm-ek-rsa2048 minor=true", "gap tpm-ek-p256 minor=true", "gap tpm-ek minor=false", "gap tpm-ak minor=false"} {
		if !slices.Contains(brief(keys, gaps), want) {
			t.Errorf("want %s in\n%s", want, strings.Join(brief(keys, gaps), "\n"))
		}
	}
}

// The certificate that stands in for an endorsement key is of that key: not of
// another template's, nor of another algorithm, nor of no key.
func TestCertificateStandsIn(t *testing.T) {
	emulator := tpmtest.Run(t, tpmtest.Options{})
	c := connect(t, emulator.Address())
	reader := inventory{t: c}
	certs, _ := reader.readCertificates()
	i := slices.IndexFunc(certs, func(c *certificate) bool { return c.index == 0x01c00002 })
	if i < 0 {
		t.Fatal("no certificate of the RSA key")
	}
	c.Close()
	c = connect(t, tpmtest.RunInterposer(t, emulator.Address(), tpmtest.RefuseCommand(0x131, responses["lockout"]), asIs).Address())
	defer c.Close()
	ek := endorsementKeys[0]
	for name, tt := range map[string]struct {
		ek     endorsementKey
		change func(*certificate)
		stands bool
	}{
		"its own":                 {ek, func(*certificate) {}, true},
		"at an index of no key's": {ek, func(c *certificate) { c.index = 0x01c00050 }, true},
		"of another template":     {ek, func(c *certificate) { c.index = endorsementKeys[3].index }, false},
		"of no key":               {ek, func(c *certificate) { c.public = nil }, false},
		"of another algorithm":    {endorsementKeys[1], func(c *certificate) { c.index = endorsementKeys[1].index }, false},
	} {
		cert := *certs[i]
		tt.change(&cert)
		inv := inventory{t: c}
		inv.addEK(tt.ek, nil, []*certificate{&cert})
		if stands := len(inv.keys) == 1; stands != tt.stands || len(inv.gaps) != 1 || inv.gaps[0].Minor != tt.stands {
			t.Errorf("%s: %v", name, brief(inv.keys, inv.gaps))
		}
	}
}
