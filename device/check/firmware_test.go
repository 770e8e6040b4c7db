package check

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"math/big"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// firmwareSamples are samples of the check firmware.
func firmwareSamples(t *testing.T) (all []sample) {
	good2048, weak2048 := publishedModulus(t, 2048, false), publishedModulus(t, 2048, true)
	p256 := issue(t, "someone", nil).key.Public()
	infineon := &device.TPM{Family: "2.0", Manufacturer: "IFX", FirmwareVersion: "7.61.2785.0", State: device.TPMOK}
	flaw := device.Advisory{ID: "cve-2017-15361-ifx-7", CVE: cveROCA, Weakens: device.WeakensRSAMade, Affected: true, Sure: "C", Fixed: "7.62", Severity: device.Critical, Source: "https://example.com/a"}
	edited := func(a device.Advisory, edit func(*device.Advisory)) advisories { edit(&a); return advisories{a} }
	fixed := edited(flaw, func(a *device.Advisory) { a.Affected = false })
	timing := edited(flaw, func(a *device.Advisory) { a.CVE, a.Sure, a.Weakens = "CVE-2019-16863", "P", device.WeakensECDSA })
	ofTPM := func(role device.Role, source string, pub crypto.PublicKey, attributes uint32) device.Key {
		k := bare(role, pub)
		k.Source, k.TPM = source, &device.TPMObject{Attributes: attributes}
		return k
	}
	const made, imported = 1<<1 | 1<<5, 0
	madeRSA := func(n *big.Int) device.Key {
		return ofTPM(device.RolePersistent, "tpm:0x81000001", &rsa.PublicKey{N: n, E: 65537}, made)
	}
	ofUnknownMaking := with(madeRSA(good2048), func(k *device.Key) { k.TPM = nil })
	importedRSA := with(madeRSA(good2048), func(k *device.Key) { k.TPM.Attributes = imported })
	ak := ofTPM(device.RoleAK, "tpm:template", p256, made)
	wrappedEC := with(bare(device.RoleDevice, p256), func(k *device.Key) { k.Private = &device.PrivateFile{Path: "key.pem", Wrapped: true} })
	wrappedRSA := with(rsaKey(good2048, 65537), func(k *device.Key) { k.Private = &device.PrivateFile{Path: "key.pem", Wrapped: true} })
	softEC := with(bare(device.RoleDevice, p256), func(k *device.Key) { k.Private = &device.PrivateFile{Path: "key.pem", Mode: 0o600} })
	none := advisories{}
	in := func(s device.TPMState) *device.TPM {
		return &device.TPM{State: s, Manufacturer: "XFI", FirmwareVersion: "1", Problem: "open /dev/tpmrm0: no"}
	}
	for _, f := range []struct {
		name string
		tpm  *device.TPM
		env  Env
		want device.Status
		code device.ReasonCode
	}{
		{"no TPM", nil, Env{}, device.NotApplicable, ""},
		{"absent", in(device.TPMAbsent), Env{Advisories: none}, device.Undecided, "KEYVET_TPM_ABSENT"},
		{"absent, nothing said", &device.TPM{State: device.TPMAbsent}, Env{Advisories: none}, device.Undecided, "KEYVET_TPM_ABSENT"},
		{"denied", in(device.TPMDenied), Env{Advisories: none}, device.Undecided, "KEYVET_TPM_DENIED"},
		{"busy", in(device.TPMBusy), Env{Advisories: none}, device.Undecided, "KEYVET_TPM_BUSY"},
		{"not started", in(device.TPMNotStarted), Env{Advisories: none}, device.Undecided, "KEYVET_TPM_NOT_STARTED"},
		{"wrong locality", in(device.TPMWrongLocality), Env{Advisories: none}, device.Undecided, "KEYVET_TPM_WRONG_LOCALITY"},
		{"updating", in(device.TPMUpdating), Env{Advisories: none}, device.Undecided, "KEYVET_TPM_UPDATING"},
		{"degraded", in(device.TPMDegraded), Env{Advisories: none}, device.Undecided, "KEYVET_TPM_DEGRADED"},
		{"no state", in(""), Env{Advisories: none}, device.Undecided, "KEYVET_FIRMWARE_UNREAD"},
		{"no version", &device.TPM{State: device.TPMOK, Manufacturer: "IFX"}, Env{Advisories: none}, device.Undecided, "KEYVET_FIRMWARE_UNREAD"},
		{"no advisories", infineon, Env{}, device.Undecided, "KEYVET_ADVISORIES_UNAVAILABLE"},
		{"none matches", infineon, Env{Advisories: none}, device.Pass, ""},
		{"affected", infineon, Env{Advisories: advisories{flaw}, Keys: []device.Key{madeRSA(good2048)}}, device.Fail, device.ReasonROCA},
		{"affected, a key of unknown making", infineon, Env{Advisories: advisories{flaw}, Keys: []device.Key{ofUnknownMaking}}, device.Fail, device.ReasonROCA},
		{"affected, a wrapped key", infineon, Env{Advisories: advisories{flaw}, Keys: []device.Key{wrappedRSA}}, device.Fail, device.ReasonROCA},
		{"affected, an imported key", infineon, Env{Advisories: advisories{flaw}, Keys: []device.Key{importedRSA}}, device.Warn, device.ReasonROCA},
		{"affected, a key in a file", infineon, Env{Advisories: advisories{flaw}, Keys: []device.Key{rsaKey(good2048, 65537)}}, device.Warn, device.ReasonROCA},
		{"affected, ECDSA keys only", infineon, Env{Advisories: advisories{flaw}, Keys: []device.Key{ak, wrappedEC}}, device.Warn, device.ReasonROCA},
		{"affected by hearsay", infineon, Env{Advisories: edited(flaw, func(a *device.Advisory) { a.Sure, a.Severity = "S", device.Medium }), Keys: []device.Key{madeRSA(good2048)}}, device.Warn, device.ReasonROCA},
		{"affected without a fix", infineon, Env{Advisories: edited(flaw, func(a *device.Advisory) { a.Fixed = "" }), Keys: []device.Key{madeRSA(good2048)}}, device.Warn, device.ReasonROCA},
		{"timing, the attestation key", infineon, Env{Advisories: timing, Keys: []device.Key{ak}}, device.Fail, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"timing, the device's key", infineon, Env{Advisories: timing, Keys: []device.Key{wrappedEC}}, device.Fail, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"timing, the device's key in software", infineon, Env{Advisories: timing, Keys: []device.Key{softEC}}, device.Warn, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"timing, RSA keys only", infineon, Env{Advisories: timing, Keys: []device.Key{madeRSA(good2048)}}, device.Warn, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"timing, another program's key", infineon, Env{Advisories: timing, Keys: []device.Key{ofTPM(device.RolePersistent, "tpm:0x81000002", p256, made)}}, device.Warn, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"of keys that decrypt", infineon, Env{Advisories: edited(timing[0], func(a *device.Advisory) { a.Weakens = device.WeakensECDH }), Keys: []device.Key{ofTPM(device.RoleSRK, "tpm:0x81000001", p256, made)}}, device.Fail, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"of keys that decrypt, but none does", infineon, Env{Advisories: edited(timing[0], func(a *device.Advisory) { a.Weakens = device.WeakensECDH }), Keys: []device.Key{ak}}, device.Warn, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"of no key", infineon, Env{Advisories: edited(timing[0], func(a *device.Advisory) { a.Weakens = device.WeakensNone }), Keys: []device.Key{ak, madeRSA(good2048)}}, device.Warn, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"of keys not named", infineon, Env{Advisories: edited(timing[0], func(a *device.Advisory) { a.Weakens = device.WeakensAny }), Keys: []device.Key{ak}}, device.Fail, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"of keys not named, and there is none", infineon, Env{Advisories: edited(timing[0], func(a *device.Advisory) { a.Weakens = device.WeakensAny }), Keys: []device.Key{softEC}}, device.Warn, "KEYVET_FIRMWARE_CVE-2019-16863"},
		{"fixed, good keys", infineon, Env{Advisories: fixed, Keys: []device.Key{madeRSA(good2048), rsaKey(weak2048, 3)}}, device.Pass, ""},
		{"fixed, weak key", infineon, Env{Advisories: fixed, Keys: []device.Key{madeRSA(good2048), madeRSA(weak2048)}}, device.Fail, device.ReasonROCA},
		{"fixed, keys not readable", infineon, Env{Advisories: fixed, Keys: []device.Key{rsaKey(good2048, 3)}}, device.Warn, "KEYVET_FIRMWARE_KEYS_UNREAD"},
	} {
		all = append(all, sample{check: "firmware", name: f.name, tpm: f.tpm, env: f.env, want: f.want, code: f.code})
	}
	return all
}

// TestFirmwareSays holds the messages to what the reader has to know: the fix of
// this line of firmware or that there is none, which keys are at risk, and why a
// TPM could not be read.
func TestFirmwareSays(t *testing.T) {
	ifx := &device.TPM{Family: "2.0", Manufacturer: "IFX", FirmwareVersion: "7.1", State: device.TPMOK}
	key := func(id string) device.Key {
		return device.Key{ID: id, Role: device.RoleAK, Source: "tpm:0x81000001", Public: &ecdsa.PublicKey{}}
	}
	a := device.Advisory{CVE: "CVE-2030-1", Touches: "timing", Range: "< 7.2", Affected: true, Sure: "P", Severity: device.High, Source: "https://example.org"}
	for _, c := range []struct {
		edit func(*device.Advisory)
		keys []device.Key
		want string
	}{
		{func(a *device.Advisory) { a.Fixed = "7.2" }, []device.Key{key("a")}, "firmware 7.1 is affected by CVE-2030-1 (timing; affected < 7.2): it is fixed in 7.2; keys at risk: a"},
		{func(a *device.Advisory) { a.Fixed, a.Note = "7.2", "not certified" }, []device.Key{key("a")}, "it is fixed in 7.2 (not certified); keys at risk: a"},
		{func(*device.Advisory) {}, []device.Key{key("a")}, "there is no fix for this line of firmware; keys at risk: a"},
		{func(a *device.Advisory) { a.Fixed, a.Weakens = "7.2", device.WeakensNone }, []device.Key{key("a")}, "it is fixed in 7.2; it puts no key at risk that this device relies on"},
		{func(a *device.Advisory) { a.Fixed, a.Sure = "7.2", "S" }, []device.Key{key("e"), key("d"), key("c"), key("b"), key("a")}, "keys at risk: a, b, c and 2 more (by one secondary source)"},
	} {
		b := a
		c.edit(&b)
		f := runFirmware(ifx, &Env{Advisories: advisories{b}, Keys: c.keys})
		if !strings.HasSuffix(f[0].Message, c.want) {
			t.Errorf("%q, want %q", f[0].Message, c.want)
		}
	}
	f := Run(t.Context(), device.Inventory{TPM: &device.TPM{State: device.TPMDenied, Problem: "open /dev/tpmrm0: permission denied"}}, new(Env))
	if f[0].Message != "open /dev/tpmrm0: permission denied" || f[0].Citation != "" {
		t.Errorf("%+v", f[0])
	}
}
