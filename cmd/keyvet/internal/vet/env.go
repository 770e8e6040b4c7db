package vet

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/keyfile"
	"github.com/keyvet/keyvet/tpm/advisory"
)

const (
	blocklistGlob = "/usr/share/keyvet/*.kvf"
	maxCRLBytes   = 16 << 20
	maxFiles      = 10_000 // of one glob or directory
)

// loadEnv loads what the checks need to know; what cannot be loaded is a gap.
func (c *Check) loadEnv(env *check.Env) (lists blocklist.Lists, gaps []device.Gap) {
	gap := func(what string, err error) {
		gaps = append(gaps, device.Gap{What: what, Why: err.Error()})
	}
	lists, err := c.loadBlocklists(gap)
	switch {
	case len(lists) > 0:
		env.Blocklist = lists
	case err != nil:
		env.BlocklistProblem = err.Error()
	}

	var further advisories
	for _, name := range c.Config.Check.Advisories {
		list, err := loadAdvisories(name)
		if err != nil {
			gap("advisories "+name, err)
			continue
		}
		further = append(further, list)
	}
	env.Advisories = further

	env.Roots = keyfile.Certificates(c.Config.Identity.CA, gap)
	if dir := c.Config.Check.EKRoots; dir != "" {
		names, err := glob(filepath.Join(dir, "*"))
		if err == nil && len(names) == 0 {
			err = errors.New("no files there")
		}
		if err != nil {
			gap("check.ek_roots "+dir, err)
		}
		roots, found := keyfile.CertificatesOf("check.ek_roots "+dir, names)
		env.EKRoots, gaps = roots, append(gaps, found...)
	}
	for _, name := range c.Config.Check.CRLs {
		crl, err := readCRL(name)
		if err != nil {
			gap("CRL "+name, err)
			continue
		}
		env.CRLs = append(env.CRLs, crl)
	}
	return lists, gaps
}

// loadBlocklists loads the embedded list, those that the image installed, those
// of the configuration and those of the command line. The error says which could
// not be loaded; it is nil if there are none.
func (c *Check) loadBlocklists(gap func(string, error)) (lists blocklist.Lists, failed error) {
	fail := func(what string, err error) {
		gap(what, err)
		failed = errors.Join(failed, err)
	}
	embedded, err := blocklist.Embedded()
	switch {
	case err == nil:
		lists = append(lists, embedded)
	case !errors.Is(err, blocklist.ErrNotEmbedded):
		fail("built-in blocklist", err)
	}
	installed, _ := filepath.Glob(blocklistGlob)
	for i, name := range slices.Concat(installed, c.Config.Check.Blocklists, c.Blocklists) {
		l, err := blocklist.Open(name)
		if err == nil && i >= len(installed) {
			// The packages' large lists are checked where they are read, so that a start
			// is quick; one that an operator gives is told of as a whole.
			if err = l.Check(); err != nil {
				_ = l.Close() // what went wrong is told already
			}
		}
		if err != nil {
			fail("blocklist "+name, err)
			continue
		}
		lists = append(lists, l)
	}
	return lists, failed
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
