package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const casesDir = "testdata/cases/keys"

// says are words that keyvet check -v must show of a case.
var says = map[string][]string{
	"cert-and-private-key-with-foreign-primes.pem": {"n is not p·q"},
	"cert-modulus-without-sign-byte.pem":           {"sign byte", "RSA-2048"},
	"cert-padded-with-ff.der":                      {"500 bytes of padding (ff)"},
	"cert-serial-negative.pem":                     {"KEYVET_CERTIFICATE_ENCODING", "valid until"},
	"cert-then-begin-with-spaces.pem":              {"line 10"},
	"cert-then-four-dash-begin.pem":                {"line 10"},
	"chain-missing-intermediate.pem":               {"CN=Issuing CA"},
	"chain-mldsa-ca.pem":                           {"2.16.840.1.101.3.4.3.18"},
	"dice-critical-tcbinfo-chain.pem":              {"2.23.133.5.4.1"},
	"ec-spki-without-parameters.pem":               {"curve"},
	"known_hosts":                                  {"line 5", "SSH-1", "known_hosts#4"},
	"openssh-cert-by-rsa1024-ca.pub":               {"RSA-1024", "user certificate host1 for root"},
	"openssh-cert-expired.pub":                     {"expired on 2020-02-01", "host certificate host1 for h.example"},
	"pkcs12-indefinite.p12":                        {"PKCS#12"},
	"pkcs7-label-with-hash.pem":                    {"#2"},
	"root-rsa768-valid-signature.pem":              {"RSA-768"},
	"tss2-key-blob-old.pem":                        {"the old form of a TSS2 private key"},
	"two-certificates-der.der":                     {"#2"},
}

// keyCase is one row of expected.tsv.
type keyCase struct {
	file string
	want []int // exit statuses that are right
}

func keyCases(t *testing.T) (cases []keyCase) {
	t.Helper()
	table, err := os.ReadFile(filepath.Join(casesDir, "expected.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		c := keyCase{file: fields[0]}
		for word := range strings.SplitSeq(fields[1], " or ") {
			status, err := strconv.Atoi(word)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			c.want = append(c.want, status)
		}
		cases = append(cases, c)
	}
	if len(cases) < 51 {
		t.Fatalf("only %d cases", len(cases))
	}
	return cases
}

// inPrivate copies a case to where nobody else can read it, since a private key
// that others can read fails for that alone.
func inPrivate(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(casesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCases holds keyvet check to expected.tsv.
func TestCases(t *testing.T) {
	for _, c := range keyCases(t) {
		t.Run(c.file, func(t *testing.T) {
			status, out, errs := keyvet(t, "", "check", "-v", inPrivate(t, c.file))
			said := strings.Join(strings.Fields(out+errs), " ")
			for _, words := range says[c.file] {
				if !strings.Contains(said, words) {
					t.Errorf("nothing is said of %q\n%s%s", words, out, errs)
				}
			}
			if !slices.Contains(c.want, status) {
				t.Errorf("exit %d, want %d\n%s%s", status, c.want, out, errs)
			}
		})
	}
}
