package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// contractConfig is the configuration of the documentation, whole.
const contractConfig = `
state_dir = "/var/lib/keyvet"
run_dir   = "/run/keyvet"
[thing]
name = "gateway-0042"
[tpm]
address = "/dev/tpmrm0"
timeout = "30s"
ak = ""
[evidence]
pcrs = "sha256:0,1,2,3,4,5,6,7"
[identity]
certificate = ""
key = ""
ca = []
[check]
files = []
expiry_warning = "720h"
blocklists = []
advisories = []
ek_roots = ""
crls = []
[mqtt]
endpoints = ["xxxx-ats.iot.eu-west-1.amazonaws.com:8883"]
ca_file = ""
pins = []
client_id = ""
keepalive = "5m"
report_topic = "keyvet/{thing}/report"
[gate]
open = "acknowledged"
[provision]
claim_certificate = ""
claim_key = ""
template = ""
parameters = {}
delete_claim = false
[rotate]
issuer = "fleet-provisioning"
template = ""
key = "ecdsa-p256"
keys = []
min_interval = "1h"
before = ""
grace = "24h"
[schedule]
every = "24h"
[shadow]
min_interval = "1m"
[defender]
enabled = true
[log]
level = "info"
`

func TestConfig(t *testing.T) {
	c := Default()
	if err := c.decode(contractConfig); err != nil {
		t.Fatal(err)
	}
	if c.Thing.Name != "gateway-0042" || c.Rotate.Grace.Duration != 24*time.Hour || c.Rotate.Before.Duration != 0 || !c.Defender.Enabled {
		t.Errorf("read as %+v", c)
	}
	if err := Default().decode("[mqtt]\npins = ['amazon', '++MBgDH5WGvL9Bcn5Be30cRcL0f5O+NyoXuWtQdX1aI=']"); err != nil {
		t.Error(err)
	}
	for text, unset := range map[string]bool{"": true, "[mqtt]\nclient_id = 'x'": true, "mqtt.pins = []": false, "mqtt.pins = ['amazon']": false} {
		c := Default()
		if err := c.decode(text); err != nil || (c.MQTT.Pins == nil) != unset { // awsiot.NewDialer takes nil for the default
			t.Errorf("%q: pins %#v, %v", text, c.MQTT.Pins, err)
		}
	}
	for _, tt := range []struct{ text, want string }{
		{"stat_dir = 'x'", `unknown key "stat_dir", did you mean "state_dir"?`},
		{"[mqtt]\nca = 'x'", `did you mean "identity.ca"?`},
		{"[mqtt]\nendpoint = ['x:1']", `did you mean "mqtt.endpoints"?`},
		{"[gate]\nopn = 'local'", `did you mean "gate.open"?`},
		{"[mqt]\nkeepalive = '5m'", `did you mean "mqtt`},
		{"state_dir = 1", "state_dir"},
		{"state_dir = ", "line 1"},
		{"[gate]\nopen = 'always'", "gate.open"},
		{"[rotate]\nkey = 'dsa'", "rotate.key"},
		{"[rotate]\nkeys = ['ecdsa-p256', 'dsa']", "rotate.keys"},
		{"[rotate]\nmin_interval = '-1h'", "negative"},
		{"[shadow]\ninterval = '1m'", `did you mean "shadow.min_interval"?`},
		{"[tpm]\ntimeout = 'soon'", "soon"},
		{"[tpm]\ntimeout = '-1s'", "negative"},
		{"[tpm]\ntimeout = '0s'", "tpm.timeout"},
		{"[mqtt]\nendpoints = ['host']", "HOST:PORT"},
		{"[mqtt]\nendpoints = ['host:99999']", "HOST:PORT"},
		{"[mqtt]\npins = ['abc']", "mqtt.pins"},
		{"[mqtt]\nkeepalive = '1s'", "mqtt.keepalive"},
		{"run_dir = ''", "run_dir"},
		{"[identity]\nkey = 'tpm:'", "identity.key"},
		{"[identity]\nkey = 'tpm:81000100'", "identity.key"},
		{"[identity]\nkey = 'tpm:0x80000001'", "persistent handle"},
		{"[identity]\nkey = 'tpm:0x181000100'", "persistent handle"},
		{"tpm.address = ''\nidentity.key = 'tpm:0x81000100'", "tpm.address is empty"},
		{"evidence.pcrs = 'md5:0'", "is not a bank"},
		{"evidence.pcrs = 'sha256'", "is not a bank"},
		{"evidence.pcrs = 'sha256:'", "0 to 23"},
		{"evidence.pcrs = 'sha256:0,24'", "0 to 23"},
		{"evidence.pcrs = 'sha256:7,7'", "each once"},
		{"tpm.ak = '0x81800000'", "tpm.ak"},
		{"tpm.ak = 'tpm:0x81010020'", "tpm.ak"},
		{"tpm.address = 'nonsense'", "tpm.address"},
		{"[log]\nlevel = 'loud'", "log.level"},
	} {
		err := Default().decode(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line with %q", tt.text, err, tt.want)
		}
	}
}

func TestJobKeys(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "ecdsa-p256 ecdsa-p384 rsa-3072"},
		{"key = 'rsa-2048'", "ecdsa-p256 ecdsa-p384 rsa-2048 rsa-3072"},
		{"key = 'ecdsa-p384'", "ecdsa-p384"},
		{"keys = ['rsa-2048']", "ecdsa-p256 rsa-2048"},
		{"key = 'rsa-3072'\nkeys = ['rsa-3072']", "rsa-3072"},
	} {
		c := Default()
		if err := c.decode("[rotate]\n" + tt.text); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.JobKeys(), " "); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.toml")); err == nil {
		t.Error("a configuration that was named and is not there is no error")
	}
	path := filepath.Join(dir, "keyvet.toml")
	os.WriteFile(path, []byte("state_dir = '/data/keyvet'\n"), 0o600)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if certificate, key := c.CredentialFiles(); certificate != "/data/keyvet/identity/certificate.pem" || key != "/data/keyvet/identity/key.pem" {
		t.Errorf("identity: %s, %s", certificate, key)
	}
	os.WriteFile(path, make([]byte, maxBytes+1), 0o600)
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a huge file: %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(contractConfig)
	f.Add("[mqtt]\nca = 1")
	f.Fuzz(func(t *testing.T, text string) {
		if err := Default().decode(text); err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("more than one line: %q", err)
		}
	})
}
