package awsiot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// The operations that a job may ask for.
const (
	OperationCheck  = "keyvet.check"
	OperationRotate = "keyvet.rotate"
)

// operationPrefix is what makes a job document keyvet's.
const operationPrefix = "keyvet."

const operationVersion = "1.0"

// maxDocument is the longest job document that AWS IoT takes (AWS General
// Reference, "AWS IoT Device Management endpoints and quotas").
const maxDocument = 32 << 10

// Operation is what a job document asks for.
type Operation struct {
	Name string // [OperationCheck] or [OperationRotate]
	Key  string // of a rotation: "ecdsa-p256" …; "" is the configured one
}

// ErrForeign: the job document is another agent's, whose job must not be touched.
var ErrForeign = errors.New("the job is not keyvet's")

// DocumentError says what is wrong with a job document of keyvet's: the job
// is to be rejected with Reason.
type DocumentError struct{ Reason string }

func (e *DocumentError) Error() string { return "job document: " + e.Reason }

// ParseOperation reads a job document. It is exact: a document in which any
// operation starts with "keyvet." has every member known, once, and of a known
// value, or it is a [*DocumentError]. Every other document, and what is no
// JSON object or too large to have come from AWS IoT, is [ErrForeign].
func ParseOperation(document json.RawMessage) (Operation, error) {
	members, ours, err := readDocument(document)
	if !ours {
		return Operation{}, ErrForeign
	}
	op := Operation{}
	if err == nil {
		op, err = operationOf(members)
	}
	if err != nil {
		return Operation{}, &DocumentError{Reason: err.Error()}
	}
	return op, nil
}

type member struct {
	name  string
	value json.RawMessage
}

// text is the member's value if that is a string.
func (m member) text() (string, bool) {
	var s string
	if len(m.value) == 0 || m.value[0] != '"' || json.Unmarshal(m.value, &s) != nil {
		return "", false
	}
	return s, true
}

// maxMembers bounds the members of a document that are kept; keyvet's has three at most.
const maxMembers = 16

// readDocument reads the members of a document as far as it goes, and reports
// whether it is keyvet's, which may be known although it is malformed further on.
func readDocument(document []byte) (members []member, ours bool, err error) {
	if len(document) > maxPayload {
		return nil, false, nil
	}
	dec := json.NewDecoder(bytes.NewReader(document))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false, nil
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, ours, malformed(err)
		}
		m := member{name: name.(string)} // Token gives no other key
		if err := dec.Decode(&m.value); err != nil {
			return nil, ours, malformed(err)
		}
		if s, ok := m.text(); ok && m.name == "operation" && strings.HasPrefix(s, operationPrefix) {
			ours = true
		}
		if len(members) <= maxMembers {
			members = append(members, m)
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, ours, malformed(err)
	}
	if len(bytes.TrimSpace(document[dec.InputOffset():])) > 0 {
		return nil, ours, errors.New("something follows the JSON object")
	}
	if len(document) > maxDocument {
		return nil, ours, fmt.Errorf("%d bytes are more than %d", len(document), maxDocument)
	}
	return members, ours, nil
}

func malformed(err error) error { return fmt.Errorf("malformed JSON: %v", err) }

func operationOf(members []member) (Operation, error) {
	values := make(map[string]string)
	for _, m := range members {
		if !slices.Contains([]string{"operation", "version", "key"}, m.name) {
			return Operation{}, fmt.Errorf("unknown member %.64q", m.name)
		}
		value, ok := m.text()
		if !ok {
			return Operation{}, fmt.Errorf("%s is not a string", m.name)
		}
		if _, twice := values[m.name]; twice {
			return Operation{}, fmt.Errorf("%s is there twice", m.name)
		}
		values[m.name] = value
	}
	op := Operation{Name: values["operation"], Key: values["key"]}
	_, hasKey := values["key"]
	switch {
	case op.Name != OperationCheck && op.Name != OperationRotate:
		return Operation{}, fmt.Errorf("unknown operation %.64q", op.Name)
	case values["version"] != operationVersion:
		return Operation{}, fmt.Errorf("version %.64q is not %q", values["version"], operationVersion)
	case hasKey && op.Name != OperationRotate:
		return Operation{}, fmt.Errorf("%s takes no key", op.Name)
	case hasKey && !slices.Contains(device.Algorithms(), op.Key):
		return Operation{}, fmt.Errorf("unknown key %.64q: it takes %s", op.Key, strings.Join(device.Algorithms(), ", "))
	}
	return op, nil
}
