package keyfile_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyvet/keyvet/device/keyfile"
)

// fuzzForm fuzzes one form; dress makes a file of what the fuzzer gives.
func fuzzForm(f *testing.F, dress func([]byte) []byte, seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, gaps := keyfile.ReadFrom(bytes.NewReader(dress(data)), "-")
		sound(t, keys, gaps)
	})
}

func seeds(f *testing.F, patterns ...string) (all [][]byte) {
	f.Helper()
	for _, p := range patterns {
		names, err := filepath.Glob("testdata/" + p)
		if err != nil || len(names) == 0 {
			f.Fatalf("%s: %v", p, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			all = append(all, data)
		}
	}
	return all
}

func asIs(data []byte) []byte { return data }

func FuzzPKCS7(f *testing.F) {
	all := append(seeds(f, "good/pkcs7.der"), []byte{0x30, 0x80, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, 0xa0, 0x80, 0x30, 0x80})
	fuzzForm(f, func(b []byte) []byte { return append(b, "\xff\xff"...) }, all...)
}

func FuzzJWK(f *testing.F) {
	fuzzForm(f, asIs, []byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AQ"},{"kty":"RSA","n":"jw","e":"AQAB","d":"AQ","p":"Cw","q":"DQ","dp":"AQ","dq":"AQ","qi":"AQ"}]}`),
		[]byte(`[{"kty":"OKP","crv":"Ed25519","x":"AA","x5c":["AA=="]}]`))
}

func FuzzOpenPGP(f *testing.F) { fuzzForm(f, asIs, seeds(f, "gpg/*.gpg")...) }

func FuzzArmour(f *testing.F) {
	fuzzForm(f, func(b []byte) []byte {
		return []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n" + base64.StdEncoding.EncodeToString(b) + "\n-----END PGP PUBLIC KEY BLOCK-----\n")
	}, seeds(f, "gpg/*.gpg")...)
}

func FuzzSSHCertificate(f *testing.F) {
	fuzzForm(f, func(b []byte) []byte {
		name := "ssh-rsa-cert-v01@openssh.com"
		blob := append(binary.BigEndian.AppendUint32(nil, uint32(len(name))), name...)
		return []byte(name + " " + base64.StdEncoding.EncodeToString(append(blob, b...)))
	}, certificateBlob(f))
}

// certificateBlob is a certificate without its type.
func certificateBlob(f *testing.F) []byte {
	line, err := os.ReadFile("testdata/good/ssh-rsa-2048-cert.pub")
	if err != nil {
		f.Fatal(err)
	}
	blob, err := base64.StdEncoding.DecodeString(string(bytes.Fields(line)[1]))
	if err != nil {
		f.Fatal(err)
	}
	return blob[4+len("ssh-rsa-cert-v01@openssh.com"):]
}

func FuzzStoredCertificate(f *testing.F) {
	fuzzForm(f, func(b []byte) []byte { return append([]byte{0x10, 1, 0}, b...) }, append([]byte{0x02, 0x34, 0x10, 2}, seeds(f, "good/leaf.der")[0]...))
}

func FuzzText(f *testing.F) {
	fuzzForm(f, func(b []byte) []byte { return append(bytes.ToValidUTF8(b, nil), "\n---- BEGIN CERTIFICATE -----\n"...) }, seeds(f, "good/*.pub", "good/authorized_keys", "good/known_hosts", "good/rfc4716.pub", "good/leaf*.pem")...)
}
