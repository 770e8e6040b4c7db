package device

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

type plain Report // without methods

// wire is Report with the verdict, and the evidence last.
type wire struct {
	*plain
	Keys     []KeyReport `json:"keys"`
	Findings []Finding   `json:"findings"`
	Gaps     []Gap       `json:"gaps"`
	Verdict  Status      `json:"verdict"`
	Cut      Cuts        `json:"cut,omitempty"`
	Evidence *Evidence   `json:"evidence,omitempty"`
}

// MarshalJSON writes the report of the contract: findings that passed only if
// Verbose. A report that was read is written with all that it had.
func (r *Report) MarshalJSON() ([]byte, error) {
	shown := func(f Finding) bool {
		return r.read != nil || f.Status != NotApplicable && (r.Verbose || f.Status != Pass)
	}
	return json.Marshal(wire{
		plain: (*plain)(r), Keys: append([]KeyReport{}, r.Keys...), Findings: append([]Finding{}, keep(r.Findings, shown)...),
		Gaps: append([]Gap{}, r.Gaps...), Verdict: r.Verdict(), Cut: r.Cut, Evidence: r.Evidence,
	})
}

// UnmarshalJSON reads a report; its verdict is then the one it states, and
// Encode gives back the very bytes that were read.
func (r *Report) UnmarshalJSON(b []byte) error {
	w := wire{plain: new(plain)}
	if err := json.Unmarshal(b, &w); err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	if w.Schema != Schema {
		return fmt.Errorf("read report: schema %q is not %q", w.Schema, Schema)
	}
	*r = Report(*w.plain)
	r.Keys, r.Findings, r.Gaps, r.Cut, r.Evidence = w.Keys, w.Findings, w.Gaps, w.Cut, w.Evidence
	r.read = &readReport{verdict: w.Verdict, bytes: bytes.Clone(b)}
	return nil
}

func keep[T any](all []T, want func(T) bool) []T {
	var kept []T
	for _, v := range all {
		if want(v) {
			kept = append(kept, v)
		}
	}
	return kept
}

// Digest is the SHA-256 that evidence signs: over the encoded report with its
// "evidence" member, and the comma before it, cut out. It works on the bytes,
// so a single changed one shows, and members that this version does not know
// are covered too.
func Digest(report []byte) ([sha256.Size]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(report))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return [32]byte{}, errors.New("the report is not a JSON object")
	}
	rest := report
	found := false
	for dec.More() {
		before := dec.InputOffset()
		name, err := dec.Token()
		if err != nil {
			return [32]byte{}, fmt.Errorf("report: %w", err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return [32]byte{}, fmt.Errorf("report: %w", err)
		}
		if name == "evidence" {
			if found {
				return [32]byte{}, errors.New("the report has two evidence members")
			}
			found = true
			rest = append(append([]byte{}, report[:before]...), report[dec.InputOffset():]...)
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return [32]byte{}, fmt.Errorf("report: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return [32]byte{}, errors.New("something follows the report")
	}
	return sha256.Sum256(rest), nil
}
