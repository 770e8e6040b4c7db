package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

// env is a build's: KEY=value, without KEYVET_.
func env(list ...string) func(string) string {
	return func(name string) string {
		for _, word := range slices.Backward(list) {
			if key, value, _ := strings.Cut(word, "="); "KEYVET_"+key == name {
				return value
			}
		}
		return ""
	}
}

func image(t *testing.T, variables func(string) string, args ...string) (status int, said string) {
	t.Helper()
	before := config.Root
	t.Cleanup(func() { config.Root = before })
	var b strings.Builder
	status = program(variables).Run(t.Context(), cli.IO{Out: &b, Err: &b}, args)
	return status, b.String()
}

// good is a machine with a TPM.
var good = []string{"MACHINE=qemuarm64", "ENDPOINTS=iot.example.com:8883", "TPM_ADDRESS=/dev/tpmrm0"}

// TestWrong has each value that keyvet refuses on the device, or with which a
// fleet could not work, refused in the build.
func TestWrong(t *testing.T) {
	dir := t.TempDir()
	fragment := filepath.Join(dir, "50-a.toml")
	if err := os.WriteFile(fragment, []byte("[mqtt]\nkeepalive = '1s'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ set, want string }{
		{"PROVISION_TEMPLATE=first CLAIM_KEY=/k CLAIM_CERTIFICATE=/c", ""},
		{"PROVISION_TEMPLATE=keyvet-first", ""},
		{"ROTATE_TEMPLATE=rotate ROTATE_BEFORE=720h IDENTITY_KEY=tpm:0x81000100 IDENTITY_CERTIFICATE=/factory/device.pem IDENTITY_CA=/factory/ca.pem", ""},
		{"THING_NAME=ek:sha256", ""},
		{"THING_NAME=gateway-1", ""},
		{"ENDPOINTS= PARTIAL=1", ""},
		{"TPM_ADDRESS= THING_NAME=cert:CN", ""},
		{"TPM_ADDRESS= THING_NAME=template", ""},
		{"STATE_DIR=/var/lib/keyvet/", ""},
		{"TPM_ADDRESS= PARTIAL=1", ""},
		{"CLAIM_KEY=/k CLAIM_CERTIFICATE=/c", "provision.template: must be set"},
		{"CLAIM_KEY=/k PROVISION_TEMPLATE= ROTATE_TEMPLATE=r", "provision.template: must be set"},
		{"GATE=maybe", `gate.open: must be acknowledged or local, not "maybe"`},
		{"ENDPOINTS=iot.example.com", `mqtt.endpoints: must be a list of HOST:PORT`},
		{"ENDPOINTS=https://iot.example.com", `mqtt.endpoints: must be a list of HOST:PORT`},
		{"ENDPOINTS=", "mqtt.endpoints is missing"},
		{"TPM_ADDRESS= THING_NAME=", "KEYVET_THING_NAME is not set"},
		{"TPM_ADDRESS=", "KEYVET_THING_NAME is not set"},
		{"THING_NAME=qemuarm64", "is the name of the machine"},
		{"THING_NAME=a/b", "thing.name: must be 1 to 128"},
		{"STATE_DIR=data/keyvet", "state_dir: must be an absolute path"},
		{"STATE_DIR=/data/key\u00a0vet", "not printable ASCII"},
		{"STATE_DIR=/data/%i", "state_dir: must be an absolute path"},
		{"TPM_ADDRESS=nonsense", `tpm.address`},
		{"TPM_ADDRESS=spi:/dev/spidev0.0?speed=fast", `tpm.address`},
		{"ROTATE_BEFORE=720h", "rotate.before is set, but rotate.template is missing"},
		{"ROTATE_BEFORE=soon ROTATE_TEMPLATE=r", "rotate.before: must be a duration"},
		{"ROTATE_ISSUER=me", "rotate.issuer: must be"},
		{"ROTATE_KEY=dsa", "rotate.key: must be"},
		{"PROVISION_TEMPLATE=first PROVISION_PARAMETERS=Site", "is not Name=value"},
		{"PINS=abc", "mqtt.pins: must be"},
		{"PROXY=ftp://x", "mqtt.proxy"},
		{"TPM_ADDRESS= THING_NAME=cert:CN IDENTITY_KEY=tpm:0x81000100", "identity.key: must be a file, because tpm.address is empty"},
		{"CONF_EXTRA=" + fragment, "/usr/lib/keyvet/conf.d/50-a.toml: mqtt.keepalive: must be 30s to 20m"},
		{"CONF_EXTRA=/nonexistent.toml", "no such file"},
		{"CONF_EXTRA=/proc/self/status", "must end in .toml"},
		{"THING_NAME=caf\u00e9", "not printable ASCII"},
	} {
		status, said := image(t, env(slices.Concat(good, strings.Split(tt.set, " "))...), "write", t.TempDir())
		if tt.want == "" {
			if status != 0 {
				t.Errorf("%s: %d, %s", tt.set, status, said)
			}
		} else if status != 2 || !strings.Contains(said, "error: ") || !strings.Contains(said, tt.want) {
			t.Errorf("%s: status %d, %q, want %s", tt.set, status, said, tt.want)
		}
	}
	for _, spaced := range []string{"/data/key vet", "/data/key\tvet"} {
		if status, said := image(t, env(append(slices.Clone(good), "STATE_DIR="+spaced)...), "write", t.TempDir()); status != 2 || !strings.Contains(said, "state_dir: must be an absolute path") {
			t.Errorf("%q: %d, %s", spaced, status, said)
		}
	}
	for _, args := range [][]string{nil, {"write"}, {"make", "x"}, {"write", "a", "b"}, {"-read-only", "check", "x"}} {
		if status, said := image(t, env(good...), args...); status != 2 || !strings.HasPrefix(said, "keyvet-image") {
			t.Errorf("%q: %d, %s", args, status, said)
		}
	}
	if status, said := image(t, env(good...), "check", filepath.Join(dir, "none")); status != 2 || !strings.Contains(said, "no such file") {
		t.Errorf("no image: %d, %s", status, said)
	}
}

// TestAll sets every variable, and has each arrive.
func TestAll(t *testing.T) {
	dir := t.TempDir()
	status, said := image(t, env(
		"STATE_DIR=/data/keyvet", "THING_NAME=ek:sha256", "TPM_ADDRESS=/dev/tpmrm0", "IDENTITY_CERTIFICATE=/f/c", "IDENTITY_KEY=tpm:0x81000100", "IDENTITY_CA=/f/a /f/b",
		"CHECK_FILES=/etc/ssl /srv/*.pem", "CHECK_BLOCKLISTS=/l", "CHECK_ADVISORIES=/v", "CHECK_EK_ROOTS=/roots", "CHECK_CRLS=/crl", "CHECK_MAX_AGE=8760h",
		"ENDPOINTS=a:1 \n b:2", "CA_FILE=/ca", "PINS=amazon", "PROXY=http://proxy:3128", "GATE=local", "CLAIM_CERTIFICATE=/data/claim/c", "CLAIM_KEY=/data/claim/k", "PROVISION_TEMPLATE=keyvet-first",
		`PROVISION_PARAMETERS=Site=a"b Line=7 Thing={thing}`, "DELETE_CLAIM=1", "ROTATE_ISSUER=topics", "ROTATE_KEY=ecdsa-p384", "ROTATE_KEYS=ecdsa-p384 rsa-3072", "ROTATE_BEFORE=720h", "ROTATE_GRACE=48h", "ROTATE_MIN_INTERVAL=2h",
	), "write", dir)
	got, err := os.ReadFile(filepath.Join(dir, "etc/keyvet/keyvet.toml"))
	if err != nil || status != 0 || said != "" {
		t.Fatal(status, said, err)
	}
	want := `# Written when the image was built. Fragments in /etc/keyvet/conf.d and
# /run/keyvet-conf.d take precedence: keyvet.toml(5).
state_dir = "/data/keyvet"

[thing]
name = "ek:sha256"

[tpm]
address = "/dev/tpmrm0"

[identity]
certificate = "/f/c"
key = "tpm:0x81000100"
ca = ["/f/a", "/f/b"]

[check]
files = ["/etc/ssl", "/srv/*.pem"]
blocklists = ["/l"]
advisories = ["/v"]
ek_roots = "/roots"
crls = ["/crl"]
max_age = "8760h"

[mqtt]
endpoints = ["a:1", "b:2"]
ca_file = "/ca"
pins = ["amazon"]
proxy = "http://proxy:3128"

[gate]
open = "local"

[provision]
claim_certificate = "/data/claim/c"
claim_key = "/data/claim/k"
template = "keyvet-first"
parameters = { "Site" = "a\"b", "Line" = "7", "Thing" = "{thing}" }
delete_claim = true

[rotate]
issuer = "topics"
template = "keyvet-rotate"
key = "ecdsa-p384"
keys = ["ecdsa-p384", "rsa-3072"]
before = "720h"
grace = "48h"
min_interval = "2h"
`
	if string(got) != want {
		t.Errorf("keyvet.toml:\n%s\nwant\n%s", got, want)
	}
	for _, s := range settings {
		if _, key, _ := strings.Cut("."+s.key, "."); !strings.Contains(want, key[strings.LastIndexByte(key, '.')+1:]+" = ") {
			t.Errorf("%s is not tried", s.variable)
		}
	}
}

// TestUnits is what the address of the TPM and the state directory ask for.
func TestUnits(t *testing.T) {
	const tmpfiles, rules = "usr/lib/tmpfiles.d/keyvet-state.conf", "usr/lib/udev/rules.d/61-keyvet-bus.rules"
	state := "d /var/lib/keyvet 0700 keyvet keyvet -\n"
	for _, tt := range []struct {
		set  string
		want map[string]string
	}{
		{"STATE_DIR=/var/lib/keyvet/", map[string]string{dropIn: "[Unit]\nWants=dev-tpmrm0.device\nAfter=dev-tpmrm0.device\n", tmpfiles: state}},
		{"TPM_ADDRESS=/dev/tpmrm1", map[string]string{dropIn: "[Unit]\nWants=dev-tpmrm1.device\nAfter=dev-tpmrm1.device\n", tmpfiles: state}},
		{"TPM_ADDRESS= THING_NAME=cert:CN", map[string]string{tmpfiles: state}},
		{"TPM_ADDRESS=/dev/tpm0", map[string]string{tmpfiles: state}},
		{"TPM_ADDRESS=unix:/run/swtpm.sock", map[string]string{tmpfiles: state}},
		{"TPM_ADDRESS=spi:/dev/spidev0.1?speed=10MHz", map[string]string{
			dropIn:   "[Unit]\nWants=dev-spidev0.1.device\nAfter=dev-spidev0.1.device\n[Service]\nDeviceAllow=/dev/spidev0.1 rw\n",
			rules:    "KERNEL==\"spidev0.1\", GROUP=\"tss\", MODE=\"0660\", TAG+=\"systemd\"\n",
			tmpfiles: state,
		}},
		{"TPM_ADDRESS=i2c:/dev/i2c-1 TPM_GROUP=i2c", map[string]string{
			dropIn:   "[Unit]\nWants=dev-i2c\\x2d1.device\nAfter=dev-i2c\\x2d1.device\n[Service]\nDeviceAllow=/dev/i2c-1 rw\nSupplementaryGroups=i2c\n",
			rules:    "KERNEL==\"i2c-1\", GROUP=\"i2c\", MODE=\"0660\", TAG+=\"systemd\"\n",
			tmpfiles: state,
		}},
		{"TPM_ADDRESS= THING_NAME=template STATE_DIR=/data/key-vet PROVISION_TEMPLATE=t DELETE_CLAIM=yes", map[string]string{
			dropIn: "[Unit]\nWants=keyvet-state@data-key\\x2dvet.service\nAfter=keyvet-state@data-key\\x2dvet.service\n[Service]\nStateDirectory=\nReadWritePaths=/data/key-vet\n",
		}},
		{"TPM_ADDRESS= THING_NAME=template PROVISION_TEMPLATE=t CLAIM_KEY=/factory/k CLAIM_CERTIFICATE=/factory/c DELETE_CLAIM=1", map[string]string{
			dropIn: "[Service]\nReadWritePaths=-/factory\n", tmpfiles: state,
		}},
	} {
		dir := t.TempDir()
		if status, said := image(t, env(slices.Concat(good, strings.Split(tt.set, " "))...), "write", dir); status != 0 {
			t.Errorf("%s: %d, %s", tt.set, status, said)
		}
		got := make(map[string]string)
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			got[path[len(dir)+1:]] = string(b)
			return err
		})
		delete(got, "etc/keyvet/keyvet.toml")
		if err != nil || len(got) != len(tt.want) {
			t.Errorf("%s: %v, files %q", tt.set, err, got)
		}
		for name, content := range tt.want {
			if got[name] != content {
				t.Errorf("%s: %s:\n%s\nwant\n%s", tt.set, name, got[name], content)
			}
		}
	}
}

// TestEscape compares with systemd's own.
func TestEscape(t *testing.T) {
	paths := []string{"/data/keyvet", "/dev/i2c-1", "/dev/spidev0.1", "/a.b/.c/_d:e", "/.hidden/x", "/data//key+vet/"}
	out, err := exec.Command("systemd-escape", append([]string{"--path"}, paths...)...).Output()
	if err != nil {
		t.Fatalf("systemd-escape: %v", err)
	}
	for i, want := range strings.Fields(string(out)) {
		if got := escape(paths[i]); got != want {
			t.Errorf("%s: %s, want %s", paths[i], got, want)
		}
	}
}

// TestCheck has images whose recipes do not fit each other.
func TestCheck(t *testing.T) {
	const toml, hostname, fstab, service = "etc/keyvet/keyvet.toml", "etc/hostname", "etc/fstab", "usr/lib/systemd/system/keyvet.service"
	const base = "thing.name = 'ek:sha256'\nmqtt.endpoints = ['a:1']\n"
	const onData = "state_dir = '/data/keyvet'\n" + base
	const data = "# all\nproc /proc proc defaults 0 0\n/dev/mmcblk0p3 /data ext4 nofail 0 2\n"
	written := "[Service]\nReadWritePaths=/data/keyvet\n"
	for _, tt := range []struct {
		name     string
		files    map[string]string
		readOnly bool
		set      string
		want     string
	}{
		{"good", map[string]string{toml: base, service: ""}, false, "", ""},
		{"no keyvet in it", map[string]string{toml: "nonsense", "usr/bin/keyvet": "-"}, false, "", ""},
		{"read-only root", map[string]string{toml: base, service: "", fstab: "tmpfs /var/volatile tmpfs defaults 0 0\n"}, true, "", "state_dir: /var/lib/keyvet is on the read-only root, or in memory by volatile-binds"},
		{"read-only root, said to last", map[string]string{toml: base, service: ""}, true, "STATE_PERSISTENT=1", ""},
		{"/var in memory", map[string]string{toml: base, service: "", fstab: "tmpfs /var tmpfs defaults 0 0\n"}, false, "", "state_dir: /var/lib/keyvet is on /var, which is in memory"},
		{"/var/lib on a mount unit in memory", map[string]string{toml: base, service: "", "usr/lib/systemd/system/var-lib.mount": "[Mount]\nWhat=tmpfs\nWhere=/var/lib\nType=tmpfs\n"}, false, "", "in memory"},
		{"/var on a partition", map[string]string{toml: base, service: "", fstab: "tmpfs /tmp tmpfs d 0 0\n/dev/sda3 /var ext4 defaults 0 0\n"}, true, "", ""},
		{"/var/lib on an overlay", map[string]string{toml: base, service: "", "etc/systemd/system/var-lib.mount": "[Mount]\nWhat=overlay\nWhere=/var/lib\nType=overlay\n"}, true, "", ""},
		{"state on a mount", map[string]string{toml: onData, service: "", fstab: data, dropIn: written}, true, "", ""},
		{"state on a mount that nobody names", map[string]string{toml: onData, service: "", dropIn: written}, true, "", "is on the read-only root"},
		{"state below the mount", map[string]string{toml: onData, service: "", fstab: data, dropIn: written, "data/keyvet/x": ""}, true, "", "is part of the image"},
		{"a fragment moved the state", map[string]string{toml: base, service: "", fstab: data, "etc/keyvet/conf.d/a.toml": "state_dir = '/data/other'"}, true, "", "no drop-in of keyvet.service lets it write to /data/other"},
		{"the same with another init", map[string]string{toml: base, fstab: data, "etc/keyvet/conf.d/a.toml": "state_dir = '/data/other'"}, true, "", ""},
		{"a wrong fragment of a product", map[string]string{toml: base, service: "", "usr/lib/keyvet/conf.d/p.toml": "log.level = 'loud'"}, false, "", "error: /usr/lib/keyvet/conf.d/p.toml: log.level: must be"},
		{"nothing said", map[string]string{service: ""}, false, "", "thing.name is missing"},
		{"to be said on the device", map[string]string{service: ""}, false, "PARTIAL=1", ""},
		{"the machine's name", map[string]string{toml: "thing.name = 'file:/etc/hostname'\nmqtt.endpoints = ['a:1']\n", service: "", hostname: "qemuarm64\n"}, false, "", `every device of it would be this thing`},
		{"each device writes its name", map[string]string{toml: "thing.name = 'file:/etc/hostname'\nmqtt.endpoints = ['a:1']\n", service: "", hostname: "qemuarm64\n"}, false, "ONE_THING=1", ""},
		{"a name of the factory", map[string]string{toml: "thing.name = 'file:/factory/name'\nmqtt.endpoints = ['a:1']\n", service: ""}, false, "", ""},
		{"the machine's name, by a fragment", map[string]string{toml: base, service: "", "etc/keyvet/conf.d/a.toml": "thing.name = 'qemuarm64'"}, false, "", "is the name of the machine"},
	} {
		root := t.TempDir()
		tt.files["usr/bin/keyvet"] += ""
		for name, content := range tt.files {
			if content == "-" {
				continue
			}
			if err := put(root, name, content); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"check", root}
		if tt.readOnly {
			args = []string{"check", "-read-only", root}
		}
		status, said := image(t, env("MACHINE=qemuarm64", tt.set), args...)
		switch {
		case tt.want == "" && status != 0:
			t.Errorf("%s: %d, %s", tt.name, status, said)
		case tt.want != "" && (status != 2 || !strings.Contains(said, tt.want) || strings.Contains(said, root)):
			t.Errorf("%s: %d, %q, want %s", tt.name, status, said, tt.want)
		}
	}
}

// TestLayer has the recipe, its README and Buildroot know every variable.
func TestLayer(t *testing.T) {
	const layer = "../../../../yocto/meta-keyvet/"
	names := []string{"CONF_EXTRA", "TPM_GROUP", "PARTIAL", "STATE_PERSISTENT", "ONE_THING"}
	for _, s := range settings {
		names = append(names, s.variable)
	}
	for file, exempt := range map[string][]string{
		layer + "recipes-security/keyvet/keyvet-conf.bb": {"STATE_PERSISTENT", "ONE_THING"},
		layer + "README.md": nil,
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !slices.Contains(exempt, name) && !regexp.MustCompile(`\bKEYVET_`+name+`\b`).Match(b) {
				t.Errorf("%s does not know KEYVET_%s", file, name)
			}
		}
		for _, m := range regexp.MustCompile(`\bKEYVET_([A-Z_]+)\b`).FindAllStringSubmatch(string(b), -1) {
			if known := slices.Concat(names, []string{"MACHINE", "VARIABLES", "RPI_TPM", "KERNEL_TPMS"}); !slices.Contains(known, m[1]) {
				t.Errorf("%s speaks of %s, which is no variable", file, m[0])
			}
		}
	}
}

// TestKernelOptions has the table of the layer's README list the options that its
// kernel fragments set.
func TestKernelOptions(t *testing.T) {
	const layer = "../../../../yocto/meta-keyvet/"
	readme, err := os.ReadFile(layer + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	option := regexp.MustCompile(`\bCONFIG_\w+`)
	row := func(tpm string) []string {
		line := regexp.MustCompile(`(?m)^\| ` + tpm + `.*$`).FindString(string(readme))
		return option.FindAllString(line, -1)
	}
	for tpm, name := range map[string]string{"every one": "tpm", "`spi`": "tpm-spi", "`i2c`": "tpm-i2c", "`tis`": "tpm-tis", "`ftpm`": "tpm-ftpm"} {
		fragment, err := os.ReadFile(layer + "recipes-kernel/linux/files/keyvet-kmeta/keyvet-" + name + ".cfg")
		if err != nil {
			t.Fatal(err)
		}
		want, got := option.FindAllString(string(fragment), -1), row(tpm)
		slices.Sort(want)
		slices.Sort(got)
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("%s: the README lists %v, the fragment sets %v", tpm, got, want)
		}
	}
}
