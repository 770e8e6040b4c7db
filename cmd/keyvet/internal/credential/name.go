package credential

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

// maxNameBytes bounds a file that holds the thing's name.
const maxNameBytes = 1 << 10

// ErrNamedLater is wrapped by the error of a thing whose name comes with its
// first certificate.
var ErrNamedLater = errors.New("the first certificate gives the name")

// namedOtherwise is what is found of a TPM other than the one that named the thing.
var namedOtherwise = device.Reason{
	Code: "KEYVET_TPM_OTHER", Status: device.Warn, Severity: device.High,
	Means: "The device is enrolled under the endorsement key of another TPM than the one that it has. It keeps its name.",
	Do: "If the TPM or its board was replaced: re-enrol the device. If not: find out which TPM keyvet reads, and what stands between " +
		"keyvet and the TPM.",
}

// keptPath is the file with the name that the device was enrolled by, where it
// is no text of the configuration: one line.
func keptPath(c config.Config) string { return filepath.Join(c.StateDir, "thing") }

// readKept reads the kept name; "" if there is none.
func readKept(c config.Config) (string, error) {
	b, err := durable.ReadBounded(keptPath(c), maxNameBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	name := strings.TrimSpace(string(b))
	if err == nil {
		err = awsiot.CheckThingName(name)
	}
	if err != nil {
		return "", fmt.Errorf("the kept name of the thing: %s: %w", keptPath(c), err)
	}
	return name, nil
}

// Thing returns the thing's name as the last [Store.Name] found it out.
func (s *Store) Thing() (string, error) { return s.thing, s.thingErr }

// Name finds out the thing's name; inv is what a self-check has read.
func (s *Store) Name(inv device.Inventory) {
	s.thing, s.thingErr = thingName(s.config, s.current.Leaf, s.err, inv)
}

// Keep keeps the name by which AWS IoT knows the device, if it is one that the
// configuration does not have: from here on the device has that name.
func (s *Store) Keep(thing string) error {
	if n := s.config.Thing.Name; n != config.NameOfEK && n != config.NameOfTemplate {
		return nil
	}
	if kept, err := readKept(s.config); err != nil || kept != thing {
		if err := awsiot.CheckThingName(thing); err != nil {
			return err
		}
		if err := durable.WriteFile(keptPath(s.config), []byte(thing+"\n"), 0o600); err != nil {
			return fmt.Errorf("keep the name of the thing: %w", err)
		}
	}
	s.thing, s.thingErr = thing, nil
	return nil
}

// thingName is the name that thing.name stands for. noCredential says why the
// credential in use cannot be used; leaf is its certificate.
func thingName(c config.Config, leaf *x509.Certificate, noCredential error, inv device.Inventory) (string, error) {
	name := c.Thing.Name
	enrolled := !errors.Is(noCredential, fs.ErrNotExist)
	switch {
	case name == config.NameOfCertificate:
		if leaf == nil {
			err := fmt.Errorf("thing.name = %q: %w", name, noCredential)
			if !enrolled {
				err = fmt.Errorf("%w: %w", err, ErrNamedLater)
			}
			return "", err
		}
		name = leaf.Subject.CommonName
	case name == config.NameOfEK:
		kept, err := readKept(c)
		if err == nil && (kept == "" || !enrolled) {
			kept, err = nameByEK(inv)
		}
		if err != nil {
			return "", fmt.Errorf("thing.name = %q: %w", name, err)
		}
		name = kept
	case name == config.NameOfTemplate:
		kept, err := readKept(c)
		switch {
		case err != nil:
			return "", fmt.Errorf("thing.name = %q: %w", name, err)
		case kept == "" && !enrolled:
			return "", fmt.Errorf("thing.name = %q: %w", name, ErrNamedLater)
		case kept == "":
			return "", fmt.Errorf("thing.name = %q: the device has a certificate, but its name was not kept: write it to %s", name, keptPath(c))
		}
		name = kept
	case strings.HasPrefix(name, "file:"):
		b, err := durable.ReadBounded(strings.TrimPrefix(name, "file:"), maxNameBytes)
		if err != nil {
			return "", fmt.Errorf("thing.name: %w", err)
		}
		name = strings.TrimSpace(string(b))
	}
	return name, awsiot.CheckThingName(name)
}

// nameByEK is the SHA-256 of the SubjectPublicKeyInfo of one endorsement key,
// always the same one of a TPM. That it could not be read this time gives no
// other key's name.
func nameByEK(inv device.Inventory) (string, error) {
	switch {
	case inv.TPM == nil:
		return "", errors.New("the device has no TPM")
	case inv.TPM.NamingKey == "":
		return "", errors.New("the TPM could not be asked which endorsement key it has")
	}
	for _, k := range inv.Keys {
		if k.ID != inv.TPM.NamingKey {
			continue
		}
		// Some certificates give the same key as one for RSAES-OAEP.
		spki, err := x509.MarshalPKIXPublicKey(k.Public)
		if err != nil {
			return "", fmt.Errorf("%s: %w", k.ID, err)
		}
		sum := sha256.Sum256(spki)
		return hex.EncodeToString(sum[:]), nil
	}
	why := "not read"
	if i := slices.IndexFunc(inv.Gaps, func(g device.Gap) bool { return g.What == inv.TPM.NamingKey }); i >= 0 {
		why = inv.Gaps[i].Why
	}
	return "", fmt.Errorf("the endorsement key %s gives the name, and no other: %s", inv.TPM.NamingKey, why)
}

// NameFindings warns of a TPM other than the one by which the thing was named.
func NameFindings(c config.Config, inv device.Inventory) []device.Finding {
	if c.Thing.Name != config.NameOfEK {
		return nil
	}
	kept, err := readKept(c)
	now, nowErr := nameByEK(inv)
	if err != nil || nowErr != nil || kept == "" || kept == now {
		return nil
	}
	return []device.Finding{{
		Check: "name", Key: "tpm", Status: namedOtherwise.Status, Severity: namedOtherwise.Severity, ReasonCode: namedOtherwise.Code,
		Message: fmt.Sprintf("the device is enrolled as %s, by the endorsement key of another TPM: this one's gives %s", kept, now),
	}}
}
