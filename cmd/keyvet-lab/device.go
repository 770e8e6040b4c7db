package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyvet/keyvet/mqtt/localiot"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// labDevice is a device on the desk: a directory with all that it has.
type labDevice struct {
	thing  string
	dir    string
	config string
	tpm    *tpmtest.SWTPM
}

// newDevice makes a device with a TPM of its own, a fresh P-256 key and a
// certificate of the endpoint on it.
func newDevice(ctx context.Context, cloud *localiot.Server, dir, thing string) (_ *labDevice, err error) {
	d := &labDevice{thing: thing, dir: dir, config: filepath.Join(dir, "keyvet.toml")}
	if err := os.MkdirAll(filepath.Join(dir, "state", "identity"), 0o700); err != nil {
		return nil, err
	}
	d.tpm, err = tpmtest.Start(ctx, tpmtest.Options{Dir: filepath.Join(dir, "tpm")})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.tpm.Stop()
		}
	}()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := d.enrol(cloud, key); err != nil {
		return nil, err
	}
	return d, d.writeConfig(cloud, d.tpm.Address())
}

// enrol gives the device a key and the endpoint's certificate on it.
func (d *labDevice) enrol(cloud *localiot.Server, key crypto.Signer) error {
	chain, err := cloud.IssueCertificate(d.thing, key.Public())
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	identity := filepath.Join(d.dir, "state", "identity")
	if err := os.WriteFile(filepath.Join(identity, "certificate.pem"), chain, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(identity, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func (d *labDevice) writeConfig(cloud *localiot.Server, tpmAddress string) error {
	return os.WriteFile(d.config, fmt.Appendf(nil, `state_dir = %q
run_dir   = %q
[thing]
name = %q
[tpm]
address = %q
[identity]
ca = [%q]
[mqtt]
endpoints = [%q]
ca_file = %q
`, filepath.Join(d.dir, "state"), d.runDir(), d.thing, tpmAddress, cloud.CAFile(), cloud.Endpoint(), cloud.CAFile()), 0o600)
}

func (d *labDevice) runDir() string { return filepath.Join(d.dir, "run") }

// trusted tells whether the device's gate is open.
func (d *labDevice) trusted() bool {
	_, err := os.Stat(filepath.Join(d.runDir(), "trusted"))
	return err == nil
}
