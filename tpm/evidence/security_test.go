package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
)

// madeBy is the extension of an EK certificate that names the maker of the TPM.
func madeBy(t testing.TB, id string) []pkix.Extension {
	t.Helper()
	marshal := func(v any) []byte {
		b, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rdns := marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, 1}, Value: id}}})
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: rdns}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: marshal([]asn1.RawValue{name})}}
}

// The same-TPM rule: each condition that refuses, and the way that passes.
func TestSameTPM(t *testing.T) {
	ak := recordedAK(t)
	ek := recordedEK(t)
	other := strings.Repeat("00", 32)
	for _, tt := range []struct {
		name   string
		policy Policy
		status device.Status
		reason string
		shown  bool // so that what rests on a TPM passes
	}{
		{"the pair", Policy{Activated: Activated{ak, ek}, EKRoots: roots(t)}, device.Pass, "answered the challenge to the EK of this EK certificate", true},
		{"another EK: two TPMs", Policy{Activated: Activated{ak, other}, EKRoots: roots(t)}, device.Fail, "another EK than the one of this EK certificate", false},
		{"another AK", Policy{Activated: Activated{Hex("other"), ek}, EKRoots: roots(t)}, device.Fail, "another attestation key than this answered", false},
		{"no AK", Policy{Activated: Activated{nil, ek}, EKRoots: roots(t)}, device.Fail, "half a pair", false},
		{"no EK", Policy{Activated: Activated{ak, ""}, EKRoots: roots(t)}, device.Fail, "half a pair", false},
		{"nothing asked for", Policy{}, device.Warn, "takes a challenge", false},
		{"roots", Policy{EKRoots: roots(t)}, device.Undecided, "takes a challenge", false},
		{"the pair without roots", Policy{Activated: Activated{ak, ek}}, device.Pass, "answered", false},
		{"the pair and an unknown root", Policy{Activated: Activated{ak, ek}, EKRoots: roots(t)[1:]}, device.Pass, "answered", false},
		{"a named AK", Policy{AKName: ak}, device.Warn, "the attestation key that was named", true},
		{"a named AK and roots", Policy{AKName: ak, EKRoots: roots(t)}, device.Warn, "the attestation key that was named", true},
		{"another is named", Policy{AKName: []byte("other"), EKRoots: roots(t)}, device.Fail, "another attestation key than the one that was named", false},
		{"an empty name", Policy{AKName: []byte{}}, device.Fail, "another attestation key than the one that was named", false},
		{"the pair, but another is named", Policy{AKName: []byte("other"), Activated: Activated{ak, ek}, EKRoots: roots(t)}, device.Fail, "named", false},
	} {
		tt.policy.Now, tt.policy.Check, tt.policy.Nonce = now, passes, nonce
		r := Verify(report, tt.policy)
		if l := held(t, r, LevelSameTPM); l.Status != tt.status || !strings.Contains(l.Reason, tt.reason) {
			t.Errorf("%s: %+v", tt.name, l)
		}
		for _, name := range []string{LevelAttestationKey, LevelHierarchy, LevelPCRs, LevelFirmware, LevelDeviceKey} {
			want := device.Warn
			if tt.shown {
				want = device.Pass
			}
			if l := held(t, r, name); l.Status != want || strings.HasPrefix(l.Reason, "only if the attestation key is in a TPM") == tt.shown {
				t.Errorf("%s: %+v", tt.name, l)
			}
		}
	}
	// Without a certificate, or with one that has no key, no maker vouches for the EK.
	for reason, change := range map[string]func(*forgery){
		"shows no certificate": func(*forgery) {},
		"cannot be read":       func(f *forgery) { f.show(&x509.Certificate{Raw: []byte("rubbish")}) },
	} {
		b := forge(t, change)
		p := Policy{Now: now, Check: passes}
		p.Activated = Activated{Verify(b, p).Statement.AKName, ek}
		if l := held(t, Verify(b, p), LevelSameTPM); l.Status != device.Warn || !strings.Contains(l.Reason, reason) {
			t.Errorf("%+v", l)
		}
		p.EKRoots = roots(t)
		if l := held(t, Verify(b, p), LevelSameTPM); l.Status != device.Undecided || !strings.Contains(l.Reason, reason) {
			t.Errorf("with roots: %+v", l)
		}
	}
}

func recordedAK(t testing.TB) Hex {
	t.Helper()
	return Verify(report, Policy{Now: now}).Statement.AKName
}

// A challenge shows a pair of keys to be in one TPM, and only to who vetted the EK.
func TestChallengeBindsThePair(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := nameOf([]byte("ak"))
	if c, e, err := NewChallenge(&key.PublicKey, name, nil); err == nil || c != nil || e.Secret != nil || !strings.Contains(err.Error(), "no vet") {
		t.Errorf("without a vet: %v", err)
	}
	weak := errors.New("a weak key")
	if c, e, err := NewChallenge(&key.PublicKey, name, func(crypto.PublicKey) error { return weak }); !errors.Is(err, weak) || c != nil || e.Secret != nil {
		t.Errorf("a weak key: %v", err)
	}
	var vetted crypto.PublicKey
	c, e, err := NewChallenge(&key.PublicKey, name, func(k crypto.PublicKey) error { vetted = k; return nil })
	if err != nil || vetted != crypto.PublicKey(&key.PublicKey) || c.EKSPKISHA256 != e.EKSPKISHA256 || !bytes.Equal(e.AKName, name) {
		t.Fatalf("%+v, %+v, %v", c, e, err)
	}
	if pair, err := e.Answered(e.Secret); err != nil || pair.EKSPKISHA256 != e.EKSPKISHA256 {
		t.Errorf("%+v, %v", pair, err)
	}
	for name, secret := range map[string][]byte{"none": nil, "another": make([]byte, 32), "a part": e.Secret[:31]} {
		if pair, err := e.Answered(secret); !errors.Is(err, ErrNotAnswered) || pair.AKName != nil {
			t.Errorf("%s: %+v, %v", name, pair, err)
		}
	}
	for name, e := range map[string]Expected{
		"nothing kept": {}, "no secret": {nil, e.Activated}, "no AK": {e.Secret, Activated{nil, e.EKSPKISHA256}}, "no EK": {e.Secret, Activated{e.AKName, ""}},
	} {
		if pair, err := e.Answered(e.Secret); err == nil || pair.AKName != nil {
			t.Errorf("%s: %+v", name, pair)
		}
	}
}

// What is required passes, or is not good enough.
func TestRequire(t *testing.T) {
	pair := Activated{recordedAK(t), recordedEK(t)}
	for _, tt := range []struct {
		require []string
		policy  Policy
		verdict device.Status
	}{
		{nil, Policy{Nonce: nonce}, device.Warn},
		{[]string{LevelSignature}, Policy{Nonce: nonce}, device.Warn},
		{[]string{LevelSignature, LevelDeviceKey}, Policy{Nonce: nonce}, device.Undecided},
		{[]string{LevelFreshness}, Policy{}, device.Undecided},
		{[]string{LevelFreshness}, Policy{Nonce: []byte("other")}, device.Fail},
		{[]string{LevelDeviceKey, LevelSameTPM, LevelEKCertificate}, Policy{Nonce: nonce, EKRoots: roots(t), Activated: pair}, device.Pass},
		{[]string{"same-TPM"}, Policy{Nonce: nonce, EKRoots: roots(t), Activated: pair}, device.Undecided},
	} {
		tt.policy.Now, tt.policy.Check, tt.policy.Require = now, passes, tt.require
		if r := Verify(report, tt.policy); r.Verdict != tt.verdict {
			t.Errorf("%v: %v %+v", tt.require, r.Verdict, r.Levels)
		}
	}
	for _, name := range Levels() { // each can be required, and its being unshown counts
		if r := Verify(nil, Policy{Require: []string{name}}); r.Verdict.Opens() {
			t.Errorf("%s: %v", name, r.Verdict)
		}
	}
}

func TestMaxAge(t *testing.T) {
	b := forge(t, func(*forgery) {}) // made now
	for _, tt := range []struct {
		at     time.Time
		status device.Status
		reason string
	}{
		{now.Add(time.Hour), device.Warn, "1h0m0s ago"},
		{now.Add(time.Hour + time.Second), device.Fail, "older than the 1h0m0s asked for"},
		{now.Add(-maxAhead), device.Warn, "ahead by 5m0s"},
		{now.Add(-maxAhead - time.Second), device.Undecided, "how old it is cannot be said"},
	} {
		if l := held(t, Verify(b, Policy{Now: tt.at, Check: passes, MaxAge: time.Hour}), LevelFreshness); l.Status != tt.status || !strings.Contains(l.Reason, tt.reason) {
			t.Errorf("%v: %+v", tt.at, l)
		}
	}
	if l := held(t, Verify(report, Policy{Now: now, Check: passes, Nonce: nonce, MaxAge: time.Hour}), LevelFreshness); l.Status != device.Fail {
		t.Errorf("an old report with new evidence: %+v", l)
	}
}

// The verifier's own checks count, and are put to every key that is shown.
func TestKeysAreTested(t *testing.T) {
	ek, maker := certificate(t, func(*x509.Certificate) {})
	b := forge(t, func(f *forgery) {
		f.show(ek)
		f.report.Evidence.EKIssuers = []string{b64(maker.Raw)}
	})
	var seen []string
	spy := func(inv device.Inventory) []device.Finding {
		for _, k := range inv.Keys {
			seen = append(seen, string(k.Role))
			if k.Public == nil || len(k.SPKI) == 0 {
				t.Errorf("%s: no key", k.ID)
			}
		}
		if inv.TPM == nil || inv.TPM.FirmwareVersion != "7.85.4555.2" {
			t.Errorf("TPM %+v", inv.TPM)
		}
		return passes(inv)
	}
	Verify(b, Policy{Now: now, Check: spy})
	if want := []string{"AK", "EK", "CA"}; !slices.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
	for _, status := range []device.Status{device.Fail, device.Undecided, device.Warn} {
		r := Verify(b, Policy{Now: now, Check: func(inv device.Inventory) []device.Finding {
			return append(passes(inv), device.Finding{Check: "roca", Key: "tpm-ak", Status: status, Message: "weak"})
		}})
		if l := held(t, r, LevelKeys); l.Status != status || r.Verdict != status || len(r.Findings) == 0 {
			t.Errorf("%v: %v %+v", status, r.Verdict, l)
		}
		if l := held(t, r, LevelKeys); strings.Contains(l.Reason, "roca on tpm-ak: weak") != (status == device.Fail) {
			t.Errorf("%v: %+v", status, l)
		}
		if l := held(t, r, LevelKeys); strings.Contains(l.Reason, "the report says PASS of tpm-ak") != (status == device.Fail) {
			t.Errorf("%v: %+v", status, l)
		}
	}
	if l := held(t, Verify(b, Policy{Now: now}), LevelKeys); l.Status != device.Undecided || !strings.Contains(l.Reason, "no checks") {
		t.Errorf("without checks: %+v", l)
	}
	for name, tt := range map[string]struct {
		change func(*forgery)
		status device.Status
		code   string
	}{
		"a digest of another key": {func(f *forgery) { f.report.Keys[0].Role, f.report.Keys[0].SPKISHA256 = device.RoleFile, "00" }, device.Fail, "KEYVET_KEY_DIGEST"},
		"no base64":               {func(f *forgery) { f.report.Keys[0].SPKI = "!" }, device.Fail, "KEYVET_KEY_UNREADABLE"},
		"no key":                  {func(f *forgery) { hide(f, device.RoleFile) }, device.Warn, "KEYVET_KEY_NOT_SHOWN"},
		"no device key":           {func(f *forgery) { hide(f, device.RoleDevice) }, device.Undecided, "KEYVET_KEY_NOT_SHOWN"},
		"rubbish": {func(f *forgery) {
			f.report.Keys[0].SPKI, f.report.Keys[0].SPKISHA256 = b64([]byte("x")), "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
			f.report.Keys[0].Role = device.RoleFile
		}, device.Undecided, "KEYVET_KEY_UNREADABLE"},
	} {
		r := Verify(forge(t, tt.change), Policy{Now: now, Check: passes})
		if l := held(t, r, LevelKeys); l.Status != tt.status || !slices.ContainsFunc(r.Findings, func(f device.Finding) bool { return f.ReasonCode == tt.code }) {
			t.Errorf("%s: %+v %+v", name, l, r.Findings)
		}
	}
}

// hide has the report list a further key without showing it.
func hide(f *forgery, role device.Role) {
	f.report.Keys = append(f.report.Keys, device.KeyReport{ID: "hidden", Role: role, SPKISHA256: strings.Repeat("0", 64), Status: device.Pass})
}

// A report that says other than its parts, or that others would read otherwise.
func TestContradictions(t *testing.T) {
	fail := func(f *forgery) {
		f.report.Findings = append(f.report.Findings, device.Finding{Check: "roca", Key: "tpm-ak", Status: device.Fail, Accepted: true})
		f.report.Keys[0].Status = device.Warn
	}
	r := Verify(forge(t, fail), Policy{Now: now, Check: passes})
	if l := held(t, r, LevelConsistency); l.Status != device.Pass || !strings.Contains(l.Reason, "accepted count in full") || r.Verdict != device.Fail || r.Report.Computed != device.Fail {
		t.Errorf("an accepted finding: %v %+v", r.Verdict, l)
	}
	r = Verify(forge(t, func(f *forgery) {
		f.report.Cut = device.Cuts{{Check: "size", Status: device.Fail, N: 3, Accepted: true}}
	}), Policy{Now: now, Check: passes, Accept: []device.Acceptance{{Code: "X", Key: "tpm-ak", Why: "why"}}})
	if l := held(t, r, LevelConsistency); l.Status == device.Fail || r.Report.Computed != device.Fail {
		t.Errorf("accepted findings that were cut: %+v %+v", l, r.Report)
	}
	r = Verify(forge(t, func(f *forgery) { f.report.Cut = device.Cuts{{Check: "size", Status: device.Fail, N: 3}} }), Policy{Now: now, Check: passes})
	if l := held(t, r, LevelConsistency); l.Status != device.Fail || !strings.Contains(l.Reason, "its verdict is PASS, but what it holds makes it FAIL") {
		t.Errorf("failing findings were cut: %+v", l)
	}
	r = Verify(forge(t, func(f *forgery) { f.report.Gaps = []device.Gap{{What: "x"}}; f.report.Gaps[0].Minor = true }), Policy{Now: now, Check: passes})
	if l := held(t, r, LevelConsistency); l.Status != device.Pass {
		t.Errorf("a minor gap: %+v", l)
	}
	for _, after := range []device.Status{device.Fail, device.Warn} { // the worst finding on a key counts, not the last
		r = Verify(forge(t, func(f *forgery) {
			for _, s := range []device.Status{device.Fail, after} {
				f.report.Findings = append(f.report.Findings, device.Finding{Check: "size", Key: "tpm-ak", Status: s})
			}
		}), Policy{Now: now, Check: passes})
		if l := held(t, r, LevelConsistency); l.Status != device.Fail || !strings.Contains(l.Reason, "it says PASS of tpm-ak, but FAIL in a finding on it") {
			t.Errorf("a key that is better than its findings: %+v", l)
		}
	}
	gap := forge(t, func(f *forgery) { f.report.Gaps = []device.Gap{{What: "x"}} })
	gap = bytes.Replace(gap, []byte(`"verdict":"UNDECIDED"`), []byte(`"verdict":"PASS"`), 1)
	if l := held(t, Verify(gap, Policy{Now: now, Check: passes}), LevelConsistency); l.Status != device.Undecided || !strings.Contains(l.Reason, "its verdict is PASS, but what it holds makes it UNDECIDED") {
		t.Errorf("a gap: %+v", l)
	}
	for name, change := range map[string]func(*forgery){
		`lists two keys "tpm-ak"`: func(f *forgery) { f.report.Keys = append(f.report.Keys, f.report.Keys[0]) },
		"2 keys as the device's": func(f *forgery) {
			for _, id := range []string{"a", "b"} {
				f.report.Keys = append(f.report.Keys, device.KeyReport{ID: id, Role: device.RoleDevice, Status: device.Pass})
			}
		},
		"although it names a TPM that is ok": nil,
	} {
		b := forge(t, func(f *forgery) {
			if change != nil {
				change(f)
			}
		})
		if change == nil {
			b = append(bytes.Clone(b[:bytes.Index(b, []byte(`,"evidence"`))]), '}')
		}
		if l := held(t, Verify(b, Policy{Now: now, Check: passes}), LevelSchema); l.Status != device.Fail || !strings.Contains(l.Reason, name) {
			t.Errorf("%s: %+v", name, l)
		}
	}
	for name, tt := range map[string]struct {
		old, new string
		status   device.Status
	}{
		"an unknown member":         {`"trigger":`, `"x":1,"trigger":`, device.Fail},
		"an unknown member of keys": {`"keys":[{`, `"keys":[{"x":1,`, device.Fail},
		"twice":                     {`"verdict":"PASS"`, `"verdict":"FAIL","verdict":"PASS"`, device.Fail},
		"in other letters":          {`"verdict":"PASS"`, `"verdict":"PASS","Verdict":"PASS"`, device.Fail},
		"a member in other letters": {`"status":"PASS"`, `"Status":"PASS"`, device.Fail},
		"no verdict":                {`"verdict":"PASS",`, ``, device.Fail},
		"nothing changed":           {`"verdict"`, `"verdict"`, device.Pass},
		"a space":                   {`"verdict":`, `"verdict": `, device.Pass}, // to the schema; the signature is over other bytes
		"a newer schema":            {`keyvet.report/1`, `keyvet.report/2`, device.Undecided},
		"a schema of far ahead":     {`keyvet.report/1`, `keyvet.report/4000000000`, device.Undecided},
		"another schema":            {`keyvet.report/1`, `keyvet.report/one`, device.Fail},
		"an older schema":           {`keyvet.report/1`, `keyvet.report/0`, device.Fail},
	} {
		b := bytes.Replace(report, []byte(tt.old), []byte(tt.new), 1)
		if l := held(t, Verify(b, Policy{Now: now, Check: passes}), LevelSchema); l.Status != tt.status {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// What is between an EK certificate and its root has to be for EK certificates.
func TestIntermediates(t *testing.T) {
	type issuer struct {
		key  *ecdsa.PrivateKey
		cert *x509.Certificate
	}
	issue := func(serial int64, by *issuer, change func(*x509.Certificate)) *issuer {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: big.NewInt(serial).String()}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		}
		change(c)
		if by == nil {
			by = &issuer{key, c}
		}
		der, err := x509.CreateCertificate(rand.Reader, c, by.cert, &key.PublicKey, by.key)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return &issuer{key, c}
	}
	root := issue(1, nil, func(*x509.Certificate) {})
	for _, tt := range []struct {
		name   string
		change func(*x509.Certificate)
		status device.Status
		reason string
	}{
		{"no usage", func(*x509.Certificate) {}, device.Pass, "leads to"},
		{"for EKs", func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{oidEKCertificate} }, device.Pass, "leads to"},
		{"for anything", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, device.Pass, "leads to"},
		{"for TLS", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, device.Fail, "CN=2 is not for EK certificates"},
		{"not a CA", func(c *x509.Certificate) { c.IsCA = false }, device.Fail, "CN=2 signed CN=3 but is not entitled"},
		{"not for signing certificates", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, device.Fail, "CN=2 signed CN=3 but is not entitled"},
		{"expired", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, device.Warn, "the CA certificate CN=2 expired"},
		{"too long a path", func(c *x509.Certificate) { c.MaxPathLenZero = true }, device.Fail, "CN=2 allows 0 CAs below it"},
	} {
		upper := issue(2, root, tt.change)
		lower := issue(3, upper, func(*x509.Certificate) {})
		ek := issue(4, lower, func(c *x509.Certificate) {
			c.IsCA, c.UnknownExtKeyUsage = false, []asn1.ObjectIdentifier{oidEKCertificate}
		})
		b := forge(t, func(f *forgery) {
			f.show(ek.cert)
			f.report.Evidence.EKIssuers = []string{b64(lower.cert.Raw), b64(upper.cert.Raw)}
		})
		l := held(t, Verify(b, Policy{Now: now, Check: passes, EKRoots: []*x509.Certificate{root.cert}}), LevelEKCertificate)
		if l.Status != tt.status || !strings.Contains(l.Reason, tt.reason) {
			t.Errorf("%s: %+v", tt.name, l)
		}
	}
}

// Reports of the first version verify as before, but for what is asked of them more.
func TestFirstVersion(t *testing.T) {
	for name, want := range map[string]struct{ schema, verdict device.Status }{
		"tpm": {device.Pass, device.Warn}, "failing": {device.Pass, device.Fail}, "no-tpm": {device.Undecided, device.Undecided},
	} {
		b, err := os.ReadFile("testdata/first/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		r := Verify(b, Policy{Now: now, Check: passes})
		if held(t, r, LevelSchema).Status != want.schema || r.Verdict != want.verdict || held(t, r, LevelConsistency).Status != device.Pass || held(t, r, LevelKeys).Status != device.Pass {
			t.Errorf("%s: %v %+v", name, r.Verdict, r.Levels)
		}
	}
	cut := forge(t, func(*forgery) {})
	cut = bytes.Replace(cut, []byte(`,"verdict":"PASS"`), []byte(`,"verdict":"PASS","cut":"findings that passed, spki"`), 1)
	if l := held(t, Verify(cut, Policy{Now: now, Check: passes}), LevelSchema); l.Status != device.Pass {
		t.Errorf("a report that it cut: %+v", l)
	}
}

// TestVerifierAccepts has findings count as warnings only if the verifier accepts
// them, whatever the device does.
func TestVerifierAccepts(t *testing.T) {
	accept := []device.Acceptance{{Code: "KEYVET_X", Key: "tpm-ak", Why: "ticket 4711", Until: "2100-01-01"}}
	finding := device.Finding{Check: "size", Key: "tpm-ak", Status: device.Fail, Severity: device.High, ReasonCode: "KEYVET_X", Message: "bad"}
	report := func(accepted bool) []byte {
		return forge(t, func(f *forgery) {
			own := finding
			own.Accepted = accepted
			f.report.Findings = append(f.report.Findings, own)
			f.report.Keys[0].Status = own.Counts()
		})
	}
	found := func(device.Inventory) []device.Finding { return []device.Finding{finding} }
	for name, tt := range map[string]struct {
		report   []byte
		check    func(device.Inventory) []device.Finding
		accept   []device.Acceptance
		computed device.Status
		opens    bool
	}{
		"nobody accepts it": {report(false), found, nil, device.Fail, false},
		"the device does":   {report(true), found, nil, device.Fail, false},
		"the verifier does": {report(false), found, accept, device.Warn, true},
		"both do":           {report(true), found, accept, device.Warn, true},
		"both, and a check finds more": {report(true), func(inv device.Inventory) []device.Finding {
			f := finding
			f.ReasonCode = "KEYVET_Y"
			return []device.Finding{f}
		}, accept, device.Warn, false},
		"another key":                     {report(true), found, []device.Acceptance{{Code: "KEYVET_X", Key: "tpm", Why: "why"}}, device.Fail, false},
		"another code":                    {report(true), found, []device.Acceptance{{Code: "KEYVET_Y", Key: "tpm-ak", Why: "why"}}, device.Fail, false},
		"the verifier's is over":          {report(true), found, []device.Acceptance{{Code: "KEYVET_X", Key: "tpm-ak", Why: "why", Until: "2020-01-01"}}, device.Fail, false},
		"a key that nothing explains":     {forge(t, func(f *forgery) { f.report.Keys[0].Status = device.Fail }), passes, accept, device.Fail, false},
		"a verdict that nothing explains": {bytes.Replace(report(true), []byte(`"verdict":"WARN"`), []byte(`"verdict":"FAIL"`), 1), found, accept, device.Warn, false},
	} {
		r := Verify(tt.report, Policy{Now: now, Check: tt.check, Accept: tt.accept})
		if r.Report == nil || r.Report.Computed != tt.computed || (r.Verdict != device.Fail) != tt.opens {
			t.Errorf("%s: %v, computed %+v, %+v", name, r.Verdict, r.Report, r.Levels)
		}
		if name == "both do" && (len(r.Report.Accepted) != 1 || r.Report.Accepted[0].Why != "ticket 4711" || !r.Findings[0].Accepted) {
			t.Errorf("%s: it does not say so: %+v %+v", name, r.Report, r.Findings)
		}
	}
}
