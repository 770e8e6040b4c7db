package device

import (
	"fmt"
	"slices"
)

// Status is the answer of one check, of one key and of a whole report. The
// zero value is Undecided, so that whatever was forgotten opens nothing.
type Status int

// The order matters to [Worst] only through its own table: a failing key
// outweighs one that could not be checked.
const (
	Undecided     Status = iota // something that had to be looked at could not be
	NotApplicable               // the question makes no sense for this key
	Pass
	Warn
	Fail
)

var statusNames = [...]string{"UNDECIDED", "NOT_APPLICABLE", "PASS", "WARN", "FAIL"}

// String is the word that reports carry: PASS, WARN, FAIL, UNDECIDED or NOT_APPLICABLE.
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return statusNames[Undecided]
	}
	return statusNames[s]
}

// MarshalText implements [encoding.TextMarshaler].
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]; a word that it does not know is an error.
func (s *Status) UnmarshalText(b []byte) error {
	for i, name := range statusNames {
		if name == string(b) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("unknown status %q", b)
}

// Opens reports whether a gate may open on s: it passed, if with warnings.
func (s Status) Opens() bool { return s == Pass || s == Warn }

// Worst combines statuses: Fail > Undecided > Warn > Pass. NotApplicable
// counts for nothing, and nothing at all is Undecided.
func Worst(all ...Status) Status {
	worst, heaviest := Undecided, 0
	for _, s := range all {
		if w := weight(s); w > heaviest {
			worst, heaviest = s, w
		}
	}
	if worst < 0 || int(worst) >= len(statusNames) {
		return Undecided
	}
	return worst
}

// weight is how much s counts for [Worst].
func weight(s Status) int {
	switch s {
	case NotApplicable:
		return 0
	case Pass:
		return 1
	case Warn:
		return 2
	case Fail:
		return 4
	}
	return 3 // undecided, and what is none of these
}

// Severity is how much a finding matters, in the words of AWS IoT Device Defender audits.
type Severity string

const (
	Low      Severity = "LOW"
	Medium   Severity = "MEDIUM"
	High     Severity = "HIGH"
	Critical Severity = "CRITICAL"
)

// Severities are all of them, the least one first.
var Severities = []Severity{Low, Medium, High, Critical}

// below reports whether s is less than least. What has no severity is not.
func (s Severity) below(least Severity) bool {
	i := slices.Index(Severities, s)
	return i >= 0 && i < slices.Index(Severities, least)
}
