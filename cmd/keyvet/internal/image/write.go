package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
)

// setting is a key of keyvet.toml and the variable that it is from.
type setting struct {
	key      string
	variable string
	kind     kind
}

type kind int

const (
	text  kind = iota
	words      // a list
	pairs      // a table: Name=value …
	truth      // true or false
)

// settings are all that variables can say, in the order of the file. The rest of
// the configuration is for fragments.
var settings = []setting{
	{"state_dir", "STATE_DIR", text},
	{"thing.name", "THING_NAME", text},
	{"tpm.address", "TPM_ADDRESS", text},
	{"identity.certificate", "IDENTITY_CERTIFICATE", text},
	{"identity.key", "IDENTITY_KEY", text},
	{"identity.ca", "IDENTITY_CA", words},
	{"check.files", "CHECK_FILES", words},
	{"check.blocklists", "CHECK_BLOCKLISTS", words},
	{"check.advisories", "CHECK_ADVISORIES", words},
	{"check.ek_roots", "CHECK_EK_ROOTS", text},
	{"check.crls", "CHECK_CRLS", words},
	{"check.max_age", "CHECK_MAX_AGE", text},
	{"mqtt.endpoints", "ENDPOINTS", words},
	{"mqtt.ca_file", "CA_FILE", text},
	{"mqtt.pins", "PINS", words},
	{"mqtt.proxy", "PROXY", text},
	{"gate.open", "GATE", text},
	{"provision.claim_certificate", "CLAIM_CERTIFICATE", text},
	{"provision.claim_key", "CLAIM_KEY", text},
	{"provision.template", "PROVISION_TEMPLATE", text},
	{"provision.parameters", "PROVISION_PARAMETERS", pairs},
	{"provision.delete_claim", "DELETE_CLAIM", truth},
	{"rotate.issuer", "ROTATE_ISSUER", text},
	{"rotate.template", "ROTATE_TEMPLATE", text},
	{"rotate.key", "ROTATE_KEY", text},
	{"rotate.keys", "ROTATE_KEYS", words},
	{"rotate.before", "ROTATE_BEFORE", text},
	{"rotate.grace", "ROTATE_GRACE", text},
	{"rotate.min_interval", "ROTATE_MIN_INTERVAL", text},
}

// write makes the files, and reads them as the device will.
func (v variables) write(dir string) (o outcome) {
	values := v
	v = func(name string) string {
		return cmp.Or(values(name), standard(values, strings.TrimPrefix(name, prefix)))
	}
	if v.get("THING_NAME") == "" && !v.is("PARTIAL") {
		o.fail(fmt.Errorf(`KEYVET_THING_NAME is not set, and a device without a TPM has no name of its own: set "cert:CN" (the common name of its certificate), "template" (the provisioning template gives it), or "file:PATH" of a file that differs from device to device`))
	}
	toml, err := v.toml()
	o.fail(err)
	if err == nil {
		o.fail(put(dir, "etc/keyvet/keyvet.toml", toml))
	}
	for _, fragment := range strings.Fields(v.get("CONF_EXTRA")) {
		b, err := os.ReadFile(fragment)
		if err == nil {
			err = put(dir, filepath.Join("usr/lib/keyvet/conf.d", filepath.Base(fragment)), string(b))
		}
		if o.fail(err); filepath.Ext(fragment) != ".toml" {
			o.fail(fmt.Errorf("KEYVET_CONF_EXTRA: %s must end in .toml, or keyvet does not read it", fragment))
		}
	}
	if len(o.wrong) > 0 {
		return o
	}
	c := v.configured(dir, &o)
	if c == nil {
		return o
	}
	for name, content := range units(c, v.get("TPM_GROUP")) {
		o.fail(put(dir, name, content))
	}
	o.done = true
	return o
}

// standard returns the variable KEYVET_name that the build leaves out.
func standard(v variables, name string) string {
	claim := func(file string) string {
		if v.get("PROVISION_TEMPLATE") == "" {
			return ""
		}
		return filepath.Join(cmp.Or(v.get("STATE_DIR"), config.Default().StateDir), "claim", file)
	}
	switch name {
	case "THING_NAME":
		if v.get("TPM_ADDRESS") != "" {
			return config.NameOfEK
		}
	case "CLAIM_CERTIFICATE":
		return claim("certificate.pem")
	case "CLAIM_KEY":
		return claim("key.pem")
	case "ROTATE_TEMPLATE":
		if v.get("PROVISION_TEMPLATE") == "keyvet-first" { // the stack of docs/aws
			return "keyvet-rotate"
		}
	}
	return ""
}

// toml is keyvet.toml.
func (v variables) toml() (string, error) {
	var b strings.Builder
	b.WriteString("# Written when the image was built. Fragments in /etc/keyvet/conf.d and\n# /run/keyvet-conf.d take precedence: keyvet.toml(5).\n")
	table := ""
	for _, s := range settings {
		value, err := v.value(s)
		if err != nil {
			return "", fmt.Errorf("KEYVET_%s: %w", s.variable, err)
		}
		if value == "" {
			continue
		}
		of, key, found := strings.Cut(s.key, ".")
		if !found {
			of, key = "", s.key
		}
		if of != table {
			table = of
			fmt.Fprintf(&b, "\n[%s]\n", table)
		}
		fmt.Fprintf(&b, "%s = %s\n", key, value)
	}
	return b.String(), nil
}

// value is a setting's in TOML; "" if it has none.
func (v variables) value(s setting) (string, error) {
	given := v.get(s.variable)
	if strings.ContainsFunc(given, func(c rune) bool { return c > '~' || c < ' ' && c != '\n' && c != '\t' }) {
		return "", fmt.Errorf("%q is not printable ASCII", given)
	}
	switch {
	case s.key == "tpm.address" && given == "":
		return `""`, nil // which is not the default
	case given == "" || s.kind == truth && !v.is(s.variable):
		return "", nil
	}
	var items []string
	switch s.kind {
	case truth:
		return "true", nil
	case words:
		for _, word := range strings.Fields(given) {
			items = append(items, quote(word))
		}
		return "[" + strings.Join(items, ", ") + "]", nil
	case pairs:
		for _, word := range strings.Fields(given) {
			name, value, found := strings.Cut(word, "=")
			if !found || name == "" {
				return "", fmt.Errorf("%q is not Name=value; a value with spaces goes into a fragment (KEYVET_CONF_EXTRA)", word)
			}
			items = append(items, quote(name)+" = "+quote(value))
		}
		return "{ " + strings.Join(items, ", ") + " }", nil
	}
	return quote(given), nil
}

// quote is printable ASCII as a string of TOML.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

func put(dir, name, content string) error {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // an image's
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644) //nolint:gosec // an image's
}
