package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/cmd/internal/accept"
	"github.com/keyvet/keyvet/device"
)

// key is a key of the configuration, or one of its tables.
type key struct {
	name  string // "mqtt.ca_file"
	index []int  // of the field in Config
	table bool
}

// keys returns all of them in the order of the struct, a table before its keys.
func keys() []key { return keysOf(reflect.TypeFor[Config](), key{}) }

func keysOf(t reflect.Type, table key) []key {
	var all []key
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		k := key{name: f.Tag.Get("toml"), index: append(slices.Clone(table.index), i)}
		if table.name != "" {
			k.name = table.name + "." + k.name
		}
		k.table = f.Type.Kind() == reflect.Struct && !reflect.PointerTo(f.Type).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
		all = append(all, k)
		if k.table {
			all = append(all, keysOf(f.Type, k)...)
		}
	}
	return all
}

// in returns the key's value in tables, if they have one.
func (k key) in(tables map[string]any) (value any, found bool) {
	value = tables
	for name := range strings.SplitSeq(k.name, ".") {
		table, ok := value.(map[string]any)
		if !ok {
			return nil, false // the table's own mistake
		}
		if value, ok = table[name]; !ok {
			return nil, false
		}
	}
	return value, true
}

// origin returns the source to name in a mistake of the key: that of its value,
// or, if it has none, the last one that speaks of its table.
func (k key) origin(value source, sources []source) source {
	table := key{name: k.name[:max(0, strings.LastIndexByte(k.name, '.'))]}
	for _, s := range slices.Backward(sources) {
		if _, found := table.in(s.tables); found && value.tables == nil {
			return s
		}
	}
	return value
}

// set puts the key's value into c. Tables add to those of earlier sources, and so
// do lists of tables unless they are empty; every other value replaces an earlier one.
func (k key) set(c *Config, value any) error {
	if k.table {
		_, err := as[map[string]any](value, "a table")
		return err
	}
	field := reflect.ValueOf(c).Elem().FieldByIndex(k.index)
	if u, ok := field.Addr().Interface().(encoding.TextUnmarshaler); ok {
		text, err := as[string](value, "a string in quotes")
		if err == nil {
			err = u.UnmarshalText([]byte(text))
		}
		return err
	}
	if list, ok := field.Addr().Interface().(*[]device.Acceptance); ok {
		found, wrong := accept.Read(value)
		if *list = append(*list, found...); len(found) == 0 {
			*list = nil
		}
		if wrong != nil {
			return Errors(wrong)
		}
		return nil
	}
	switch field.Kind() {
	case reflect.String:
		text, err := as[string](value, "a string in quotes")
		if err == nil {
			field.SetString(text)
		}
		return err
	case reflect.Bool:
		b, err := as[bool](value, "true or false")
		field.SetBool(b)
		return err
	case reflect.Slice:
		list, err := as[[]any](value, `a list of strings, such as ["a", "b"]`)
		texts := make([]string, len(list))
		for i, v := range list {
			if err == nil {
				texts[i], err = as[string](v, "a list of strings")
			}
		}
		field.Set(reflect.ValueOf(texts))
		return err
	case reflect.Map:
		table, err := as[map[string]any](value, `a table of strings, such as { Name = "text" }`)
		texts := make(map[string]string)
		maps.Copy(texts, field.Interface().(map[string]string))
		for _, name := range slices.Sorted(maps.Keys(table)) {
			if err == nil {
				texts[name], err = as[string](table[name], "a table of strings")
			}
		}
		field.Set(reflect.ValueOf(texts))
		return err
	}
	panic("config: no values for a field of type " + field.Type().String())
}

// as returns the value as a T, which people know by the words of allowed.
func as[T any](value any, allowed string) (T, error) {
	v, ok := value.(T)
	if !ok {
		return v, mustBe(allowed, value)
	}
	return v, nil
}

// maxShown is how much of a wrong value is shown, in bytes.
const maxShown = 200

// mustBe is the mistake that a value is not what is allowed.
func mustBe(allowed string, value any) error {
	switch v := value.(type) {
	case string:
		return fmt.Errorf("must be %s, not %q", allowed, v[:min(len(v), maxShown)])
	case []any, []map[string]any:
		return fmt.Errorf("must be %s, not a list", allowed)
	case map[string]any:
		return fmt.Errorf("must be %s, not a table", allowed)
	}
	return fmt.Errorf("must be %s, not %v", allowed, value)
}
