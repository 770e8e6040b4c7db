package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/agnivade/levenshtein"

	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
)

// defaultConfigPath is read where no other is given; a build may set it by
// -ldflags -X.
var defaultConfigPath = "/etc/keyvet/keyvet.toml"

const maxConfigBytes = 1 << 20

// config is keyvet.toml. Every key is optional, but for thing.name and
// mqtt.endpoints, which `keyvet run` needs.
type config struct {
	StateDir string `toml:"state_dir"`
	RunDir   string `toml:"run_dir"`
	Thing    struct {
		Name string `toml:"name"`
	} `toml:"thing"`
	TPM struct {
		Address string   `toml:"address"`
		Timeout duration `toml:"timeout"`
		AK      string   `toml:"ak"`
	} `toml:"tpm"`
	Evidence struct {
		PCRs     pcrs `toml:"pcrs"`
		Required bool `toml:"required"`
	} `toml:"evidence"`
	Identity struct {
		Certificate string   `toml:"certificate"`
		Key         string   `toml:"key"`
		CA          []string `toml:"ca"`
	} `toml:"identity"`
	Check struct {
		Files         []string `toml:"files"`
		ExpiryWarning duration `toml:"expiry_warning"`
		Blocklists    []string `toml:"blocklists"`
		Advisories    []string `toml:"advisories"`
		EKRoots       string   `toml:"ek_roots"`
		CRLs          []string `toml:"crls"`
	} `toml:"check"`
	MQTT struct {
		Endpoints   []string `toml:"endpoints"`
		CAFile      string   `toml:"ca_file"`
		Pins        []string `toml:"pins"`
		ClientID    string   `toml:"client_id"`
		KeepAlive   duration `toml:"keepalive"`
		ReportTopic string   `toml:"report_topic"`
	} `toml:"mqtt"`
	Gate struct {
		Open gate.Policy `toml:"open"`
	} `toml:"gate"`
	Provision struct {
		ClaimCertificate string            `toml:"claim_certificate"`
		ClaimKey         string            `toml:"claim_key"`
		Template         string            `toml:"template"`
		Parameters       map[string]string `toml:"parameters"`
		DeleteClaim      bool              `toml:"delete_claim"`
	} `toml:"provision"`
	Rotate struct {
		Issuer      string   `toml:"issuer"`
		Template    string   `toml:"template"`
		Key         string   `toml:"key"`
		Keys        []string `toml:"keys"`
		MinInterval duration `toml:"min_interval"`
		Before      duration `toml:"before"`
		Grace       duration `toml:"grace"`
	} `toml:"rotate"`
	Schedule struct {
		Every duration `toml:"every"`
	} `toml:"schedule"`
	Shadow struct {
		MinInterval duration `toml:"min_interval"`
	} `toml:"shadow"`
	Defender struct {
		Enabled bool `toml:"enabled"`
	} `toml:"defender"`
	Log struct {
		Level string `toml:"level"`
	} `toml:"log"`
}

// duration is a time.Duration in Go's notation; "" is zero.
type duration struct{ time.Duration }

func (d *duration) UnmarshalText(b []byte) (err error) {
	if len(b) == 0 {
		d.Duration = 0
		return nil
	}
	d.Duration, err = time.ParseDuration(string(b))
	if err == nil && d.Duration < 0 {
		err = errors.New("a duration cannot be negative")
	}
	return err
}

// pcrs are PCRs of one bank: "sha256:0,1,7"; "" is none.
type pcrs struct {
	bank    string
	indices []uint
}

func (p *pcrs) UnmarshalText(b []byte) error {
	*p = pcrs{bank: defaultBank, indices: []uint{}}
	if len(b) == 0 {
		return nil
	}
	bank, list, ok := strings.Cut(string(b), ":")
	if !ok || !slices.Contains([]string{"sha256", "sha384", "sha512"}, bank) {
		return fmt.Errorf("%q is not a bank and its PCRs, such as sha256:0,1,7; banks are sha256, sha384 and sha512", b)
	}
	p.bank = bank
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil || n > 23 || slices.Contains(p.indices, uint(n)) {
			return fmt.Errorf("%q: PCRs are 0 to 23, each once", b)
		}
		p.indices = append(p.indices, uint(n))
	}
	return nil
}

const defaultBank = "sha256"

func defaults() *config {
	c := new(config)
	c.StateDir = "/var/lib/keyvet"
	c.RunDir = "/run/keyvet"
	c.TPM.Address = "/dev/tpmrm0"
	c.TPM.Timeout.Duration = 30 * time.Second
	c.Evidence.PCRs = pcrs{bank: defaultBank, indices: []uint{0, 1, 2, 3, 4, 5, 6, 7}}
	c.Evidence.Required = true
	c.Check.ExpiryWarning.Duration = 720 * time.Hour
	c.MQTT.KeepAlive.Duration = 5 * time.Minute
	c.MQTT.ReportTopic = "keyvet/{thing}/report"
	c.Gate.Open = gate.Acknowledged
	c.Rotate.Issuer = issuerFleet
	c.Rotate.Key = "ecdsa-p256"
	c.Rotate.MinInterval.Duration = time.Hour
	c.Rotate.Grace.Duration = 24 * time.Hour
	c.Schedule.Every.Duration = 24 * time.Hour
	c.Shadow.MinInterval.Duration = time.Minute
	c.Defender.Enabled = true
	c.Log.Level = "info"
	return c
}

// loadConfig reads the file at path; "" means the default path, which need not
// be there.
func loadConfig(path string) (*config, error) {
	name := path
	if name == "" {
		name = defaultConfigPath
	}
	c := defaults()
	b, err := readBounded(name, maxConfigBytes)
	switch {
	case path == "" && errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("config: %w", err)
	default:
		if err := c.decode(string(b)); err != nil {
			return nil, fmt.Errorf("config: %s: %w", name, err)
		}
	}
	return c, nil
}

// identity is where the device's certificate and key are, or will be: where the
// configuration says, until keyvet has made the device another credential, which
// is behind a symbolic link in the state directory.
func (c *config) identity() (certificate, key string) {
	made := filepath.Join(c.StateDir, "identity")
	if info, err := os.Lstat(made); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return filepath.Join(made, "certificate.pem"), filepath.Join(made, "key.pem")
	}
	return c.configured()
}

// configured is where the credential is that the device was given.
func (c *config) configured() (certificate, key string) {
	certificate, key = c.Identity.Certificate, c.Identity.Key
	if certificate == "" {
		certificate = filepath.Join(c.StateDir, "identity", "certificate.pem")
	}
	if key == "" {
		key = filepath.Join(c.StateDir, "identity", "key.pem")
	}
	return certificate, key
}

// tpmOptions are what the configuration says of talking to the TPM.
func (c *config) tpmOptions() tpm.Options {
	return tpm.Options{Timeout: c.TPM.Timeout.Duration, AKOptional: c.needsEvidence() == ""}
}

// persistentHandle is the handle in the name of a key in the TPM,
// "tpm:0x81000100"; other names are those of files.
func persistentHandle(key string) (handle uint32, inTPM bool, err error) {
	text, inTPM := strings.CutPrefix(key, "tpm:")
	if !inTPM {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil || n>>24 != 0x81 {
		return 0, true, fmt.Errorf("%q is not tpm: and a persistent handle, such as tpm:0x81000100", key)
	}
	return uint32(n), true, nil
}

// attestationKey is the persistent handle that tpm.ak names; 0 if it names none.
func (c *config) attestationKey() (uint32, error) {
	if c.TPM.AK == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(c.TPM.AK, 0, 32)
	if err != nil || n < 0x81000000 || n > 0x817fffff {
		return 0, fmt.Errorf("tpm.ak = %q: must be a persistent handle of the owner, such as 0x81010020", c.TPM.AK)
	}
	return uint32(n), nil
}

func (c *config) decode(text string) error {
	md, err := toml.Decode(text, c)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return fmt.Errorf("line %d: %s", pe.Position.Line, firstLine(pe.Message))
		}
		return errors.New(firstLine(strings.TrimPrefix(err.Error(), "toml: ")))
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		key := unknown[0].String()
		return fmt.Errorf("unknown key %q, did you mean %q?", key, nearest(key, keyNames(reflect.TypeOf(*c), "")))
	}
	return c.validate()
}

func (c *config) validate() error {
	for name, v := range map[string]struct{ value, allowed string }{
		"gate.open":     {string(c.Gate.Open), "acknowledged local"},
		"rotate.issuer": {c.Rotate.Issuer, issuerFleet + " topics"},
		"rotate.key":    {c.Rotate.Key, strings.Join(rotate.Algorithms(), " ")},
		"log.level":     {c.Log.Level, "debug info warn error"},
	} {
		if words := strings.Fields(v.allowed); !slices.Contains(words, v.value) {
			return fmt.Errorf("%s = %q: must be one of %s", name, v.value, strings.Join(words, ", "))
		}
	}
	for _, key := range c.Rotate.Keys {
		if all := rotate.Algorithms(); !slices.Contains(all, key) {
			return fmt.Errorf("rotate.keys: %q: must be among %s", key, strings.Join(all, ", "))
		}
	}
	for _, e := range c.MQTT.Endpoints {
		host, port, err := net.SplitHostPort(e)
		if n, portErr := strconv.Atoi(port); err != nil || host == "" || portErr != nil || n < 1 || n > 65535 {
			return fmt.Errorf("mqtt.endpoints: %q is not HOST:PORT, such as \"xxxx-ats.iot.eu-west-1.amazonaws.com:8883\"", e)
		}
	}
	for _, pin := range c.MQTT.Pins {
		if err := awsiot.CheckPin(pin); err != nil {
			return fmt.Errorf("mqtt.pins: %w", err)
		}
	}
	if k := c.MQTT.KeepAlive.Duration; k < awsiot.MinKeepAlive || k > awsiot.MaxKeepAlive {
		return fmt.Errorf("mqtt.keepalive = %q: AWS IoT takes 30s to 20m", k)
	}
	if _, inTPM, err := persistentHandle(c.Identity.Key); err != nil {
		return fmt.Errorf("identity.key = %w", err)
	} else if inTPM && c.TPM.Address == "" {
		return fmt.Errorf("identity.key = %q, but tpm.address is empty", c.Identity.Key)
	}
	if c.TPM.Address != "" {
		if err := tpm.CheckAddress(c.TPM.Address); err != nil {
			return fmt.Errorf("tpm.address = %q: %w", c.TPM.Address, err)
		}
	}
	if _, err := c.attestationKey(); err != nil {
		return err
	}
	if p := c.Provision; (p.ClaimCertificate == "") != (p.ClaimKey == "") || (p.ClaimCertificate == "") != (p.Template == "") {
		return errors.New("provision.claim_certificate, provision.claim_key and provision.template are set together, or none of them")
	}
	if c.TPM.Timeout.Duration == 0 {
		return errors.New("tpm.timeout must be more than zero")
	}
	if c.StateDir == "" || c.RunDir == "" {
		return errors.New("state_dir and run_dir must not be empty")
	}
	return nil
}

// issuerFleet is the rotate.issuer that is AWS IoT itself.
const issuerFleet = "fleet-provisioning"

// keyNames lists the keys of the configuration: "mqtt.ca_file".
func keyNames(t reflect.Type, prefix string) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("toml")
		names = append(names, name)
		if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[duration]() && f.Type != reflect.TypeFor[pcrs]() {
			names = append(names, keyNames(f.Type, name+".")...)
		}
	}
	return names
}

// nearest is the name that takes the fewest changes; where the last part alone
// is as near, its own table counts for nothing, since a key may stand in the
// wrong table.
func nearest(key string, names []string) string {
	last := func(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }
	best, least := "", 1<<30
	for _, name := range names {
		d := min(2*levenshtein.ComputeDistance(key, name), 2*levenshtein.ComputeDistance(last(key), last(name))+1)
		if d < least {
			best, least = name, d
		}
	}
	return best
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, limit)
	}
	return b, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
