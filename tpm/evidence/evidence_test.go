package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

var (
	//go:embed testdata/report.json
	report []byte
	//go:embed testdata/ca.pem
	caPEM []byte
)

var (
	nonce = []byte("nonce of sixteen")
	now   = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
)

// passes are checks that find nothing.
func passes(inv device.Inventory) (all []device.Finding) {
	for _, k := range inv.Keys {
		all = append(all, device.Finding{Check: "roca", Key: k.ID, Status: device.Pass})
	}
	return all
}

// noVet finds nothing wrong with any endorsement key.
func noVet(crypto.PublicKey) error { return nil }

// recordedEK is the digest of the EK in the certificate of the recorded report.
func recordedEK(t testing.TB) string {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(recorded(t).EKCertificate)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := ekInCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// recorded is the evidence of a report that a TPM signed.
func recorded(t testing.TB) *device.Evidence {
	t.Helper()
	var r device.Report
	if err := json.Unmarshal(report, &r); err != nil {
		t.Fatal(err)
	}
	return r.Evidence
}

func roots(t testing.TB) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for rest := caPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, cert)
	}
}

// held is the level of that name in a result.
func held(t *testing.T, r *Result, name string) Level {
	t.Helper()
	i := slices.IndexFunc(r.Levels, func(l Level) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("no level %s", name)
	}
	return r.Levels[i]
}

func TestVerify(t *testing.T) {
	digest, err := device.Digest(report)
	if err != nil {
		t.Fatal(err)
	}
	s, err := VerifyDigest(recorded(t), digest)
	if err != nil {
		t.Fatal(err)
	}
	// What swtpm 0.7.1 with libtpms 0.9 is, and what was asked for.
	if s.FirmwareVersion>>32 != 0x20191023 || s.Clock == 0 || s.ResetCount == 0 || len(s.PCRs) != 8 || len(s.AKName) != 34 {
		t.Errorf("%+v", s)
	}
	pair := Activated{s.AKName, recordedEK(t)}
	for _, tt := range []struct {
		name    string
		policy  Policy
		verdict device.Status
		level   string
		status  device.Status
		reason  string
	}{
		{name: "all", policy: Policy{Nonce: nonce, EKRoots: roots(t), Activated: pair}, verdict: device.Pass, level: LevelFreshness, status: device.Pass, reason: "carries the nonce"},
		{name: "no challenge", policy: Policy{Nonce: nonce, EKRoots: roots(t)}, verdict: device.Undecided, level: LevelSameTPM, status: device.Undecided, reason: "a report alone cannot show"},
		{name: "no challenge, no roots", policy: Policy{Nonce: nonce}, verdict: device.Warn, level: LevelSameTPM, status: device.Warn, reason: "a report alone cannot show"},
		{name: "another AK answered", policy: Policy{Nonce: nonce, EKRoots: roots(t), Activated: Activated{[]byte("other"), pair.EKSPKISHA256}}, verdict: device.Fail, level: LevelSameTPM, status: device.Fail, reason: "another attestation key"},
		{name: "no nonce", policy: Policy{EKRoots: roots(t), Activated: pair}, verdict: device.Warn, level: LevelFreshness, status: device.Warn, reason: "only a nonce shows"},
		{name: "another nonce", policy: Policy{Nonce: []byte("other"), EKRoots: roots(t)}, verdict: device.Fail, level: LevelFreshness, status: device.Fail, reason: "another nonce"},
		{name: "no roots", policy: Policy{Nonce: nonce, Activated: pair}, verdict: device.Warn, level: LevelEKCertificate, status: device.Warn, reason: "no roots are given"},
		{name: "the issuer alone", policy: Policy{Nonce: nonce, EKRoots: roots(t)[:1], Activated: pair}, verdict: device.Pass, level: LevelEKCertificate, status: device.Pass, reason: "leads to the given root CN=swtpm-localca"},
		{name: "without the issuer", policy: Policy{Nonce: nonce, EKRoots: roots(t)[1:], Activated: pair}, verdict: device.Fail, level: LevelEKCertificate, status: device.Fail, reason: "does not lead to a given root"},
	} {
		tt.policy.Now, tt.policy.Check = now, passes
		r := Verify(report, tt.policy)
		if l := held(t, r, tt.level); r.Verdict != tt.verdict || l.Status != tt.status || !strings.Contains(l.Reason, tt.reason) {
			t.Errorf("%s: %v %+v", tt.name, r.Verdict, r.Levels)
		}
	}
	ahead := Verify(report, Policy{Check: passes})
	if l := held(t, ahead, LevelFreshness); !strings.Contains(l.Reason, "ahead") {
		t.Errorf("a report of the future: %+v", l)
	}
}

// forgery is evidence that a key in software signs as a TPM with that key would.
type forgery struct {
	area    tpm2.TPMTPublic
	attest  tpm2.TPMSAttest
	report  *device.Report
	parent  []byte           // the name of the attestation key's, nil for a primary key
	certify *tpm2.TPMSAttest // of the key in evidence.DeviceKey.Public
	signed  []byte           // in the place of attest, if not nil
}

// child makes the attestation key a child of the key of that name.
func (f *forgery) child(parent []byte) {
	f.report.Evidence.AKParent, f.parent = b64(parent), parent
}

const allZero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" // one PCR

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// forge makes a report that passes, and its evidence, with changes.
func forge(t testing.TB, change func(*forgery)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	zero := sha256.Sum256(make([]byte, 32))
	f := &forgery{
		area: tpm2.TPMTPublic{
			Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, Restricted: true, SignEncrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
				Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
				CurveID: tpm2.TPMECCNistP256,
			}),
			Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}}),
		},
		attest: tpm2.TPMSAttest{
			Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, FirmwareVersion: 0x00070055_0011cb02,
			Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
				PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{1, 0, 0}}}},
				PCRDigest: tpm2.TPM2BDigest{Buffer: zero[:]},
			}),
		},
		report: device.NewReport(device.Inventory{
			TPM:  &device.TPM{Family: "2.0", Manufacturer: "IFX", FirmwareVersion: "7.85.4555.2", State: device.TPMOK},
			Keys: []device.Key{{ID: "tpm-ak", Role: device.RoleAK, SPKI: spki}}, ReadAt: now,
		}, []device.Finding{{Key: "tpm-ak", Status: device.Pass}}),
	}
	f.report.Evidence = &device.Evidence{Level: device.EvidenceSelfAsserted, PCRValues: allZero}
	change(f)
	sign := func(a *tpm2.TPMSAttest, digest [32]byte, public []byte) (signed, signature string) {
		if a.ExtraData.Buffer == nil {
			var certificates [][]byte
			for _, text := range append([]string{f.report.Evidence.EKCertificate}, f.report.Evidence.EKIssuers...) {
				der, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				certificates = append(certificates, der)
			}
			log, err := base64.StdEncoding.DecodeString(f.report.Evidence.BootLog)
			if err != nil {
				t.Fatal(err)
			}
			q := QualifyingData(digest, nil, log, certificates...)
			a.ExtraData.Buffer = q[:]
		}
		if a.QualifiedSigner.Buffer == nil {
			a.QualifiedSigner.Buffer = qualifiedName(nameOf(public))
			if f.parent != nil {
				a.QualifiedSigner.Buffer = qualifiedName(f.parent, nameOf(public))
			}
		}
		b := tpm2.Marshal(*a)
		if a == &f.attest && f.signed != nil {
			b = f.signed
		}
		sum := sha256.Sum256(b)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return b64(b), b64(tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
		})}))
	}
	bare := *f.report
	bare.Evidence = nil
	digest, err := device.Digest(bare.Encode())
	if err != nil {
		t.Fatal(err)
	}
	public := tpm2.Marshal(f.area)
	e := f.report.Evidence
	e.AKPublic = b64(public)
	e.Quote, e.Signature = sign(&f.attest, digest, public)
	if f.certify != nil {
		e.DeviceKey.Attest, e.DeviceKey.Signature = sign(f.certify, digest, public)
	}
	encoded := f.report.Encode()
	return encoded
}

// certificate issues a certificate by a CA that signs with that key.
func certificate(t testing.TB, change func(*x509.Certificate)) (cert, root *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(template, issuer *x509.Certificate) *x509.Certificate {
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, IsCA: true, BasicConstraintsValid: true}
	root = issue(template, template)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(0x4711), UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEKCertificate}}
	change(leaf)
	return issue(leaf, root), root
}

// rsaCertificate is an EK certificate on an RSA key, of that key usage.
func rsaCertificate(t testing.TB, usage x509.KeyUsage) *x509.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), KeyUsage: usage, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEKCertificate},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// show has a report list an EK certificate and its evidence carry it.
func (f *forgery) show(cert *x509.Certificate) {
	sum := sha256.Sum256(cert.Raw)
	f.report.Keys = append(f.report.Keys, device.KeyReport{
		ID: "tpm-ek", Role: device.RoleEK, Status: device.Pass, Certificate: &device.Certificate{SHA256: hex.EncodeToString(sum[:])},
	})
	f.report.Evidence.Level, f.report.Evidence.EKCertificate = device.EvidenceCertified, b64(cert.Raw)
}

// Good signatures, over what must not count and over what must.
func TestVerifyForged(t *testing.T) {
	ek, maker := certificate(t, func(*x509.Certificate) {})
	unlisted, _ := certificate(t, func(*x509.Certificate) {})
	noUsage, noUsageMaker := certificate(t, func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil })
	forTLS, _ := certificate(t, func(c *x509.Certificate) {
		c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	noUse, _ := certificate(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature })
	rsaSigns, rsaEnciphers := rsaCertificate(t, x509.KeyUsageDigitalSignature), rsaCertificate(t, x509.KeyUsageKeyEncipherment)
	agreement, _ := certificate(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	ofSTM, _ := certificate(t, func(c *x509.Certificate) { c.ExtraExtensions = madeBy(t, "id:53544D20") })
	ofIFX, ofIFXMaker := certificate(t, func(c *x509.Certificate) { c.ExtraExtensions = madeBy(t, "id:49465800") })
	ofNobody, _ := certificate(t, func(c *x509.Certificate) { c.ExtraExtensions = madeBy(t, "id:4946") })
	forAK, _ := certificate(t, func(c *x509.Certificate) { c.UnknownExtKeyUsage[0] = asn1.ObjectIdentifier{2, 23, 133, 8, 3} })
	isCA, _ := certificate(t, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
	unparsable := &x509.Certificate{Raw: bytes.Replace(ek.Raw, []byte("Z"), []byte("?"), 1)} // its validity
	known := Policy{Now: now, Check: passes, EKRoots: []*x509.Certificate{maker}}
	none := Policy{Now: now, Check: passes}

	certify := func(f *forgery, info *tpm2.TPMSCertifyInfo) {
		public := tpm2.Marshal(f.area) // itself
		f.report.Evidence.DeviceKey = &device.CertifiedKey{Public: b64(public)}
		if info == nil {
			info = &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: nameOf(public)}}
		}
		f.certify = &tpm2.TPMSAttest{Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, info)}
		listed := f.report.Keys[0]
		listed.ID, listed.Role = "device", device.RoleDevice
		f.report.Keys = append(f.report.Keys, listed)
	}
	certifyArea := func(f *forgery, change func(*tpm2.TPMTPublic)) {
		area := f.area
		change(&area)
		public := tpm2.Marshal(area)
		certify(f, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: nameOf(public)}})
		f.report.Evidence.DeviceKey.Public = b64(public)
	}
	params := func(f *forgery, curve tpm2.TPMECCCurve, scheme tpm2.TPMAlgID) {
		var details tpm2.TPMUAsymScheme
		if scheme == tpm2.TPMAlgECDSA {
			details = tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})
		}
		f.area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{Scheme: scheme, Details: details}, CurveID: curve,
		})
	}
	ofTPM := []string{LevelAttestationKey, LevelHierarchy, LevelPCRs, LevelFirmware, LevelDeviceKey}
	for _, tt := range []struct {
		name   string
		change func(*forgery)
		policy Policy
		level  string
		status device.Status
		reason string
	}{
		{"the unchanged sample", func(*forgery) {}, none, LevelReport, device.Pass, "over this report"},
		{"not restricted", func(f *forgery) { f.area.ObjectAttributes.Restricted = false }, none, LevelAttestationKey, device.Fail, "not a restricted signing key"},
		{"not for signing", func(f *forgery) { f.area.ObjectAttributes.SignEncrypt = false }, none, LevelAttestationKey, device.Fail, "not a restricted signing key"},
		{"for decryption too", func(f *forgery) { f.area.ObjectAttributes.Decrypt = true }, none, LevelAttestationKey, device.Fail, "not a restricted signing key"},
		{"not fixed to its TPM", func(f *forgery) { f.area.ObjectAttributes.FixedTPM = false }, none, LevelAttestationKey, device.Fail, "stays there"},
		{"not fixed to its parent", func(f *forgery) { f.area.ObjectAttributes.FixedParent = false }, none, LevelAttestationKey, device.Fail, "stays there"},
		{"made elsewhere", func(f *forgery) { f.area.ObjectAttributes.SensitiveDataOrigin = false }, none, LevelAttestationKey, device.Fail, "made in its TPM"},
		{"named by another hash", func(f *forgery) { f.area.NameAlg = tpm2.TPMAlgSHA384 }, none, LevelAttestationKey, device.Fail, "not a key named by SHA-256"},
		{"an RSA key", func(f *forgery) {
			f.area.Type = tpm2.TPMAlgRSA
			f.area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048})
			f.area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)})
		}, none, LevelAttestationKey, device.Fail, "not an RSASSA key"},
		{"a secret key", func(f *forgery) {
			f.area.Type = tpm2.TPMAlgKeyedHash
			f.area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull}})
			f.area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: make([]byte, 32)})
		}, none, LevelAttestationKey, device.Fail, "neither an ECC nor an RSA key"},
		{"another curve", func(f *forgery) { params(f, tpm2.TPMECCNistP384, tpm2.TPMAlgECDSA) }, none, LevelAttestationKey, device.Fail, "not an ECDSA P-256 key"},
		{"another scheme", func(f *forgery) { params(f, tpm2.TPMECCNistP256, tpm2.TPMAlgNull) }, none, LevelAttestationKey, device.Fail, "not an ECDSA P-256 key"},
		{"a point too long", func(f *forgery) {
			f.area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 33)}})
		}, none, LevelAttestationKey, device.Fail, "not a point of P-256"},
		{"no statement", func(f *forgery) { f.signed = []byte("\xffTCG\x80\x18") }, none, LevelSignature, device.Fail, "cannot be read"},
		{"too short a statement", func(f *forgery) { f.signed = []byte("\xffTC") }, none, LevelSignature, device.Fail, "not made by a TPM"},
		{"not of a TPM", func(f *forgery) { f.attest.Magic++ }, none, LevelSignature, device.Fail, "not made by a TPM"},
		{"another kind", func(f *forgery) {
			f.attest.Type, f.attest.Attested = tpm2.TPMSTAttestTime, tpm2.NewTPMUAttest(tpm2.TPMSTAttestTime, &tpm2.TPMSTimeAttestInfo{})
		}, none, LevelSignature, device.Fail, "another kind"},
		{"a child", func(f *forgery) { f.child(nameOf([]byte("parent"))) }, none, LevelHierarchy, device.Pass, "under a primary key of the endorsement hierarchy"},
		{"the child of another", func(f *forgery) {
			f.child(nameOf([]byte("parent")))
			f.report.Evidence.AKParent = b64(nameOf([]byte("other")))
		}, none, LevelHierarchy, device.Fail, "not the child of a primary key of that name"},
		{"the child of half a name", func(f *forgery) { f.child([]byte("p")) }, none, LevelHierarchy, device.Fail, "not the child of a primary key of that name"},
		{"the child of no key", func(f *forgery) { f.child([]byte("parent")) }, none, LevelHierarchy, device.Fail, "not the child of a primary key of that name"},
		{"a primary key that names a parent", func(f *forgery) { f.report.Evidence.AKParent = b64(nameOf([]byte("parent"))) }, none, LevelHierarchy, device.Fail, "not the child of a primary key of that name"},
		{"a child that names no parent", func(f *forgery) {
			f.child(nameOf([]byte("parent")))
			f.report.Evidence.AKParent = ""
		}, none, LevelHierarchy, device.Fail, "not a primary key of the endorsement hierarchy"},
		{"another hierarchy", func(f *forgery) { f.attest.QualifiedSigner.Buffer = make([]byte, 34) }, none, LevelHierarchy, device.Fail, "not a primary key of the endorsement hierarchy"},
		{"other data", func(f *forgery) { f.attest.ExtraData.Buffer = make([]byte, 32) }, none, LevelReport, device.Fail, "another report"},
		{"an unlisted AK", func(f *forgery) { f.report.Keys[0].SPKISHA256 = "00" }, none, LevelReport, device.Fail, "another TPM's"},
		{"an AK listed as another key", func(f *forgery) {
			listed := f.report.Keys[0]
			listed.ID, listed.Role = "file", device.RoleFile
			f.report.Keys[0].SPKISHA256 = "00"
			f.report.Keys = append(f.report.Keys, listed)
		}, none, LevelReport, device.Fail, "another TPM's"},
		{"no AK listed", func(f *forgery) { f.report.Keys[0].Role = device.RoleFile }, none, LevelReport, device.Pass, "over this report"},
		{"other PCR values", func(f *forgery) { f.report.Evidence.PCRValues = "B" + allZero[1:] }, none, LevelPCRs, device.Fail, "not those that the TPM signed"},
		{"no PCR values", func(f *forgery) { f.report.Evidence.PCRValues = "" }, none, LevelPCRs, device.Fail, "fewer values"},
		{"more PCR values", func(f *forgery) { f.report.Evidence.PCRValues = b64(make([]byte, 64)) }, none, LevelPCRs, device.Fail, "more values"},
		{"no PCRs", func(f *forgery) {
			f.report.Evidence.PCRValues = ""
			f.attest.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{})
		}, none, LevelPCRs, device.NotApplicable, "no PCR is quoted"},
		{"values of no PCR", func(f *forgery) {
			f.attest.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{})
		}, none, LevelPCRs, device.Fail, "more values"},
		{"an unknown bank", func(f *forgery) {
			f.attest.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: 0x99}}}})
		}, none, LevelPCRs, device.Fail, "unknown hash"},
		{"another firmware", func(f *forgery) { f.attest.FirmwareVersion++ }, none, LevelFirmware, device.Fail, "states 7.85.4555.2, the TPM signed 7.85.4555.3"},
		{"another maker's rule", func(f *forgery) { f.report.TPM.Manufacturer = "NTC" }, none, LevelFirmware, device.Fail, "the TPM signed"},
		{"no firmware", func(f *forgery) { f.report.TPM.FirmwareVersion = "" }, none, LevelFirmware, device.Undecided, "does not state"},
		{"no TPM", func(f *forgery) { f.report.TPM = nil }, none, LevelFirmware, device.Undecided, "does not state"},
		{"a level too high", func(f *forgery) { f.report.Evidence.Level = device.EvidenceCertified }, none, LevelSchema, device.Fail, `makes it "self-asserted"`},
		{"a level too low", func(f *forgery) { f.show(ek); f.report.Evidence.Level = device.EvidenceSelfAsserted }, none, LevelSchema, device.Fail, `makes it "ek-certificate"`},
		{"issuers alone", func(f *forgery) { f.report.Evidence.EKIssuers = []string{"AAAA"} }, none, LevelSchema, device.Fail, "without ekCertificate"},
		{"too many issuers", func(f *forgery) { f.show(ek); f.report.Evidence.EKIssuers = make([]string, MaxIssuers+1) }, none, LevelSchema, device.Fail, "more than 8"},
		{"an empty issuer", func(f *forgery) { f.show(ek); f.report.Evidence.EKIssuers = []string{""} }, none, LevelSchema, device.Fail, "ekIssuers is missing"},
		{"too large", func(f *forgery) { f.report.Evidence.PCRValues = strings.Repeat("A", maxField+4) }, none, LevelSchema, device.Fail, "too large"},
		{"a long nonce", func(f *forgery) { f.report.Evidence.Nonce = b64(make([]byte, MaxNonce+1)) }, none, LevelSchema, device.Fail, "nonce of 65 bytes"},
		{"a nonce not signed", func(f *forgery) { f.report.Evidence.Nonce = b64(nonce) }, Policy{Now: now, Check: passes, Nonce: nonce}, LevelReport, device.Fail, "nonce"},
		{"no nonce", func(*forgery) {}, Policy{Now: now, Check: passes, Nonce: nonce}, LevelFreshness, device.Fail, "carries no nonce"},
		{"not base64", func(f *forgery) { f.report.Evidence.PCRValues = "!" }, none, LevelSchema, device.Fail, "pcrValues: illegal base64"},
		{"line breaks", func(f *forgery) { f.report.Evidence.PCRValues = allZero + "\n" }, none, LevelSchema, device.Fail, "not the base64"},
		{"left-over bits", func(f *forgery) { f.report.Evidence.PCRValues = allZero[:len(allZero)-2] + "B=" }, none, LevelSchema, device.Fail, "not the base64"},
		{"no evidence", func(f *forgery) { *f.report.Evidence = device.Evidence{} }, none, LevelSchema, device.Fail, `level ""`},

		{"a known maker", func(f *forgery) { f.show(ek) }, known, LevelEKCertificate, device.Pass, "leads to the given root CN=maker"},
		{"no EK certificate, none asked", func(*forgery) {}, none, LevelEKCertificate, device.Warn, "no maker vouches"},
		{"no EK certificate", func(*forgery) {}, known, LevelEKCertificate, device.Undecided, "no maker vouches"},
		{"unparsable, none asked", func(f *forgery) { f.show(unparsable) }, none, LevelEKCertificate, device.Warn, "cannot be read"},
		{"unparsable", func(f *forgery) { f.show(unparsable) }, known, LevelEKCertificate, device.Undecided, "cannot be read"},
		{"not listed", func(f *forgery) { f.show(ek); f.report.Evidence.EKCertificate = b64(unlisted.Raw) }, none, LevelEKCertificate, device.Fail, "not one that the report lists"},
		{"cut from the list", func(f *forgery) {
			f.show(ek)
			f.report.Keys, f.report.Cut = f.report.Keys[:1], device.Cuts{{Status: device.Pass, N: 1}}
		}, known, LevelEKCertificate, device.Fail, "not one that the report lists"},
		{"no usage", func(f *forgery) { f.show(noUsage) }, Policy{Now: now, Check: passes, EKRoots: []*x509.Certificate{noUsageMaker}}, LevelEKCertificate, device.Warn, "no extended key usage"},
		{"key usage of another kind", func(f *forgery) { f.show(noUse) }, none, LevelEKCertificate, device.Fail, "key usage does not allow key agreement"},
		{"key usage of another kind, RSA", func(f *forgery) { f.show(rsaSigns) }, none, LevelEKCertificate, device.Fail, "key usage does not allow key encipherment"},
		{"key encipherment", func(f *forgery) { f.show(rsaEnciphers) }, none, LevelEKCertificate, device.Warn, "no roots"},
		{"key agreement", func(f *forgery) { f.show(agreement) }, none, LevelEKCertificate, device.Warn, "no roots"},
		{"another maker by its name", func(f *forgery) { f.show(ofSTM) }, none, LevelEKCertificate, device.Fail, "says that IFX made the TPM, the EK certificate says STM"},
		{"the maker by its name", func(f *forgery) { f.show(ofIFX) }, Policy{Now: now, Check: passes, EKRoots: []*x509.Certificate{ofIFXMaker}}, LevelEKCertificate, device.Pass, "leads to"},
		{"a maker's name that is none", func(f *forgery) { f.show(ofNobody) }, none, LevelEKCertificate, device.Warn, "not the id of a TPM manufacturer"},
		{"for TLS", func(f *forgery) { f.show(forTLS) }, none, LevelEKCertificate, device.Fail, "not for an EK"},
		{"for an AK", func(f *forgery) { f.show(forAK) }, none, LevelEKCertificate, device.Fail, "not for an EK"},
		{"a CA", func(f *forgery) { f.show(isCA) }, none, LevelEKCertificate, device.Fail, "is one of a CA"},
		{"another maker", func(f *forgery) { f.show(noUsage) }, known, LevelEKCertificate, device.Fail, "by CN=maker does not verify"},
		{"expired", func(f *forgery) { f.show(ek) }, Policy{Check: passes, Now: now.Add(2 * time.Hour), EKRoots: known.EKRoots}, LevelEKCertificate, device.Warn, "the certificate expired on 2026-12-01T01:00:00Z"},
		{"issuers that lead nowhere", func(f *forgery) {
			f.show(ek)
			f.report.Evidence.EKIssuers = []string{b64([]byte("rubbish")), b64(isCA.Raw)}
		}, known, LevelEKCertificate, device.Pass, "leads to"},

		{"a certified key", func(f *forgery) { certify(f, nil) }, none, LevelDeviceKey, device.Pass, "made in the TPM"},
		{"no device key", func(*forgery) {}, none, LevelDeviceKey, device.NotApplicable, "lists no device key"},
		{"a device key that is not certified", func(f *forgery) { hide(f, device.RoleDevice) }, none, LevelDeviceKey, device.Warn, "not certified"},
		{"another device key is listed", func(f *forgery) { certify(f, nil); f.report.Keys[1].SPKISHA256 = "00" }, none, LevelDeviceKey, device.Fail, "not the device's key that the report lists"},
		{"a certified key that is not listed", func(f *forgery) { certify(f, nil); f.report.Keys = f.report.Keys[:1] }, none, LevelDeviceKey, device.Warn, "lists no device key"},
		{"a certified key that may leave", func(f *forgery) {
			certifyArea(f, func(a *tpm2.TPMTPublic) { a.ObjectAttributes.FixedTPM = false })
		}, none, LevelDeviceKey, device.Warn, "may leave it"},
		{"a certified key that was made elsewhere", func(f *forgery) {
			certifyArea(f, func(a *tpm2.TPMTPublic) { a.ObjectAttributes.SensitiveDataOrigin = false })
		}, none, LevelDeviceKey, device.Warn, "made elsewhere"},
		{"a certified key that is no point", func(f *forgery) {
			certifyArea(f, func(a *tpm2.TPMTPublic) {
				a.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: []byte{1}}, Y: tpm2.TPM2BECCParameter{Buffer: []byte{1}}})
			})
		}, none, LevelDeviceKey, device.Fail, "point"},
		{"named by no hash", func(f *forgery) {
			certifyArea(f, func(a *tpm2.TPMTPublic) { a.NameAlg = tpm2.TPMAlgNull })
		}, none, LevelDeviceKey, device.Fail, "hash"},
		{"another key is certified", func(f *forgery) { certify(f, &tpm2.TPMSCertifyInfo{}) }, none, LevelDeviceKey, device.Fail, "certified another key"},
		{"certified for another report", func(f *forgery) { certify(f, nil); f.certify.ExtraData.Buffer = make([]byte, 32) }, none, LevelDeviceKey, device.Fail, "made for another report"},
		{"a quote for a certification", func(f *forgery) { certify(f, nil); c := f.attest; f.certify = &c }, none, LevelDeviceKey, device.Fail, "another kind"},
		{"no key that can be read", func(f *forgery) { certify(f, nil); f.report.Evidence.DeviceKey.Public = "AAAA" }, none, LevelDeviceKey, device.Fail, ""},
		{"named by SHA-1", func(f *forgery) {
			certify(f, nil)
			area := f.area
			area.NameAlg = tpm2.TPMAlgSHA1
			public := tpm2.Marshal(area)
			name := sha1.Sum(public)
			f.report.Evidence.DeviceKey.Public = b64(public)
			f.certify.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: append([]byte{0, 4}, name[:]...)}})
		}, none, LevelDeviceKey, device.Fail, "named by SHA-1"},
		{"no certification", func(f *forgery) { f.report.Evidence.DeviceKey = &device.CertifiedKey{Public: "AAAA"} }, none, LevelSchema, device.Fail, "deviceKey.attest is missing"},
	} {
		r := Verify(forge(t, tt.change), tt.policy)
		if tt.status == device.Pass && slices.Contains(ofTPM, tt.level) { // no TPM is shown
			tt.status = device.Warn
		}
		if l := held(t, r, tt.level); l.Status != tt.status || !strings.Contains(l.Reason, tt.reason) {
			t.Errorf("%s: %+v", tt.name, r.Levels)
		}
		if r.Levels[2].Status != device.Pass && r.Statement != nil {
			t.Errorf("%s: a statement that nobody signed", tt.name)
		}
	}
}

// A failing device is not passed on the strength of its evidence.
func TestVerdictOfTheReportCounts(t *testing.T) {
	for status, want := range map[device.Status]device.Status{device.Fail: device.Fail, device.Undecided: device.Undecided, device.Warn: device.Warn} {
		r := Verify(forge(t, func(f *forgery) {
			f.report.Findings = []device.Finding{{Check: "roca", Key: "tpm-ak", Status: status, ReasonCode: device.ReasonROCA}}
		}), Policy{Now: now, Check: passes})
		if r.Evidence != device.Warn || r.Verdict != want || r.Report.Verdict != want || !slices.Equal(r.Report.ReasonCodes, []string{device.ReasonROCA}) {
			t.Errorf("%v: %+v", status, r)
		}
	}
}

// Other spellings of the same JSON, and what is no report.
func TestVerifySpelling(t *testing.T) {
	reasons := map[string]string{"nothing": "not a JSON object", "a list": "not a JSON object", "no report": "cannot unmarshal number"}
	for name, changed := range map[string][]byte{
		"a space":            bytes.Replace(report, []byte(`,"evidence":{`), []byte(`,"evidence": {`), 1),
		"a space before":     bytes.Replace(report, []byte(`,"evidence":{`), []byte(` ,"evidence":{`), 1),
		"upper case":         bytes.Replace(report, []byte(`"akPublic"`), []byte(`"AKPublic"`), 1),
		"an unknown member":  bytes.Replace(report, []byte(`"evidence":{`), []byte(`"evidence":{"x":1,`), 1),
		"an escape":          bytes.Replace(report, []byte(`"akPublic"`), []byte(`"\u0061kPublic"`), 1),
		"twice":              bytes.Replace(report, []byte(`"akPublic"`), []byte(`"akPublic":"","akPublic"`), 1),
		"evidence elsewhere": bytes.Replace(report, []byte(`"gaps":`), []byte(`"Evidence":{},"gaps":`), 1),
		"a line break":       append(bytes.Clone(report), '\n'),
		"no evidence":        append(bytes.Clone(report[:bytes.Index(report, []byte(`,"evidence"`))]), '}'),
		"another schema":     bytes.Replace(report, []byte("keyvet.report/1"), []byte("keyvet.report/2"), 1),
		"nothing":            nil,
		"a list":             []byte("[]"),
		"no report":          bytes.Replace(report, []byte(`"keys":[`), []byte(`"keys":[1,`), 1),
		"too large":          append(bytes.Clone(report), bytes.Repeat([]byte(" "), device.MaxReportBytes)...),
	} {
		r := Verify(changed, Policy{Now: now, Check: passes})
		want := device.Fail
		if name == "another schema" {
			want = device.Undecided
		}
		if r.Verdict != want {
			t.Errorf("%s: %+v", name, r.Levels)
		}
		if reason := reasons[name]; !strings.Contains(r.Levels[0].Reason, reason) {
			t.Errorf("%s: %s", name, r.Levels[0].Reason)
		}
		if tooLarge := strings.HasPrefix(r.Levels[0].Reason, "more than"); tooLarge != (name == "too large") {
			t.Errorf("%s: %s", name, r.Levels[0].Reason)
		}
		if r.Levels[0].Status != device.Fail {
			continue // then the signature is over something else
		}
		for _, l := range r.Levels[1:] {
			if l.Name == LevelConsistency || l.Name == LevelKeys {
				continue
			}
			if l.Status != device.Undecided || !strings.HasPrefix(l.Reason, "skipped: depends on") {
				t.Errorf("%s: %+v", name, l)
			}
		}
	}
	// What the device signed counts, not what it means.
	changed := bytes.Replace(report, []byte(`"verdict":"PASS"`), []byte(`"verdict":"WARN"`), 1)
	if r := Verify(changed, Policy{Now: now, Check: passes}); bytes.Equal(changed, report) || held(t, r, LevelReport).Status != device.Fail {
		t.Errorf("a changed verdict: %+v", r.Levels)
	}
}

func TestVerifyDigestErrors(t *testing.T) {
	digest, err := device.Digest(report)
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(e *device.Evidence, digest *[32]byte){
		"akPublic is missing":                                          func(e *device.Evidence, _ *[32]byte) { e.AKPublic = "" },
		"attestation-key: ":                                            func(e *device.Evidence, _ *[32]byte) { e.AKPublic = "AAAA" },
		"signature: the signature cannot be read":                      func(e *device.Evidence, _ *[32]byte) { e.Signature = "AAAA" },
		"signature: something follows the signature":                   func(e *device.Evidence, _ *[32]byte) { e.Signature = longer(t, e.Signature) },
		"signature: the signature does not verify":                     func(e *device.Evidence, _ *[32]byte) { e.Quote = longer(t, e.Quote) },
		"hierarchy: ":                                                  func(e *device.Evidence, _ *[32]byte) { e.AKPublic = longer(t, e.AKPublic) },
		"device-key: the TPM certified another key":                    func(e *device.Evidence, _ *[32]byte) { e.DeviceKey.Public = longer(t, e.DeviceKey.Public) },
		"report: the quote is over another report":                     func(_ *device.Evidence, digest *[32]byte) { digest[0]++ },
		"pcrs: the values are not":                                     func(e *device.Evidence, _ *[32]byte) { e.PCRValues = "B" + e.PCRValues[1:] },
		"signature: the signature is not ECDSA with SHA-256":           func(e *device.Evidence, _ *[32]byte) { e.Signature = otherHash(t, e.Signature) },
		"device-key: the signature does not verify by the attestation": func(e *device.Evidence, _ *[32]byte) { e.DeviceKey.Signature = e.Signature },
	} {
		e, d := recorded(t), digest
		if _, err := VerifyDigest(e, d); err != nil {
			t.Fatal(err)
		}
		change(e, &d)
		if _, err := VerifyDigest(e, d); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	e := recorded(t)
	e.DeviceKey = nil
	if _, err := VerifyDigest(e, digest); err != nil {
		t.Errorf("without a device key: %v", err)
	}
}

// otherHash is a signature that says to be over another hash than it is.
func otherHash(t *testing.T, text string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(tpm2.TPMAlgSHA384))
	return b64(b)
}

// longer is base64 with a zero byte more in it.
func longer(t *testing.T, text string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b64(append(b, 0))
}

func TestNewChallengeRefuses(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := make([]byte, 34)
	for want, try := range map[string]func() (*Challenge, Expected, error){
		"unknown curve":               func() (*Challenge, Expected, error) { return NewChallenge(&p224.PublicKey, name, noVet) },
		"an EK of type":               func() (*Challenge, Expected, error) { return NewChallenge(x25519.PublicKey(), name, noVet) },
		"unsupported public key type": func() (*Challenge, Expected, error) { return NewChallenge(nil, name, noVet) },
		"not the name":                func() (*Challenge, Expected, error) { return NewChallenge(&p256.PublicKey, name[:33], noVet) },
		"challenge": func() (*Challenge, Expected, error) {
			return NewChallenge(&rsa.PublicKey{N: new(big.Int), E: 3}, name, noVet)
		},
	} {
		if c, expected, err := try(); err == nil || c != nil || expected.Secret != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(report)
	f.Add(forge(f, func(*forgery) {}))
	f.Add([]byte(`{"schema":"keyvet.report/1","evidence":{}}`))
	policy := Policy{Now: now, Check: passes, EKRoots: roots(f), Activated: Activated{recordedAK(f), recordedEK(f)}}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Verify(b, policy)
		if _, err := json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		if len(r.Levels) != len(levels) || r.Verdict.Opens() && held(t, r, LevelEKCertificate).Status == device.Pass && !bytes.Equal(b, report) {
			t.Fatalf("%+v", r.Levels)
		}
	})
}

// FuzzAttestation looks at the parsers beyond the signature, too.
func FuzzAttestation(f *testing.F) {
	e := recorded(f)
	digest, err := device.Digest(report)
	if err != nil {
		f.Fatal(err)
	}
	d, err := decode(e)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.akPublic, d.quote, d.signature, d.pcrValues)
	f.Add(d.deviceKey.public, d.deviceKey.attest, d.deviceKey.signature, []byte{})
	f.Add([]byte{}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, public, attest, signature, values []byte) {
		VerifyDigest(&device.Evidence{AKPublic: b64(public), Quote: b64(attest), Signature: b64(signature), Level: device.EvidenceSelfAsserted}, digest)
		attestationKey(public)
		if a, err := parseAttest(attest); err == nil {
			if info, err := a.Attested.Quote(); err == nil {
				readPCRs(info, values)
			}
		}
		if a, err := parseAttest(attest); err == nil {
			if key, _, _, err := certifiedKey(a, public); err == nil {
				x509.MarshalPKIXPublicKey(key)
			}
		}
	})
}

// A report with other evidence is the same but for that.
func TestReplace(t *testing.T) {
	e := recorded(t)
	if same, err := Replace(report, e); err != nil || !bytes.Equal(same, report) {
		t.Errorf("%s, %v", same, err)
	}
	e.Nonce = b64([]byte("another"))
	changed, err := Replace(report, e)
	if err != nil {
		t.Fatal(err)
	}
	before, err := device.Digest(report)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := device.Digest(changed); err != nil || after != before || !canonical(e, changed) {
		t.Errorf("%s, %v", changed, err)
	}
	bare := []byte(`{"schema":"keyvet.report/1"}`)
	for name, bad := range map[string][]byte{"no report": []byte("x"), "no evidence": bare, "spaced": append(bytes.Clone(report), ' ')} {
		if got, err := Replace(bad, e); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// FuzzChallenge makes challenges to keys that certificates may hold.
func FuzzChallenge(f *testing.F) {
	name := append([]byte{0, 0x0b}, make([]byte, 32)...)
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(spki, name)
	}
	ca := roots(f)[0]
	f.Add(ca.RawSubjectPublicKeyInfo, name)
	f.Add(ca.RawSubjectPublicKeyInfo, name[:33])
	f.Fuzz(func(t *testing.T, spki, name []byte) {
		key, err := x509.ParsePKIXPublicKey(spki)
		if err != nil {
			return
		}
		if c, e, err := NewChallenge(key, name, noVet); err == nil && (len(e.Secret) != 32 || len(c.CredentialBlob) == 0 || len(c.Secret) == 0) || err != nil && (c != nil || e.Secret != nil) {
			t.Fatalf("%+v, %+v, %v", c, e, err)
		}
	})
}
