package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestArchitecture holds docs/architecture.md to the code: each file that it
// names is there, and each function named after a file is in that file.
func TestArchitecture(t *testing.T) {
	b, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	functions := 0
	for line := range strings.Lines(string(b)) {
		file := ""
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(line, -1) {
			switch name := m[1]; {
			case strings.ContainsAny(name, " -") && !strings.Contains(name, "keyvet-"):
			case strings.Contains(name, "/"):
				file = name
				if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(name))); err != nil {
					t.Errorf("%s: %v", strings.TrimSpace(line), err)
				}
			case strings.HasSuffix(file, ".go"):
				functions++
				if !declares(t, file, name) {
					t.Errorf("%s has no function %s: %s", file, name, strings.TrimSpace(line))
				}
			}
		}
	}
	if functions < 30 {
		t.Errorf("only %d functions are named: the document is not read rightly", functions)
	}
}

// declares reports whether a file has a function or a method of that name.
func declares(t *testing.T, file, name string) bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", filepath.FromSlash(file)), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == name {
			return true
		}
	}
	return false
}
