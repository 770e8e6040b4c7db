package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device/rotate"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// ReadyToRun returns what the configuration lacks for `keyvet run`.
func (c *Config) ReadyToRun() error {
	switch {
	case c.Thing.Name == "":
		return errors.New("config: thing.name is missing: the name of this device in AWS IoT")
	case len(c.MQTT.Endpoints) == 0:
		return errors.New("config: mqtt.endpoints is missing, such as [\"xxxx-ats.iot.eu-west-1.amazonaws.com:8883\"]")
	}
	if kind, _, derived := strings.Cut(c.Thing.Name, ":"); derived {
		switch {
		case c.Thing.Name == "cert:CN", c.Thing.Name == "ek:sha256", kind == "file":
			return nil
		}
	}
	return awsiot.CheckThingName(c.Thing.Name)
}

// ReadyToRotate returns what the configuration lacks for a rotation.
func (c *Config) ReadyToRotate() error {
	if c.Rotate.Issuer == IssuerFleet && c.RotateTemplate() == "" {
		return errors.New(`config: rotate.template is missing: the provisioning template that makes a new certificate the device's (or rotate.issuer = "topics")`)
	}
	return nil
}

// RotateTemplate returns the provisioning template of rotations.
func (c *Config) RotateTemplate() string {
	if c.Rotate.Template != "" {
		return c.Rotate.Template
	}
	return c.Provision.Template
}

// JobKeys returns the algorithms that a job may ask for: that of the configuration
// always, and those of rotate.keys, or else all that are no weaker.
func (c *Config) JobKeys() []string {
	keys := c.Rotate.Keys
	if len(keys) == 0 {
		keys = rotate.NotWeaker(c.Rotate.Key)
	}
	if slices.Contains(keys, c.Rotate.Key) {
		return keys
	}
	return append([]string{c.Rotate.Key}, keys...)
}
