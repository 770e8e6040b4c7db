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
	w        io.Writer
	what     string
	terminal bool
	next     time.Time
	shown    bool
}

func newProgress(w io.Writer, what string) *progress {
	p := &progress{w: w, what: what, next: time.Now().Add(2 * time.Second)}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

const clearLine = "\r\x1b[K"

func (p *progress) show(format string, args ...any) {
	now := time.Now()
	if !p.terminal || now.Before(p.next) {
		return
	}
	p.next, p.shown = now.Add(200*time.Millisecond), true
	fmt.Fprintf(p.w, clearLine+p.what+" "+format, args...)
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
