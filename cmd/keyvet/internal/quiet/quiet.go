// Package quiet keeps a log from repeating itself: a failure that comes again and
// again is told of once, and then once an hour with how often it came.
package quiet

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Each is how often a failure that repeats itself is told of.
const Each = time.Hour

// maxKnown bounds the failures that are remembered.
const maxKnown = 256

// Handler passes records on, but those that repeat a failure. A failure is a
// record with an error among its attributes; numbers apart, the same words of the
// same job are the same failure.
type Handler struct {
	next  slog.Handler
	known *known
	also  []string
}

// New returns a handler before next. Messages of also are as failures, such as
// that something is well again until the next failure.
func New(next slog.Handler, also ...string) *Handler {
	return &Handler{next, &known{failures: make(map[string]*failure)}, also}
}

type known struct {
	mu       sync.Mutex
	failures map[string]*failure
}

type failure struct {
	told    time.Time
	repeats int // since
}

// Enabled implements [slog.Handler].
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	words, failed := wordsOf(r)
	if !failed && !slices.Contains(h.also, r.Message) {
		return h.next.Handle(ctx, r)
	}
	repeats, tell := h.known.tell(words, time.Now())
	if !tell {
		return nil
	}
	if repeats > 0 {
		r = r.Clone()
		r.Add("repeats", repeats)
	}
	return h.next.Handle(ctx, r)
}

// tell reports whether a failure is to be told of now, and how often it came
// since the last time.
func (k *known) tell(words string, now time.Time) (repeats int, tell bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.failures[words]
	if f == nil {
		k.forget(now)
		k.failures[words] = &failure{told: now}
		return 0, true
	}
	if now.Sub(f.told) < Each {
		f.repeats++
		return 0, false
	}
	repeats, f.told, f.repeats = f.repeats, now, 0
	return repeats, true
}

// forget makes room for one more: of what has not come for an hour, or of all.
func (k *known) forget(now time.Time) {
	if len(k.failures) < maxKnown {
		return
	}
	for words, f := range k.failures {
		if now.Sub(f.told) >= Each {
			delete(k.failures, words)
		}
	}
	if len(k.failures) >= maxKnown {
		clear(k.failures)
	}
}

// wordsOf are the level, the message and the errors of a record, without digits:
// ports, times and counts differ where the failure does not. The id of a job stays.
func wordsOf(r slog.Record) (words string, failed bool) {
	var b strings.Builder
	var job string
	b.WriteString(r.Level.String() + r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok && err != nil {
			failed = true
			b.WriteString("\n" + a.Key + "\n" + err.Error())
		}
		if a.Key == "job" {
			job = a.Value.String()
		}
		return true
	})
	return job + "\n" + strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, b.String()), failed
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.next.WithAttrs(attrs), h.known, h.also}
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.known, h.also}
}
