package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
[[check.accept]]
code = "KEYVET_FIRMWARE_CVE-2019-16863"
key = "tpm"
why = "ECDSA key is in software; ticket 4711"
until = "2027-06-30"
[mqtt]
endpoints = ["xxxx-ats.iot.eu-west-1.amazonaws.com:8883"]
ca_file = ""
pins = []
client_id = ""
keepalive = "5m"
timeout = "10s"
reconnect_max = "512s"
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
}

// wrong has, for each rule, a value that breaks it, and what the message says of
// the value and of what is allowed.
var wrong = []struct{ key, value, want string }{
	{"state_dir", "''", `for systemd, not ""`},
	{"run_dir", "''", `for systemd, not ""`},
	{"thing.name", "'a/b'", `colon, underscore and hyphen, or cert:CN, ek:sha256, template or file:PATH, not "a/b"`},
	{"metrics.textfile", "'keyvet.prom'", `absolute path that ends in .prom, not "keyvet.prom"`},
	{"metrics.textfile", "'/var/keyvet.txt'", `absolute path that ends in .prom, not "/var/keyvet.txt"`},
	{"tpm.address", "'nonsense'", `"nonsense": not an address: give /dev/tpmrm0, `},
	{"tpm.address", "'spi:/dev/spidev0.1?speed=fast'", "speed \"fast\": give 10kHz to 100MHz"},
	{"tpm.timeout", "'0s'", `more than zero, not "0s"`},
	{"tpm.timeout", "'soon'", `duration of zero or more, such as 90s or 720h, not "soon"`},
	{"tpm.timeout", "'-1s'", `duration of zero or more, such as 90s or 720h, not "-1s"`},
	{"tpm.ak", "'0x81800000'", `0x81000000 to 0x817fffff, not "0x81800000"`},
	{"tpm.ak", "'tpm:0x81010020'", `not "tpm:0x81010020"`},
	{"evidence.pcrs", "'md5:0'", `bank (sha256, sha384 or sha512) and its PCRs, such as sha256:0,1,7, not "md5:0"`},
	{"evidence.pcrs", "'sha256'", "bank"},
	{"evidence.pcrs", "'sha256:'", "PCRs from 0 to 23, each once"},
	{"evidence.pcrs", "'sha256:0,24'", "PCRs from 0 to 23, each once"},
	{"evidence.pcrs", "'sha256:7,7'", "PCRs from 0 to 23, each once"},
	{"identity.key", "'tpm:'", `such as tpm:0x81000100, not "tpm:"`},
	{"identity.key", "'tpm:81000100'", "persistent handle"},
	{"identity.key", "'tpm:0x80000001'", "persistent handle"},
	{"identity.key", "'tpm:0x181000100'", "persistent handle"},
	{"check.accept", "[{ code = 'KEYVET_RSA_TO_SHORT', key = 'a', why = 'b' }]", `table 1: unknown code "KEYVET_RSA_TO_SHORT", did you mean "KEYVET_RSA_TOO_SHORT"?`},
	{"mqtt.endpoints", "['host']", `HOST:PORT, such as xxxx-ats.iot.eu-west-1.amazonaws.com:8883, not "host"`},
	{"mqtt.endpoints", "['host:1', 'host:99999']", `not "host:99999"`},
	{"mqtt.pins", "['abc']", `"amazon" and of base64 SHA-256, not "abc"`},
	{"mqtt.keepalive", "'1s'", `30s to 20m, not "1s"`},
	{"mqtt.timeout", "'0s'", `1s to 5m, not "0s"`},
	{"mqtt.reconnect_max", "'25h'", `1s to 24h, not "25h0m0s"`},
	{"mqtt.report_topic", "'a/+/b'", `without +, #, a leading $ and braces other than those of {thing}, not "a/+/b"`},
	{"mqtt.report_topic", "'keyvet/{name}/report'", "braces"},
	{"gate.open", "'always'", `acknowledged or local, not "always"`},
	{"provision.claim_certificate", "''\nprovision.claim_key = 'k'\nprovision.template = 't'", "must be set"},
	{"provision.claim_key", "''\nprovision.claim_certificate = 'c'\nprovision.template = 't'", "must be set"},
	{"provision.template", "''\nprovision.claim_key = 'k'\nprovision.claim_certificate = 'c'", "must be set"},
	{"rotate.issuer", "'me'", `fleet-provisioning or topics, not "me"`},
	{"rotate.key", "'dsa'", `rsa-2048 or rsa-3072, not "dsa"`},
	{"rotate.keys", "['ecdsa-p256', 'dsa']", `rsa-2048 or rsa-3072, not "dsa"`},
	{"tpm.wait", "'11m'", "0s to 10m, not"},
	{"rotate.min_interval", "'-1h'", "duration"},
	{"log.level", "'loud'", `debug, info, warn or error, not "loud"`},
}

func TestRules(t *testing.T) {
	tried := make(map[string]bool)
	for _, tt := range wrong {
		text := tt.key + " = " + tt.value
		tried[tt.key] = true
		got := Default().decode(text)
		if len(got) != 1 || !strings.HasPrefix(got[0].Error(), tt.key+": ") || !strings.Contains(got[0].Error(), tt.want) {
			t.Errorf("%s:\n%v\nwant one mistake of %s: … %s", text, got, tt.key, tt.want)
		}
	}
	if got := Default().decode("tpm.address = ''\nidentity.key = 'tpm:0x81000100'"); len(got) != 1 || !strings.Contains(got[0].Error(), "identity.key: must be a file, because tpm.address is empty") {
		t.Errorf("a key in the TPM of a device without one: %v", got)
	}
	got := Default().decode("log.level = 'loud'\n[[check.accept]]\nkey = 'a'\n[[check.accept]]\ncode = 'KEYVET_RSA_TOO_SHORT'\nkey = 'b'\nwhy = 'c'\nuntil = 'soon'")
	for i, want := range []string{"check.accept: table 1: code is missing", "check.accept: table 1: why is missing", "check.accept: table 2: until must be a date", "log.level: "} {
		if len(got) != 4 || !strings.HasPrefix(got[i].Error(), want) {
			t.Errorf("the mistakes of two tables: %v, want %s", got, want)
		}
	}
	known := make(map[string]bool)
	for _, k := range keys() {
		known[k.name] = true
	}
	for name := range rules {
		if !tried[name] || !known[name] {
			t.Errorf("the rule of %q has no value that breaks it, or no such key", name)
		}
	}
}

// TestOrder has every mistake reported at once, in the order of the struct, however
// the file has them.
func TestOrder(t *testing.T) {
	values := make(map[string]string)
	for _, tt := range wrong {
		if value, _, _ := strings.Cut(tt.value, "\n"); values[tt.key] == "" && value != "''" || tt.key == "state_dir" || tt.key == "run_dir" {
			values[tt.key] = value
		}
	}
	for _, k := range keys() {
		if values[k.name] == "" && !k.table && !strings.HasPrefix(k.name, "provision.") {
			values[k.name] = "1979-05-27"
		}
	}
	var text, want []string
	for _, k := range keys() {
		if v := values[k.name]; v != "" {
			text, want = append(text, k.name+" = "+v), append(want, k.name)
		}
	}
	text, want = append(text, "gtae.open = 'local'", "zzz = 1"), slices.Concat([]string{"unknown key \"zzz\"", "unknown key \"gtae\""}, want)
	slices.Reverse(text)
	for range 3 {
		got := Default().decode(strings.Join(text, "\n"))
		if len(got) != len(want) {
			t.Fatalf("%d mistakes, want %d:\n%v", len(got), len(want), got)
		}
		for i, err := range got {
			if !strings.HasPrefix(err.Error(), want[i]) || strings.Contains(err.Error(), "\n") {
				t.Errorf("mistake %d is %q, want %s", i, err, want[i])
			}
		}
	}
}

// TestTypes gives each key a value of another type.
func TestTypes(t *testing.T) {
	for _, k := range keys() {
		for value, shown := range map[string]string{"1": "not 1", "[1]": "not ", "'text'": `not "text"`, "{ a = 1 }": "not "} {
			got := Default().decode(k.name + " = " + value)
			typed := k.index // whether the value is of the key's type
			field := reflect.TypeFor[Config]().FieldByIndex(typed).Type.Kind()
			if value == "'text'" && field != reflect.Bool && field != reflect.Slice && field != reflect.Map && !k.table || value == "{ a = 1 }" && k.table {
				continue
			}
			if len(got) != 1 || !strings.HasPrefix(got[0].Error(), k.name+": must be ") || !strings.Contains(got[0].Error(), shown) {
				t.Errorf("%s = %s: %v", k.name, value, got)
			}
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"stat_dir = 'x'", `unknown key "stat_dir", did you mean "state_dir"?`},
		{"State_Dir = 'x'", `did you mean "state_dir"?`},
		{"[mqtt]\nca = 'x'", `unknown key "mqtt.ca", did you mean "identity.ca"?`},
		{"[mqtt]\nendpoint = ['x:1']", `did you mean "mqtt.endpoints"?`},
		{"[gate]\nopn = 'local'", `did you mean "gate.open"?`},
		{"[mqt]\nkeepalive = '5m'\npins = []", `unknown key "mqt", did you mean "mqtt"?`},
		{"[[mqt]]\nkeepalive = '5m'\n[[mqt]]\npins = []", `unknown key "mqt", did you mean "mqtt"?`},
		{"'gate.open' = 'local'", `did you mean "gate.open"?`},
		{"[shadow]\ninterval = '1m'", `did you mean "shadow.min_interval"?`},
		{"state_dir = ", "line 1"},
	} {
		if got := Default().decode(tt.text); len(got) != 1 || !strings.Contains(got[0].Error(), tt.want) {
			t.Errorf("%q: %v, want one line with %q", tt.text, got, tt.want)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "k%d = 1\n", i)
	}
	got := Default().decode(many.String())
	if len(got) != maxUnknown+1 || got[maxUnknown].Error() != "and 990 more unknown keys" {
		t.Errorf("a thousand unknown keys: %v", got)
	}
	if got := Default().decode(strings.Repeat("long", 100_000) + " = 1"); len(got) != 1 || len(got[0].Error()) > 200 {
		t.Errorf("a long unknown key: %.300v", got)
	}
	if got := Default().decode("[provision]\nparameters = { Any = 'x', other = 'y' }"); got != nil {
		t.Errorf("a template's parameters are the operator's: %v", got)
	}
}

func TestReady(t *testing.T) {
	c := Default()
	err := c.ReadyToRun()
	if missing, ok := err.(Errors); !ok || len(missing) != 2 || !strings.Contains(missing[0].Error(), "thing.name") || !strings.Contains(missing[1].Error(), "mqtt.endpoints") {
		t.Errorf("an empty configuration: %v", err)
	}
	for _, name := range []string{"gw", "cert:CN", "ek:sha256", "file:/etc/hostname"} {
		c := Default()
		if got := c.decode("thing.name = '" + name + "'\nmqtt.endpoints = ['h:1']"); got != nil || c.ReadyToRun() != nil {
			t.Errorf("%s: %v, %v", name, got, c.ReadyToRun())
		}
	}
	if err := c.ReadyToRotate(); err == nil || !strings.Contains(err.Error(), "rotate.template") {
		t.Errorf("no template: %v", err)
	}
	for _, text := range []string{"rotate.template = 't'", "rotate.issuer = 'topics'", "provision.template = 't'\nprovision.claim_key = 'k'\nprovision.claim_certificate = 'c'"} {
		c := Default()
		if got := c.decode(text); got != nil || c.ReadyToRotate() != nil {
			t.Errorf("%s: %v, %v", text, got, c.ReadyToRotate())
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
		for _, err := range Default().decode(text) {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		}
	})
}
