package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The folders of cases: those of public reports, and those that were made beside them.
const (
	casesDir   = "testdata/cases/keys"
	furtherDir = "testdata/cases/further"
)

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

// keyCase is one row of an expected.tsv.
type keyCase struct {
	dir, file string
	want      []int // exit statuses that are right
	says      []string
	asDevice  []int // those of the device whose credential it is; nil: the same
}

func keyCases(t *testing.T) (cases []keyCase) {
	t.Helper()
	for dir, least := range map[string]int{casesDir: 51, furtherDir: 70} {
		table, err := os.ReadFile(filepath.Join(dir, "expected.tsv"))
		if err != nil {
			t.Fatal(err)
		}
		before := len(cases)
		for line := range strings.Lines(string(table)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
			c := keyCase{dir: dir, file: fields[0], want: statuses(t, fields[1]), says: says[fields[0]]}
			if dir == furtherDir {
				c.says = fields[3:4]
				if len(fields) > 4 {
					c.asDevice = statuses(t, fields[4])
				}
			}
			cases = append(cases, c)
		}
		if n := len(cases) - before; n < least {
			t.Fatalf("%s: only %d cases", dir, n)
		}
	}
	return cases
}

// statuses are exit statuses, such as "0 or 1".
func statuses(t *testing.T, text string) (all []int) {
	t.Helper()
	for word := range strings.SplitSeq(text, " or ") {
		status, err := strconv.Atoi(word)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, status)
	}
	return all
}

// inPrivate copies a case to where nobody else can read it, since a private key
// that others can read fails for that alone.
func inPrivate(t *testing.T, c keyCase) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, c.file))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), c.file)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCases holds keyvet check to the tables.
func TestCases(t *testing.T) {
	for _, c := range keyCases(t) {
		t.Run(c.file, func(t *testing.T) {
			status, out, errs := keyvet(t, "", "check", "-v", inPrivate(t, c))
			said := strings.Join(strings.Fields(out+errs), " ")
			for _, words := range c.says {
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
