// Package baseline keeps what was first seen of each device's boot, and says what
// of it changed.
package baseline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/tpm/evidence"
)

const (
	schema = "keyvet.baseline/1"
	// maxBytes bounds the file: some 8 KB a device, a hundred thousand devices.
	maxBytes = 1 << 30
)

// Values are what was seen of a boot.
type Values struct {
	Since       time.Time         `json:"since"` // by the verifier's clock
	AKName      evidence.Hex      `json:"akName"`
	PCRs        map[string]string `json:"pcrs"` // "sha256:7" and its value in hex
	Logged      bool              `json:"logged"`
	Firmware    string            `json:"firmware,omitempty"`
	SecureBoot  string            `json:"secureBoot,omitempty"`
	Keys        []string          `json:"keys,omitempty"` // variable, SHA-256 and subject
	Hashes      evidence.Hashes   `json:"hashes,omitzero"`
	Loaders     []string          `json:"loaders,omitempty"` // digest and path
	CommandLine string            `json:"commandLine,omitempty"`
}

// File is the values of all devices. Its zero value is not one: [Open] it.
type File struct {
	name    string
	changed bool
	things  map[string]Values
}

type content struct {
	Schema string            `json:"schema"`
	Things map[string]Values `json:"things"`
}

// Open reads a file; one that is not there yet is empty.
func Open(name string) (*File, error) {
	f := &File{name: name, things: make(map[string]Values)}
	b, err := durable.ReadBounded(name, maxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	var c content
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s: not a baseline: %w", name, err)
	}
	if c.Schema != schema {
		return nil, fmt.Errorf("%s: not a baseline of schema %s", name, schema)
	}
	maps.Copy(f.things, c.Things)
	return f, nil
}

// Save writes the file, durably, if there is anything new in it.
func (f *File) Save() error {
	if !f.changed {
		return nil
	}
	b, err := json.MarshalIndent(content{schema, f.things}, "", " ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.name, b, 0o600); err != nil {
		return err
	}
	f.changed = false
	return nil
}

// Hold holds a result against the values of its device, and keeps them if there are
// none yet or renew is set. What changed goes into the result, whose level of PCRs
// then fails. A result that fails or is undecided is neither held nor kept: nothing
// shows that it is of that device.
func (f *File) Hold(r *evidence.Result, now time.Time, renew bool) {
	if r.Report == nil || r.Statement == nil || r.Evidence == device.Fail || r.Evidence == device.Undecided {
		return
	}
	name := r.Report.ThingName
	if name == "" {
		name = fmt.Sprintf("ak:%x", []byte(r.Statement.AKName))
	}
	is := valuesOf(r, now)
	was, known := f.things[name]
	if !known || renew {
		f.things[name], f.changed = is, true
		return
	}
	if r.Changes = was.changes(is); len(r.Changes) > 0 {
		r.Fail(evidence.LevelPCRs, fmt.Sprintf("changed since %s: %s", was.Since.Format(time.DateOnly), strings.Join(r.Changes, "; ")))
		return
	}
	if merged, more := was.merge(is); more {
		f.things[name], f.changed = merged, true
	}
}

func valuesOf(r *evidence.Result, now time.Time) Values {
	v := Values{Since: now.UTC().Truncate(time.Second), AKName: r.Statement.AKName, PCRs: make(map[string]string)}
	for _, p := range r.Statement.PCRs {
		v.PCRs[fmt.Sprintf("%s:%d", p.Bank, p.Index)] = fmt.Sprintf("%x", []byte(p.Value))
	}
	if b := r.Boot; b != nil {
		v.Logged = true
		v.Firmware, v.SecureBoot, v.Hashes, v.CommandLine = b.Firmware, b.SecureBoot, b.Hashes, b.CommandLine
		for _, k := range b.Keys {
			v.Keys = append(v.Keys, fmt.Sprintf("%s %s %s", k.Variable, k.SHA256, k.Subject))
		}
		for _, l := range b.Loaders {
			v.Loaders = append(v.Loaders, strings.TrimSpace(fmt.Sprintf("%x %s", []byte(l.Digest), l.Path)))
		}
	}
	return v
}

// changes are what of the values is no longer so.
func (was Values) changes(is Values) (all []string) {
	say := func(what string, before, after any) {
		if before != after {
			all = append(all, fmt.Sprintf("%s was %v and is %v", what, before, after))
		}
	}
	say("the attestation key", fmt.Sprintf("%x", []byte(was.AKName)), fmt.Sprintf("%x", []byte(is.AKName)))
	var moved, gone []string
	for _, pcr := range slices.Sorted(maps.Keys(was.PCRs)) {
		switch value, ok := is.PCRs[pcr]; {
		case !ok:
			gone = append(gone, pcr)
		case value != was.PCRs[pcr]:
			moved = append(moved, pcr)
		}
	}
	if len(gone) > 0 {
		all = append(all, "no longer quoted: "+strings.Join(gone, ", "))
	}
	if len(moved) == 0 {
		return all // so that the log can say nothing else
	}
	all = append(all, "other values: "+strings.Join(moved, ", "))
	if !was.Logged || !is.Logged {
		return append(all, "what that means only boot logs would show")
	}
	say("the firmware", quoted(was.Firmware), quoted(is.Firmware))
	say("Secure Boot", or(was.SecureBoot), or(is.SecureBoot))
	all = append(all, lists("", was.Keys, is.Keys)...)
	say("the count of digests in db", was.Hashes.Allowed, is.Hashes.Allowed)
	say("the count of digests in dbx", was.Hashes.Forbidden, is.Hashes.Forbidden)
	all = append(all, lists("the program ", was.Loaders, is.Loaders)...)
	say("the kernel command line", quoted(was.CommandLine), quoted(is.CommandLine))
	return all
}

func quoted(text string) string { return fmt.Sprintf("%q", text) }

func or(text string) string {
	if text == "" {
		return "not shown"
	}
	return text
}

// lists are the entries that one list has and the other has not.
func lists(what string, was, is []string) (all []string) {
	for _, entry := range was {
		if !slices.Contains(is, entry) {
			all = append(all, what+entry+" is gone")
		}
	}
	for _, entry := range is {
		if !slices.Contains(was, entry) {
			all = append(all, what+entry+" is new")
		}
	}
	return all
}

// merge adds what the first report did not show: a log, or further PCRs.
func (was Values) merge(is Values) (Values, bool) {
	more := is.Logged && !was.Logged
	if more {
		pcrs := was.PCRs
		since := was.Since
		was = is
		was.PCRs, was.Since = maps.Clone(pcrs), since
	}
	for pcr, value := range is.PCRs {
		if _, ok := was.PCRs[pcr]; !ok {
			was.PCRs[pcr], more = value, true
		}
	}
	return was, more
}
