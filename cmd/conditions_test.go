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
	test, pkg            string // and the folder of its package
}

// row is such as
//
//	| `device/gate/gate.go` | `Admit` | `!v.Opens()` | false | `TestAdmit` | why |
//
// A bar inside a condition is written \|. The second condition of a function
// that reads the same has " #2" after it. A test of another package is
// `TestX in folder`.
var row = regexp.MustCompile("(?m)^\\| `([^`|]+\\.go)` \\| `([^`|]+)` \\| `((?:[^`|]|\\\\\\|)+)` \\| (true|false) \\| `(Test[^`|]+)` \\|")

// fewest is less than the rows there are: a table that is not read passes nothing.
const fewest = 150

func conditions(t *testing.T) []condition {
	t.Helper()
	b, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []condition
	for _, m := range row.FindAllSubmatch(b, -1) {
		c := condition{file: string(m[1]), function: string(m[2]), text: strings.ReplaceAll(string(m[3]), `\|`, "|"), without: string(m[4])}
		c.test, c.pkg, _ = strings.Cut(string(m[5]), " in ")
		if c.pkg == "" {
			c.pkg = filepath.ToSlash(filepath.Dir(c.file))
		}
		all = append(all, c)
	}
	if len(all) < fewest {
		t.Fatalf("%d conditions are read, fewer than %d", len(all), fewest)
	}
	return all
}

// site is where a condition stands in its file, in bytes.
type site struct{ start, end int }

// conditionsOf finds the conditions of the ifs and cases of a function.
func conditionsOf(t *testing.T, file, function string) map[string]site {
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
	sites := make(map[string]site)
	add := func(e ast.Expr) {
		s := site{set.Position(e.Pos()).Offset, set.Position(e.End()).Offset}
		text := strings.Join(strings.Fields(string(source[s.start:s.end])), " ")
		name := text
		for n := 2; sites[name] != (site{}); n++ {
			name = fmt.Sprintf("%s #%d", text, n)
		}
		sites[name] = s
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
	return sites
}

// TestConditionsListed holds the table to the code: each condition is there,
// once, and each function of the table has all of its conditions in it.
func TestConditionsListed(t *testing.T) {
	listed := make(map[[2]string][]string)
	for _, c := range conditions(t) {
		at := [2]string{c.file, c.function}
		if slices.Contains(listed[at], c.text) {
			t.Errorf("%s, %s: the condition %q is in the table twice", c.file, c.function, c.text)
		}
		listed[at] = append(listed[at], c.text)
		if !declared(t, c.pkg, c.test) {
			t.Errorf("%s, %s, %q: there is no %s in %s", c.file, c.function, c.text, c.test, c.pkg)
		}
	}
	for at, texts := range listed {
		sites := conditionsOf(t, at[0], at[1])
		for _, text := range texts {
			if sites[text] == (site{}) {
				t.Errorf("%s, %s: there is no condition %q", at[0], at[1], text)
			}
		}
		for text := range sites {
			if !slices.Contains(texts, text) {
				t.Errorf("%s, %s: the condition %q is not in the table of docs/security.md", at[0], at[1], text)
			}
		}
	}
}

// TestConditions takes each condition out, alone, and runs its test. All of them
// are in one program, which reads from a file which of them it is without.
func TestConditions(t *testing.T) {
	if !*takeOut {
		return // minutes: TestConditionsListed holds the table meanwhile
	}
	all := conditions(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	overlay := withSwitches(t, dir, out, all)
	without := func(number int) {
		if err := os.WriteFile(out, fmt.Append(nil, number), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	programs, passed := make(map[string]string), make(map[string]bool)
	run := func(t *testing.T, c condition) ([]byte, error) {
		if programs[c.pkg] == "" {
			program := filepath.Join(dir, fmt.Sprintf("%d.test", len(programs)))
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", program, "./"+c.pkg)
			build.Dir = ".."
			if said, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, said)
			}
			programs[c.pkg] = program
		}
		command := exec.CommandContext(t.Context(), programs[c.pkg], "-test.run", "^"+c.test+"$", "-test.timeout", "1m")
		command.Dir = filepath.Join("..", filepath.FromSlash(c.pkg))
		return command.CombinedOutput()
	}
	for i, c := range all {
		t.Run(fmt.Sprintf("%s/%s/%s", c.file, c.function, c.text), func(t *testing.T) {
			if with := c.test + " in " + c.pkg; !passed[with] {
				without(-1)
				if said, err := run(t, c); err != nil {
					t.Fatalf("%s fails with every condition: %v\n%s", with, err, said)
				}
				passed[with] = true
			}
			without(i)
			if said, err := run(t, c); err == nil {
				t.Errorf("%s passes without the condition:\n%s", c.test, said)
			} else if !bytes.Contains(said, []byte("--- FAIL")) && !bytes.Contains(said, []byte("panic:")) {
				t.Errorf("%s does not run without the condition: %v\n%s", c.test, err, said)
			}
		})
	}
}

// withSwitches writes the files of the conditions with a switch in each, and
// returns an overlay of them. A program that is built with it is without the
// condition whose number stands in the file out.
func withSwitches(t *testing.T, dir, out string, all []condition) (overlay string) {
	t.Helper()
	type change struct {
		at   int
		text string
	}
	changes := make(map[string][]change)
	for i, c := range all {
		s, ok := conditionsOf(t, c.file, c.function)[c.text]
		if !ok {
			t.Fatalf("%s, %s: there is no condition %q", c.file, c.function, c.text)
		}
		before := map[string]string{"false": "!withoutCondition(%d) && (", "true": "withoutCondition(%d) || ("}[c.without]
		changes[c.file] = append(changes[c.file], change{s.start, fmt.Sprintf(before, i)}, change{s.end, ")"})
	}
	replace := make(map[string]string)
	write := func(file string, content []byte) {
		file, err := filepath.Abs(filepath.Join("..", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		if replace[file] == "" {
			replace[file] = filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		}
		if err := os.WriteFile(replace[file], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for file, of := range changes {
		source, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		slices.SortStableFunc(of, func(a, b change) int { return b.at - a.at })
		for _, c := range of {
			source = slices.Concat(source[:c.at], []byte(c.text), source[c.at:])
		}
		write(file, source)
		name := regexp.MustCompile(`(?m)^package (\w+)`).FindSubmatch(source)[1]
		write(filepath.ToSlash(filepath.Dir(file))+"/withoutcondition.go", fmt.Appendf(nil, `package %s

import (
	"os"
	"strconv"
)

var outCondition = func() int {
	b, _ := os.ReadFile(%q)
	n, err := strconv.Atoi(string(b))
	if err != nil {
		panic(err)
	}
	return n
}()

func withoutCondition(number int) bool { return number == outCondition }
`, name, out))
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}
