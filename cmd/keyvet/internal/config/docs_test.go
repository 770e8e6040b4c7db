package config

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the documents that are made of the struct")

// documented is a key with what its documents say.
type documented struct {
	key
	meaning  string // the comment; code stands in backquotes
	standard string // the default as TOML; "" if it is empty
}

// TestDocuments holds docs/configuration.md and keyvet.toml(5) to the struct. What
// stands around the keys is in testdata.
func TestDocuments(t *testing.T) {
	all := document(t)
	for _, d := range []struct {
		file, around string
		write        func(*bytes.Buffer, []documented)
	}{
		{"../../../../docs/configuration.md", "testdata/configuration.md", markdown},
		{"../../../../docs/man/keyvet.toml.5", "testdata/keyvet.toml.5", mdoc},
	} {
		around, err := os.ReadFile(d.around)
		if err != nil {
			t.Fatal(err)
		}
		var keys bytes.Buffer
		d.write(&keys, all)
		parts := bytes.Split(around, []byte("@keys@\n"))
		if len(parts) != 2 {
			t.Fatalf("%s has %d places for the keys", d.around, len(parts)-1)
		}
		made := bytes.Join(parts, keys.Bytes())
		if *update {
			if err := os.WriteFile(d.file, made, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if kept, err := os.ReadFile(d.file); err != nil || !bytes.Equal(kept, made) {
			t.Errorf("%s is not what the struct makes (%v): go test ./cmd/keyvet/internal/config -update", d.file, err)
		}
	}
}

// document reads the comments of the struct.
func document(t *testing.T) []documented {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := make(map[string]string) // by type and field
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.TypeSpec); ok {
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					comments[spec.Name.Name+"."+field.Names[0].Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
				}
			}
		}
		return true
	})
	var all []documented
	standard := reflect.ValueOf(Default()).Elem()
	for _, k := range keys() {
		parent, last := reflect.TypeFor[Config](), len(k.index)-1
		if last > 0 {
			parent = parent.FieldByIndex(k.index[:last]).Type
		}
		d := documented{key: k, meaning: comments[parent.Name()+"."+parent.Field(k.index[last]).Name]}
		if d.meaning == "" || !strings.HasSuffix(d.meaning, ".") || strings.Count(d.meaning, "`")%2 != 0 {
			t.Errorf("%s has no comment that ends in a full stop, with code in pairs of backquotes: %q", k.name, d.meaning)
		}
		if !k.table {
			d.standard = inTOML(standard.FieldByIndex(k.index))
		}
		all = append(all, d)
	}
	return all
}

// inTOML is a value as the file would have it; "" if it is empty.
func inTOML(v reflect.Value) string {
	if v.Kind() != reflect.Bool && v.IsZero() {
		return ""
	}
	switch v := v.Interface().(type) {
	case Duration:
		return strconv.Quote(zeros.ReplaceAllString(v.String(), "$1"))
	case PCRs:
		return strconv.Quote(v.String())
	}
	switch v.Kind() {
	case reflect.String:
		return strconv.Quote(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	panic(fmt.Sprintf("a default of type %s has no notation yet", v.Type()))
}

// zeros of a duration are not written in the file: 24h0m0s is 24h.
var zeros = regexp.MustCompile(`^(\d+[hm])(?:0m)?0s$`)

// markdown writes a table of keys for each table of the file.
func markdown(b *bytes.Buffer, all []documented) {
	const head = "\n| key | default | meaning |\n|---|---|---|\n"
	cell := strings.NewReplacer("|", `\|`).Replace
	fmt.Fprint(b, head[1:])
	for _, d := range all {
		if d.table {
			fmt.Fprintf(b, "\n### [%s]\n\n%s\n%s", d.name, d.meaning, head)
			continue
		}
		standard := ""
		if d.standard != "" {
			standard = "`" + d.standard + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", d.name, cell(standard), cell(d.meaning))
	}
}

// mdoc writes a list of keys for each table of the file.
func mdoc(b *bytes.Buffer, all []documented) {
	const list = ".Bl -tag -width Ds\n"
	fmt.Fprint(b, list)
	for _, d := range all {
		if d.table {
			fmt.Fprintf(b, ".El\n.Ss [%s]\n", d.name)
			prose(b, all, d.meaning)
			fmt.Fprint(b, list)
			continue
		}
		fmt.Fprintf(b, ".It Va %s", d.name)
		if d.standard != "" {
			fmt.Fprintf(b, " Pq Ql %s", code(d.standard))
		}
		fmt.Fprint(b, "\n")
		prose(b, all, d.meaning)
	}
	fmt.Fprint(b, ".El\n")
}

// span is text without code, then code with the punctuation that touches it.
var span = regexp.MustCompile("([^`]*?)(\\(?)`([^`]+)`([.,;:)]*)")

// prose writes text for mdoc, each sentence and each piece of code on a line of
// its own. A key is a variable, other code is literal.
func prose(b *bytes.Buffer, all []documented, text string) {
	names := make(map[string]bool)
	for _, d := range all {
		names[d.name] = true
	}
	plain := func(text string) {
		if text = strings.TrimSpace(text); text != "" {
			fmt.Fprintln(b, strings.ReplaceAll(text, ". ", ".\n"))
		}
	}
	for _, m := range span.FindAllStringSubmatch(text, -1) {
		plain(m[1])
		macro := "Ql"
		if names[m[3]] {
			macro = "Va"
		}
		words := strings.Join(append([]string{m[2], code(m[3])}, strings.Split(m[4], "")...), " ")
		fmt.Fprintf(b, ".%s %s\n", macro, strings.TrimSpace(words))
	}
	plain(span.ReplaceAllString(text, ""))
}

// code keeps quotes and hyphens as they are in the file.
func code(text string) string {
	return strings.NewReplacer(`"`, `\(dq`, "-", `\-`).Replace(text)
}
