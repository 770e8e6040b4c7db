//go:build ignore

// What go-attestation says of boot logs, as JSON on standard output. README.md has
// the command.
package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-attestation/attest"
)

type statement struct {
	Error       string   `json:"error,omitempty"`
	SecureBoot  bool     `json:"secureBoot"`
	PK          []string `json:"pk,omitempty"`
	KEK         []string `json:"kek,omitempty"`
	DB          []string `json:"db,omitempty"`
	DBX         []string `json:"dbx,omitempty"`
	DBHashes    int      `json:"dbHashes,omitempty"`
	DBXHashes   int      `json:"dbxHashes,omitempty"`
	Authorities []string `json:"authorities,omitempty"`
}

func digests(certs []x509.Certificate) (all []string) {
	for _, c := range certs {
		sum := sha256.Sum256(c.Raw)
		all = append(all, hex.EncodeToString(sum[:]))
	}
	return all
}

func of(log *attest.EventLog, hash attest.HashAlg) statement {
	s, err := attest.ParseSecurebootState(log.Events(hash))
	if err != nil {
		return statement{Error: err.Error()}
	}
	return statement{
		"", s.Enabled, digests(s.PlatformKeys), digests(s.ExchangeKeys), digests(s.PermittedKeys), digests(s.ForbiddenKeys),
		len(s.PermittedHashes), len(s.ForbiddenHashes), digests(slices.Concat(s.PreSeparatorAuthority, s.PostSeparatorAuthority)),
	}
}

func main() {
	banks := map[attest.HashAlg]string{attest.HashSHA1: "sha1", attest.HashSHA256: "sha256", 0x0c: "sha384"}
	all := make(map[string]map[string]statement)
	for _, file := range os.Args[1:] {
		b, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		log, err := attest.ParseEventLog(b)
		if err != nil {
			panic(fmt.Errorf("%s: %w", file, err))
		}
		name := strings.TrimSuffix(filepath.Base(file), ".bin")
		all[name] = make(map[string]statement)
		for _, hash := range log.Algs {
			all[name][banks[hash]] = of(log, hash)
		}
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", " ")
	if err := enc.Encode(all); err != nil {
		panic(err)
	}
}
