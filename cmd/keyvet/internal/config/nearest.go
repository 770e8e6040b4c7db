package config

import (
	"reflect"
	"strings"

	"github.com/agnivade/levenshtein"
)

// keyNames lists the keys of the configuration: "mqtt.ca_file".
func keyNames(t reflect.Type, prefix string) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + f.Tag.Get("toml")
		names = append(names, name)
		if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[Duration]() && f.Type != reflect.TypeFor[PCRs]() {
			names = append(names, keyNames(f.Type, name+".")...)
		}
	}
	return names
}

// Nearest returns the name that takes the fewest changes. Where the last part is
// as near, the table before it does not count: a key may stand in the wrong one.
func Nearest(key string, names []string) string {
	last := func(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }
	best, least := "", 1<<30
	for _, name := range names {
		d := min(2*levenshtein.ComputeDistance(key, name), 2*levenshtein.ComputeDistance(last(key), last(name))+1)
		if d < least {
			best, least = name, d
		}
	}
	return best
}
