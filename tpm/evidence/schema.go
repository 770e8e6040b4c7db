package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// newerSchema returns the schema of a report if it is one that came after that
// of this verifier, else "".
func newerSchema(report []byte) string {
	var members map[string]json.RawMessage // whose names must fit exactly
	var schema string
	if json.Unmarshal(report, &members) != nil || json.Unmarshal(members["schema"], &schema) != nil {
		return ""
	}
	number := func(schema string) uint64 {
		text, _ := strings.CutPrefix(schema, "keyvet.report/")
		n, _ := strconv.ParseUint(text, 10, 32)
		return n
	}
	if number(schema) > number(device.Schema) {
		return schema
	}
	return ""
}

// strict returns an error unless a report says, member by member and in the
// same order, what it says when it is written again: others may read a member
// that is unknown, there twice, or in other letters otherwise than Go does.
func strict(report []byte, r *device.Report) error {
	again, _ := json.Marshal(r) // after an error it is nothing, which no report is
	got, want := json.NewDecoder(bytes.NewReader(report)), json.NewDecoder(bytes.NewReader(again))
	got.UseNumber()
	want.UseNumber()
	for {
		a, err := got.Token()
		b, errWant := want.Token()
		if err == io.EOF && errWant == io.EOF {
			return nil
		}
		if err != nil || errWant != nil || !sameToken(a, b) {
			return fmt.Errorf("the report is not written as keyvet writes it, at byte %d: %s where a report of schema %s has %s (a member that is unknown, there twice, or in other letters?)", got.InputOffset(), brief(a), device.Schema, brief(b))
		}
	}
}

// sameToken reports whether two tokens are the same, numbers by their value.
func sameToken(a, b json.Token) bool {
	x, aNumber := a.(json.Number)
	y, bNumber := b.(json.Number)
	if !aNumber || !bNumber {
		return a == b
	}
	f, errA := x.Float64()
	g, errB := y.Float64()
	return errA == nil && errB == nil && f == g
}

func brief(t json.Token) string {
	text := fmt.Sprintf("%q", fmt.Sprint(t))
	if len(text) > 64 {
		text = strings.ToValidUTF8(text[:64], "") + `…"`
	}
	return text
}

// oneOfEach returns an error if a report lists two keys by one id, or two as
// the device's: which of them is meant could not be said.
func oneOfEach(r *device.Report) error {
	ids := make(map[string]bool)
	devices := 0
	for _, k := range r.Keys {
		if ids[k.ID] {
			return fmt.Errorf("the report lists two keys %q", k.ID)
		}
		ids[k.ID] = true
		if k.Role == device.RoleDevice {
			devices++
		}
	}
	if devices > 1 {
		return fmt.Errorf("the report lists %d keys as the device's", devices)
	}
	return nil
}
