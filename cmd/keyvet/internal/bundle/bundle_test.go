package bundle

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

// unpack takes the text apart.
func unpack(t *testing.T, text string) map[string]string {
	t.Helper()
	parts := make(map[string]string)
	for _, part := range strings.Split("\n"+text, "\n==> ")[1:] {
		name, of, ok := strings.Cut(part, " <==\n")
		if !ok {
			t.Fatalf("no part: %q", part)
		}
		parts[name] = of
	}
	return parts
}

// TestNoSecret has a device with a secret of each kind: none is in the bundle.
func TestNoSecret(t *testing.T) {
	dir := t.TempDir()
	const password, token = "proxy-pa55word", "ownership-t0ken"
	secrets := []string{password, token}
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"state/identity/key.pem", "state/credentials/c1/key.pem", "claim.key", "state/ak.pem"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		write(name, string(text))
		secrets = append(secrets, strings.Split(string(text), "\n")[1])
	}
	write("owner.auth", "0wner-secret")
	secrets = append(secrets, "0wner-secret")
	write("keyvet.toml", `state_dir = "`+dir+`/state"
run_dir = "`+dir+`/run"
tpm.owner_auth_file = "`+dir+`/owner.auth"
mqtt.proxy = "http://user:`+password+`@proxy:3128"
mqtt.endpoints = ["a:8883"]
provision.claim_certificate = "`+dir+`/claim.pem"
provision.claim_key = "`+dir+`/claim.key"
provision.template = "t"
provision.parameters = { Token = "`+token+`" }
`)
	c, err := config.Load(filepath.Join(dir, "keyvet.toml"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Write(&b, c, nil, "keyvet 1\n"); err != nil {
		t.Fatal(err)
	}
	parts := unpack(t, b.String())
	for name, want := range map[string]string{
		"version.txt": "keyvet 1\n", "settings.toml": `mqtt.endpoints = ["a:8883"]`, "status.json": `"gate": "shut"`, "report.json": "error",
		"files.txt": dir + "/state/identity/key.pem\n", "system.txt": "cannot be right before",
	} {
		if text := parts[name]; !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", name, want, text)
		}
	}
	for _, want := range []string{`provision.parameters = {"Token" = "(left out)"}`, `mqtt.proxy = "http://proxy:3128"`, `evidence.pcrs = "sha256:0,1,2,3,4,5,6,7"`, `tpm.wait = "1m30s"`} {
		if text := parts["settings.toml"]; !strings.Contains(text, want) {
			t.Errorf("settings.toml lacks %s:\n%s", want, text)
		}
	}
	for name, text := range parts {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", name, secret)
			}
		}
	}
	for _, name := range []string{"status.json", "report.json"} {
		if !json.Valid([]byte(parts[name])) {
			t.Errorf("%s: %s", name, parts[name])
		}
	}
	if c.Provision.Parameters["Token"] != token {
		t.Error("the configuration itself was changed")
	}
}

// TestWrongConfiguration says what is wrong, without the values.
func TestWrongConfiguration(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, nil, errors.New("keyvet.toml: mqtt.endpoint: \"s3cret\" is wrong\nand more"), "v"); err != nil {
		t.Fatal(err)
	}
	text := unpack(t, b.String())["settings.toml"]
	if !strings.HasPrefix(text, "# These are the defaults, since the configuration is wrong:\n# keyvet.toml: mqtt.endpoint: \"…\" is wrong\n# and more\nstate_dir = ") {
		t.Error(text)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestNoRoom(t *testing.T) {
	if err := Write(full{}, config.Default(), nil, ""); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Error(err)
	}
}
