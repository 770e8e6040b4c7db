package keyfile_test

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyvet/keyvet/device/keyfile"
)

// TestLostObjects damages the second object of a file in many ways: it is read,
// or a gap names a line of it.
func TestLostObjects(t *testing.T) {
	first, second := string(good(t, "leaf.pem")), string(good(t, "root.pem"))
	line := strings.Count(first, "\n") + 1
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(second) }
	der := func(text string) string {
		block, _ := pem.Decode([]byte(text))
		return string(block.Bytes)
	}
	const (
		jwk      = `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}` // RFC 7517, appendix A.1
		shortKey = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEMKBCTNIcKUSDii11ySs3526iDZ8A\niTo7Tu6KPAqv7D7gS2XpJFbZiItSs3m9+9Ue6GnvHw/GW2ZZaVtszggXIw==\n-----END PUBLIC KEY-----\n"
	)
	for name, c := range map[string]struct {
		second string
		keys   int // of both
		line   int // that is named; 0: none
	}{
		"nothing":                      {second, 2, 0},
		"byte order mark":              {"\ufeff" + second, 2, 0},
		"zero-width space":             {"\u200b" + second, 2, 0},
		"no-break space":               {"\u00a0" + second, 2, 0},
		"four dashes":                  {replace("-----BEGIN", "----BEGIN"), 1, line},
		"four dashes, all":             {replace("-----", "----"), 1, line},
		"six dashes":                   {replace("-----", "------"), 1, line},
		"four dashes behind":           {replace("CERTIFICATE-----", "CERTIFICATE----"), 1, line},
		"spaces within":                {replace("-----BEGIN CERTIFICATE-----", "----- BEGIN CERTIFICATE -----", "-----END CERTIFICATE-----", "----- END CERTIFICATE -----"), 1, line},
		"spaces between dashes":        {replace("-----BEGIN", "- - - - -BEGIN"), 1, line},
		"lower case":                   {replace("BEGIN CERTIFICATE", "begin certificate", "END CERTIFICATE", "end certificate"), 1, line},
		"mixed case":                   {replace("BEGIN CERTIFICATE", "Begin Certificate"), 1, line},
		"em dashes":                    {replace("-----", "——-"), 1, line},
		"en dashes":                    {replace("-----", "–––––"), 1, line},
		"no dashes":                    {replace("-----", ""), 1, line},
		"equals signs":                 {replace("-----", "====="), 1, line},
		"BEGIN misspelt":               {replace("BEGIN", "BEGN"), 1, line + 1},
		"no BEGIN line":                {second[strings.Index(second, "\n")+1:], 1, line},
		"no markers":                   {replace("-----BEGIN CERTIFICATE-----", "", "-----END CERTIFICATE-----", ""), 1, line + 1},
		"END alone":                    {"-----END CERTIFICATE-----\n", 1, line},
		"END alone, four dashes":       {"----END CERTIFICATE----\n", 1, line},
		"no END line":                  {second[:strings.Index(second, "-----END")], 1, line},
		"in one line":                  {strings.ReplaceAll(second, "\n", ""), 1, line},
		"base64 in one line":           {strings.ReplaceAll(second[28:strings.Index(second, "-----END")], "\n", "") + "\n", 1, line},
		"lines of 40":                  {"MIIBKTCB0KADAgECAgUSNFZ4kDAKBggqhkjOPQQD\nAgASMRAwDgYDVQQDDAdUZXN0IENBMB4XDTI1MDEw\n", 1, line},
		"hex":                          {"3082012930" + strings.Repeat("81d0a003", 6) + "\n", 1, line},
		"PEM in base64":                {"  tls.crt: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t\n", 1, line},
		"with a name before it":        {"ca: " + second, 1, line},
		"behind text, four dashes":     {"hello\n" + replace("-----", "----"), 1, line + 1},
		"DER":                          {der(second), 1, line},
		"DER behind an empty line":     {"\n" + der(second), 1, line + 1},
		"a short key in DER":           {der(shortKey), 1, line},
		"a JWK":                        {jwk + "\n", 2, 0},
		"a set of two JWK":             {`{"keys":[` + jwk + "," + jwk + "]}\n", 3, 0},
		"a damaged JWK":                {strings.Replace(jwk, `"x"`, `"xx"`, 1) + "\n", 1, line},
		"a JWK of several lines":       {strings.ReplaceAll(jwk, ",", ",\n") + "\n", 1, line},
		"a JWK behind a name":          {"key = " + jwk + "\n", 1, line},
		"Latin-1":                      {"# M\xfcller\nM\xfcller & S\xf6hne\n", 1, 0},
		"control characters":           {"\x00\x00\x1a\n", 1, 0},
		"other JSON":                   {`{"name": "leaf", "key": 7}` + "\n", 1, 0},
		"damaged, and then a good one": {replace("-----", "----") + string(good(t, "intermediate.pem")), 2, line},
	} {
		keys, gaps := read([]byte(first + c.second))
		if len(keys) != c.keys || (c.line > 0) != (len(gaps) > 0) {
			t.Errorf("%s: %d keys, gaps %v", name, len(keys), gaps)
			continue
		}
		if c.line > 0 && (len(gaps) != 1 || !strings.Contains(gaps[0].What, fmt.Sprint("line ", c.line)) || gaps[0].Minor) {
			t.Errorf("%s: gaps %v, want one on line %d", name, gaps, c.line)
		}
	}
}

// TestTextBetweenObjects puts around objects what programs and people write there.
func TestTextBetweenObjects(t *testing.T) {
	certificate := string(good(t, "leaf.pem"))
	for name, text := range map[string]string{
		"bag attributes": "Bag Attributes\n    localKeyID: 54 69 6D 65 20 31 36 34 38 36 34 37 36 33 34 34 39 38 \n    friendlyName: " + strings.Repeat("Device0042", 6) + "\nKey Attributes: <No Attributes>\nsubject=CN = gateway\n\nissuer=C = US, O = Test\n",
		"s_client":       "CONNECTED(00000003)\ndepth=2 C = US, O = Internet Security Research Group, CN = ISRG Root X1\nverify return:1\n---\nCertificate chain\n 0 s:CN = example.org\n   i:C = US\n   a:PKEY: rsaEncryption, 2048 (bit); sigalg: RSA-SHA256\n---\nServer certificate\n",
		"after s_client": "---\nNo client certificate CA names sent\nPeer signing digest: SHA256\n---\nSSL handshake has read 3112 bytes\n    Session-ID: 8D0E6D2C5E7F4B8B0A7F2D3C8D0E6D2C5E7F4B8B0A7F2D3C8D0E6D2C5E7F4B8B\n    Master-Key: 8D0E6D2C5E7F4B8B0A7F2D3C8D0E6D2C5E7F4B8B0A7F2D3C\n    0000 - 5a 0c 5b 0b 2f 2f 96 3d-51 07 65 04 5b 6a 5b 04   Z.[.//.=Q.e.[j[.\n",
		"Mozilla":        "##\n## Bundle of CA Root Certificates\n##\n\nGlobalSign Root CA\n==================\n",
		"a comment":      "# -----BEGIN CERTIFICATE-----\n# MIIBKTCB0KADAgECAgUSNFZ4kDAKBggqhkjOPQQDAjASMRAwDgYDVQQDDAdUZXN0\n# -----END CERTIFICATE-----\n",
		"YAML":           "---\nkind: Secret\nmetadata:\n  name: x\ndata:\n  ca: |\n",
		"YAML's end":     "...\n--- # begin of the next document\n",
		"checksums":      "0f343b0931126a20f133d67c2b018a3b0f343b0931126a20f133d67c2b018a3b\nSHA1 Fingerprint=AB:CD:EF\nab:cd:ef:01:23:45:67:89:ab:cd:ef:01:23:45:67:89:ab:cd:ef:01:23\n",
		"a checksum":     "B5BB9D8014A0F9B1D61E21E796D78DCCDF1352F23CD32812F4850B878AE4944C\n",
		"a path":         "/usr/share/ca-certificates/mozilla/GlobalSign_Root_CA.crt\n/etc/pki/tls/certs/somethingrathersomethinglong\n",
		"prose":          "The certificates begin here and end below. Do not edit.\n-- begin of section one\n--- end ---\n",
		"rulers":         strings.Repeat("=", 64) + "\n" + strings.Repeat("-", 64) + "\n" + strings.Repeat("*", 50) + "\n",
		"keytool":        "Alias name: device\nCreation date: 1 Jan 2026\nEntry type: trustedCertEntry\n\n*******************************************\n",
		"XML":            "<ds:X509Certificate>\n",
	} {
		wants(t, name+", before", []byte(text+certificate), 1)
		wants(t, name+", after", []byte(certificate+text), 1)
	}
	wants(t, "openssl x509 -text", good(t, "leaf-text.pem"), 1)
	wants(t, "openssl x509 -text -noout", []byte(strings.Split(string(good(t, "leaf-text.pem")), "-----BEGIN")[0]), 0, "-noout")
}

// TestNamedFormats names what is not read.
func TestNamedFormats(t *testing.T) {
	for data, want := range map[string]string{
		"\x1f\x8b\x08\x00\x00":                   "gzip",
		"\xfd7zXZ\x00\x00":                       "xz",
		"\x28\xb5\x2f\xfd\x00":                   "zstd",
		"PK\x03\x04abc":                          "ZIP",
		"age-encryption.org/v1\n-> X25519 abc\n": "age",
		"-----BEGIN AGE ENCRYPTED FILE-----\nAAAA\n-----END AGE ENCRYPTED FILE-----\n": "age",
		"-----BEGIN TSS2 KEY BLOB-----\nAAAA\n-----END TSS2 KEY BLOB-----\n":           "old form",
		"\x00\x00\x00\x20\x01\x01\x00\x02KBXf\x00\x00":                                 "keybox",
		"SSH PRIVATE KEY FILE FORMAT 1.1\n\x00":                                        "SSH-1",
		"PuTTY-User-Key-File-3: ssh-ed25519\n":                                         "PuTTY",
		"\xfe\xed\xfe\xed\x00\x00\x00\x02":                                             "Java key store",
	} {
		wants(t, want, []byte(data), 0, want)
	}
}

// TestNumbers counts objects alike for keys and gaps.
func TestNumbers(t *testing.T) {
	leaf, root := string(good(t, "leaf.pem")), string(good(t, "root.pem"))
	text := leaf + "\n----BEGIN CERTIFICATE----\n" + root + string(good(t, "pkcs7.pem")) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	keys, gaps := read([]byte(text))
	if len(keys) != 5 || len(gaps) != 2 {
		t.Fatalf("%d keys, gaps %v", len(keys), gaps)
	}
	lines := strings.Split(text, "\n")
	for i, k := range keys {
		if want := []int{1, 3, 4, 5, 6}[i]; k.Object != want || k.ID != fmt.Sprint("-#", want) || !strings.HasPrefix(lines[k.Line-1], "-----BEGIN") {
			t.Errorf("key %d is %s, object %d at line %d", i, k.ID, k.Object, k.Line)
		}
	}
	if !strings.HasPrefix(gaps[1].What, "-: object 7 (CERTIFICATE, line ") {
		t.Errorf("gap %v", gaps[1])
	}
}

// manyLines gives lines of OpenSSH, and does not hold them.
type manyLines struct {
	line  func(i int) string
	count int
	next  int
	rest  string
}

func (m *manyLines) Read(p []byte) (int, error) {
	for len(m.rest) == 0 {
		if m.next == m.count {
			return 0, io.EOF
		}
		m.rest = m.line(m.next)
		m.next++
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

// TestManyLines reads a known_hosts of more than 1 MiB.
func TestManyLines(t *testing.T) {
	line := func(i int) string {
		key := make([]byte, 32)
		key[0], key[1], key[2] = byte(i), byte(i>>8), 1
		return "host" + fmt.Sprint(i) + " " + strings.TrimSuffix(ssh([]byte("ssh-ed25519"), key), " comment\n") + "\n"
	}
	keys, gaps := keyfile.ReadFrom(&manyLines{line: line, count: 20_000}, "-")
	if len(keys) != 20_000 || len(gaps) != 0 {
		t.Fatalf("%d keys, gaps %v", len(keys), gaps)
	}
	if k := keys[12_345]; k.Line != 12_346 || k.ID != "-#12346" {
		t.Errorf("%s at line %d", k.ID, k.Line)
	}
	repeated := func(i int) string {
		switch i % 1000 {
		case 7:
			return "# a comment\n"
		case 8:
			return "what is this?\n"
		case 9:
			return "old 1024 35 13350181173318150108273010183092014908093015409012390481\n"
		}
		return line(i % 1000)
	}
	keys, gaps = keyfile.ReadFrom(&manyLines{line: repeated, count: 20_000}, "-")
	if len(keys) != 997 || len(gaps) != 41 || !gaps[40].Minor || !strings.Contains(gaps[40].Why, "18943 lines have a key that stands in a line above") {
		t.Errorf("%d keys, %d gaps, the last %v", len(keys), len(gaps), gaps[len(gaps)-1])
	}
	keys, gaps = keyfile.ReadFrom(&manyLines{line: func(i int) string { return line(i%5) + strings.Repeat("x", 70_000) + "\n" }, count: 40}, "-")
	if len(keys) != 5 || len(gaps) != 41 || !strings.Contains(gaps[0].Why, "a line of more than 65536 bytes") {
		t.Errorf("long lines: %d keys, %d gaps, %v", len(keys), len(gaps), gaps[0])
	}
	path := filepath.Join(t.TempDir(), "known_hosts")
	var text bytes.Buffer
	io.Copy(&text, &manyLines{line: line, count: 20_000})
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	batches := 0
	for keys := range keyfile.Batches(path) {
		batches++
		if len(keys) > 1000 {
			t.Errorf("%d keys at a time", len(keys))
		}
	}
	if batches < 20 {
		t.Errorf("%d batches", batches)
	}
}

// TestManyKeys stops at so many different keys.
func TestManyKeys(t *testing.T) {
	line := func(i int) string {
		key := make([]byte, 32)
		key[0], key[1], key[2] = byte(i), byte(i>>8), byte(i>>16)
		return ssh([]byte("ssh-ed25519"), key)
	}
	count, last := 0, ""
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			io.Copy(w, &manyLines{line: line, count: 120_000})
			w.Close()
		}
	}()
	keys, gaps := keyfile.ReadNamed(path)
	count += len(keys)
	for _, g := range gaps {
		last = g.What + g.Why
	}
	if count != 100_000 || !strings.Contains(last, "from line 100001") || !strings.Contains(last, "too many") {
		t.Errorf("%d keys, %q", count, last)
	}
}

// TestReadNamed reads pipes, and no devices.
func TestReadNamed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.Write(good(t, "fullchain.pem")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	name := fmt.Sprint("/dev/fd/", r.Fd())
	if keys, gaps := keyfile.ReadNamed(name); len(keys) != 3 || len(gaps) != 0 || keys[0].Source != "file:"+name {
		t.Errorf("pipe: %d keys, %v", len(keys), gaps)
	}
	for _, name := range []string{"/dev/zero", "/dev/null", t.TempDir(), "none"} {
		if keys, gaps := keyfile.ReadNamed(name); len(keys) != 0 || len(gaps) != 1 {
			t.Errorf("%s: %d keys, %v", name, len(keys), gaps)
		}
	}
	if keys, gaps := keyfile.ReadNamed("testdata/good/leaf.pem"); len(keys) != 1 || len(gaps) != 0 {
		t.Errorf("file: %d keys, %v", len(keys), gaps)
	}
	if !slices.Contains([]string{"not a regular file"}, func() string { _, gaps := keyfile.Read(name); return gaps[0].Why }()) {
		t.Error("a pipe that nobody named was read")
	}
}
