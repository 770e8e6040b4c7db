package terminal

import (
	"fmt"
	"io"
	"time"

	"github.com/keyvet/keyvet/device"
)

// Steps shows the steps of a change, each as it ends: how it ended, what it took
// and what it is for. A change that fails goes back over its steps; of the step that
// failed it is not known how much it had done, so nothing is said of rolling it back.
type Steps struct {
	Out   io.Writer
	Style Style
	// For says what each step is for, and Back what is done to undo it; a step
	// that has nothing to undo is not shown on the way back.
	For, Back map[string]string
	// Sampled says that not every step is seen as it begins, so that the one that
	// failed may be another than the last one seen.
	Sampled bool

	name  string // under way; "" if none is
	back  bool
	fell  string // the step that failed, or was cut short: what it had done is not known
	began time.Time
}

// Begin says that a step begins, or that it begins to be rolled back.
func (s *Steps) Begin(name string, back bool) {
	switch {
	case s.name == "":
		if back { // of a change that a power cut, say, had stopped here
			s.fell = name
		}
	case back && !s.back:
		s.fell = s.name
		s.failed()
	case s.back && !back: // what it had to roll back cannot be rolled back any more
		s.show(device.Warn, "kept", s.For[s.name])
	default:
		s.done()
	}
	s.name, s.back, s.began = name, back, time.Now()
}

// End says how the step under way ended: Pass, Fail, or Undecided if it waits.
func (s *Steps) End(how device.Status) {
	switch {
	case s.name == "":
	case how == device.Pass || s.back && how == device.Fail: // what fails ends when all is rolled back
		s.done()
	case how == device.Fail:
		s.failed()
	default:
		s.show(how, "wait", s.For[s.name])
	}
	s.name = ""
}

func (s *Steps) done() {
	switch {
	case !s.back:
		s.show(device.Pass, "done", s.For[s.name])
	case s.Back[s.name] != "" && s.name != s.fell:
		s.show(device.Warn, "back", s.Back[s.name])
	}
}

func (s *Steps) failed() {
	what := s.For[s.name]
	if s.Sampled {
		what = "this step or one after it"
	}
	s.show(device.Fail, "FAIL", what)
}

func (s *Steps) show(v device.Status, word, what string) {
	p, wide := newPage(s.Style, false), 0
	for name := range s.For {
		wide = max(wide, len(name))
	}
	p.line(v, word, pad(s.name, wide), fmt.Sprintf("%6.1f s", time.Since(s.began).Seconds()), what)
	io.WriteString(s.Out, p.String())
}
