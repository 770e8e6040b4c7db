package credential

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// maxNameBytes bounds the file that holds the thing's name.
const maxNameBytes = 1 << 10

// Thing returns the thing's name as the last [Store.Name] found it out.
func (s *Store) Thing() (string, error) { return s.thing, s.thingErr }

// Name finds out the thing's name; keys are what a self-check has read.
func (s *Store) Name(keys []device.Key) {
	s.thing, s.thingErr = thingName(s.config.Thing.Name, s.current.Leaf, s.err, keys)
}

// thingName is the name that thing.name stands for. noLeaf says why there is no
// leaf.
func thingName(name string, leaf *x509.Certificate, noLeaf error, keys []device.Key) (string, error) {
	switch {
	case name == "cert:CN":
		if leaf == nil {
			return "", fmt.Errorf("thing.name = %q: %w", name, noLeaf)
		}
		name = leaf.Subject.CommonName
	case name == "ek:sha256":
		name = ""
		for _, k := range keys {
			if k.Role == device.RoleEK && name == "" {
				name = k.SPKISHA256()
			}
		}
		if name == "" {
			return "", errors.New(`thing.name = "ek:sha256": no endorsement key was read`)
		}
	case strings.HasPrefix(name, "file:"):
		b, err := durable.ReadBounded(strings.TrimPrefix(name, "file:"), maxNameBytes)
		if err != nil {
			return "", fmt.Errorf("thing.name: %w", err)
		}
		name = strings.TrimSpace(string(b))
	}
	return name, awsiot.CheckThingName(name)
}
