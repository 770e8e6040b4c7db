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

// readFingerprints reads a file of hex fingerprints of size bytes, one a line,
// with a name after each if it is named; empty lines and those that begin with #
// do not count.
func readFingerprints(path string, size int, named bool) (all [][]byte, names []string, err error) {
	b, err := durable.ReadBounded(path, maxFingerprintFile)
	if err != nil {
		return nil, nil, err
	}
	all, names, err = parseFingerprints(b, size, named)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, names, nil
}

func parseFingerprints(b []byte, size int, named bool) (all [][]byte, names []string, err error) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		digits, name := line, ""
		if i := strings.IndexAny(line, " \t"); i >= 0 && named {
			digits, name = line[:i], strings.TrimSpace(line[i:])
		}
		fingerprint, err := hex.DecodeString(digits)
		if err != nil || len(fingerprint) != size {
			return nil, nil, fmt.Errorf("line %d: not %d hex digits", n, 2*size)
		}
		all, names = append(all, fingerprint), append(names, name)
	}
	if lines.Err() != nil {
		return nil, nil, fmt.Errorf("line %d: too long", n+1)
	}
	if len(all) == 0 {
		return nil, nil, errors.New("no fingerprints")
	}
	return all, names, nil
}
