// Package attempts keeps in mind which keys of a TPM took the empty password and
// which refused it. A wrong password for a key that does not say noDA counts
// towards the TPM's dictionary-attack lockout, which then refuses every
// program's keys, disk encryption included: so such a key is not tried in vain
// again, by whatever part of the process, and not after a restart either.
package attempts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/keyvet/keyvet/device/durable"
)

// Object is a key as the TPM has it. Another place, handle or file, may hold it
// with another password, so it is another Object.
type Object struct {
	Address string // of the TPM
	Name    string // of the object, hex (TPM 2.0 Library, Part 1, section 16)
	Where   string // "0x81000100", or the digest of its private area
}

// Lockout is how close a TPM is to its dictionary-attack lockout (TPM_PT of
// group PT_VAR, Part 2, section 6.13).
type Lockout struct {
	Failures uint32 // that count now (TPM_PT_LOCKOUT_COUNTER)
	Limit    uint32 // of them (TPM_PT_MAX_AUTH_FAIL)
	Locked   bool   // inLockout
}

// ErrRefused: the key has a password, or is taken to have one, and the TPM was
// not asked again.
var ErrRefused = errors.New("not tried again: a wrong password counts towards the TPM's lockout, which locks the keys of every program")

// ErrTooClose: too many failures count already to try a key that was not seen to
// take the empty password.
var ErrTooClose = errors.New("not tried: the TPM counts failed passwords, and locks the keys of every program at its limit")

const (
	maxObjects = 64
	maxBytes   = 64 << 10
	// patience is how many failures may count where a key is tried that nothing is
	// known of: one, so that a key can take the place of one that refused.
	patience = 1
)

// Memory is what is known of the keys of a TPM. The zero value knows nothing and
// keeps nothing. Its methods may be called from several goroutines; keys that
// are not known to take the empty password are tried one at a time.
type Memory struct {
	path string // of the file that outlives the process; "" for none

	mu      sync.Mutex
	known   map[Object]known // whose failures count
	exempt  map[Object]known // whose failures do not, and that refused
	order   int              // the number of the order that is carried out
	unclear bool             // the file is there, and could not be read
}

// known is how an object answered last.
type known struct {
	accepted bool
	order    int // in which it was tried; earlier: by another process
	at       time.Time
	err      error // of this process
}

// earlier is the order of what the file tells.
const earlier = -1

var memories = struct {
	sync.Mutex
	of map[string]*Memory
}{of: make(map[string]*Memory)}

// Of returns this process's memory of the file at path, which is read when it is
// first asked for; it need not be there.
func Of(path string) *Memory {
	memories.Lock()
	defer memories.Unlock()
	if m := memories.of[path]; m != nil {
		return m
	}
	m := &Memory{path: path}
	m.load()
	memories.of[path] = m
	return m
}

// Order says that somebody asks for something new, the operator or a job. A key
// that refused may then be tried once more, as after a restart: if no failure
// counts any more.
func (m *Memory) Order() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.order++
}

// Protected has a key used by the empty password whose failures count towards
// the lockout. lockout reads the TPM's state, refused reports whether an error of
// use means that the password is wrong. The error wraps [ErrRefused] or
// [ErrTooClose] where use was not called.
func (m *Memory) Protected(o Object, lockout func() (Lockout, error), use func() error, refused func(error) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, tried := m.known[o]
	if tried && before.accepted {
		m.mu.Unlock()
		err := use()
		m.mu.Lock()
		if err != nil && refused(err) {
			m.note(o, known{order: m.order, at: time.Now(), err: err})
		}
		return err
	}
	if tried && before.order == m.order {
		return again(before)
	}
	l, err := lockout()
	if err != nil {
		return err
	}
	if why := m.tooClose(l, tried); why != nil {
		if tried {
			why = again(before)
		}
		return fmt.Errorf("%w (%s)", why, l)
	}
	// Whatever happens to this process while the TPM answers, the next one must
	// take it that the key refused.
	if !tried && m.note(o, known{order: earlier, at: time.Now()}) != nil && l.Failures > 0 {
		delete(m.known, o)
		return fmt.Errorf("%w (%s), and %s cannot be written", ErrTooClose, l, m.path)
	}
	err = use()
	switch {
	case err == nil:
		m.note(o, known{accepted: true, order: m.order, at: time.Now()})
	case refused(err):
		m.note(o, known{order: m.order, at: time.Now(), err: err})
	case tried:
		m.set(o, before) // nothing new is known
	default:
		m.forget(o)
	}
	return err
}

// tooClose returns why a key that may refuse is not tried, or nil.
func (m *Memory) tooClose(l Lockout, tried bool) error {
	allowed := uint32(patience)
	if tried || m.unclear {
		allowed = 0
	}
	if l.Locked || l.Failures > allowed || l.Failures > 0 && l.Failures+1 >= l.Limit {
		return ErrTooClose
	}
	return nil
}

// Exempt is Protected for a key whose failures do not count: what it answered is
// kept in mind for as long as the process runs.
func (m *Memory) Exempt(o Object, use func() error, refused func(error) bool) error {
	m.mu.Lock()
	before, tried := m.exempt[o]
	order := m.order
	m.mu.Unlock()
	if tried && before.order == order {
		return again(before)
	}
	err := use()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil && refused(err) {
		if len(m.exempt) >= maxObjects || m.exempt == nil {
			m.exempt = make(map[Object]known)
		}
		m.exempt[o] = known{order: order, at: time.Now(), err: err}
	}
	return err
}

// again is the error of an object that is not tried again.
func again(k known) error {
	at := k.at.UTC().Format(time.RFC3339)
	if k.err != nil {
		return fmt.Errorf("%w (since %s): %w", ErrRefused, at, k.err)
	}
	return fmt.Errorf("%w (since %s)", ErrRefused, at)
}

func (l Lockout) String() string {
	s := fmt.Sprintf("%d of %d failures", l.Failures, l.Limit)
	if l.Locked {
		s += ", in lockout"
	}
	return s
}

func (m *Memory) set(o Object, k known) {
	if m.known == nil {
		m.known = make(map[Object]known)
	}
	m.known[o] = k
	for len(m.known) > maxObjects {
		oldest := o
		for other, k := range m.known {
			if k.at.Before(m.known[oldest].at) {
				oldest = other
			}
		}
		delete(m.known, oldest)
	}
}

// note keeps what is known of an object in mind, and in the file. Where the file
// cannot be written, it says at most that the object refused, or nothing: the
// next process is then held back by the TPM's own count.
func (m *Memory) note(o Object, k known) error {
	m.set(o, k)
	return m.save()
}

// forget takes back a note.
func (m *Memory) forget(o Object) {
	delete(m.known, o)
	m.save() // else the file says that it refused: see note
}

// file is the memory as it is kept: of keys whose failures count.
type file struct {
	Schema  string  `json:"schema"`
	Objects []entry `json:"objects"`
}

type entry struct {
	Address  string    `json:"address"`
	Name     string    `json:"name"`
	Where    string    `json:"where"`
	Accepted bool      `json:"accepted"` // the empty password
	Time     time.Time `json:"time"`
}

const schema = "keyvet.attempts/1"

func (m *Memory) load() {
	b, err := durable.ReadBounded(m.path, maxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var f file
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil || f.Schema != schema {
		m.unclear = true
		return
	}
	for _, e := range f.Objects {
		m.set(Object{e.Address, e.Name, e.Where}, known{accepted: e.Accepted, order: earlier, at: e.Time})
	}
}

func (m *Memory) save() error {
	if m.path == "" {
		return nil
	}
	// Not as root in the directory of the service's user, who could put a link there.
	if dir, err := os.Stat(filepath.Dir(m.path)); err != nil {
		return err
	} else if int(dir.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return fmt.Errorf("%s: %w", m.path, fs.ErrPermission)
	}
	f := file{Schema: schema, Objects: []entry{}}
	for o, k := range m.known {
		f.Objects = append(f.Objects, entry{o.Address, o.Name, o.Where, k.accepted, k.at.UTC()})
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(m.path, append(b, '\n'), 0o600)
}
