package check

import (
	"crypto/x509"
	"io/fs"
	"testing"

	"github.com/keyvet/keyvet/device"
)

// belongsSamples are the samples of the check belongs. What its answers rest on
// is tested where the files are read, in package keyfile.
func belongsSamples(t *testing.T) []sample {
	own := issue(t, "device", nil).cert
	other := issue(t, "other", nil).cert.RawSubjectPublicKeyInfo
	key := func(change func(k *device.Key)) device.Key {
		k := certified(device.RoleDevice, own)
		k.Private = &device.PrivateFile{
			Path: "key.pem", Mode: 0o600, SPKI: k.SPKI,
			Numbers: device.Answer{Status: device.Pass, Why: "fits"}, Partner: device.Answer{Status: device.Pass, Why: "fits"},
		}
		change(&k)
		return k
	}
	alone := func(change func(p *device.PrivateFile)) device.Key {
		return key(func(k *device.Key) {
			k.Chain, k.Role = nil, device.RoleFile
			change(k.Private)
		})
	}
	request := func(a device.Answer) device.Key {
		return device.Key{Role: device.RoleFile, Public: own.PublicKey, Request: &a}
	}
	const mismatch, inconsistent, untested = "KEYVET_PRIVATE_KEY_MISMATCH", "KEYVET_PRIVATE_KEY_INCONSISTENT", "KEYVET_PRIVATE_KEY_NOT_TESTED"
	var all []sample
	for _, s := range []struct {
		name string
		key  device.Key
		want device.Status
		code device.ReasonCode
	}{
		{"that of the certificate", key(func(*device.Key) {}), device.Pass, ""},
		{"that of another certificate", key(func(k *device.Key) { k.Private.SPKI = other }), device.Fail, mismatch},
		{"that of another, in the TPM", key(func(k *device.Key) { k.Private = &device.PrivateFile{SPKI: other, Mode: fs.ModeDevice} }), device.Fail, mismatch},
		{"that of a certificate which was not read", key(func(k *device.Key) { k.Chain, k.CertificateError = nil, "x509: malformed" }), device.Pass, ""},
		{"public half not known", key(func(k *device.Key) { k.Private.SPKI = nil }), device.Undecided, "KEYVET_KEY_UNREADABLE"},
		{"nothing was looked at", key(func(k *device.Key) { *k.Private = device.PrivateFile{} }), device.Undecided, "KEYVET_KEY_UNREADABLE"},
		{"numbers do not fit", key(func(k *device.Key) { k.Private.Numbers.Status = device.Fail }), device.Fail, inconsistent},
		{"numbers do not fit, and make no public half", key(func(k *device.Key) { k.Private.Numbers.Status, k.Private.SPKI = device.Fail, nil }), device.Fail, inconsistent},
		{"numbers were not looked at", key(func(k *device.Key) { k.Private.Numbers = device.Answer{} }), device.Undecided, untested},
		{"encrypted", key(func(k *device.Key) { k.Private.Numbers.Status = device.NotApplicable }), device.NotApplicable, ""},
		{"under a key of the TPM", key(func(k *device.Key) { k.Private.Wrapped, k.Private.Numbers = true, device.Answer{} }), device.NotApplicable, ""},
		{"in the TPM", key(func(k *device.Key) { k.Private = &device.PrivateFile{SPKI: k.SPKI, Mode: fs.ModeDevice} }), device.NotApplicable, ""},
		{"alone in its file", alone(func(p *device.PrivateFile) { p.Partner.Status = device.NotApplicable }), device.Pass, ""},
		{"beside its public key", alone(func(*device.PrivateFile) {}), device.Pass, ""},
		{"beside another's", alone(func(p *device.PrivateFile) {
			p.Partner = device.Answer{Status: device.Fail, Why: "does not belong here"}
		}), device.Fail, mismatch},
		{"wrapped, beside another's", alone(func(p *device.PrivateFile) { p.Partner.Status, p.Wrapped = device.Fail, true }), device.Fail, mismatch},
		{"states another's", alone(func(p *device.PrivateFile) { p.SPKI, p.Numbers.Status = other, device.Fail }), device.Fail, inconsistent},
		{"what stands beside it was not looked at", alone(func(p *device.PrivateFile) { p.Partner = device.Answer{} }), device.Undecided, untested},

		{"request", request(device.Answer{Status: device.Pass, Why: "signed"}), device.Pass, ""},
		{"request of another key", request(device.Answer{Status: device.Fail, Why: "not signed"}), device.Fail, "KEYVET_REQUEST_SIGNATURE_INVALID"},
		{"request by an unknown algorithm", request(device.Answer{Why: "1.2.3.4"}), device.Undecided, "KEYVET_REQUEST_SIGNATURE_UNKNOWN"},
		{"request that nobody looked at", request(device.Answer{}), device.Undecided, "KEYVET_REQUEST_SIGNATURE_UNKNOWN"},
	} {
		all = append(all, sample{check: "belongs", name: s.name, key: s.key, want: s.want, code: s.code})
	}
	return all
}

// TestSaidOnce has what is wrong said once, and nothing where nothing is.
func TestSaidOnce(t *testing.T) {
	own, ca, namesake := issue(t, "device", nil).cert, issue(t, "CA", nil, asCA).cert, issue(t, "maker", nil)
	below := issue(t, "below", namesake).cert
	pair := certified(device.RoleFile, own)
	pair.Private = &device.PrivateFile{Path: "key.pem", Mode: 0o600, SPKI: ca.RawSubjectPublicKeyInfo, Numbers: device.Answer{Status: device.Pass, Why: "fits"}}
	alone := certified(device.RoleFile, own)
	alone.Beside = []*x509.Certificate{own, ca}
	leaf := certified(device.RoleFile, below)
	leaf.Beside = []*x509.Certificate{below, issue(t, "maker", nil).cert, ca}
	for name, tt := range map[string]struct {
		key  device.Key
		want device.Status
	}{
		"a private key of another certificate":          {pair, device.Fail},
		"a certificate that is its own root, and a CA":  {alone, device.Pass},
		"a certificate beside one of its issuer's name": {leaf, device.Pass},
		"a certificate alone":                           {certified(device.RoleFile, own), device.Pass},
	} {
		if found := runBelongs(t.Context(), tt.key, &Env{Now: now}); len(found) != 1 || found[0].Status != tt.want {
			t.Errorf("%s: %+v", name, found)
		}
	}
}
