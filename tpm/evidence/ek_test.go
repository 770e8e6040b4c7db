package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/keyfile"
)

// caseFile reads a certificate of those of `keyvet check`, in DER or PEM.
func caseFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../cmd/keyvet/testdata/cases/tpm", name))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes
	}
	return b
}

func parseOdd(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, _, err := keyfile.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// maker issues certificates of EKs, also such as crypto/x509 does not make.
type maker struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newMaker(t *testing.T) maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Chips"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-1000 * time.Hour), NotAfter: now.Add(100000 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return maker{key, parseOdd(t, der)}
}

// issue makes one for an RSA key, changes bytes of what is signed, and signs that.
func (m maker) issue(t *testing.T, change func(*x509.Certificate), old, changed string) []byte {
	t.Helper()
	ek, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(0x7f11223344), KeyUsage: x509.KeyUsageKeyEncipherment, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEKCertificate},
		NotBefore: now.Add(-1000 * time.Hour), NotAfter: now.Add(100000 * time.Hour),
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, m.cert, &ek.PublicKey, m.key)
	if err != nil {
		t.Fatal(err)
	}
	var outer struct {
		Body, Algorithm asn1.RawValue
		Signature       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	body := outer.Body.FullBytes
	if old != "" {
		if len(old) != len(changed) || bytes.Count(body, []byte(old)) != 1 {
			t.Fatalf("%x is not there once", old)
		}
		body = bytes.Replace(body, []byte(old), []byte(changed), 1)
	}
	digest := sha256.Sum256(body)
	signature, err := m.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	outer.Body, outer.Signature = asn1.RawValue{FullBytes: body}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	if der, err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	return der
}

// TestSameAsTheDevice holds the level of EK certificates against what keyvet says of
// them on the device, where they lie in the TPM.
func TestSameAsTheDevice(t *testing.T) {
	m := newMaker(t)
	root := m.cert
	var odca []*x509.Certificate
	for chain := append(caseFile(t, "odca-chain.part0"), caseFile(t, "odca-chain.part1")...); len(chain) > 0; {
		size := 4 + int(chain[2])<<8 + int(chain[3])
		odca, chain = append(odca, parseOdd(t, chain[:size])), chain[size:]
	}
	reversed := slices.Clone(odca)
	slices.Reverse(reversed)
	sha1, odcaRoot := parseOdd(t, caseFile(t, "sha1-ek-ca.pem")), parseOdd(t, caseFile(t, "odca-root.pem"))
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}
	forged := m.issue(t, nil, "", "")
	forged[len(forged)-1] ^= 1
	for name, tt := range map[string]struct {
		ek      []byte
		issuers []*x509.Certificate
		root    *x509.Certificate
		want    device.Status
		says    string
	}{
		"sound":                      {m.issue(t, nil, "", ""), nil, root, device.Pass, "leads to the given root CN=Chips"},
		"SHA-1":                      {caseFile(t, "valid-sha1-ek.der"), nil, sha1, device.Warn, "is signed with SHA1"},
		"expired, SHA-1":             {caseFile(t, "expired-sha1-ek.der"), nil, sha1, device.Warn, "the certificate expired on 2024-02-23"},
		"under another root":         {caseFile(t, "valid-sha1-ek.der"), nil, odcaRoot, device.Fail, "does not lead to a given root"},
		"on-die CA":                  {caseFile(t, "odca-ek.der"), odca, odcaRoot, device.Pass, "leads to the given root"},
		"on-die CA, in disorder":     {caseFile(t, "odca-ek.der"), reversed, odcaRoot, device.Pass, "leads to the given root"},
		"on-die CA, without its CA":  {caseFile(t, "odca-ek.der"), odca[1:], odcaRoot, device.Fail, "does not lead to a given root"},
		"a root of no certificate":   {caseFile(t, "roca-key-in-rsassa-pss-cert.der"), nil, root, device.Fail, "does not lead to a given root"},
		"a key for RSASSA-PSS":       {m.issue(t, nil, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a"), nil, root, device.Pass, "leads to the given root"},
		"a key for RSAES-OAEP":       {m.issue(t, nil, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x07"), nil, root, device.Pass, "leads to the given root"},
		"a negative serial number":   {m.issue(t, nil, "\x02\x05\x7f\x11\x22\x33\x44", "\x02\x05\xff\x11\x22\x33\x44"), nil, root, device.Warn, "negative serial number"},
		"an issuer in other strings": {m.issue(t, nil, "\x13\x05Chips", "\x0c\x05CHIPS"), nil, root, device.Pass, "leads to the given root"},
		"expired":                    {m.issue(t, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }, "", ""), nil, root, device.Warn, "the certificate expired on"},
		"not yet valid":              {m.issue(t, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }, "", ""), nil, root, device.Undecided, "is valid from"},
		"an unknown critical rule":   {m.issue(t, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{critical} }, "", ""), nil, root, device.Undecided, "1.2.3.4"},
		"forged":                     {forged, nil, root, device.Fail, "does not verify"},
	} {
		t.Run(name, func(t *testing.T) {
			ek, odd, err := keyfile.ParseCertificate(tt.ek)
			if err != nil {
				t.Fatal(err)
			}
			roots := []*x509.Certificate{tt.root}
			onDevice := check.Run(t.Context(), device.Inventory{Keys: []device.Key{{
				ID: "tpm-ek", Role: device.RoleEK, Public: ek.PublicKey, SPKI: ek.RawSubjectPublicKeyInfo, Encoding: odd,
				Chain: []*x509.Certificate{ek}, Beside: slices.Concat([]*x509.Certificate{ek}, tt.issuers),
			}}}, &check.Env{Now: now, EKRoots: roots, Only: []string{"ekcert", "expiry"}})

			evidence := forge(t, func(f *forgery) {
				f.show(ek)
				f.report.TPM.Manufacturer = ""
				for _, c := range tt.issuers {
					f.report.Evidence.EKIssuers = append(f.report.Evidence.EKIssuers, b64(c.Raw))
				}
			})
			r := Verify(evidence, Policy{Now: now, Check: passes, EKRoots: roots})
			l := held(t, r, LevelEKCertificate)
			if l.Status != tt.want || l.Status != statuses(onDevice) || !strings.Contains(l.Reason, tt.says) {
				t.Errorf("%+v, want %v and %q; the device says %v", l, tt.want, tt.says, onDevice)
			}
			for _, f := range onDevice {
				if f.Status == device.Pass {
					continue
				}
				if !strings.Contains(l.Reason, f.Message) || !slices.ContainsFunc(r.Findings, func(o device.Finding) bool {
					return o.ReasonCode == f.ReasonCode && o.Message == f.Message && o.Key == f.Key
				}) {
					t.Errorf("nothing is said of %+v", f)
				}
			}
			// What only warns is the maker's: the certificate holds all the same.
			required := Verify(evidence, Policy{Now: now, Check: passes, EKRoots: roots, Require: []string{LevelEKCertificate}})
			want := tt.want
			if got := held(t, required, LevelEKCertificate).Status; got != want {
				t.Errorf("where it is required: %v, want %v", got, want)
			}
		})
	}
}

// TestEKAccepted has the verifier accept what a device says of an EK certificate.
func TestEKAccepted(t *testing.T) {
	m := newMaker(t)
	ek, other := parseOdd(t, m.issue(t, nil, "", "")), newMaker(t)
	evidence := forge(t, func(f *forgery) { f.show(ek); f.report.TPM.Manufacturer = "" })
	policy := Policy{
		Now: now, Check: passes, EKRoots: []*x509.Certificate{other.cert},
		Accept: []device.Acceptance{{Code: "KEYVET_CERTIFICATE_SIGNATURE_INVALID", Key: "tpm-ek", Why: "a lot of before the maker changed its key"}},
	}
	r := Verify(evidence, policy)
	if l := held(t, r, LevelEKCertificate); l.Status != device.Warn || len(r.Report.Accepted) != 1 {
		t.Errorf("%+v, accepted %+v", l, r.Report.Accepted)
	}
	policy.Require = []string{LevelEKCertificate} // it does not lead to a root for that
	if l := held(t, Verify(evidence, policy), LevelEKCertificate); l.Status != device.Undecided {
		t.Errorf("accepted and required: %+v", l)
	}
}
