package main

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/blocklist"
)

// namedKeys reads keys whose private half is public, one a line: SHA-256 of the
// SubjectPublicKeyInfo in hex, algorithm, name, source, class and SHA-256 of the
// number in hex or nothing, with a tab between, and whatever comes after a
// further tab. Of classes, if any are named, only those count.
type namedKeys struct {
	file    string
	classes string
	by      string // "number": one SHA-256 a key, "both"
}

func (n namedKeys) read() ([]blocklist.NamedKey, error) {
	if n.by != "number" && n.by != "both" {
		return nil, errUsage{fmt.Errorf("build: -by %s: want number or both", n.by)}
	}
	f, err := os.Open(n.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFingerprintFile+1)) // a pipe too, as of xz
	if err != nil {
		return nil, err
	}
	if len(b) > maxFingerprintFile {
		return nil, fmt.Errorf("%s: more than %d MB", n.file, maxFingerprintFile>>20)
	}
	keys, err := n.parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.file, err)
	}
	return keys, nil
}

func (n namedKeys) parse(b []byte) (keys []blocklist.NamedKey, err error) {
	var wanted []string
	if n.classes != "" {
		wanted = strings.Split(n.classes, ",")
	}
	seen := make(map[string]bool)
	at := 0
	for line := range bytes.Lines(b) {
		at++
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" || text[0] == '#' {
			continue
		}
		columns := strings.Split(text, "\t")
		if len(columns) < 6 {
			return nil, fmt.Errorf("line %d: %d columns, want 6", at, len(columns))
		}
		key := blocklist.NamedKey{Entry: blocklist.Entry{Name: columns[2], Source: columns[3], Class: columns[4]}}
		seen[key.Class] = true
		if wanted != nil && !slices.Contains(wanted, key.Class) {
			continue
		}
		for _, digits := range []string{columns[5], columns[0]} {
			if digits == "" && len(key.SHA256) == 0 {
				continue
			}
			sum, err := hex.DecodeString(digits)
			if err != nil || len(sum) != 32 {
				return nil, fmt.Errorf("line %d: not 64 hex digits", at)
			}
			key.SHA256 = append(key.SHA256, sum)
		}
		if n.by == "number" {
			key.SHA256 = key.SHA256[:1]
		}
		keys = append(keys, key)
	}
	for _, class := range wanted {
		if !seen[class] {
			return nil, fmt.Errorf("no key of the class %q", class)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no keys")
	}
	return keys, nil
}

// deflate packs the names of a list. The same version of Go gives the same bytes.
func deflate(text []byte) ([]byte, error) {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}
