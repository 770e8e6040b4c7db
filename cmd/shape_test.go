package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// The most that a reader holds in the head at once.
const (
	maxLines   = 400 // of a file
	maxFields  = 10  // of a struct that has more than maxMethods
	maxMethods = 10
	maxCommand = 1000 // lines of cmd/keyvet itself
)

// large structs and files may be larger, with the reason.
var large = map[string]string{
	"cmd/keyvet/internal/config.Config": "keyvet.toml",
	"device.Report":                     "the document that the contract describes",
	"mqtt/awsiot/localiot.Server":       "an account of AWS IoT for tests and the desk: its services share their things and one lock",
	"blocklist/debian/blocks.go":        "block products written out, as a table is",
}

// TestShape keeps files short and structs small, and keyvet's command at flags
// and text.
func TestShape(t *testing.T) {
	command := 0
	types := map[string][2]int{} // by folder and name: fields, methods
	seen := make(map[string]bool)
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); base != ".." && (base[0] == '.' || base == "testdata") {
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
		rel, err := filepath.Rel("..", name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		lines := set.File(f.Pos()).LineCount()
		if lines > maxLines && large[rel] == "" {
			t.Errorf("%s has %d lines, more than %d", rel, lines, maxLines)
		}
		seen[rel] = lines > maxLines
		if path.Dir(rel) == "cmd/keyvet" {
			command += lines
		}
		count(f, path.Dir(rel), types)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if command == 0 || command > maxCommand {
		t.Errorf("cmd/keyvet has %d lines, more than %d", command, maxCommand)
	}
	for name, n := range types {
		seen[name] = n[0] > maxFields && n[1] > maxMethods
		if seen[name] && large[name] == "" {
			t.Errorf("%s has %d fields and %d methods", name, n[0], n[1])
		}
	}
	for name := range large {
		if !seen[name] {
			t.Errorf("%s need not be an exception any more", name)
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
