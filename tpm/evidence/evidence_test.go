package evidence

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/keyvet/keyvet/device"
)

//go:embed testdata/report.json
var report []byte

// recorded is the evidence of a report that a TPM signed.
func recorded(t testing.TB) *device.Evidence {
	t.Helper()
	var r device.Report
	if err := json.Unmarshal(report, &r); err != nil {
		t.Fatal(err)
	}
	return r.Evidence
}

func TestVerify(t *testing.T) {
	e := recorded(t)
	s, err := Verify(e, report)
	if err != nil {
		t.Fatal(err)
	}
	// What swtpm 0.7.1 with libtpms 0.9 is, and what was asked for.
	if s.FirmwareVersion>>32 != 0x20191023 || s.Clock == 0 || s.ResetCount == 0 ||
		len(s.PCRs) != 1 || s.PCRs[0].Hash != 0x000b || !bytes.Equal(s.PCRs[0].Select, []byte{0xff, 0, 0}) || len(s.PCRDigest) != 32 {
		t.Errorf("%+v", s)
	}
	spki, err := x509.MarshalPKIXPublicKey(s.AK)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(report, []byte(`"id":"tpm-ak"`)) || !bytes.Contains(report, []byte(base64.StdEncoding.EncodeToString(spki))) {
		t.Error("the key is not the one that the report lists")
	}
	if _, err := x509.ParseCertificate(s.EKCertificate); err != nil {
		t.Error(err)
	}
	e.EKCertificate = ""
	if s, err := Verify(e, report); err != nil || s.EKCertificate != nil {
		t.Errorf("without an EK certificate: %+v, %v", s, err)
	}
}

// Each bit of what is signed, of the signature and of the key counts.
func TestFlippedBits(t *testing.T) {
	good := recorded(t)
	digest, err := device.Digest(report)
	if err != nil {
		t.Fatal(err)
	}
	for name, member := range map[string]func(*device.Evidence) *string{
		"akPublic":  func(e *device.Evidence) *string { return &e.AKPublic },
		"quote":     func(e *device.Evidence) *string { return &e.Quote },
		"signature": func(e *device.Evidence) *string { return &e.Signature },
	} {
		b, err := base64.StdEncoding.DecodeString(*member(good))
		if err != nil {
			t.Fatal(err)
		}
		try := func(what string, b []byte) {
			bad := *good
			*member(&bad) = base64.StdEncoding.EncodeToString(b)
			if _, err := VerifyDigest(&bad, digest); err == nil || !strings.HasPrefix(err.Error(), "evidence: ") {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
		for i := range 8 * len(b) {
			flipped := bytes.Clone(b)
			flipped[i/8] ^= 1 << (i % 8)
			try("a bit flipped", flipped)
		}
		for i := range b {
			try("cut short", b[:i])
		}
		try("a byte more", append(bytes.Clone(b), 0))
		bad := *good
		*member(&bad) = "!" + (*member(good))[1:]
		if _, err := VerifyDigest(&bad, digest); err == nil {
			t.Errorf("%s: not base64, and verified", name)
		}
		*member(&bad) = strings.Repeat("A", maxField+4)
		if _, err := VerifyDigest(&bad, digest); err == nil || !strings.Contains(err.Error(), "too large") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 8 * len(digest) {
		other := digest
		other[i/8] ^= 1 << (i % 8)
		if _, err := VerifyDigest(good, other); err == nil || !strings.Contains(err.Error(), "another report") {
			t.Errorf("bit %d of the digest: %v", i, err)
		}
	}
}

func TestVerifyChangedReport(t *testing.T) {
	good := recorded(t)
	changed := bytes.Replace(report, []byte(`"verdict":"UNDECIDED"`), []byte(`"verdict":"PASS"`), 1)
	if bytes.Equal(changed, report) {
		t.Fatal("the sample has another verdict")
	}
	if _, err := Verify(good, changed); err == nil || !strings.Contains(err.Error(), "another report") {
		t.Errorf("a changed verdict: %v", err)
	}
	if _, err := Verify(good, []byte("[]")); err == nil || !strings.HasPrefix(err.Error(), "evidence: device: ") {
		t.Errorf("no report: %v", err)
	}
	if _, err := Verify(&device.Evidence{}, report); err == nil || !strings.Contains(err.Error(), "akPublic is missing") {
		t.Errorf("no evidence: %v", err)
	}
}

// forge signs, with a key of its own, what a TPM with that key would.
func forge(t *testing.T, change func(*tpm2.TPMTPublic, *tpm2.TPMSAttest)) *device.Evidence {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	area := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, Restricted: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}}),
	}
	attest := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, ExtraData: tpm2.TPM2BData{Buffer: make([]byte, 32)},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{}),
	}
	change(&area, &attest)
	public := tpm2.Marshal(area)
	if attest.QualifiedSigner.Buffer == nil {
		attest.QualifiedSigner.Buffer = qualifiedName(nameOf(public))
	}
	quote := tpm2.Marshal(attest)
	sum := sha256.Sum256(quote)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
	})}
	text := base64.StdEncoding.EncodeToString
	return &device.Evidence{AKPublic: text(public), Quote: text(quote), Signature: text(tpm2.Marshal(signature))}
}

// Good signatures over what must not count.
func TestVerifyRefuses(t *testing.T) {
	if _, err := VerifyDigest(forge(t, func(*tpm2.TPMTPublic, *tpm2.TPMSAttest) {}), [32]byte{}); err != nil {
		t.Fatalf("the unchanged sample: %v", err)
	}
	for want, change := range map[string]func(*tpm2.TPMTPublic, *tpm2.TPMSAttest){
		"not a restricted signing key ": func(p *tpm2.TPMTPublic, _ *tpm2.TPMSAttest) { p.ObjectAttributes.Restricted = false },
		"not a restricted signing":      func(p *tpm2.TPMTPublic, _ *tpm2.TPMSAttest) { p.ObjectAttributes.FixedTPM = false },
		"not a restricted sign":         func(p *tpm2.TPMTPublic, _ *tpm2.TPMSAttest) { p.ObjectAttributes.SignEncrypt = false },
		"not a restricted":              func(p *tpm2.TPMTPublic, _ *tpm2.TPMSAttest) { p.ObjectAttributes.Decrypt = true },
		"not an ECC key named":          func(p *tpm2.TPMTPublic, _ *tpm2.TPMSAttest) { p.NameAlg = tpm2.TPMAlgSHA384 },
		"not made by a TPM":             func(_ *tpm2.TPMTPublic, a *tpm2.TPMSAttest) { a.Magic++ },
		"another kind": func(_ *tpm2.TPMTPublic, a *tpm2.TPMSAttest) {
			a.Type = tpm2.TPMSTAttestTime
			a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestTime, &tpm2.TPMSTimeAttestInfo{})
		},
		"over another report": func(_ *tpm2.TPMTPublic, a *tpm2.TPMSAttest) { a.ExtraData.Buffer = make([]byte, 31) },
		"its signer is not": func(_ *tpm2.TPMTPublic, a *tpm2.TPMSAttest) {
			a.QualifiedSigner.Buffer = append([]byte{0, 0x0b}, make([]byte, 32)...)
		},
	} {
		if _, err := VerifyDigest(forge(t, change), [32]byte{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	good := recorded(f)
	digest, err := device.Digest(report)
	if err != nil {
		f.Fatal(err)
	}
	decoded := func(text string) []byte {
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(decoded(good.AKPublic), decoded(good.Quote), decoded(good.Signature))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, ak, quote, signature []byte) {
		text := base64.StdEncoding.EncodeToString
		VerifyDigest(&device.Evidence{AKPublic: text(ak), Quote: text(quote), Signature: text(signature)}, digest)
		// The parsers beyond the signature, too.
		attestationKey(ak)
		readQuote(quote, digest, nil)
	})
}
