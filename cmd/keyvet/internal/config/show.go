package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Settings returns every key with its value, as lines of TOML, for somebody who
// helps. They have nothing secret in them: a proxy has no password in its text, and
// of provision.parameters, which may be anything, the values are left out.
func (c *Config) Settings() []string {
	shown := *c
	shown.Provision.Parameters = maps.Clone(c.Provision.Parameters)
	for name := range shown.Provision.Parameters {
		shown.Provision.Parameters[name] = "(left out)"
	}
	var lines []string
	for _, k := range keys() {
		if !k.table {
			lines = append(lines, k.name+" = "+written(reflect.ValueOf(shown).FieldByIndex(k.index)))
		}
	}
	return lines
}

// written writes a value of the configuration.
func written(v reflect.Value) string {
	if text, ok := v.Interface().(fmt.Stringer); ok {
		return strconv.Quote(text.String())
	}
	switch v.Kind() {
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	case reflect.Slice:
		var values []string
		for i := range v.Len() {
			values = append(values, written(v.Index(i)))
		}
		return "[" + strings.Join(values, ", ") + "]"
	case reflect.Map:
		var values []string
		for _, name := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
			values = append(values, fmt.Sprintf("%q = %s", name.String(), written(v.MapIndex(name))))
		}
		return "{" + strings.Join(values, ", ") + "}"
	}
	return fmt.Sprint(v.Interface())
}
