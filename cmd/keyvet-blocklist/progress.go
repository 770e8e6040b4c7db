package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/terminal"
)

// progress shows how far a long task is. On a terminal it is one line, from two
// seconds on, rewritten at most five times a second; elsewhere, such as in the
// log of a build, it is a line each ten seconds.
type progress struct {
	w           io.Writer
	terminal    bool
	now         func() time.Time
	start, next time.Time
	shown       bool
	done, total int
	skipped     int // done before, which tells nothing of the rate
}

func newProgress(w io.Writer, total int) *progress {
	p := &progress{w: w, now: time.Now, total: total}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	p.begin()
	return p
}

const (
	clearLine    = "\r\x1b[K"
	lineInterval = 10 * time.Second // off a terminal
)

func (p *progress) begin() {
	p.start = p.now()
	p.next = p.start.Add(lineInterval)
	if p.terminal {
		p.next = p.start.Add(2 * time.Second)
	}
}

// skip counts keys that were there already.
func (p *progress) skip(n int) { p.done, p.skipped = p.done+n, p.skipped+n }

// step counts one key.
func (p *progress) step(what string) {
	p.done++
	now := p.now()
	if now.Before(p.next) {
		return
	}
	rate := float64(p.done-p.skipped) / now.Sub(p.start).Seconds()
	left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second)
	line := fmt.Sprintf("%s: %d of %d keys, %.0f/s, %v left", what, p.done, p.total, rate, left)
	if !p.terminal {
		p.next = now.Add(lineInterval)
		fmt.Fprintln(p.w, line)
		return
	}
	p.next, p.shown = now.Add(200*time.Millisecond), true
	fmt.Fprint(p.w, clearLine+line)
}

// printf prints a line that stays.
func (p *progress) printf(format string, args ...any) {
	p.end()
	say(p.w, format, args...)
}

// say says something to people, in lines that fit what w is.
func say(w io.Writer, format string, args ...any) {
	_, _ = io.WriteString(w, terminal.Of(w).Text(fmt.Sprintf(format, args...))) // what cannot be said is said nowhere
}

// end clears the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, clearLine)
		p.shown = false
	}
}
