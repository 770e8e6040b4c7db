package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestShippedClockFloor builds the program with the Makefile's own command: what
// -ldflags -X sets, the linker leaves out in silence where the name is wrong.
func TestShippedClockFloor(t *testing.T) {
	const made, want = "COMMIT_TIME=1790000000", "clock floor: 2026-09-21T14:13:20Z"
	cmd := exec.Command("make", "-n", "build", made, "VERSION=1.2.3", "COMMIT=c0ffee")
	cmd.Dir = "../.."
	plan, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^.* -o bin/ \./cmd/keyvet$`).FindString(string(plan))
	if line == "" {
		t.Fatalf("make build does not build keyvet:\n%s", plan)
	}
	program := filepath.Join(t.TempDir(), "keyvet")
	cmd = exec.Command("sh", "-c", strings.Replace(line, "-o bin/", "-o "+program, 1))
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "GOFLAGS=-tags=keyvet_noblocklist")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	out, err := exec.Command(program, "version", "-v").Output()
	if got := string(out); err != nil || !strings.Contains(got, want) || !strings.HasPrefix(got, "keyvet 1.2.3 (c0ffee) ") {
		t.Errorf("%v: %q, want %s", err, got, want)
	}
}
