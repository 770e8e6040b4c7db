package vet

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"slices"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/credential"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm"
)

// connect opens the TPM.
func (c *Check) connect(context.Context) (*tpm.TPM, error) {
	t, err := tpm.Open(c.Config.TPM.Address, c.Config.TPMOptions())
	if err != nil {
		return nil, err
	}
	t.Hold()
	return t, nil
}

// askTPM has the device's key show that it signs, and then adds the TPM's keys to
// inv, over one connection: a TPM serves one at a time.
func (c *Check) askTPM(ctx context.Context, inv *device.Inventory, own *credential.Credential, connect connector, prepare func(*tpm.TPM) []device.Gap) *tpm.TPM {
	if c.Config.TPM.Address == "" {
		c.prove(own, nil)
		return nil
	}
	t, err := connect(ctx)
	sound := t != nil && !t.Broken()
	if c.prove(own, t); sound && t.Broken() {
		t, err = connect(ctx)
	}
	return c.readTPM(inv, t, err, prepare)
}

// prove has the device's key show that it signs, if it is to be tested.
func (c *Check) prove(own *credential.Credential, t *tpm.TPM) {
	if len(c.Files) == 0 {
		done := c.progress("testing the device's key")
		own.Prove(t)
		done()
	}
}

// readTPM adds the TPM's keys to inv, once prepare has prepared it; nil prepares
// nothing. err is why it could not be opened.
func (c *Check) readTPM(inv *device.Inventory, t *tpm.TPM, err error, prepare func(*tpm.TPM) []device.Gap) *tpm.TPM {
	address := c.Config.TPM.Address
	done := c.progress("reading the TPM at " + address)
	defer done()
	if err != nil {
		why := err.Error()
		if errors.Is(err, tpm.ErrAbsent) && address == config.Default().TPM.Address {
			why += ` (to test files, name them)`
		}
		inv.TPM = &device.TPM{State: tpm.StateOf(err), Problem: why}
		inv.Gaps = append(inv.Gaps, device.Gap{What: "TPM " + address, Why: why})
		return nil
	}
	inv.Gaps = append(inv.Gaps, prepare(t)...)
	info, keys, gaps := t.Inventory()
	inv.TPM = &info
	inv.Keys = append(inv.Keys, keys...)
	inv.Gaps = append(inv.Gaps, gaps...)
	return t
}

// read reads one file of the command line. It may be a pipe that nobody
// writes to, for which an interrupted user does not wait.
func (c *Check) read(ctx context.Context, name string) ([]device.Key, []device.Gap) {
	type contents struct {
		keys []device.Key
		gaps []device.Gap
	}
	read := make(chan contents, 1)
	go func() {
		var found contents
		if slices.Contains(standardInput, name) {
			found.keys, found.gaps = keyfile.ReadFrom(c.Stdin, name)
		} else {
			found.keys, found.gaps = keyfile.ReadNamed(name)
		}
		read <- found
	}()
	if c.Stdin.Typed && slices.Contains(standardInput, name) {
		defer c.progress("reading keys from the keyboard, end with Ctrl-D")()
	}
	select {
	case found := <-read:
		return found.keys, found.gaps
	case <-ctx.Done():
		return nil, []device.Gap{{What: name, Why: "interrupted"}}
	}
}

// readFiles adds the keys of the files of the command line, and the CRLs. It returns
// the directories, and the files if there are many, which come later.
func (c *Check) readFiles(ctx context.Context, inv *device.Inventory, env *check.Env) (later []string) {
	var files [][]device.Key
	for _, name := range c.Files {
		if len(c.Files) > maxWhole && !slices.Contains(standardInput, name) || isDir(name) {
			later = append(later, name)
			continue
		}
		keys, gaps := c.read(ctx, name)
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && len(keys) == 0 {
			if crl, err := readCRL(name); err == nil {
				env.CRLs = append(env.CRLs, crl)
				continue
			}
		}
		inv.Gaps = append(inv.Gaps, gaps...)
		files = append(files, keys)
	}
	keyfile.Pair(files...)
	inv.Keys = append(inv.Keys, slices.Concat(files...)...)
	return later
}

// standardInput are the names of what is open already.
var standardInput = []string{"-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"}

// readDevice adds what the configuration names: the device's own credential,
// its CA certificates and the claim.
func (c *Check) readDevice(inv *device.Inventory, env *check.Env, own *credential.Credential) {
	add := func(keys []device.Key, gaps []device.Gap) {
		inv.Keys, inv.Gaps = append(inv.Keys, keys...), append(inv.Gaps, gaps...)
	}
	add(own.Keys(device.RoleDevice, c.Config.Identity.Certificate != "", inv.Keys))
	if s := own.Signer(); s != nil && s.NeedsOwner() && c.Config.TPM.OwnerAuthFile == "" {
		inv.Gaps = append(inv.Gaps, device.Gap{What: "device key", Minor: true, Why: "it is under the owner hierarchy of the TPM: once that hierarchy has a password, " +
			"the key cannot be used without tpm.owner_auth_file; to avoid that, put a storage key at 0x81000001 and rotate"})
	}
	if c.Config.Provision.ClaimCertificate != "" {
		claim, _ := credential.Claim(c.Config) // the inventory tells
		add(claim.Keys(device.RoleClaim, !c.Config.Provision.DeleteClaim, inv.Keys))
	}
	for _, root := range env.Roots {
		if slices.ContainsFunc(inv.Keys, func(k device.Key) bool { return k.Leaf() != nil && k.Leaf().Equal(root) }) {
			continue // it came along with the device's certificate
		}
		inv.Keys = append(inv.Keys, device.Key{
			ID: "ca-" + device.CertificateID(root)[:16], Role: device.RoleCA, Source: "config:identity.ca",
			Public: root.PublicKey, SPKI: root.RawSubjectPublicKeyInfo, Chain: []*x509.Certificate{root},
		})
	}
}
