package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm"
	"github.com/keyvet/keyvet/tpm/advisory"
)

const (
	blocklistGlob = "/usr/share/keyvet/*.kvf"
	maxCRLBytes   = 16 << 20
	maxFiles      = 10_000 // of one glob or directory
)

// vetter vets what a configuration or a command line names.
type vetter struct {
	cfg       *config.Config
	blocklist string   // instead of the embedded one and those of the configuration
	files     []string // on the command line: those alone
	stdin     io.Reader
	tell      func(what string) (done func()) // of what takes long
	prepare   func(*tpm.TPM) []device.Gap     // before it is read; nil: nothing

	credential *credential // the device's, as it was read; nil: it is read now
}

// vet reads all there is, puts every check to it and makes the report. The TPM
// stays open for evidence; it is nil where there is none.
func (v *vetter) vet(ctx context.Context, trigger device.Trigger) (*device.Report, device.Inventory, *tpm.TPM) {
	env := &check.Env{Now: time.Now(), ExpiryWarning: v.cfg.Check.ExpiryWarning.Duration}
	inv := device.Inventory{ReadAt: env.Now}

	// The device's key signs before the TPM is read: a TPM serves one at a time.
	if v.credential == nil && len(v.files) == 0 {
		certificate, key := v.cfg.CredentialFiles()
		read, _ := readCredential(v.cfg, certificate, key) // the inventory tells
		v.credential = &read
	}
	if v.credential != nil {
		done := v.tell("testing the device's key")
		v.credential.prove()
		done()
	}

	// What the checks need is made ready while the TPM makes up its answers.
	var lists blocklist.Lists
	var missing []device.Gap
	var ready sync.WaitGroup
	ready.Go(func() { lists, missing = v.loadEnv(env) })
	ready.Go(check.Prepare)
	t := v.readTPM(&inv)
	ready.Wait()
	defer lists.Close() // errors are of no account: nobody asks them any more
	inv.Gaps = append(missing, inv.Gaps...)

	if len(v.files) > 0 {
		for _, name := range v.files {
			v.readFile(&inv, name)
		}
	} else {
		v.readDevice(&inv, env)
	}
	uniqueIDs(inv.Keys)

	done := v.tell("testing keys")
	findings := check.Run(ctx, inv, env)
	if len(v.files) == 0 {
		findings = append(findings, claimFindings(v.cfg)...)
	}
	r := device.NewReport(inv, findings)
	done()
	r.Trigger, r.Agent = trigger, device.Agent{Version: version, Commit: commit}
	if len(lists) > 0 {
		info := lists.Info()
		r.Blocklist = &info
	}
	return r, inv, t
}

// readTPM adds the TPM's keys to inv.
func (v *vetter) readTPM(inv *device.Inventory) *tpm.TPM {
	address := v.cfg.TPM.Address
	if address == "" {
		return nil
	}
	done := v.tell("reading the TPM at " + address)
	defer done()
	t, err := tpm.Open(address, v.cfg.TPMOptions())
	if err != nil {
		why := err.Error()
		if errors.Is(err, tpm.ErrAbsent) && address == config.Default().TPM.Address {
			why += ` (a device without a TPM says tpm.address = "" in its configuration; to test files, name them)`
		}
		inv.TPM = &device.TPM{State: device.TPMAbsent}
		inv.Gaps = append(inv.Gaps, device.Gap{What: "TPM " + address, Why: why})
		return nil
	}
	if v.prepare != nil {
		inv.Gaps = append(inv.Gaps, v.prepare(t)...)
	}
	info, keys, gaps := t.Inventory()
	inv.TPM = &info
	inv.Keys = append(inv.Keys, keys...)
	inv.Gaps = append(inv.Gaps, gaps...)
	return t
}

// readFile adds the keys of one file of the command line.
func (v *vetter) readFile(inv *device.Inventory, name string) {
	keys, gaps := []device.Key(nil), []device.Gap(nil)
	if name == "-" {
		if isTerminal(v.stdin) {
			defer v.tell("reading keys from the keyboard, end with Ctrl-D")()
		}
		keys, gaps = keyfile.ReadFrom(v.stdin, name)
	} else {
		keys, gaps = keyfile.Read(name)
	}
	inv.Keys = append(inv.Keys, keys...)
	inv.Gaps = append(inv.Gaps, gaps...)
}

// readDevice adds what the configuration names: the device's own credential,
// its CA certificates, the claim and further files.
func (v *vetter) readDevice(inv *device.Inventory, env *check.Env) {
	c := v.cfg
	inventoried(inv, device.RoleDevice, v.credential, c.Identity.Certificate != "")
	if c.Provision.ClaimCertificate != "" {
		claim, _ := readCredential(c, c.Provision.ClaimCertificate, c.Provision.ClaimKey) // the inventory tells
		inventoried(inv, device.RoleClaim, &claim, !c.Provision.DeleteClaim)
	}
	for _, root := range env.Roots {
		if slices.ContainsFunc(inv.Keys, func(k device.Key) bool { return k.Leaf() != nil && k.Leaf().Equal(root) }) {
			continue // it came along with the device's certificate
		}
		inv.Keys = append(inv.Keys, device.Key{
			ID: "ca-" + certificateID(root)[:16], Role: device.RoleCA, Source: "config:identity.ca",
			Public: root.PublicKey, SPKI: root.RawSubjectPublicKeyInfo, Chain: []*x509.Certificate{root},
		})
	}
	for _, pattern := range c.Check.Files {
		names, err := glob(pattern)
		if err != nil {
			inv.Gaps = append(inv.Gaps, device.Gap{What: "check.files " + pattern, Why: err.Error()})
		}
		for _, name := range names {
			v.readFile(inv, name)
		}
	}
}

// inventoried adds a credential. Its own key is in the given role, the rest of
// the certificate file are CA keys. That there is no credential yet matters only
// if it was asked for by name.
func inventoried(inv *device.Inventory, role device.Role, c *credential, named bool) {
	name := strings.ToLower(string(role))
	if _, err := os.Lstat(c.name); errors.Is(err, fs.ErrNotExist) && !named && len(c.keys) == 0 {
		inv.Gaps = append(inv.Gaps, device.Gap{What: name + " certificate", Why: c.name + " is not there yet", Minor: true})
		return
	}
	inv.Gaps = append(inv.Gaps, c.gaps...)
	for i := range c.keys {
		c.keys[i].Role, c.keys[i].ID = device.RoleCA, fmt.Sprintf("%s#%d", name, i+1)
	}
	if len(c.keys) == 0 {
		return
	}
	own := &c.keys[c.own]
	own.Role, own.ID = role, name
	if c.handle != 0 {
		private, err := privateInTPM(inv.Keys, c.handle)
		if err != nil {
			inv.Gaps = append(inv.Gaps, device.Gap{What: c.keyName, Why: err.Error()})
		}
		if private != nil {
			if own.Private != nil {
				private.Proof = own.Private.Proof
			}
			own.Private = private
		}
	}
	inv.Keys = append(inv.Keys, c.keys...)
}

// privateInTPM is the private half of the key that the TPM holds at a handle.
func privateInTPM(keys []device.Key, handle uint32) (*device.PrivateFile, error) {
	source := fmt.Sprintf("tpm:%#08x", handle)
	for _, k := range keys {
		if k.Source == source {
			return &device.PrivateFile{Path: source, Mode: fs.ModeDevice, SPKI: k.SPKI}, nil
		}
	}
	return nil, errors.New("the TPM showed no key at that handle")
}

// loadEnv loads what the checks need to know; what cannot be loaded is a gap.
func (v *vetter) loadEnv(env *check.Env) (lists blocklist.Lists, gaps []device.Gap) {
	c := v.cfg
	gap := func(what string, err error) {
		gaps = append(gaps, device.Gap{What: what, Why: err.Error()})
	}
	lists, err := v.loadBlocklists(gap)
	if err != nil {
		env.BlocklistProblem = err.Error()
	}
	if len(lists) > 0 {
		env.Blocklist = lists
	}

	var further advisories
	for _, name := range c.Check.Advisories {
		list, err := loadAdvisories(name)
		if err != nil {
			gap("advisories "+name, err)
			continue
		}
		further = append(further, list)
	}
	env.Advisories = further

	env.Roots = certificates(c.Identity.CA, gap)
	if dir := c.Check.EKRoots; dir != "" {
		names, err := glob(filepath.Join(dir, "*"))
		if err == nil && len(names) == 0 {
			err = errors.New("no files there")
		}
		if err != nil {
			gap("check.ek_roots "+dir, err)
		}
		env.EKRoots = certificates(names, gap)
	}
	for _, name := range c.Check.CRLs {
		crl, err := readCRL(name)
		if err != nil {
			gap("CRL "+name, err)
			continue
		}
		env.CRLs = append(env.CRLs, crl)
	}
	return lists, gaps
}

// loadBlocklists loads the list of the command line, or else the embedded one,
// those that the image installed and those of the configuration. The error
// says why there is none.
func (v *vetter) loadBlocklists(gap func(string, error)) (blocklist.Lists, error) {
	if v.blocklist != "" {
		l, err := blocklist.Open(v.blocklist)
		if err != nil {
			gap("blocklist "+v.blocklist, err)
			return nil, err
		}
		return blocklist.Lists{l}, nil
	}
	var lists blocklist.Lists
	embedded, err := blocklist.Embedded()
	switch {
	case err == nil:
		lists = append(lists, embedded)
	case !errors.Is(err, blocklist.ErrNotEmbedded):
		gap("built-in blocklist", err)
	}
	installed, _ := filepath.Glob(blocklistGlob)
	for _, name := range append(installed, v.cfg.Check.Blocklists...) {
		l, err := blocklist.Open(name)
		if err != nil {
			gap("blocklist "+name, err)
			continue
		}
		lists = append(lists, l)
	}
	if len(lists) == 0 {
		return nil, errors.New("no blocklist: this keyvet was built without one, and none is installed (check.blocklists, -blocklist)")
	}
	return lists, nil
}

// advisories are those of further files; the built-in ones always count.
type advisories []advisory.List

func (further advisories) Match(t device.TPM) []device.Advisory {
	return advisory.Match(t, further...)
}

func loadAdvisories(name string) (advisory.List, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return advisory.Load(f)
}

// certificates gives every certificate of the files.
func certificates(names []string, gap func(string, error)) []*x509.Certificate {
	var all []*x509.Certificate
	for _, name := range names {
		keys, gaps := keyfile.Read(name)
		for _, g := range gaps {
			gap(g.What, errors.New(g.Why))
		}
		found := false
		for _, k := range keys {
			if leaf := k.Leaf(); leaf != nil {
				all, found = append(all, leaf), true
			}
		}
		if !found && len(gaps) == 0 {
			gap(name, errors.New("holds no certificate"))
		}
	}
	return all
}

func readCRL(name string) (*x509.RevocationList, error) {
	b, err := durable.ReadBounded(name, maxCRLBytes)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(b); block != nil {
		b = block.Bytes
	}
	return x509.ParseRevocationList(b)
}

// glob gives the regular files of a pattern, which must fit some file if it is
// a plain name.
func glob(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}, nil
	}
	matches, err := filepath.Glob(pattern)
	if err != nil {
		return nil, err
	}
	if len(matches) > maxFiles {
		return nil, fmt.Errorf("%d files fit, more than %d", len(matches), maxFiles)
	}
	var files []string
	for _, m := range matches {
		if fi, err := os.Stat(m); err != nil || fi.Mode().IsRegular() {
			files = append(files, m) // what cannot be looked at is told by whoever reads it
		}
	}
	return files, nil
}

// uniqueIDs sees to it that no two keys answer to one id.
func uniqueIDs(keys []device.Key) {
	seen := make(map[string]int)
	for i := range keys {
		id := keys[i].ID
		seen[id]++
		if n := seen[id]; n > 1 {
			keys[i].ID = fmt.Sprintf("%s (%d)", id, n)
		}
	}
}
