package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestErrorPrefixes holds every error's text to begin with what went wrong or with
// the object that it befell: the name of a Go package before it says nothing to
// who reads it on a device, and several of them hide the cause.
func TestErrorPrefixes(t *testing.T) {
	packages := make(map[string]bool)
	var files []*ast.File
	set := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.'):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		packages[f.Name.Name] = true
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found := stacked(t, packages, example(t, set)); len(found) != 2 {
		t.Fatalf("of two errors with a package's name the walk finds %d", len(found))
	}
	errors := 0
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok && errorText(c) != "" {
				errors++
			}
			return true
		})
		for _, l := range stacked(t, packages, f) {
			t.Errorf("%s: %s begins with the name of a package", set.Position(l.Pos()), l.Value)
		}
	}
	if errors < 500 {
		t.Errorf("the walk saw %d errors, which is not all of them", errors)
	}
}

func example(t *testing.T, set *token.FileSet) *ast.File {
	f, err := parser.ParseFile(set, "example.go", `package example
var a, b, c = errors.New("durable: no room"), fmt.Errorf("tpm: sign: %w", a), errors.New("sign: tpm: no")`, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// stacked returns the texts of errors made in f that begin with a package's name.
func stacked(t *testing.T, packages map[string]bool, f *ast.File) (found []*ast.BasicLit) {
	ast.Inspect(f, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok || errorText(c) == "" {
			return true
		}
		l := c.Args[0].(*ast.BasicLit)
		text, err := strconv.Unquote(l.Value)
		if err != nil {
			t.Fatal(err)
		}
		if name, _, prefixed := strings.Cut(text, ": "); prefixed && packages[name] {
			found = append(found, l)
		}
		return true
	})
	return found
}

// errorText returns the quoted text of an error that c makes, or nothing.
func errorText(c *ast.CallExpr) string {
	s, ok := c.Fun.(*ast.SelectorExpr)
	if !ok || len(c.Args) == 0 {
		return ""
	}
	pkg, ok := s.X.(*ast.Ident)
	if !ok || pkg.Name+"."+s.Sel.Name != "fmt.Errorf" && pkg.Name+"."+s.Sel.Name != "errors.New" {
		return ""
	}
	l, ok := c.Args[0].(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	return l.Value
}
