package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/keyvet/keyvet/device/durable"
)

// DefaultPath is read where no other is given; a build may set it by
// -ldflags -X.
var DefaultPath = "/etc/keyvet/keyvet.toml"

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

// Load reads the file at path; "" means [DefaultPath], which need not be there.
// Mistakes in the file are returned as [Errors].
func Load(path string) (*Config, error) {
	name := path
	if name == "" {
		name = DefaultPath
	}
	c := Default()
	b, err := durable.ReadBounded(name, maxBytes)
	switch {
	case path == "" && errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if wrong := c.decode(string(b)); len(wrong) > 0 {
		for i, err := range wrong {
			wrong[i] = fmt.Errorf("%s: %w", name, err)
		}
		return nil, wrong
	}
	return c, nil
}

// decode puts the values of a text into c. It returns every mistake: unknown keys
// in the order of the text, then wrong values in the order of the struct.
func (c *Config) decode(text string) Errors {
	var tables map[string]any
	md, err := toml.Decode(text, &tables)
	if err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return Errors{fmt.Errorf("line %d: %s", pe.Position.Line, firstLine(pe.Message))}
		}
		return Errors{errors.New(firstLine(strings.TrimPrefix(err.Error(), "toml: ")))}
	}
	all := keys()
	wrong := unknown(md.Keys(), all)
	mistyped := make(map[string]error)
	for _, k := range all {
		mistyped[k.name] = k.set(c, tables)
	}
	for _, k := range all {
		err := mistyped[k.name]
		if rule := rules[k.name]; err == nil && rule != nil {
			err = rule(c)
		}
		var several Errors
		if err != nil && !errors.As(err, &several) {
			several = Errors{err}
		}
		for _, err := range several {
			wrong = append(wrong, fmt.Errorf("%s: %w", k.name, err))
		}
	}
	return wrong
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
