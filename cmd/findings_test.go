package cmd_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
)

var update = flag.Bool("update", false, "write the documents that are made of the code")

// TestFindings holds docs/findings.md to the reasons in the code.
func TestFindings(t *testing.T) {
	const file = "../docs/findings.md"
	made := findings(t)
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

// others are the reasons besides those of checks, by the packages that give them.
var others = []struct {
	packages     []string
	title, intro string
	status       bool // a finding has it; else it is an answer
}{
	{
		[]string{"device"}, "Gaps",
		"What could not be checked is a gap in the report. Where a gap stands among findings, such as in the findings topic and in\n" +
			"`keyvet check -format line`, it has this code.", true,
	},
	{
		[]string{"cmd/keyvet/internal/credential"}, "The claim",
		"keyvet warns of a claim that `provision.delete_claim` says to remove.", true,
	},
	{
		[]string{"device/rotate"}, "Rotations",
		"A rotation that fails has one of these codes, or the code of the check that the new key or certificate does not pass. `keyvet status` and the\n" +
			"`statusDetails` of the job show it. The job is FAILED unless the row says otherwise.", false,
	},
	{[]string{"device/agent", "cmd/keyvet/internal/cloud"}, "Jobs", "A job can also be answered with these codes.", false},
	{[]string{"mqtt/awsiot"}, "The shadow", "The shadow of the device is limited in size, so a long list of reason codes is cut.", false},
	{
		[]string{"tpm/evidence"}, "keyvet-fleet verify",
		"keyvet-fleet(1) tests the keys of a report again. It gives the codes of the checks, and these.", true,
	},
}

func findings(t *testing.T) []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, `# Findings

<!-- Made from the code by: go test ./cmd -run TestFindings -update -->

Each check asks one question of a key or of the TPM. A finding that is not PASS has a reason code. The codes that do not start with
KEYVET_ are those of AWS IoT Device Defender. UNDECIDED means that keyvet could not check: the gate stays shut, because the answer is
not known.

Rotations, jobs and the fleet's verifier have reason codes, too: they come after those of the checks.
`)
	for _, c := range check.All {
		fmt.Fprintf(&b, "\n## %s\n\n%s [Source](%s)\n", c.ID, c.Asks, c.Cite)
		table(&b, c.Reasons, true)
	}
	fmt.Fprint(&b, "\n## Any check\n")
	table(&b, check.OfAny, true)
	declared := reasons(t)
	for _, o := range others {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", o.title, o.intro)
		var all []device.Reason
		for _, pkg := range o.packages {
			all = append(all, declared[pkg]...)
		}
		table(&b, all, o.status)
	}
	return b.Bytes()
}

// table writes the reasons, with the status of a finding if status is set.
func table(b *bytes.Buffer, all []device.Reason, status bool) {
	head := "\n| reason code | status | means | what to do |\n|---|---|---|---|\n"
	if !status {
		head = strings.ReplaceAll(head, " status |", "")
		head = strings.Replace(head, "---|", "", 1)
	}
	fmt.Fprint(b, head)
	for _, r := range all {
		cell := strings.NewReplacer("|", "\\|", "*", "…").Replace
		fmt.Fprintf(b, "| `%s` |", cell(r.Code))
		if status {
			fmt.Fprintf(b, " %s", r.Status)
			if r.Severity != "" {
				fmt.Fprintf(b, ", %s", r.Severity)
			}
			fmt.Fprint(b, " |")
		}
		fmt.Fprintf(b, " %s | %s |\n", cell(r.Means), cell(r.Do))
	}
}

// TestReasons holds the reason codes in the code to the tables: each has a row,
// and each row says what the code means and what to do.
func TestReasons(t *testing.T) {
	known := make(map[string]bool)
	row := func(where string, r device.Reason) {
		known[r.Code] = true
		if !strings.HasSuffix(r.Means, ".") || !strings.HasSuffix(r.Do, ".") {
			t.Errorf("%s: %q does not say in sentences what it means and what to do", where, r.Code)
		}
	}
	for _, c := range check.All {
		for _, r := range c.Reasons {
			row(c.ID, r)
		}
	}
	for _, r := range check.OfAny {
		row("any check", r)
	}
	sections := map[string]bool{"device/check": true}
	for _, o := range others {
		for _, pkg := range o.packages {
			sections[pkg] = true
		}
	}
	for pkg, all := range reasons(t) {
		if !sections[pkg] {
			t.Errorf("%s declares reasons that are in no section of docs/findings.md", pkg)
		}
		for _, r := range all {
			if pkg != "device/check" {
				row(pkg, r)
			}
		}
	}
	for _, name := range notReasons {
		known[name] = true
	}
	literals := 0
	eachFile(t, func(pkg string, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			if sum, ok := n.(*ast.BinaryExpr); ok && strings.HasSuffix(types.ExprString(sum.X), "ReasonKeyvetPrefix") {
				if _, literal := sum.Y.(*ast.BasicLit); literal {
					t.Errorf("%s: write %s as one string, so that this test sees it", pkg, types.ExprString(sum))
				}
			}
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			if code, err := strconv.Unquote(lit.Value); err == nil && code != device.ReasonKeyvetPrefix && codeName.MatchString(code) {
				literals++
				if !known[code] && !known[code+"*"] {
					t.Errorf("%s: %s has no row in docs/findings.md", pkg, code)
				}
			}
			return true
		})
	})
	if literals < 50 {
		t.Errorf("only %d codes seen: the test looks in the wrong place", literals)
	}
}

var codeName = regexp.MustCompile(`^KEYVET_[A-Z0-9_-]+$`)

// notReasons are names that look like reason codes.
var notReasons = []string{
	"KEYVET_LAB", "KEYVET_BOOT_ID", // environment
	"KEYVET_KEY", "KEYVET_TPM", "KEYVET_GAP", // types of resources in findings of the account
}

// reasons reads the device.Reason literals of each package, by its path.
func reasons(t *testing.T) map[string][]device.Reason {
	t.Helper()
	constants := make(map[string]string) // by package and name
	eachFile(t, func(pkg string, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				for i, name := range spec.Names {
					if i < len(spec.Values) {
						constants[pkg+"."+name.Name] = text(spec.Values[i])
					}
				}
			}
			return true
		})
	})
	all := make(map[string][]device.Reason)
	eachFile(t, func(pkg string, f *ast.File) {
		add := func(literal *ast.CompositeLit) {
			var r device.Reason
			for _, e := range literal.Elts {
				pair, ok := e.(*ast.KeyValueExpr)
				if !ok {
					t.Errorf("%s: a reason without the names of its fields", pkg)
					return
				}
				switch value := types.ExprString(pair.Value); types.ExprString(pair.Key) {
				case "Code":
					r.Code = cmp.Or(text(pair.Value), constants[pkg+"."+value], value)
				case "Status":
					r.Status = statuses["device."+strings.TrimPrefix(value, "device.")]
				case "Severity":
					r.Severity = device.Severity(strings.ToUpper(strings.TrimPrefix(value, "device.")))
				case "Means":
					r.Means = text(pair.Value)
				case "Do":
					r.Do = text(pair.Value)
				}
			}
			all[pkg] = append(all[pkg], r)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			switch of := types.ExprString(literal.Type); {
			case of == "device.Reason", of == "Reason" && pkg == "device":
				add(literal)
			case of == "[]device.Reason":
				for _, e := range literal.Elts {
					if element, ok := e.(*ast.CompositeLit); ok && element.Type == nil {
						add(element)
					}
				}
			}
			return true
		})
	})
	return all
}

var statuses = map[string]device.Status{"device.Undecided": device.Undecided, "device.Warn": device.Warn, "device.Fail": device.Fail}

// text is the value of a string literal, or of a sum of them; "" of anything else.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		value, _ := strconv.Unquote(e.Value)
		return value
	case *ast.BinaryExpr:
		return text(e.X) + text(e.Y)
	}
	return ""
}

// eachFile parses the Go files of the tree that are no tests.
func eachFile(t *testing.T, visit func(pkg string, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if base := d.Name(); base != ".." && (base[0] == '.' || base == "testdata") {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", filepath.Dir(name))
		visit(filepath.ToSlash(rel), f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
