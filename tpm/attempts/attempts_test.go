package attempts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var errWrong = errors.New("wrong password")

func isWrong(err error) bool { return errors.Is(err, errWrong) }

// chip is a TPM with one key: a failure counts, and enough of them lock it.
type chip struct {
	lockout Lockout
	answer  error
	asked   int
}

func (c *chip) use() error {
	c.asked++
	if errors.Is(c.answer, errWrong) {
		c.lockout.Failures++
	}
	return c.answer
}

func (c *chip) read() (Lockout, error) { return c.lockout, nil }

func (c *chip) try(m *Memory, where string) error {
	return m.Protected(Object{"tpm", "000b", where}, c.read, c.use, isWrong)
}

func reopened(path string) *Memory {
	m := &Memory{path: path}
	m.load()
	return m
}

func TestProtected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "attempts.json")
	m := reopened(path)
	c := &chip{lockout: Lockout{Limit: 32}, answer: errWrong}
	asks := func(what string, n int, err, want error) {
		t.Helper()
		if c.asked != n || !errors.Is(err, want) {
			t.Errorf("%s: asked %d times, want %d: %v", what, c.asked, n, err)
		}
	}
	asks("first", 1, c.try(m, "a"), errWrong)
	for range 100 {
		asks("again", 1, c.try(m, "a"), ErrRefused)
	}
	if err := c.try(m, "a"); !isWrong(err) {
		t.Errorf("the reason is lost: %v", err)
	}
	m.Order()
	asks("a job, while a failure counts", 1, c.try(m, "a"), ErrRefused)
	for range 100 {
		m = reopened(path)
		asks("a restart, while a failure counts", 1, c.try(m, "a"), ErrRefused)
	}
	asks("another file", 2, c.try(m, "b"), errWrong)
	m.Order()
	asks("an order, while two failures count", 2, c.try(m, "a"), ErrRefused)
	asks("a third file, while two failures count", 2, c.try(m, "c"), ErrTooClose)
	c.lockout.Failures = 0
	m.Order()
	asks("an order, when none counts", 3, c.try(m, "a"), errWrong)
	asks("the same order", 3, c.try(m, "a"), ErrRefused)
	c.lockout.Failures = 0
	asks("no order", 3, c.try(m, "a"), ErrRefused)
	m.Order()
	asks("another order", 4, c.try(m, "a"), errWrong)

	c.lockout.Failures, c.answer = 0, nil
	m = reopened(path)
	asks("a restart, when none counts", 5, c.try(m, "a"), nil)
	c.lockout.Failures = 31
	asks("accepted before, one failure from lockout", 6, c.try(m, "a"), nil)
	m = reopened(path)
	asks("the same after a restart", 7, c.try(m, "a"), nil)
	c.answer = errWrong
	asks("given a password since", 8, c.try(m, "a"), errWrong)
	asks("and again", 8, c.try(m, "a"), ErrRefused)
}

func TestLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		Lockout
		tried bool
	}{
		"none counts":         {Lockout{0, 32, false}, true},
		"one counts":          {Lockout{1, 32, false}, true},
		"two count":           {Lockout{2, 32, false}, false},
		"in lockout":          {Lockout{0, 32, true}, false},
		"one would lock it":   {Lockout{1, 2, false}, false},
		"the first locks it":  {Lockout{0, 1, false}, true},
		"all are used up":     {Lockout{1, 1, true}, false},
		"no try is ever good": {Lockout{0, 0, true}, false},
	} {
		c := &chip{lockout: tc.Lockout}
		err := c.try(new(Memory), "a")
		if (c.asked == 1) != tc.tried || (err == nil) != tc.tried {
			t.Errorf("%s: asked %d times: %v", name, c.asked, err)
		}
	}
	c := new(chip)
	unread := errors.New("unread")
	m := new(Memory)
	if err := m.Protected(Object{}, func() (Lockout, error) { return Lockout{}, unread }, c.use, isWrong); !errors.Is(err, unread) || c.asked != 0 {
		t.Errorf("a lockout that cannot be read: %v", err)
	}
}

// An error that says nothing of the password leaves nothing behind.
func TestOtherErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "attempts.json")
	m := reopened(path)
	busy := errors.New("busy")
	c := &chip{lockout: Lockout{Failures: 1, Limit: 32}, answer: busy}
	for n := range 3 {
		if err := c.try(m, "a"); !errors.Is(err, busy) || c.asked != n+1 {
			t.Fatalf("asked %d times: %v", c.asked, err)
		}
		m = reopened(path)
	}
	c.answer = nil
	if err := c.try(m, "a"); err != nil {
		t.Error(err)
	}
}

// A process that is killed while the TPM answers may have failed.
func TestKilledWhileTrying(t *testing.T) {
	path := filepath.Join(t.TempDir(), "attempts.json")
	c := &chip{lockout: Lockout{Limit: 32}}
	m := reopened(path)
	var between *Memory
	err := m.Protected(Object{"tpm", "000b", "a"}, c.read, func() error {
		between = reopened(path)
		return nil
	}, isWrong)
	if err != nil {
		t.Fatal(err)
	}
	c.lockout.Failures = 1
	if err := c.try(between, "a"); !errors.Is(err, ErrRefused) || c.asked != 0 {
		t.Errorf("asked %d times: %v", c.asked, err)
	}
}

// A file that cannot be read, or written, leaves the TPM's own count as the bound.
func TestFileOutOfReach(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"broken": broken, "too large": filepath.Join(dir, "large"), "in no directory": filepath.Join(dir, "absent", "file"),
	} {
		if name == "too large" {
			if err := os.WriteFile(path, []byte(strings.Repeat(" ", maxBytes+1)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := &chip{lockout: Lockout{Failures: 1, Limit: 32}, answer: errWrong}
		for range 3 {
			if err := c.try(reopened(path), "a"); !errors.Is(err, ErrTooClose) || c.asked != 0 {
				t.Errorf("%s: asked %d times: %v", name, c.asked, err)
			}
		}
		c.lockout.Failures = 0
		for range 3 {
			if err := c.try(reopened(path), "a"); err == nil || c.asked != 1 {
				t.Errorf("%s: asked %d times: %v", name, c.asked, err)
			}
		}
	}
}

func TestExempt(t *testing.T) {
	m := new(Memory)
	c := &chip{answer: errWrong}
	try := func() error { return m.Exempt(Object{"tpm", "000b", "a"}, c.use, isWrong) }
	for range 3 {
		if err := try(); !isWrong(err) || c.asked != 1 {
			t.Errorf("asked %d times: %v", c.asked, err)
		}
	}
	m.Order()
	c.answer = nil
	for range 2 {
		if err := try(); err != nil {
			t.Error(err)
		}
	}
	if c.asked != 3 {
		t.Errorf("asked %d times", c.asked)
	}
}

func TestBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "attempts.json")
	m := reopened(path)
	c := &chip{lockout: Lockout{Limit: 32}, answer: errWrong}
	for i := range 3 * maxObjects {
		c.lockout.Failures = 0
		if err := c.try(m, strings.Repeat("x", i)); err == nil {
			t.Fatal("no error")
		}
	}
	if len(m.known) > maxObjects || len(reopened(path).known) > maxObjects {
		t.Errorf("%d objects", len(m.known))
	}
	if Of(path) != Of(path) || Of(path) == Of(path+"2") {
		t.Error("one memory a file")
	}
}
