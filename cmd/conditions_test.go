package cmd_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var takeOut = flag.Bool("conditions", false, "take each condition of docs/security.md out in turn and run its test, which has to fail: make conditions")

// condition is a row of the table of conditions in docs/security.md.
type condition struct {
	file, function, text string
	without              string // what it is replaced by: true or false
	test                 string
}

// row is such as
//
//	| `device/gate/gate.go` | `Admit` | `!v.Opens()` | false | `TestAdmit` | why |
//
// A bar inside a condition is written \|.
var row = regexp.MustCompile("(?m)^\\| `([^`|]+\\.go)` \\| `([^`|]+)` \\| `((?:[^`|]|\\\\\\|)+)` \\| (true|false) \\| `(Test[^`|]+)` \\|")

func conditions(t *testing.T) []condition {
	t.Helper()
	b, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []condition
	for _, m := range row.FindAllSubmatch(b, -1) {
		all = append(all, condition{string(m[1]), string(m[2]), strings.ReplaceAll(string(m[3]), `\|`, "|"), string(m[4]), string(m[5])})
	}
	return all
}

// site is where a condition stands in its file, in bytes.
type site struct{ start, end int }

// conditionsOf finds the conditions of the ifs and cases of a function.
func conditionsOf(t *testing.T, file, function string) (source []byte, sites map[string][]site) {
	t.Helper()
	path := filepath.Join("..", filepath.FromSlash(file))
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, path, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	sites = make(map[string][]site)
	add := func(e ast.Expr) {
		s := site{set.Position(e.Pos()).Offset, set.Position(e.End()).Offset}
		text := strings.Join(strings.Fields(string(source[s.start:s.end])), " ")
		sites[text] = append(sites[text], s)
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != function {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IfStmt:
				add(n.Cond)
			case *ast.SwitchStmt:
				if n.Tag != nil {
					return true
				}
				for _, c := range n.Body.List {
					for _, e := range c.(*ast.CaseClause).List {
						add(e)
					}
				}
			}
			return true
		})
	}
	return source, sites
}

// TestConditionsListed holds the table to the code: each condition is there,
// once, and each function of the table has all of its conditions in it.
func TestConditionsListed(t *testing.T) {
	listed := make(map[[2]string][]string)
	for _, c := range conditions(t) {
		_, sites := conditionsOf(t, c.file, c.function)
		if len(sites[c.text]) != 1 {
			t.Errorf("%s, %s: the condition %q stands there %d times", c.file, c.function, c.text, len(sites[c.text]))
		}
		at := [2]string{c.file, c.function}
		listed[at] = append(listed[at], c.text)
	}
	for at, texts := range listed {
		_, sites := conditionsOf(t, at[0], at[1])
		for text := range sites {
			if !slices.Contains(texts, text) {
				t.Errorf("%s, %s: the condition %q is not in the table of docs/security.md", at[0], at[1], text)
			}
		}
	}
}

// TestConditions takes each condition out, alone, and runs its test.
func TestConditions(t *testing.T) {
	if !*takeOut {
		return // minutes: TestConditionsListed holds the table meanwhile
	}
	for _, c := range conditions(t) {
		t.Run(fmt.Sprintf("%s/%s/%s", filepath.Base(c.file), c.function, c.text), func(t *testing.T) {
			source, sites := conditionsOf(t, c.file, c.function)
			if len(sites[c.text]) != 1 {
				t.Fatalf("the condition stands there %d times", len(sites[c.text]))
			}
			s := sites[c.text][0]
			connective := map[string]string{"false": "false && (", "true": "true || ("}[c.without]
			changed := slices.Concat(source[:s.start], []byte(connective), source[s.start:s.end], []byte(")"), source[s.end:])

			dir := t.TempDir()
			mutant := filepath.Join(dir, "mutant.go")
			original, err := filepath.Abs(filepath.Join("..", c.file))
			if err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: mutant}})
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range map[string][]byte{"mutant.go": changed, "overlay.json": overlay} {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pkg, test, elsewhere := strings.Cut(c.test, " in ")
			if !elsewhere {
				test, pkg = c.test, filepath.ToSlash(filepath.Dir(c.file))
			} else {
				test, pkg = pkg, test
			}
			run := func(flags ...string) ([]byte, error) {
				command := exec.CommandContext(t.Context(), "go", slices.Concat([]string{"test", "-count=1", "-run", "^" + test + "$"}, flags, []string{"./" + pkg})...)
				command.Dir = ".."
				return command.CombinedOutput()
			}
			if out, err := run("-vet=off", "-overlay", filepath.Join(dir, "overlay.json")); err == nil {
				t.Errorf("%s passes without the condition:\n%s", test, out)
			} else if !bytes.Contains(out, []byte("--- FAIL")) && !bytes.Contains(out, []byte("panic:")) {
				t.Errorf("%s does not run without the condition: %v\n%s", test, err, out)
			}
		})
	}
}
