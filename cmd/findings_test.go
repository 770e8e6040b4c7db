package cmd_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
)

var update = flag.Bool("update", false, "write the documents that are made of the code")

// TestFindings holds docs/findings.md to the reasons in the code.
func TestFindings(t *testing.T) {
	const file = "../docs/findings.md"
	made := findings()
	if *update {
		if err := os.WriteFile(file, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, made) {
		t.Errorf("%s is not what the code makes: go test ./cmd -run TestFindings -update", file)
	}
}

func findings() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Findings

<!-- Made of the code by: go test ./cmd -run TestFindings -update -->

Each check asks one question of a key or of the TPM. A finding that is not PASS has a reason code. The codes that do not start with
KEYVET_ are those of AWS IoT Device Defender. Where a row says UNDECIDED, keyvet could not look: the gate stays shut, since nothing is
known.
`)
	for _, c := range check.All {
		fmt.Fprintf(&b, "\n## %s\n\n%s [Source](%s)\n", c.ID, c.Asks, c.Cite)
		reasons(&b, c.Reasons)
	}
	fmt.Fprint(&b, "\n## Any check\n")
	reasons(&b, check.OfAny)
	return b.Bytes()
}

// reasons writes a table.
func reasons(b *bytes.Buffer, all []device.Reason) {
	fmt.Fprint(b, "\n| reason code | status | means | what to do |\n|---|---|---|---|\n")
	for _, r := range all {
		status := r.Status.String()
		if r.Severity != "" {
			status += ", " + string(r.Severity)
		}
		cell := strings.NewReplacer("|", "\\|", "*", "…").Replace
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", cell(r.Code), status, cell(r.Means), cell(r.Do))
	}
}
