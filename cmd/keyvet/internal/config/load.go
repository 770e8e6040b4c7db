package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/keyvet/keyvet/device/durable"
)

// Root is the directory that [DefaultPath] and the directories of fragments are
// below; a build may set it by -ldflags -X.
var Root = "/"

// DefaultPath returns the path of the file that is read where no other is given.
func DefaultPath() string { return filepath.Join(Root, "etc/keyvet/keyvet.toml") }

// fragments are the directories of further files, of which a later one takes
// precedence: what the image brings, what its operator sets, and what is made at
// each boot, such as by a program that knows the device.
var fragments = []string{"usr/lib/keyvet/conf.d", "etc/keyvet/conf.d", "run/keyvet-conf.d"}

const maxFragments = 100 // in a directory

const maxBytes = 1 << 20

// Errors are the mistakes in a configuration, each of them one line.
type Errors []error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// source is a text of the configuration and the file that it is from, if any.
type source struct {
	file, text string
	tables     map[string]any
}

// mistake returns err with the file that it is in.
func (s source) mistake(err error) error {
	if s.file == "" {
		return err
	}
	return fmt.Errorf("%s: %w", s.file, err)
}

// mistakes returns what err says of a key; it may be several [Errors].
func (s source) mistakes(k key, err error) (wrong Errors) {
	several, ok := errors.AsType[Errors](err)
	if !ok && err != nil {
		several = Errors{err}
	}
	for _, err := range several {
		wrong = append(wrong, s.mistake(fmt.Errorf("%s: %w", k.name, err)))
	}
	return wrong
}

// Load reads the file at path. "" means [DefaultPath] and the fragments, none of
// which need be there. Mistakes in the files are returned as [Errors].
func Load(path string) (*Config, error) {
	sources, err := read(path)
	if err != nil {
		return nil, err
	}
	c := Default()
	if wrong := c.merge(sources...); len(wrong) > 0 {
		return nil, wrong
	}
	for _, s := range sources {
		c.files = append(c.files, s.file)
	}
	return c, nil
}

// read returns the files of a configuration, in the order in which they count,
// and those that can be read also with an error.
func read(path string) ([]source, error) {
	files, err := []string{path}, error(nil)
	if path == "" {
		files, err = places()
	}
	var sources []source
	for _, file := range files {
		b, fileErr := durable.ReadBounded(file, maxBytes)
		if err = cmp.Or(err, fileErr); fileErr == nil {
			sources = append(sources, source{file: file, text: string(b)})
		}
	}
	if err != nil {
		err = fmt.Errorf("configuration: %w", err)
	}
	return sources, err
}

// places returns the files that are read where none is given.
func places() (files []string, err error) {
	if _, err := os.Lstat(DefaultPath()); !errors.Is(err, fs.ErrNotExist) {
		files = []string{DefaultPath()}
	}
	for _, dir := range fragments {
		dir = filepath.Join(Root, dir)
		entries, err := os.ReadDir(dir) // by name
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return files, err
		}
		n := 0
		for _, e := range entries {
			if name := e.Name(); filepath.Ext(name) == ".toml" && name[0] != '.' {
				files = append(files, filepath.Join(dir, name))
				n++
			}
		}
		if n > maxFragments {
			return files, fmt.Errorf("%s has %d fragments, at most %d", dir, n, maxFragments)
		}
	}
	return files, nil
}

// merge puts the values of texts into c, those of a later one over those of an
// earlier one, key by key. It returns every mistake: unknown keys in the order of
// the texts, then wrong values in the order of the struct.
func (c *Config) merge(sources ...source) (wrong Errors) {
	all := keys()
	unread := false
	for i, s := range sources {
		md, err := toml.Decode(s.text, &sources[i].tables)
		if err != nil {
			unread = true
			wrong = append(wrong, s.mistake(syntax(err)))
			continue
		}
		for _, err := range unknown(md.Keys(), all) {
			wrong = append(wrong, s.mistake(err))
		}
	}
	if unread {
		return wrong
	}
	by := make(map[string]source)       // where the value of a key is from
	mistyped := make(map[string]Errors) // by key
	for _, k := range all {
		for _, s := range sources {
			if value, found := k.in(s.tables); found {
				by[k.name] = s
				mistyped[k.name] = append(mistyped[k.name], s.mistakes(k, k.set(c, value))...)
			}
		}
	}
	for _, k := range all {
		wrong = append(wrong, mistyped[k.name]...)
		if rule := rules[k.name]; rule != nil && mistyped[k.name] == nil {
			wrong = append(wrong, k.origin(by[k.name], sources).mistakes(k, rule(c))...)
		}
	}
	c.StateDir, c.RunDir = filepath.Clean(c.StateDir), filepath.Clean(c.RunDir)
	return wrong
}

// syntax returns the mistake of a text that is not TOML, in one line.
func syntax(err error) error {
	if pe, ok := errors.AsType[toml.ParseError](err); ok {
		return fmt.Errorf("line %d: not TOML: %s", pe.Position.Line, firstLine(pe.Message))
	}
	return errors.New(firstLine(strings.TrimPrefix(err.Error(), "toml: ")))
}

// What is named of unknown keys.
const (
	maxUnknown = 10
	maxName    = 64 // bytes
)

// unknown returns the keys of a text that the configuration does not have. Of an
// unknown table only the table is named; what is below a key is its value.
func unknown(found []toml.Key, all []key) (wrong Errors) {
	var names []string
	isTable := make(map[string]bool)
	for _, k := range all {
		names, isTable[k.name] = append(names, k.name), k.table
	}
	seen := make(map[string]bool)
	for _, k := range found {
		for i := range k {
			name := k[:i+1].String()
			table, known := isTable[name]
			if known && table {
				continue
			}
			if !known && !seen[name] {
				seen[name] = true
				if name = name[:min(len(name), maxName)]; len(seen) <= maxUnknown {
					wrong = append(wrong, fmt.Errorf("unknown key %q, did you mean %q?", name, nearest(name, names)))
				}
			}
			break
		}
	}
	if more := len(seen) - maxUnknown; more > 0 {
		wrong = append(wrong, fmt.Errorf("and %d more unknown keys", more))
	}
	return wrong
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
