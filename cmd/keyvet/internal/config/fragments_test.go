package config

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// decode reads one text that is in no file.
func (c *Config) decode(text string) Errors { return c.merge(source{text: text}) }

// layOut makes the files of a configuration below a root of the test's own.
func layOut(t *testing.T, files map[string]string) {
	t.Helper()
	before := Root
	t.Cleanup(func() { Root = before })
	Root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(Root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFragments(t *testing.T) {
	layOut(t, map[string]string{
		"etc/keyvet/keyvet.toml":                  "[thing]\nname = 'one'\n[mqtt]\nendpoints = ['a:1']\nkeepalive = '1m'\n",
		"usr/lib/keyvet/conf.d/50-layer.toml":     "[thing]\nname = 'two'\n[provision.parameters]\nSite = 'a'\nLine = '7'\n",
		"usr/lib/keyvet/conf.d/60-board.toml":     "tpm.address = 'i2c:/dev/i2c-1'\n[check]\nfiles = ['/a', '/b']\n",
		"etc/keyvet/conf.d/10-product.toml":       "[provision]\nparameters = { Site = 'b' }\n[check]\nfiles = ['/c']\n[mqtt]\nendpoints = ['b:2']\n",
		"etc/keyvet/conf.d/.20-half.toml.swp":     "no TOML",
		"etc/keyvet/conf.d/.20-half.toml":         "no TOML",
		"etc/keyvet/conf.d/20-product.toml.dpkg":  "no TOML",
		"run/keyvet-conf.d/00-this-device.toml":   "thing.name = 'three'\nprovision.parameters.Rack = '9'\n",
		"run/keyvet/00-not-a-fragment.toml":       "no TOML",
		"usr/lib/keyvet/conf.d/README":            "no TOML",
		"usr/local/lib/keyvet/conf.d/60-no.toml":  "no TOML",
		"etc/keyvet/conf.d/30-accept.toml":        accepts("KEYVET_RSA_TOO_SHORT"),
		"usr/lib/keyvet/conf.d/70-more.toml":      accepts("KEYVET_CERTIFICATE_SIGNATURE_INVALID"),
		"run/keyvet-conf.d/90-more-later-on.toml": "",
	})
	c, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string][2]string{
		"a key of the last":               {c.Thing.Name, "three"},
		"a key that only the first has":   {c.MQTT.KeepAlive.String(), "1m0s"},
		"a key that only a later one has": {c.TPM.Address, "i2c:/dev/i2c-1"},
		"a list, whole":                   {strings.Join(c.Check.Files, " "), "/c"},
		"endpoints":                       {strings.Join(c.MQTT.Endpoints, " "), "b:2"},
		"what none has":                   {c.Log.Level, "info"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %q, want %q", what, got[0], got[1])
		}
	}
	if want := map[string]string{"Site": "b", "Line": "7", "Rack": "9"}; !maps.Equal(c.Provision.Parameters, want) {
		t.Errorf("parameters %v, want %v", c.Provision.Parameters, want)
	}
	const files = "etc/keyvet/keyvet.toml usr/lib/keyvet/conf.d/50-layer.toml usr/lib/keyvet/conf.d/60-board.toml usr/lib/keyvet/conf.d/70-more.toml " +
		"etc/keyvet/conf.d/10-product.toml etc/keyvet/conf.d/30-accept.toml run/keyvet-conf.d/00-this-device.toml run/keyvet-conf.d/90-more-later-on.toml"
	if got := strings.ReplaceAll(strings.Join(c.Files(), " "), Root+"/", ""); got != files {
		t.Errorf("read from %s, want %s", got, files)
	}
	if len(c.Check.Accept) != 2 {
		t.Errorf("accepted: %v, want those of both", c.Check.Accept)
	}
	if alone, err := Load(DefaultPath()); err != nil || alone.Thing.Name != "one" || len(alone.Check.Accept) != 0 {
		t.Errorf("the file alone: %+v, %v", alone, err)
	}
	if err := os.WriteFile(filepath.Join(Root, "run/keyvet-conf.d/91.toml"), []byte("check.accept = []"), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(""); err != nil || len(c.Check.Accept) != 0 {
		t.Errorf("after an empty list: %v, %v", c.Check.Accept, err)
	}
}

func accepts(code string) string {
	return "[[check.accept]]\ncode = '" + code + "'\nkey = 'a'\nwhy = 'b'\n"
}

// TestFragmentsAlone is an image without the main file.
func TestFragmentsAlone(t *testing.T) {
	layOut(t, map[string]string{"usr/lib/keyvet/conf.d/a.toml": "run_dir = '/run/other/'"})
	if c, err := Load(""); err != nil || c.RunDir != "/run/other" || RunDirOf("") != "/run/other" {
		t.Errorf("%+v, %v, %s", c, err, RunDirOf(""))
	}
	layOut(t, nil)
	if c, err := Load(""); err != nil || c.RunDir != "/run/keyvet" {
		t.Errorf("of nothing: %+v, %v", c, err)
	}
}

// TestWrongFragment has each mistake name the file that it is in.
func TestWrongFragment(t *testing.T) {
	const main, vendor, product, device = "etc/keyvet/keyvet.toml", "usr/lib/keyvet/conf.d/v.toml", "etc/keyvet/conf.d/p.toml", "run/keyvet-conf.d/d.toml"
	for _, tt := range []struct {
		name  string
		files map[string]string
		in    string // the file to be named
		want  string
	}{
		{"syntax", map[string]string{main: "", product: "[mqtt"}, product, "line 1"},
		{"unknown key", map[string]string{main: "", vendor: "[mqt]"}, vendor, `unknown key "mqt"`},
		{"wrong type", map[string]string{main: "", device: "thing.name = 3"}, device, "thing.name: must be a string"},
		{"wrong type that a later file hides", map[string]string{vendor: "mqtt = 3", device: "[mqtt]"}, vendor, "mqtt: must be a table"},
		{"wrong value", map[string]string{main: "gate.open = 'local'", device: "gate.open = 'always'"}, device, `not "always"`},
		{"wrong value of an earlier file", map[string]string{vendor: "gate.open = 'always'", device: "log.level = 'warn'"}, vendor, `not "always"`},
		{"a claim of two files", map[string]string{vendor: "provision.claim_key = 'k'\nprovision.claim_certificate = 'c'", device: "thing.name = 'a'"}, vendor, "provision.template: must be set"},
		{"a key in a TPM that a later file takes away", map[string]string{product: "identity.key = 'tpm:0x81000100'", device: "tpm.address = ''"}, product, "tpm.address is empty"},
		{"accept", map[string]string{main: accepts("KEYVET_RSA_TOO_SHORT"), device: accepts("KEYVET_RSA_TO_SHORT")}, device, "table 1: unknown code"},
		{"too long", map[string]string{main: "", device: strings.Repeat("#", maxBytes+1)}, device, "more than"},
		{"a directory", map[string]string{main: "", device + "/x": ""}, device, "is a directory"},
		{"a file for a directory", map[string]string{main: "", "etc/keyvet/conf.d": ""}, "etc/keyvet/conf.d", "not a directory"},
	} {
		layOut(t, tt.files)
		_, err := Load("")
		if err == nil || !strings.Contains(err.Error(), filepath.Join(Root, tt.in)) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line of %s: %s", tt.name, err, tt.in, tt.want)
		}
	}
	many := map[string]string{}
	for i := range maxFragments + 1 {
		many["run/keyvet-conf.d/"+strings.Repeat("a", i+1)+".toml"] = ""
	}
	layOut(t, many)
	if _, err := Load(""); err == nil || !strings.Contains(err.Error(), "at most 100") {
		t.Errorf("too many: %v", err)
	}
	layOut(t, map[string]string{main: "nonsense", device: "run_dir = '/run/here'"})
	if dir := RunDirOf(""); dir != "/run/here" {
		t.Errorf("run_dir of files with mistakes: %s", dir)
	}
}

func TestDirectories(t *testing.T) {
	for dir, want := range map[string]string{"/var/lib/keyvet/": "/var/lib/keyvet", "/data//keyvet": "/data/keyvet", "/data/./a/../keyvet-1.0_x": "/data/keyvet-1.0_x"} {
		c := Default()
		if err := c.decode("state_dir = '" + dir + "'"); err != nil || c.StateDir != want {
			t.Errorf("%s: %q, %v, want %q", dir, c.StateDir, err, want)
		}
	}
	for _, dir := range []string{"data/keyvet", "./keyvet", "/data/key vet", "/data/%i", "/data/$x", `/data/\\x41`, "/", "//", "/..", "/data/é", "/data/*", "-/data", "/data/a:b", "/data\\tx"} {
		for _, key := range []string{"state_dir", "run_dir"} {
			if err := Default().decode(key + ` = "` + dir + `"`); len(err) != 1 || !strings.Contains(err.Error(), "absolute path") {
				t.Errorf("%s = %q: %v", key, dir, err)
			}
		}
	}
}
