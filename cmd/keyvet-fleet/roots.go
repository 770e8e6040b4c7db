package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/keyfile"
)

const (
	maxRootFiles = 1000
	maxRootBytes = 1 << 20 // of one file
)

// readRoots reads the certificates in a directory. A file that should hold some
// and does not is an error: without it, good devices would be refused.
func readRoots(dir string) ([]*x509.Certificate, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("-ek-roots: %w", err)
	}
	var roots []*x509.Certificate
	files := 0
	for _, e := range entries {
		if e.IsDir() || !slices.Contains([]string{".pem", ".crt", ".cer"}, strings.ToLower(filepath.Ext(e.Name()))) {
			continue
		}
		if files++; files > maxRootFiles {
			return nil, fmt.Errorf("-ek-roots: %s holds more than %d files", dir, maxRootFiles)
		}
		name := filepath.Join(dir, e.Name())
		b, err := durable.ReadBounded(name, maxRootBytes)
		if err != nil {
			return nil, fmt.Errorf("-ek-roots: %w", err)
		}
		certs, err := parseRoots(b)
		if err != nil {
			return nil, fmt.Errorf("-ek-roots: %s: %w", name, err)
		}
		roots = append(roots, certs...)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("-ek-roots: %s holds no files *.pem, *.crt or *.cer", dir)
	}
	return roots, nil
}

// parseRoots gives the certificates in PEM.
func parseRoots(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a %s is no certificate", block.Type)
		}
		cert, _, err := keyfile.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	switch begun := bytes.Count(b, []byte("-----BEGIN ")); {
	case begun == 0:
		return nil, errors.New("no certificate in PEM in it; convert DER by `openssl x509 -inform DER`")
	case begun != len(certs): // pem.Decode skips what it cannot decode
		return nil, fmt.Errorf("%d of %d certificates cannot be decoded", begun-len(certs), begun)
	}
	return certs, nil
}
