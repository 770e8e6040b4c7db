package rotate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
	"github.com/keyvet/keyvet/device/identity"
)

// Journal keeps the state of rotations over power cuts.
type Journal interface {
	// Load gives an empty state if nothing was ever saved, and an error if what
	// was saved cannot be read: never an empty state for that.
	Load() (*State, error)
	Save(*State) error
}

// State is what the journal holds: ids, digests and names, never the bytes of
// a key.
type State struct {
	Schema   string    `json:"schema"`
	Rotation *Rotation `json:"rotation,omitempty"` // under way
	Ended    []Outcome `json:"ended,omitempty"`    // newest last
	Leaving  []Leaving `json:"leaving,omitempty"`  // to be removed
	// ByJob is when the last rotation by a job succeeded, which Ended may have
	// forgotten.
	ByJob *time.Time `json:"byJob,omitempty"`
}

// Rotation is one that is under way.
type Rotation struct {
	Request
	Step string `json:"step"`           // to be done next, or rolled back next
	Back bool   `json:"back,omitempty"` // it is being rolled back
	// Final says that there is no way back: the cloud was told of the success,
	// or takes the new credential alone.
	Final    bool      `json:"final,omitempty"`
	Started  time.Time `json:"started"`            // by the device's clock
	Attempts int       `json:"attempts,omitempty"` // of the step's call that failed
	Refused  int       `json:"refused,omitempty"`  // sessions by one credential, where the other made one

	Old Credential `json:"old"`
	New Credential `json:"new"`

	Token      string     `json:"token,omitempty"`      // AWS IoT's proof of owning the new certificate
	Activating bool       `json:"activating,omitempty"` // its activation was asked for
	Thing      string     `json:"thing,omitempty"`      // the name that provisioning gave
	RetireAt   *time.Time `json:"retireAt,omitempty"`

	Reason  device.ReasonCode `json:"reasonCode,omitempty"` // why it is being rolled back
	Message string            `json:"message,omitempty"`
}

// order is what those around the engine need to know of the rotation.
func (r *Rotation) order() Order {
	return Order{Job: r.Job, From: r.Old.ID, Trigger: cmp.Or(r.Trigger, device.TriggerManual)}
}

// Credential names a certificate and its key.
type Credential struct {
	ID            string     `json:"id"`                      // in the store, or [Claim] or [Configured]
	CertificateID string     `json:"certificateId,omitempty"` // in the cloud
	Serial        string     `json:"serial,omitempty"`        // hex
	NotAfter      *time.Time `json:"notAfter,omitempty"`
	SPKISHA256    string     `json:"spkiSha256,omitempty"`
}

// Outcome is how a rotation ended.
type Outcome struct {
	Job     device.Job        `json:"job,omitzero"`
	Status  device.JobState   `json:"status"`
	Reason  device.ReasonCode `json:"reasonCode,omitempty"`
	Message string            `json:"message,omitempty"`
	Old     string            `json:"oldCertificateId,omitempty"`
	New     string            `json:"newCertificateId,omitempty"`
	Thing   string            `json:"thing,omitempty"`
	Time    time.Time         `json:"time"`
}

const (
	schema          = "keyvet.rotation/1"
	maxJournalBytes = 16 << 10
	maxEnded        = 8
	maxNoteBytes    = 600     // of a message; a value of statusDetails has at most 1,024
	maxNameBytes    = 256     // of an id or a name by others
	maxTokenBytes   = 4 << 10 // an ownership token is some 1 KB
)

// File is the journal in a file.
type File struct {
	Path string
	Disk durable.Disk
}

// JournalPath is where the journal is in a state directory.
func JournalPath(stateDir string) string { return filepath.Join(stateDir, "rotation.json") }

// Load implements [Journal].
func (f File) Load() (*State, error) {
	b, err := f.Disk.ReadFile(f.Path, maxJournalBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{Schema: schema}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("journal of rotations: %w", err)
	}
	s, err := parseState(b)
	if err != nil {
		return nil, fmt.Errorf("journal of rotations %s: %w", f.Path, err)
	}
	return s, nil
}

// Save implements [Journal].
func (f File) Save(s *State) error {
	s.Schema = schema
	b, err := json.Marshal(s)
	if err == nil {
		_, err = parseState(b) // what could not be read again is not written
	}
	if err == nil {
		err = f.Disk.WriteFile(f.Path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("journal of rotations: %w", err)
	}
	return nil
}

func parseState(b []byte) (*State, error) {
	if len(b) > maxJournalBytes-1 {
		return nil, fmt.Errorf("%d bytes", len(b))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	s := new(State)
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows")
	}
	if s.Schema != schema {
		return nil, fmt.Errorf("schema %q, not %q", s.Schema, schema)
	}
	if len(s.Ended) > maxEnded {
		return nil, fmt.Errorf("%d ended rotations", len(s.Ended))
	}
	for _, o := range s.Ended {
		if o.Status != device.JobSucceeded && o.Status != device.JobFailed {
			return nil, fmt.Errorf("status %q of an ended rotation", o.Status)
		}
	}
	if len(s.Leaving) > maxLeaving {
		return nil, fmt.Errorf("%d old credentials", len(s.Leaving))
	}
	for _, l := range s.Leaving {
		if err := checkOldID(l.ID); err != nil {
			return nil, err
		}
	}
	if s.Rotation == nil {
		return s, nil
	}
	if s.Rotation.Step == stepRetire && len(s.Ended) == 0 {
		return nil, errors.New("the old key is to go although no rotation has ended")
	}
	return s, s.Rotation.valid()
}

func (r *Rotation) valid() error {
	if indexOf(r.Step) < 0 {
		return fmt.Errorf("unknown step %q", r.Step)
	}
	if r.Back && r.Final {
		return errors.New("it goes back although there is no way back")
	}
	if r.Step == stepRetire && !r.Final {
		return errors.New("the old key is to go although there is a way back")
	}
	if err := identity.CheckID(r.New.ID); err != nil {
		return err
	}
	if err := checkOldID(r.Old.ID); err != nil {
		return err
	}
	if r.Old.ID == r.New.ID {
		return errors.New("the old credential is the new one")
	}
	return nil
}

// checkOldID says why id cannot name an old credential.
func checkOldID(id string) error {
	if id == Claim || id == Configured {
		return nil
	}
	return identity.CheckID(id)
}

// ended adds an outcome, and forgets the oldest over the bound.
func (s *State) ended(o Outcome) {
	s.Ended = append(s.Ended, o)
	if over := len(s.Ended) - maxEnded; over > 0 {
		s.Ended = s.Ended[over:]
	}
}

// replayed is the outcome of a job that has ended: of any execution if it
// succeeded, of this very one if it failed, since AWS IoT counts a new
// execution when a failed job is to be tried again.
func (s *State) replayed(job device.Job) (Outcome, bool) {
	for _, o := range s.Ended {
		if o.Job.ID != "" && o.Job.ID == job.ID && (o.Status == device.JobSucceeded || o.Job.Execution == job.Execution) {
			return o, true
		}
	}
	return Outcome{}, false
}
