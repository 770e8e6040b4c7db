package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/awsiot"
	"github.com/keyvet/keyvet/tpm"
)

// rules returns, by key, what is wrong with its value beyond the type.
var rules = map[string]func(*Config) error{
	"state_dir":                   func(c *Config) error { return directory(c.StateDir) },
	"run_dir":                     func(c *Config) error { return directory(c.RunDir) },
	"thing.name":                  thingName,
	"tpm.address":                 tpmAddress,
	"tpm.timeout":                 tpmTimeout,
	"tpm.wait":                    tpmWait,
	"tpm.ak":                      func(c *Config) error { _, err := c.AttestationKey(); return err },
	"identity.key":                identityKey,
	"mqtt.endpoints":              endpoints,
	"mqtt.pins":                   pins,
	"mqtt.keepalive":              keepAlive,
	"mqtt.timeout":                func(c *Config) error { return within(c.MQTT.Timeout.Duration, time.Second, 5*time.Minute) },
	"mqtt.reconnect_max":          func(c *Config) error { return within(c.MQTT.ReconnectMax.Duration, time.Second, 24*time.Hour) },
	"mqtt.report_topic":           reportTopic,
	"gate.open":                   func(c *Config) error { return oneOf(string(c.Gate.Open), "acknowledged", "local") },
	"provision.claim_certificate": func(c *Config) error { return c.ofClaim(c.Provision.ClaimCertificate) },
	"provision.claim_key":         func(c *Config) error { return c.ofClaim(c.Provision.ClaimKey) },
	"provision.template":          func(c *Config) error { return c.ofClaim(c.Provision.Template) },
	"rotate.issuer":               func(c *Config) error { return oneOf(c.Rotate.Issuer, IssuerFleet, "topics") },
	"rotate.key":                  func(c *Config) error { return oneOf(c.Rotate.Key, device.Algorithms()...) },
	"rotate.keys":                 rotateKeys,
	"metrics.textfile":            textfile,
	"log.level":                   func(c *Config) error { return oneOf(c.Log.Level, "debug", "info", "warn", "error") },
}

func oneOf(value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	last := len(words) - 1
	return mustBe(strings.Join(words[:last], ", ")+" or "+words[last], value)
}

// directory is the rule of directories that units and tmpfiles.d name, too: what
// has a meaning of its own there cannot be part of it.
func directory(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) == "/" || strings.ContainsFunc(path, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`%$"'\:*?[`, c) }) {
		return mustBe("an absolute path of a directory, without spaces and characters that have a meaning for systemd", path)
	}
	return nil
}

// Names of things that are taken from elsewhere, besides files.
const (
	NameOfCertificate = "cert:CN"
	NameOfEK          = "ek:sha256"
	NameOfTemplate    = "template"
)

// thingName does not look at a name that is taken from elsewhere.
func thingName(c *Config) error {
	name := c.Thing.Name
	if name == "" || strings.HasPrefix(name, "file:") || awsiot.CheckThingName(name) == nil {
		return nil
	}
	return mustBe("1 to 128 of the characters a-z, A-Z, 0-9, colon, underscore and hyphen, or cert:CN, ek:sha256, template or file:PATH", name)
}

// textfile is read by node_exporter only under a name with that ending.
func textfile(c *Config) error {
	if name := c.Metrics.Textfile; name != "" && (!filepath.IsAbs(name) || filepath.Ext(name) != ".prom") {
		return mustBe("an absolute path that ends in .prom", name)
	}
	return nil
}

func tpmAddress(c *Config) error {
	if c.TPM.Address == "" {
		return nil
	}
	if err := tpm.CheckAddress(c.TPM.Address); err != nil {
		return fmt.Errorf("%q: %w", c.TPM.Address, err)
	}
	return nil
}

func tpmTimeout(c *Config) error {
	if c.TPM.Timeout.Duration == 0 {
		return mustBe("more than zero", "0s")
	}
	return nil
}

// maxWait bounds what a device without its TPM is silent for.
const maxWait = 10 * time.Minute

func tpmWait(c *Config) error {
	if w := c.TPM.Wait.Duration; w > maxWait {
		return mustBe("0s to 10m", w.String())
	}
	return nil
}

func identityKey(c *Config) error {
	_, inTPM, err := PersistentHandle(c.Identity.Key)
	if err == nil && inTPM && c.TPM.Address == "" {
		err = mustBe("a file, because tpm.address is empty", c.Identity.Key)
	}
	return err
}

func endpoints(c *Config) error {
	for _, e := range c.MQTT.Endpoints {
		host, port, err := net.SplitHostPort(e)
		if n, portErr := strconv.Atoi(port); err != nil || host == "" || portErr != nil || n < 1 || n > 65535 {
			return mustBe("a list of HOST:PORT, such as xxxx-ats.iot.eu-west-1.amazonaws.com:8883", e)
		}
	}
	return nil
}

func pins(c *Config) error {
	for _, pin := range c.MQTT.Pins {
		if awsiot.CheckPin(pin) != nil {
			return mustBe(`a list of "amazon" and of base64 SHA-256`, pin)
		}
	}
	return nil
}

func keepAlive(c *Config) error {
	return within(c.MQTT.KeepAlive.Duration, awsiot.MinKeepAlive, awsiot.MaxKeepAlive)
}

func within(d, least, most time.Duration) error {
	if d < least || d > most {
		return mustBe(short(least)+" to "+short(most), d.String())
	}
	return nil
}

// short is a whole number of seconds, minutes or hours as people write it.
func short(d time.Duration) string {
	return strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(d.String())
}

func reportTopic(c *Config) error {
	if awsiot.CheckReportTopic(c.MQTT.ReportTopic) != nil {
		return mustBe("1 to 256 bytes, with at most 7 slashes and without +, #, a leading $ and braces other than those of {thing}", c.MQTT.ReportTopic)
	}
	return nil
}

// ofClaim is the rule of the three keys that a claim consists of.
func (c *Config) ofClaim(value string) error {
	p := c.Provision
	if value == "" && p.ClaimCertificate+p.ClaimKey+p.Template != "" {
		return errors.New("must be set: a claim has claim_certificate, claim_key and template, or none of them")
	}
	return nil
}

func rotateKeys(c *Config) error {
	for _, key := range c.Rotate.Keys {
		if err := oneOf(key, device.Algorithms()...); err != nil {
			return err
		}
	}
	return nil
}
