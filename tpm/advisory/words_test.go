package advisory

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/device"
)

var update = flag.Bool("update", false, "write testdata/firmware-words.want")

// named is the version in what people call a TPM: "SLB9670 7.85.4555.0".
var named = regexp.MustCompile(`(?:^| )(\d+(?:\.\d+)+)\b`)

// TestWords reads the version words of real TPMs: as the makers write them, and
// with the advisories that the sources name.
func TestWords(t *testing.T) {
	b, err := os.ReadFile("testdata/firmware-words.txt")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 5)
		if len(f) != 5 {
			t.Fatalf("%q", line)
		}
		v1, err1 := strconv.ParseUint(f[2], 0, 32)
		v2, err2 := strconv.ParseUint(f[3], 0, 32)
		if err1 != nil || err2 != nil {
			t.Fatalf("%q: %v, %v", line, err1, err2)
		}
		version := FirmwareVersion(f[0], v1<<32|v2)
		if m := named.FindStringSubmatch(f[4]); m != nil && version != m[1] && !strings.HasPrefix(version, m[1]+".") {
			t.Errorf("%s: read as %s", strings.TrimSpace(line), version)
		}
		var affected, fixed []string
		for _, a := range Match(device.TPM{Manufacturer: f[0], Family: f[1], FirmwareVersion: version, State: device.TPMOK}) {
			if a.Affected {
				affected = append(affected, a.ID)
			} else {
				fixed = append(fixed, a.ID)
			}
		}
		fmt.Fprintf(&got, "%s %s %s | %s | %s\n", f[0], f[1], version, strings.Join(affected, " "), strings.Join(fixed, " "))
	}
	const want = "testdata/firmware-words.want"
	if *update {
		if err := os.WriteFile(want, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got.String(), "\n"), strings.Split(string(w), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			t.Fatalf("line %d is %q, want %q", i+1, gotLines[min(i, len(gotLines)-1)], wantLines[min(i, len(wantLines)-1)])
		}
	}
}

// The advisories say when they were last held against their sources.
func TestReviewed(t *testing.T) {
	day, err := time.Parse(time.DateOnly, Reviewed())
	if first := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC); err != nil || day.Before(first) {
		t.Errorf("%q: %v", Reviewed(), err)
	}
}
