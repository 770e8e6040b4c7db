package cmd_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sources are the files that a path of docs/security.md names: itself, or what
// is below it and ends so.
func sources(t *testing.T, path, suffix string) (files []string) {
	t.Helper()
	path = filepath.Join("..", filepath.FromSlash(path))
	err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && (file == path || strings.HasSuffix(file, suffix)) {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

// declared reports whether a folder, or one below it, has a test of that name.
// "TestScripts/gate" is the script gate.txtar of a testscript.
func declared(t *testing.T, folder, test string) bool {
	t.Helper()
	test, script, isScript := strings.Cut(test, "/")
	if isScript {
		scripts := sources(t, folder, filepath.Join("script", script+".txtar"))
		return len(scripts) > 0 && declared(t, folder, test)
	}
	for _, file := range sources(t, folder, "_test.go") {
		if bytes.Contains(read(t, file), []byte("\nfunc "+test+"(t *testing.T")) {
			return true
		}
	}
	return false
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each claim of docs/security.md is held by a test that there is.
func TestSecurityClaims(t *testing.T) {
	page := read(t, "../docs/security.md")
	tests := regexp.MustCompile("`(Test[A-Za-z0-9/]+) in ([a-z0-9/-]+)`").FindAllSubmatch(page, -1)
	if len(tests) < 100 {
		t.Fatalf("%d tests are named", len(tests))
	}
	for _, m := range tests {
		if !declared(t, string(m[2]), string(m[1])) {
			t.Errorf("there is no %s in %s", m[1], m[2])
		}
	}
	units := read(t, "../packaging/test-units")
	lines := regexp.MustCompile(`"test-units: ([^"]+)"`).FindAllSubmatch(page, -1)
	if len(lines) < 10 {
		t.Fatalf("%d lines of test-units are named", len(lines))
	}
	for _, m := range lines {
		if !bytes.Contains(units, []byte(`"`+string(m[1])+`"`)) && !bytes.Contains(units, []byte(`"ok: `+string(m[1])+`"`)) {
			t.Errorf("packaging/test-units has no %q", m[1])
		}
	}
	// A claim that holds says by what.
	for _, head := range []string{"| who | what holds | held by |", "| situation |", "| what | bound |", "| attack |"} {
		_, table, found := strings.Cut(string(page), "\n"+head)
		if !found {
			t.Errorf("no table %q", head)
		}
		table, _, _ = strings.Cut(table, "\n\n")
		for _, row := range strings.Split(table, "\n")[2:] {
			if cells := strings.Split(row, "|"); len(cells) > 2 && strings.TrimSpace(cells[2]) != "" && !strings.Contains(row, "`Test") && !strings.Contains(row, `"test-units: `) {
				t.Errorf("nothing holds: %s", row)
			}
		}
	}
}

// Each bound of docs/security.md is in the code with the value stated.
func TestBounds(t *testing.T) {
	bounds := regexp.MustCompile("(?m)^\\| [^|]+ \\| `([^`]+?)( ?= ?)([^`]+)` in `([^`]+)` \\|").FindAllSubmatch(read(t, "../docs/security.md"), -1)
	if len(bounds) < 30 {
		t.Fatalf("%d bounds are read", len(bounds))
	}
	for _, m := range bounds {
		name, value, path := string(m[1]), string(m[3]), string(m[4])
		var found []string
		for _, file := range sources(t, path, ".go") {
			switch {
			case strings.HasSuffix(file, "_test.go"):
			case strings.HasSuffix(file, ".go") && !strings.Contains(name, "."):
				found = append(found, constants(t, file, name)...)
			default: // a setting: of a unit, or a default of the configuration
				for line := range strings.Lines(string(read(t, file))) {
					if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+string(m[2])); ok {
						found = append(found, v)
					}
				}
			}
		}
		if len(found) != 1 || found[0] != value {
			t.Errorf("%s in %s is %v, and not %s", name, path, found, value)
		}
	}
}

// constants are the values of the constants of that name in a file, as written.
func constants(t *testing.T, file, name string) (values []string) {
	t.Helper()
	source := read(t, file)
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			s := s.(*ast.ValueSpec)
			for i, n := range s.Names {
				if n.Name == name && i < len(s.Values) {
					v := s.Values[i]
					values = append(values, fmt.Sprintf("%s", source[set.Position(v.Pos()).Offset:set.Position(v.End()).Offset]))
				}
			}
		}
	}
	return values
}
