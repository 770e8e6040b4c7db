// Package accept reads the findings that an operator accepts: the tables
// [[check.accept]] of keyvet.toml, or of a file of nothing else.
package accept

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/agnivade/levenshtein"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/check"
	"github.com/keyvet/keyvet/device/durable"
)

const maxBytes = 1 << 20

// Load reads a file of [[check.accept]] tables. The error has each mistake on a
// line of its own.
func Load(name string) ([]device.Acceptance, error) {
	b, err := durable.ReadBounded(name, maxBytes)
	if err != nil {
		return nil, err
	}
	list, wrong := parse(string(b))
	for i, err := range wrong {
		wrong[i] = fmt.Errorf("%s: %w", name, err)
	}
	return list, errors.Join(wrong...)
}

func parse(text string) ([]device.Acceptance, []error) {
	var file map[string]any
	if _, err := toml.Decode(text, &file); err != nil {
		if pe, ok := errors.AsType[toml.ParseError](err); ok {
			line, _, _ := strings.Cut(pe.Message, "\n")
			return nil, []error{fmt.Errorf("line %d: not TOML: %s", pe.Position.Line, line)}
		}
		return nil, []error{err}
	}
	tables, ok := file["check"].(map[string]any)
	if wrong := others("", file, "check"); wrong != nil || !ok {
		return nil, append(wrong, errors.New("must hold tables [[check.accept]]"))
	}
	if wrong := others("check.", tables, "accept"); wrong != nil {
		return nil, wrong
	}
	list, wrong := Read(tables["accept"])
	for i, err := range wrong {
		wrong[i] = fmt.Errorf("check.accept: %w", err)
	}
	return list, wrong
}

// others returns a mistake for each key of a table but one.
func others(prefix string, table map[string]any, known string) (wrong []error) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if name != known {
			wrong = append(wrong, fmt.Errorf("unknown key %q, did you mean \"check.accept\"?", shown(prefix+name)))
		}
	}
	return wrong
}

// Read reads the list of tables as package toml decodes it. It returns every
// mistake, in the order of the list and, in a table, of its keys.
func Read(value any) (list []device.Acceptance, wrong []error) {
	tables, ok := tablesOf(value)
	if !ok {
		return nil, []error{fmt.Errorf("must be tables [[check.accept]] with code, key, why and until, not %s", kind(value))}
	}
	for i, table := range tables {
		a, mistakes := readOne(table)
		for _, err := range mistakes {
			wrong = append(wrong, fmt.Errorf("table %d: %w", i+1, err))
		}
		list = append(list, a)
	}
	if wrong != nil {
		return nil, wrong
	}
	return list, nil
}

// kind is a wrong value in words.
func kind(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("%q", shown(v))
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	}
	return shown(fmt.Sprint(value))
}

// tablesOf takes both ways of writing a list of tables.
func tablesOf(value any) ([]map[string]any, bool) {
	if tables, ok := value.([]map[string]any); ok {
		return tables, true
	}
	values, ok := value.([]any)
	if !ok {
		return nil, false
	}
	tables := make([]map[string]any, len(values))
	for i, v := range values {
		if tables[i], ok = v.(map[string]any); !ok {
			return nil, false
		}
	}
	return tables, true
}

var fields = []string{"code", "key", "why", "until"}

func readOne(table map[string]any) (a device.Acceptance, wrong []error) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if !slices.Contains(fields, name) {
			wrong = append(wrong, fmt.Errorf("unknown key %q, did you mean %q?", shown(name), nearest(name, fields)))
		}
	}
	text := func(name string, required bool) string {
		switch v := table[name].(type) {
		case string:
			if strings.ContainsFunc(v, unicode.IsControl) {
				wrong = append(wrong, fmt.Errorf("%s must be one line of text", name))
				return ""
			}
			if v != "" || !required {
				return v
			}
		case time.Time: // a date of TOML
			if name == "until" {
				return v.Format(time.DateOnly)
			}
			wrong = append(wrong, fmt.Errorf("%s must be a string in quotes", name))
			return ""
		case nil:
			if !required {
				return ""
			}
		default:
			wrong = append(wrong, fmt.Errorf("%s must be a string in quotes, not %v", name, shown(fmt.Sprint(v))))
			return ""
		}
		wrong = append(wrong, fmt.Errorf("%s is missing", name))
		return ""
	}
	if a.Code = text("code", true); a.Code != "" && !known(a.Code) && !ofList(a.Code) {
		wrong = append(wrong, fmt.Errorf("unknown code %q, did you mean %q?", shown(a.Code), nearest(a.Code, codes())))
	}
	a.Key = text("key", true)
	if isDigest(a.Key) {
		a.Key = strings.ToLower(a.Key)
	}
	if a.Why = text("why", true); len(a.Why) > maxWhy {
		wrong = append(wrong, fmt.Errorf("why has %d bytes, at most %d", len(a.Why), maxWhy))
	}
	a.Until = text("until", false)
	if _, err := time.Parse(time.DateOnly, a.Until); a.Until != "" && err != nil {
		wrong = append(wrong, fmt.Errorf("until must be a date such as \"2027-06-30\", not %q", shown(a.Until)))
	}
	return a, wrong
}

// maxWhy leaves a message room for what it says itself.
const maxWhy = 256

func isDigest(key string) bool {
	b, err := hex.DecodeString(key)
	return err == nil && len(b) == sha256.Size
}

// shown is as much of a wrong word as a message needs.
func shown(word string) string { return word[:min(len(word), 64)] }

// codes returns the reason codes of findings; one that ends with "*" is a
// beginning.
func codes() (all []device.ReasonCode) {
	add := func(reasons []device.Reason) {
		for _, r := range reasons {
			if !slices.Contains(all, r.Code) {
				all = append(all, r.Code)
			}
		}
	}
	for _, c := range check.All {
		add(c.Reasons)
	}
	add(check.OfAny)
	return all
}

// isRest reports whether s may come after the beginning of a code, as a CVE number does.
func isRest(s string) bool {
	const first, more = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "abcdefghijklmnopqrstuvwxyz._-"
	odd := func(r rune) bool { return !strings.ContainsRune(first+more, r) }
	return s != "" && strings.Contains(first, s[:1]) && strings.IndexFunc(s, odd) < 0
}

func known(code device.ReasonCode) bool {
	return slices.ContainsFunc(codes(), func(c device.ReasonCode) bool {
		begins, open := strings.CutSuffix(c, "*")
		end, has := strings.CutPrefix(code, begins)
		return open && has && isRest(end) || code == c && !open
	})
}

// ofList reports whether a code can be that of an operator's list of compromised
// keys. What is nearly a code of keyvet's, or begins as AWS IoT's do, is taken for
// a mistake.
func ofList(code device.ReasonCode) bool {
	const signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-" // as package blocklist has them
	if strings.Trim(code, signs) != "" || strings.HasPrefix(code, "CERTIFICATE_") {
		return false
	}
	return levenshtein.ComputeDistance(code, strings.TrimSuffix(nearest(code, codes()), "*")) > 3
}

// nearest returns the word that takes the fewest changes.
func nearest(word string, words []string) string {
	return slices.MinFunc(words, func(a, b string) int {
		return levenshtein.ComputeDistance(word, strings.TrimSuffix(a, "*")) - levenshtein.ComputeDistance(word, strings.TrimSuffix(b, "*"))
	})
}
