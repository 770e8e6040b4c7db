// Package advisory knows the published weaknesses of TPM firmware and holds
// them against what a TPM says of itself.
//
// Advisories are data: advisories.json in this package, and further files of
// the same format. Weaknesses that cannot be decided from the firmware version
// are not in them, on purpose.
package advisory

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyvet/keyvet/device"
)

// Format is what the "format" member of an advisory file says.
const Format = "keyvet.advisories/1"

// MaxBytes bounds an advisory file.
const MaxBytes = 1 << 20

// List is the advisories of one file.
type List []Entry

// Entry is one weakness in one line of firmware.
type Entry struct {
	ID           string          `json:"id"`      // stable: "cve-2017-15361-ifx-7"
	CVE          string          `json:"cve"`     // "CVE-2017-15361"
	Part         string          `json:"part"`    // for people: "IFX TPM 2.0 SLB9670, 7.x"
	Touches      string          `json:"touches"` // for people: "RSA key generation"
	Weakens      device.Weakens  `json:"weakens,omitempty"`
	Manufacturer string          `json:"manufacturer"`      // TPM_PT_MANUFACTURER: "IFX"
	Family       string          `json:"family,omitempty"`  // "1.2" or "2.0"; either if empty
	Line         []Range         `json:"line"`              // the firmware that this weakness was ever in, and its successors
	Affected     []Range         `json:"affected"`          // of Line
	Fixed        string          `json:"fixed,omitempty"`   // first good version of the line; or, with stars, what good ones look like: "3.*.2"
	Unfixed      bool            `json:"unfixed,omitempty"` // the line has no good version, and Fixed is ""
	Sure         string          `json:"sure"`              // P vendor source, C two secondary sources, S one secondary source
	Severity     device.Severity `json:"severity"`
	Source       string          `json:"source"`         // URL
	Note         string          `json:"note,omitempty"` // for people, to be weighed before the update
}

// Range is a set of firmware versions. A version is held against a bound by as
// many of its numbers as the bound has: 7.61.2785.0 is within {To: "7.61"}, and
// 3.87.0.5 within {Like: "3.*.0"}.
type Range struct {
	Like   string `json:"like,omitempty"`   // these numbers, any for a star; alone
	From   string `json:"from,omitempty"`   // at least this
	To     string `json:"to,omitempty"`     // at most this
	Before string `json:"before,omitempty"` // less than this
}

//go:embed advisories.json
var embedded []byte

// Reviewed returns when the built-in advisories were last held against their
// sources, as a date: "2026-11-26".
func Reviewed() string { return builtin().reviewed }

// builtin is the list of this version of keyvet.
var builtin = sync.OnceValue(func() file {
	f, err := load(bytes.NewReader(embedded))
	if err != nil {
		panic(err) // a test loads it
	}
	return f
})

// Match holds a TPM against the built-in advisories and further ones. It
// returns those whose line of firmware is the TPM's: with Affected set if its
// version is affected, without if it has the fix. A severity is a step lower
// where one secondary source is all there is (Sure "S"). A TPM that is not in
// working order, or of an unknown make, matches nothing.
func Match(t device.TPM, further ...List) []device.Advisory {
	matched := builtin().list.match(t)
	for _, l := range further {
		matched = append(matched, l.match(t)...)
	}
	return matched
}

func (l List) match(t device.TPM) []device.Advisory {
	v, err := parseVersion(t.FirmwareVersion)
	if err != nil || t.State != device.TPMOK {
		return nil
	}
	var matched []device.Advisory
	for _, e := range l {
		if e.Manufacturer != t.Manufacturer || e.Family != "" && e.Family != t.Family || !holds(e.Line, v) {
			continue
		}
		if len(v) < e.precision() {
			continue // "7.4" does not tell 7.4.0.0 from 7.4.0.1
		}
		affected := holds(e.Affected, v)
		if !affected && !e.isFixed(v) {
			continue // between the affected versions and the fix: nothing is known of it
		}
		matched = append(matched, device.Advisory{
			ID: e.ID, CVE: e.CVE, Part: e.Part, Touches: e.Touches, Affected: affected, Range: e.ranges(),
			Weakens: e.Weakens, Fixed: e.Fixed, Note: e.Note, Sure: e.Sure, Source: e.Source, Severity: e.severity(),
		})
	}
	return matched
}

// isFixed reports whether a version of the line, which is not affected, is known
// to have the fix.
func (e Entry) isFixed(v version) bool {
	if isPattern(e.Fixed) {
		return Range{Like: e.Fixed}.holds(v)
	}
	return !Range{Before: e.Fixed}.holds(v)
}

// precision is how many numbers of a version the entry needs.
func (e Entry) precision() int {
	longest := 0
	for _, r := range append([]Range{{Before: e.Fixed}}, e.Affected...) {
		for _, bound := range []string{r.From, r.To, r.Before, r.Like} {
			longest = max(longest, strings.Count(bound, ".")+1)
		}
	}
	return longest
}

func holds(ranges []Range, v version) bool {
	for _, r := range ranges {
		if r.holds(v) {
			return true
		}
	}
	return false
}

// ranges is Affected for people: "<= 7.61", "71.0, 71.4, 71.12".
func (e Entry) ranges() string {
	var all []string
	for _, r := range e.Affected {
		all = append(all, r.String())
	}
	return strings.Join(all, ", ")
}

// severity is Severity, one step lower if there is but one secondary source.
func (e Entry) severity() device.Severity {
	if e.Sure != "S" {
		return e.Severity
	}
	switch e.Severity {
	case device.Critical:
		return device.High
	case device.High:
		return device.Medium
	}
	return device.Low
}

// String is the range for people: "4.40 to 4.42", "<= 4.33", "< 12.0.5", "71.0".
func (r Range) String() string {
	switch {
	case r.Like != "":
		return r.Like
	case r.From != "" && r.From == r.To:
		return r.From
	case r.From != "" && r.To != "":
		return r.From + " to " + r.To
	case r.From != "" && r.Before != "":
		return ">= " + r.From + " and < " + r.Before
	case r.From != "":
		return ">= " + r.From
	case r.To != "":
		return "<= " + r.To
	}
	return "< " + r.Before
}

func (r Range) holds(v version) bool {
	if r.Like != "" {
		return v.isLike(r.Like)
	}
	return (r.From == "" || v.compare(r.From) >= 0) && (r.To == "" || v.compare(r.To) <= 0) && (r.Before == "" || v.compare(r.Before) < 0)
}

// check returns what is wrong with a range of a file.
func (r Range) check() error {
	if r == (Range{}) {
		return errors.New("a range without bounds")
	}
	if r.Like != "" {
		if r != (Range{Like: r.Like}) {
			return errors.New("a range with both like and a bound")
		}
		_, err := parseVersion(strings.ReplaceAll(r.Like, "*", "0"))
		return err
	}
	if r.To != "" && r.Before != "" {
		return errors.New("a range with both to and before")
	}
	for _, bound := range []string{r.From, r.To, r.Before} {
		if bound == "" {
			continue
		}
		if _, err := parseVersion(bound); err != nil {
			return err
		}
	}
	from, err := parseVersion(r.From)
	if err == nil && (r.To != "" && from.compare(r.To) > 0 || r.Before != "" && from.compare(r.Before) >= 0) {
		return fmt.Errorf("the range %s is empty", r)
	}
	return nil
}

// version is a firmware version as its numbers.
type version []uint64

// parseVersion reads one to four decimal numbers, without signs or leading
// zeros, with dots between them.
func parseVersion(text string) (version, error) {
	parts := strings.Split(text, ".")
	if len(parts) > 4 {
		return nil, fmt.Errorf("%.40q is not a version", text)
	}
	var v version
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return nil, fmt.Errorf("%.40q is not a version", text)
		}
		v = append(v, n)
	}
	return v, nil
}

func isPattern(text string) bool { return strings.Contains(text, "*") }

// isLike reports whether v has the numbers of a pattern, "3.*.0".
func (v version) isLike(pattern string) bool {
	for i, want := range strings.Split(pattern, ".") {
		if want != "*" && (i >= len(v) || strconv.FormatUint(v[i], 10) != want) {
			return false
		}
	}
	return true
}

// compare holds v against a bound, by the numbers that the bound has; one that
// v does not have is 0.
func (v version) compare(bound string) int {
	b, err := parseVersion(bound)
	if err != nil {
		return -1 // Load has refused it
	}
	for i, n := range b {
		var own uint64
		if i < len(v) {
			own = v[i]
		}
		if own != n {
			if own < n {
				return -1
			}
			return 1
		}
	}
	return 0
}

// file is one advisory file.
type file struct {
	list     List
	reviewed string
}

// Load reads an advisory file of at most MaxBytes: a JSON object with "format",
// "advisories" and perhaps "reviewed", a date. Unknown members, missing ones and
// values that make no sense are errors.
func Load(r io.Reader) (List, error) {
	f, err := load(r)
	return f.list, err
}

func load(r io.Reader) (file, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return file{}, err
	}
	if len(b) > MaxBytes {
		return file{}, fmt.Errorf("the file is larger than %d bytes", MaxBytes)
	}
	var said struct {
		Format     string `json:"format"`
		Reviewed   string `json:"reviewed"`
		Advisories List   `json:"advisories"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&said); err != nil {
		return file{}, fmt.Errorf("not JSON of advisories: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return file{}, errors.New("something follows the JSON object")
	}
	if said.Format != Format {
		return file{}, fmt.Errorf("the format is %.40q instead of %q", said.Format, Format)
	}
	if _, err := time.Parse(time.DateOnly, said.Reviewed); said.Reviewed != "" && err != nil {
		return file{}, fmt.Errorf("reviewed %.20q is not a date, such as 2026-11-26", said.Reviewed)
	}
	seen := make(map[string]bool)
	for i, e := range said.Advisories {
		if err := e.check(); err != nil {
			return file{}, fmt.Errorf("entry %d (%.60s): %w", i+1, e.ID, err)
		}
		if seen[e.ID] {
			return file{}, fmt.Errorf("entry %d (%.60s): the id is there twice", i+1, e.ID)
		}
		seen[e.ID] = true
	}
	return file{said.Advisories, said.Reviewed}, nil
}

func (e Entry) check() error {
	for _, m := range []struct{ name, value string }{
		{"id", e.ID}, {"cve", e.CVE}, {"part", e.Part}, {"touches", e.Touches}, {"manufacturer", e.Manufacturer},
	} {
		if m.value == "" {
			return fmt.Errorf("%s is missing", m.name)
		}
	}
	if e.Family != "" && e.Family != "1.2" && e.Family != "2.0" {
		return fmt.Errorf("family %.20q is neither 1.2 nor 2.0", e.Family)
	}
	switch e.Sure {
	case "P", "C", "S":
	default:
		return fmt.Errorf("sure %.20q is none of P, C and S", e.Sure)
	}
	switch e.Severity {
	case device.Low, device.Medium, device.High, device.Critical:
	default:
		return fmt.Errorf("severity %.20q is none of LOW, MEDIUM, HIGH and CRITICAL", e.Severity)
	}
	switch e.Weakens {
	case device.WeakensAny, device.WeakensRSAMade, device.WeakensECDSA, device.WeakensECDH, device.WeakensNone:
	default:
		return fmt.Errorf("weakens %.20q is none of rsa-made, ecdsa, ecdh and none", e.Weakens)
	}
	if u, err := url.Parse(e.Source); err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("source %.60q is not an https URL", e.Source)
	}
	if len(e.Line) == 0 || len(e.Affected) == 0 {
		return errors.New("line or affected is missing")
	}
	for _, r := range slices.Concat(e.Line, e.Affected) {
		if err := r.check(); err != nil {
			return err
		}
	}
	if e.Unfixed {
		if e.Fixed != "" {
			return errors.New("both fixed and unfixed")
		}
		return nil
	}
	if e.Fixed == "" {
		return errors.New("fixed is missing; unfixed says that there is no such version")
	}
	if isPattern(e.Fixed) {
		return Range{Like: e.Fixed}.check()
	}
	fixed, err := parseVersion(e.Fixed)
	if err != nil {
		return err
	}
	if holds(e.Affected, fixed) {
		return fmt.Errorf("the fixed version %s is among the affected", e.Fixed)
	}
	if !holds(e.Line, fixed) {
		return fmt.Errorf("the fixed version %s is not of the line", e.Fixed)
	}
	return nil
}
