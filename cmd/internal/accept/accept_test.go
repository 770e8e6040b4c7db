package accept

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
)

const sample = `
# the board has no newer firmware
[[check.accept]]
code  = "KEYVET_FIRMWARE_CVE-2019-16863"
key   = "tpm"
why   = "ECDSA key is in software; ticket 4711"
until = "2027-06-30"

[[check.accept]]
code = "CERTIFICATE_PAST_EXPIRATION"
key  = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"
why  = "known"
`

func TestLoad(t *testing.T) {
	name := filepath.Join(t.TempDir(), "accept.toml")
	if err := os.WriteFile(name, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Load(name)
	if err != nil || len(list) != 2 ||
		list[0] != (device.Acceptance{Code: "KEYVET_FIRMWARE_CVE-2019-16863", Key: "tpm", Why: "ECDSA key is in software; ticket 4711", Until: "2027-06-30"}) ||
		list[1] != (device.Acceptance{Code: "CERTIFICATE_PAST_EXPIRATION", Key: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Why: "known"}) {
		t.Errorf("%+v, %v", list, err)
	}
	if err := os.WriteFile(name, []byte("[[check.accept]]\n[[check.accept]]\ncode = 'x'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(name)
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 6 || !strings.HasPrefix(lines[0], name+": check.accept: table 1: code is missing") || !strings.HasPrefix(lines[3], name+": check.accept: table 2: unknown code") {
		t.Errorf("%v", err)
	}
	if _, err := Load(name + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestParse(t *testing.T) {
	const good = "[[check.accept]]\ncode = 'KEYVET_RSA_TOO_SHORT'\nkey = 'a'\nwhy = 'b'\n"
	for _, text := range []string{
		good, good + "until = ''", good + "until = 2027-06-30", good + "until = '2020-01-01'", "check.accept = []",
		"check.accept = [{code = 'KEYVET_RSA_TOO_SHORT', key = 'a', why = 'b'}]",
		strings.Replace(good, "KEYVET_RSA_TOO_SHORT", "KEYVET_COMPROMISED_KEY", 1),
		strings.Replace(good, "KEYVET_RSA_TOO_SHORT", "CERTIFICATE_KEY_VULNERABILITY_CVE-2017-15361", 1),
		strings.Replace(good, "KEYVET_RSA_TOO_SHORT", "KEYVET_FIRMWARE_UNREAD", 1),
		strings.Replace(good, "KEYVET_RSA_TOO_SHORT", "ACME_LEAKED-2024", 1), // of an operator's list
		strings.Replace(good, "KEYVET_RSA_TOO_SHORT", "KEYVET_LEAKED", 1),
	} {
		if _, wrong := parse(text); wrong != nil {
			t.Errorf("%s: %v", text, wrong)
		}
	}
	for _, tt := range []struct{ old, new, want string }{
		{good, "", "must hold tables [[check.accept]]"},
		{good, "check = 1", "must hold tables [[check.accept]]"},
		{good, "[[accept]]\ncode = 'X'", `unknown key "accept", did you mean "check.accept"?`},
		{good, "check.files = []", `unknown key "check.files", did you mean "check.accept"?`},
		{good, "check.accept = 1", "must be tables [[check.accept]]"},
		{good, "check.accept = ['a']", "must be tables [[check.accept]]"},
		{good, "[check.accept]\ncode = 'X'", "must be tables [[check.accept]]"},
		{good, "[[check.accept\n", "line "},
		{"KEYVET_RSA_TOO_SHORT", "KEYVET_RSA_TO_SHORT", `unknown code "KEYVET_RSA_TO_SHORT", did you mean "KEYVET_RSA_TOO_SHORT"?`},
		{"KEYVET_RSA_TOO_SHORT", "CERTIFICATE_EXPIRED", "unknown code"},
		{"KEYVET_RSA_TOO_SHORT", "KEYWET_RSA_TOO_SHORT", `did you mean "KEYVET_RSA_TOO_SHORT"?`},
		{"KEYVET_RSA_TOO_SHORT", "ACME_LEAKED.2024", "unknown code"},
		{"KEYVET_RSA_TOO_SHORT", "Acme", "unknown code"},
		{"KEYVET_RSA_TOO_SHORT", "KEYVET_FIRMWARE_", "unknown code"},
		{"KEYVET_RSA_TOO_SHORT", "KEYVET_FIRMWARE_*", "unknown code"},
		{"'KEYVET_RSA_TOO_SHORT'", "7", "code must be a string in quotes, not 7"},
		{"'KEYVET_RSA_TOO_SHORT'", "2027-06-30", "code must be a string in quotes"},
		{"code", "cod", `unknown key "cod", did you mean "code"?`},
		{"'a'", "''", "key is missing"},
		{"key = 'a'\n", "", "key is missing"},
		{"'b'", "''", "why is missing"},
		{"'b'", "'" + strings.Repeat("b", 300) + "'", "why has 300 bytes, at most 256"},
		{"'b'", "'''b\nc'''", "why must be one line of text"},
		{"why = 'b'", "why = 'b'\nuntil = 'soon'", `until must be a date such as "2027-06-30", not "soon"`},
		{"why = 'b'", "why = 'b'\nuntil = '2027-02-30'", "until must be a date"},
		{"why = 'b'", "why = 'b'\nuntil = 5", "until must be a string"},
	} {
		list, wrong := parse(strings.Replace(good, tt.old, tt.new, 1))
		if len(wrong) == 0 || list != nil || !strings.Contains(errors.Join(wrong...).Error(), tt.want) {
			t.Errorf("%q for %q: %v, want %s", tt.new, tt.old, wrong, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("check.accept = [{code = 'KEYVET_RSA_TOO_SHORT', key = 'a', why = 'b'}]")
	f.Fuzz(func(t *testing.T, text string) {
		list, wrong := parse(text)
		for _, a := range list {
			if wrong != nil || a.Code == "" || a.Key == "" || a.Why == "" {
				t.Errorf("%+v, %v", a, wrong)
			}
		}
	})
}
