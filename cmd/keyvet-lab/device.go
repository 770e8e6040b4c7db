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

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
	"github.com/keyvet/keyvet/tpm/tpmtest"
)

// labDevice is a device on the desk: a directory with all that it has.
type labDevice struct {
	thing  string
	dir    string
	config string
	claim  bool
	fresh  bool // it was not in dir before
	tpm    *tpmtest.SWTPM
}

// newDevice makes a device with a TPM of its own and either a claim to
// provision by or a fresh P-256 key and a certificate of the endpoint on it. A
// device that is in dir already is left as it is.
func newDevice(ctx context.Context, cloud *localiot.Server, dir, thing string, claim bool) (_ *labDevice, err error) {
	d := &labDevice{thing: thing, dir: dir, config: filepath.Join(dir, "keyvet.toml"), claim: claim}
	_, there := os.Stat(d.config)
	d.fresh = os.IsNotExist(there)
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return nil, err
	}
	d.tpm, err = startTPM(ctx, filepath.Join(dir, "tpm"))
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
	_, there = os.Stat(filepath.Join(dir, "state", "identity"))
	switch {
	case claim:
		var chain []byte
		if chain, err = cloud.IssueClaim(key.Public()); err == nil {
			err = d.writePair("claim", chain, key)
		}
	case os.IsNotExist(there):
		err = d.enrol(cloud, key)
	default:
		err = there
	}
	if err != nil {
		return nil, err
	}
	return d, d.writeConfig(cloud, d.tpm.Address())
}

// startTPM starts the TPM in dir, as it was when it stopped, or makes one.
func startTPM(ctx context.Context, dir string) (*tpmtest.SWTPM, error) {
	opts, before := tpmtest.Options{Dir: dir}, dir+".before"
	_, err := os.Stat(before)
	switch {
	case err == nil: // the copy was interrupted
		err = os.RemoveAll(dir)
	case os.IsNotExist(err):
		err = os.Rename(dir, before)
	}
	switch {
	case err == nil:
		opts.CopyOf = before
	case !os.IsNotExist(err):
		return nil, err
	}
	t, err := tpmtest.Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	return t, os.RemoveAll(before)
}

// enrol gives the device a key and the endpoint's certificate on it.
func (d *labDevice) enrol(cloud *localiot.Server, key crypto.Signer) error {
	chain, err := cloud.IssueCertificate(d.thing, key.Public())
	if err != nil {
		return err
	}
	return d.writePair(filepath.Join("state", "identity"), chain, key)
}

// writePair writes a certificate and its key into a folder of the device's.
func (d *labDevice) writePair(folder string, chain []byte, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	folder = filepath.Join(d.dir, folder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "certificate.pem"), chain, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func (d *labDevice) writeConfig(cloud *localiot.Server, tpmAddress string) error {
	config := fmt.Appendf(nil, `state_dir = %q
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
[rotate]
issuer = "fleet-provisioning"
template = %q
min_interval = "0s" # a desk tries it again and again
`, filepath.Join(d.dir, "state"), d.runDir(), d.thing, tpmAddress, cloud.CAFile(), cloud.Endpoint(), cloud.CAFile(), localiot.Template)
	if d.claim {
		config = fmt.Appendf(config, `[provision]
claim_certificate = %q
claim_key = %q
template = %q
parameters = { ThingName = %q }
`, filepath.Join(d.dir, "claim", "certificate.pem"), filepath.Join(d.dir, "claim", "key.pem"), localiot.Template, d.thing)
	}
	return os.WriteFile(d.config, config, 0o600)
}

func (d *labDevice) runDir() string { return filepath.Join(d.dir, "run") }

// trusted reports whether the device's gate is open.
func (d *labDevice) trusted() bool {
	_, err := os.Stat(filepath.Join(d.runDir(), "trusted"))
	return err == nil
}

func (d *labDevice) gate() string {
	if d.trusted() {
		return "open"
	}
	return "shut"
}

// key is the file of the device's private key, which for one in the TPM holds
// what that alone can read.
func (d *labDevice) key() ([]byte, error) {
	return os.ReadFile(filepath.Join(d.dir, "state", "identity", "key.pem"))
}
