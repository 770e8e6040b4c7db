package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const casesDir = "testdata/cases/keys"

// pending are the cases that are not yet judged as they must be.
var pending = []string{
	"ec-public-is-generator.pem",
	"rsa-exponent-above-modulus.pem",
	"rsa-factor-65537.pem",
	"rsa-modulus-is-cube.pem",
	"rsa-modulus-is-prime.pem",
	"rsa-short-sleeve-2048.pem",
	"rsa-small-private-exponent.pem",
	"rsa-two-keys-share-a-prime.pem",
}

// keyCase is one row of expected.tsv.
type keyCase struct {
	file string
	want []int // exit statuses that are right
}

func keyCases(t *testing.T) (cases []keyCase) {
	t.Helper()
	table, err := os.ReadFile(filepath.Join(casesDir, "expected.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		c := keyCase{file: fields[0]}
		for word := range strings.SplitSeq(fields[1], " or ") {
			status, err := strconv.Atoi(word)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			c.want = append(c.want, status)
		}
		cases = append(cases, c)
	}
	if len(cases) < 51 {
		t.Fatalf("only %d cases", len(cases))
	}
	return cases
}

// inPrivate copies a case to where nobody else can read it, since a private key
// that others can read fails for that alone.
func inPrivate(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(casesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCases holds keyvet check to expected.tsv.
func TestCases(t *testing.T) {
	for _, c := range keyCases(t) {
		t.Run(c.file, func(t *testing.T) {
			status, out, errs := keyvet(t, "", "check", inPrivate(t, c.file))
			right, waits := slices.Contains(c.want, status), slices.Contains(pending, c.file)
			switch {
			case right && waits:
				t.Error("right by now: take it off the list of pending cases")
			case !right && !waits:
				t.Errorf("exit %d, want %d\n%s%s", status, c.want, out, errs)
			}
		})
	}
	for _, name := range pending {
		if _, err := os.Stat(filepath.Join(casesDir, name)); err != nil {
			t.Error(err)
		}
	}
}
