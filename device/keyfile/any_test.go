package keyfile_test

import (
	"bytes"
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device/keyfile"
)

// TestReadAny draws the line between a file without a key and one whose key
// cannot be read.
func TestReadAny(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	certificate := read("good/intermediate.pem")
	block, _ := pem.Decode(certificate)
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes.Repeat([]byte{0x30}, 100)}))
	utf16 := func(text []byte) (wide []byte) {
		wide = []byte{0xff, 0xfe}
		for _, c := range text {
			wide = append(wide, c, 0)
		}
		return wide
	}
	noise := make([]byte, 4096)
	rand.Read(noise)
	noise[0] = 0x89
	program := func(text string) []byte {
		return append(append(bytes.Repeat([]byte{0x7f, 'E', 'L', 'F', 0, 1, 2, 0}, 200), text...), 0)
	}
	large := bytes.Repeat([]byte("nothing\n"), 200_000)
	half := len(block.Bytes) / 2
	damaged := bytes.Clone(block.Bytes)
	damaged[6] = 0xff
	for name, tt := range map[string]struct {
		data       []byte
		keys, gaps bool
	}{
		"a certificate":                     {certificate, true, false},
		"DER":                               {block.Bytes, true, false},
		"an empty file":                     {nil, false, false},
		"white space":                       {[]byte("\n\n"), false, false},
		"text":                              {[]byte("The quick brown fox.\n"), false, false},
		"a hash":                            {[]byte(strings.Repeat("0123456789abcdef", 4) + "  file\n"), false, false},
		"base64 alone":                      {[]byte(strings.Repeat("QUJDREVGR0hJSktM", 40)), false, false},
		"a JPEG":                            {append([]byte("\xff\xd8\xff\xe0\x00\x10JFIF\x00"), noise...), false, false},
		"noise":                             {noise, false, false},
		"a program with markers":            {program("-----BEGIN CERTIFICATE-----\x00-----END CERTIFICATE-----\x00ssh-rsa\x00"), false, false},
		"a certificate and DER":             {append(bytes.Clone(certificate), block.Bytes...), true, true},
		"a program with a certificate":      {program("\n" + string(certificate) + "-----BEGIN \x00"), true, false},
		"source code with a marker":         {[]byte("if strings.Contains(s, \"-----BEGIN CERTIFICATE-----\") {\n\treturn true\n}\n"), false, false},
		"source code with a certificate":    {[]byte("const c = `" + string(certificate) + "`\n"), false, true},
		"JSON with a certificate":           {[]byte(`{"pem": "` + strings.ReplaceAll(string(certificate), "\n", `\n`) + `"}`), false, true},
		"YAML with an SSH key":              {[]byte("users:\n  - name: a\n    keys:\n" + string(read("good/ssh-ed25519-256.pub"))), true, false},
		"prose about ssh-agent":             {[]byte("start ssh-agent first\nthen ssh-add your key\n"), false, false},
		"an SSH key cut short":              {read("good/ssh-ed25519-256.pub")[:40], false, true},
		"damaged PEM":                       {certificate[:len(certificate)/2], false, true},
		"PEM without base64":                {[]byte("-----BEGIN CERTIFICATE-----\n(a certificate)\n-----END CERTIFICATE-----\n"), false, false},
		"a second one that is damaged":      {append(bytes.Clone(certificate), certificate[:len(certificate)/2]...), true, true},
		"four dashes":                       {bytes.ReplaceAll(certificate, []byte("-----"), []byte("----")), false, true},
		"UTF-16 with a certificate":         {utf16(certificate), false, true},
		"UTF-16":                            {utf16([]byte("Guten Tag\r\n")), false, false},
		"a private key that is none":        {[]byte(private), false, true},
		"a static key":                      {[]byte("-----BEGIN OpenVPN Static key V1-----\n" + strings.Repeat("0123456789abcdef0123456789abcdef\n", 16) + "-----END OpenVPN Static key V1-----\n"), false, false},
		"DER cut short":                     {block.Bytes[:half], false, true},
		"damaged DER":                       {damaged, false, true},
		"a revocation list":                 {[]byte("-----BEGIN X509 CRL-----\n" + strings.Repeat("QUJD", 20) + "\n-----END X509 CRL-----\n"), false, false},
		"a PuTTY key":                       {[]byte("PuTTY-User-Key-File-3: ssh-ed25519\n"), false, true},
		"a Java key store":                  {[]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"), false, true},
		"text of more than 1 MiB":           {large, false, false},
		"PEM of more than 1 MiB":            {append(bytes.Clone(certificate), large...), false, true},
		"a sequence that is something else": {append([]byte{0x30, 0x82, 0x10, 0x00, 0xff}, noise...), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			keys, gaps, whole := keyfile.ReadAny(path)
			if len(keys) > 0 != tt.keys || len(gaps) > 0 != tt.gaps {
				t.Errorf("%d keys, gaps %v", len(keys), gaps)
			}
			if want := !strings.Contains(name, "text of more"); whole != want {
				t.Errorf("whole: %v", whole)
			}
		})
	}
	if keys, gaps, _ := keyfile.ReadAny(filepath.Join(t.TempDir(), "none")); len(keys) > 0 || len(gaps) != 1 {
		t.Errorf("a file that is not there: %v", gaps)
	}
}
