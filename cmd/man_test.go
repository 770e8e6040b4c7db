package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestManPages asks mandoc and man, where they are installed, what is wrong with
// the man pages. That the pages are what the programs say is tested beside these.
func TestManPages(t *testing.T) {
	pages, err := filepath.Glob("../docs/man/*.[1-8]")
	if err != nil || len(pages) < 5 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, tool := range [][]string{
		{"mandoc", "-T", "lint", "-W", "warning"},
		{"man", "--warnings", "-E", "UTF-8", "-Tutf8", "-Z", "-l"},
	} {
		if _, err := exec.LookPath(tool[0]); err != nil {
			t.Logf("%s is not installed here", tool[0])
			continue
		}
		for _, page := range pages {
			cmd := exec.Command(tool[0], append(tool[1:], page)...)
			cmd.Env = append(cmd.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80", "MANROFFSEQ=")
			var said strings.Builder
			cmd.Stderr = &said
			if tool[0] == "mandoc" { // what it has to say is its output
				cmd.Stdout = &said
			}
			if err := cmd.Run(); err != nil || said.Len() > 0 {
				t.Errorf("%s of %s: %v\n%s", tool[0], page, err, &said)
			}
		}
	}
}

// TestDropIns holds the table of docs/systemd.md to the examples that there are.
func TestDropIns(t *testing.T) {
	page, err := os.ReadFile("../docs/systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("../packaging/systemd/examples/*.conf")
	if err != nil || len(examples) < 6 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	for _, example := range examples {
		if !strings.Contains(string(page), "\n| `"+filepath.Base(example)+"` |") {
			t.Errorf("docs/systemd.md does not say when to use %s", example)
		}
	}
}
