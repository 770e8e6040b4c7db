// Package logs writes the log to what reads it: systemd's journal, a file, or a
// person at a terminal.
package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/keyvet/keyvet/cmd/internal/cli"
)

// New returns the handler of a service: for the journal, lines with a priority and
// without the time, which the journal has itself; else lines with the time.
func New(w io.Writer, level slog.Level) slog.Handler {
	if !isJournal(w) {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	}
	return slog.NewTextHandler(journal{w}, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			return slog.Attr{}
		}
		return a
	}})
}

// isJournal reports whether w is the stream to the journal that systemd names by
// device and inode (systemd.exec(5)): a program that the service starts has the
// variable, too, but may write elsewhere.
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// journal puts the priority before a line of the log (sd-daemon(3)).
type journal struct{ io.Writer }

func (j journal) Write(line []byte) (int, error) {
	priority := "<6>"
	for level, p := range map[string]string{"DEBUG": "<7>", "WARN": "<4>", "ERROR": "<3>"} {
		if bytes.HasPrefix(line, []byte("level="+level+" ")) {
			priority = p
		}
	}
	n, err := j.Writer.Write(append([]byte(priority), line...))
	return max(0, n-len(priority)), err
}

// Person writes warnings and errors as sentences to the person who waits for a
// command of the program; if debug is set, everything. What the command shows itself is
// left out.
func Person(w io.Writer, program string, debug bool) slog.Handler {
	return person{w, program, debug, nil}
}

// shown are the messages of what commands show themselves.
var shown = []string{"finding", "gap", "rotation turns back"}

type person struct {
	w       io.Writer
	program string
	debug   bool
	attrs   []slog.Attr
}

func (p person) Enabled(_ context.Context, level slog.Level) bool {
	return p.debug || level >= slog.LevelWarn
}

func (p person) Handle(_ context.Context, r slog.Record) error {
	if !p.debug && slices.Contains(shown, r.Message) {
		return nil
	}
	line, details := r.Message, []string{}
	add := func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			line += ": " + err.Error()
		} else {
			details = append(details, a.Key+" "+a.Value.String())
		}
		return true
	}
	for _, a := range p.attrs {
		add(a)
	}
	r.Attrs(add)
	if len(details) > 0 {
		line += " (" + strings.Join(details, ", ") + ")"
	}
	if r.Level == slog.LevelWarn {
		line = "warning: " + line
	}
	_, err := fmt.Fprintln(p.w, cli.Said(p.w, p.program, line))
	return err
}

func (p person) WithAttrs(attrs []slog.Attr) slog.Handler {
	p.attrs = append(p.attrs[:len(p.attrs):len(p.attrs)], attrs...)
	return p
}

func (p person) WithGroup(string) slog.Handler { return p }
