package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// progress shows on a terminal how far a long task is: one line, from two
// seconds on, rewritten at most five times a second.
type progress struct {
	w           io.Writer
	terminal    bool
	start, next time.Time
	shown       bool
	done, total int
	skipped     int // done before, which tells nothing of the rate
}

func newProgress(w io.Writer, total int) *progress {
	now := time.Now()
	p := &progress{w: w, start: now, next: now.Add(2 * time.Second), total: total}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

const clearLine = "\r\x1b[K"

// skip counts keys that were there already.
func (p *progress) skip(n int) { p.done, p.skipped = p.done+n, p.skipped+n }

// step counts one key.
func (p *progress) step(what string) {
	p.done++
	now := time.Now()
	if !p.terminal || now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(200*time.Millisecond), true
	rate := float64(p.done-p.skipped) / now.Sub(p.start).Seconds()
	left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(p.w, clearLine+"%s: %d of %d keys, %.0f/s, %v left", what, p.done, p.total, rate, left)
}

// printf prints a line that stays.
func (p *progress) printf(format string, args ...any) {
	p.end()
	fmt.Fprintf(p.w, format, args...)
}

// end clears the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.w, clearLine)
		p.shown = false
	}
}
