package mqtt

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"time"
)

// life is how long a connection lasts, and why it ends.
type life struct {
	began time.Time // once it was up
	done  chan struct{}

	mu      sync.Mutex
	err     error  // why it ended; nil: it has not
	upon    string // topic of what was not answered when the server ended it, or ""
	ended   time.Time
	leaving bool // its owner ends it
}

// end reports whether this is the first end; upon is a topic that was not
// answered by then.
func (l *life) end(err error, upon string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.err, l.ended = err, time.Now()
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		l.upon = upon
	}
	close(l.done)
	return true
}

// leave reports whether the owner has something to end. The server may hang up
// first, once it has our DISCONNECT.
func (l *life) leave() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	alive := l.err == nil
	l.leaving = l.leaving || alive
	return alive
}

// left reports whether the owner ended the connection, by [Session.Close].
func (l *life) left() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaving
}

func (l *life) lost() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.upon != "" {
		return cutUpon{failure{ErrLost, "", l.err, "ended by the server upon " + l.upon + ": does the policy of the client certificate allow that?"}}
	}
	return failure{ErrLost, "", l.err, ""}
}

// cutUpon is an [ErrCut].
type cutUpon struct{ failure }

func (c cutUpon) Unwrap() []error { return append(c.failure.Unwrap(), ErrCut) }

// taken reports whether the server ended it soon, and upon nothing of ours.
func (l *life) taken() bool {
	lasted := l.lasted()
	l.mu.Lock()
	defer l.mu.Unlock()
	return lasted < stableAfter && errors.Is(l.err, io.EOF) && l.upon == ""
}

// lasted is how long the connection has been there.
func (l *life) lasted() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return time.Since(l.began)
	}
	return l.ended.Sub(l.began)
}
