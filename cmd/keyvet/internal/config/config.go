// Package config is keyvet.toml: what it may say, what it says where it says
// nothing, and what follows from it for the rest of the program.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/gate"
	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
)

// DefaultPath is read where no other is given; a build may set it by
// -ldflags -X.
var DefaultPath = "/etc/keyvet/keyvet.toml"

const maxBytes = 1 << 20

// Config is keyvet.toml. Every key is optional, but for thing.name and
// mqtt.endpoints, which `keyvet run` needs.
type Config struct {
	StateDir string `toml:"state_dir"`
	RunDir   string `toml:"run_dir"`
	Thing    struct {
		Name string `toml:"name"`
	} `toml:"thing"`
	TPM struct {
		Address string   `toml:"address"`
		Timeout Duration `toml:"timeout"`
		AK      string   `toml:"ak"`
	} `toml:"tpm"`
	Evidence struct {
		PCRs     PCRs `toml:"pcrs"`
		Required bool `toml:"required"`
	} `toml:"evidence"`
	Identity struct {
		Certificate string   `toml:"certificate"`
		Key         string   `toml:"key"`
		CA          []string `toml:"ca"`
	} `toml:"identity"`
	Check struct {
		Files         []string `toml:"files"`
		ExpiryWarning Duration `toml:"expiry_warning"`
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
		KeepAlive   Duration `toml:"keepalive"`
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
		MinInterval Duration `toml:"min_interval"`
		Before      Duration `toml:"before"`
		Grace       Duration `toml:"grace"`
	} `toml:"rotate"`
	Schedule struct {
		Every Duration `toml:"every"`
	} `toml:"schedule"`
	Shadow struct {
		MinInterval Duration `toml:"min_interval"`
	} `toml:"shadow"`
	Defender struct {
		Enabled bool `toml:"enabled"`
	} `toml:"defender"`
	Log struct {
		Level string `toml:"level"`
	} `toml:"log"`
}

// Default returns the configuration of an empty file.
func Default() *Config {
	c := new(Config)
	c.StateDir = "/var/lib/keyvet"
	c.RunDir = "/run/keyvet"
	c.TPM.Address = "/dev/tpmrm0"
	c.TPM.Timeout.Duration = 30 * time.Second
	c.Evidence.PCRs = PCRs{Bank: defaultBank, Indices: []uint{0, 1, 2, 3, 4, 5, 6, 7}}
	c.Evidence.Required = true
	c.Check.ExpiryWarning.Duration = 720 * time.Hour
	c.MQTT.KeepAlive.Duration = 5 * time.Minute
	c.MQTT.ReportTopic = "keyvet/{thing}/report"
	c.Gate.Open = gate.Acknowledged
	c.Rotate.Issuer = IssuerFleet
	c.Rotate.Key = "ecdsa-p256"
	c.Rotate.MinInterval.Duration = time.Hour
	c.Rotate.Grace.Duration = 24 * time.Hour
	c.Schedule.Every.Duration = 24 * time.Hour
	c.Shadow.MinInterval.Duration = time.Minute
	c.Defender.Enabled = true
	c.Log.Level = "info"
	return c
}

// Load reads the file at path; "" means [DefaultPath], which need not be there.
func Load(path string) (*Config, error) {
	name := path
	if name == "" {
		name = DefaultPath
	}
	c := Default()
	b, err := durable.ReadBounded(name, maxBytes)
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

func (c *Config) decode(text string) error {
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
		return fmt.Errorf("unknown key %q, did you mean %q?", key, Nearest(key, keyNames(reflect.TypeOf(*c), "")))
	}
	return c.Validate()
}

// Validate returns what is wrong with the values.
func (c *Config) Validate() error {
	for name, v := range map[string]struct{ value, allowed string }{
		"gate.open":     {string(c.Gate.Open), "acknowledged local"},
		"rotate.issuer": {c.Rotate.Issuer, IssuerFleet + " topics"},
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
	if _, inTPM, err := PersistentHandle(c.Identity.Key); err != nil {
		return fmt.Errorf("identity.key = %w", err)
	} else if inTPM && c.TPM.Address == "" {
		return fmt.Errorf("identity.key = %q, but tpm.address is empty", c.Identity.Key)
	}
	if c.TPM.Address != "" {
		if err := tpm.CheckAddress(c.TPM.Address); err != nil {
			return fmt.Errorf("tpm.address = %q: %w", c.TPM.Address, err)
		}
	}
	if _, err := c.AttestationKey(); err != nil {
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

// IssuerFleet is the rotate.issuer that is AWS IoT itself.
const IssuerFleet = "fleet-provisioning"

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
