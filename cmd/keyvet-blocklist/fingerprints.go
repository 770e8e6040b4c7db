package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/keyvet/keyvet/device/durable"
)

// maxFingerprintFile is more than any list of a fleet: a million lines and some.
const maxFingerprintFile = 128 << 20

// readFingerprints reads a file of hex fingerprints of size bytes, one a line;
// empty lines and those that begin with # do not count.
func readFingerprints(path string, size int) ([][]byte, error) {
	b, err := durable.ReadBounded(path, maxFingerprintFile)
	if err != nil {
		return nil, err
	}
	all, err := parseFingerprints(b, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

func parseFingerprints(b []byte, size int) (all [][]byte, err error) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fingerprint, err := hex.DecodeString(line)
		if err != nil || len(fingerprint) != size {
			return nil, fmt.Errorf("line %d: not %d hex digits", n, 2*size)
		}
		all = append(all, fingerprint)
	}
	if lines.Err() != nil {
		return nil, fmt.Errorf("line %d: too long", n+1)
	}
	if len(all) == 0 {
		return nil, errors.New("no fingerprints")
	}
	return all, nil
}
