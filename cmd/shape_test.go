package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// The most that a reader holds in the head at once, of the commands.
const (
	maxLines   = 400 // of a file
	maxFields  = 10  // of a struct that has more than maxMethods
	maxMethods = 10
	maxCommand = 1000 // lines of cmd/keyvet itself
)

// large structs may be larger, with the reason.
var large = map[string]string{"keyvet/internal/config.Config": "keyvet.toml"}

// TestShape keeps files short and structs small, and keyvet's command at flags
// and text.
func TestShape(t *testing.T) {
	command := 0
	types := map[string][2]int{} // by folder and name: fields, methods
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		lines := set.File(f.Pos()).LineCount()
		if lines > maxLines {
			t.Errorf("%s has %d lines, more than %d", name, lines, maxLines)
		}
		if filepath.Dir(name) == "keyvet" {
			command += lines
		}
		count(f, filepath.Dir(name), types)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if command == 0 || command > maxCommand {
		t.Errorf("cmd/keyvet has %d lines, more than %d", command, maxCommand)
	}
	for name, n := range types {
		if n[0] > maxFields && n[1] > maxMethods && large[filepath.ToSlash(name)] == "" {
			t.Errorf("%s has %d fields and %d methods", name, n[0], n[1])
		}
	}
}

// count adds the fields of the structs of a file, and the methods.
func count(f *ast.File, dir string, types map[string][2]int) {
	add := func(name string, fields, methods int) {
		n := types[dir+"."+name]
		types[dir+"."+name] = [2]int{n[0] + fields, n[1] + methods}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			if s, ok := n.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					add(n.Name.Name, max(1, len(field.Names)), 0)
				}
			}
		case *ast.FuncDecl:
			if n.Recv != nil {
				of := n.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				if name, ok := of.(*ast.Ident); ok {
					add(name.Name, 0, 1)
				}
			}
		}
		return true
	})
}
