package config

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyvet/keyvet/device"
)

// ReadyToRun returns what the configuration lacks for `keyvet run`, as [Errors].
func (c *Config) ReadyToRun() error {
	var missing Errors
	if c.Thing.Name == "" {
		missing = append(missing, errors.New("thing.name is missing: set it to the name of this device in AWS IoT"))
	}
	if len(c.MQTT.Endpoints) == 0 {
		missing = append(missing, errors.New(`mqtt.endpoints is missing: set it to the endpoint of AWS IoT, such as ["xxxx-ats.iot.eu-west-1.amazonaws.com:8883"]`))
	}
	if len(missing) > 0 {
		return missing
	}
	return nil
}

// None returns an error where no file is read: there is none, and none was named.
func None(named string) error {
	if named != "" {
		return nil
	}
	files, err := places()
	if err == nil && len(files) == 0 {
		return fmt.Errorf("there is no configuration at %s: write one (keyvet.toml(5)), or name it with -config", DefaultPath())
	}
	return nil // what cannot be read is said by Load
}

// ReadyToRotate returns what the configuration lacks for a rotation.
func (c *Config) ReadyToRotate() error {
	if c.Rotate.Issuer == IssuerFleet && c.RotateTemplate() == "" {
		return errors.New(`rotate.template is missing: set it to the provisioning template that attaches a new certificate to the thing, or set rotate.issuer = "topics"`)
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
		keys = device.NotWeaker(c.Rotate.Key)
	}
	if slices.Contains(keys, c.Rotate.Key) {
		return keys
	}
	return append([]string{c.Rotate.Key}, keys...)
}
