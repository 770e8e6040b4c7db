package main

import (
	"fmt"
	"io"
	"time"

	"github.com/keyvet/keyvet/cmd/internal/cli"
	"github.com/keyvet/keyvet/cmd/keyvet/internal/vet"
)

// searchLine shows how far a search of Debian's generator is: on a terminal in one
// line, elsewhere, such as in the log of a build, in a line each half minute.
type searchLine struct {
	w        io.Writer
	terminal bool
	next     time.Time
}

func newSearchLine(w io.Writer) *searchLine {
	l := &searchLine{w: w, terminal: cli.IsTerminal(w)}
	l.next = time.Now().Add(30 * time.Second)
	if l.terminal {
		l.next = time.Now().Add(time.Second) // so that the time left is not guessed from nothing
	}
	return l
}

func (l *searchLine) show(s vet.SearchState) {
	now := time.Now()
	if now.Before(l.next) && s.Done < 1 {
		return
	}
	line := fmt.Sprintf("searching Debian's generator: %.1f %%, %v left, %d of %d found", 100*s.Done, s.Left.Round(time.Second), s.Found, s.Keys)
	if !l.terminal {
		l.next = now.Add(30 * time.Second)
		fmt.Fprintln(l.w, line)
		return
	}
	l.next = now.Add(200 * time.Millisecond)
	fmt.Fprint(l.w, "\r\x1b[K"+line)
	if s.Done >= 1 {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}
