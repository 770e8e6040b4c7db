package mqtt

import (
	"errors"
	"io"
	"sync"
	"time"
)

// life is how long a connection lasts, and why it ends.
type life struct {
	began time.Time // once it was up
	done  chan struct{}

	mu      sync.Mutex
	err     error // why it ended; nil: it has not
	ended   time.Time
	leaving bool // its owner ends it
}

// end reports whether this is the first end.
func (l *life) end(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.err, l.ended = err, time.Now()
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
	return failure{ErrLost, "", l.err, ""}
}

// cut is lost, over a packet that was not answered: a server may end the
// connection of a client that does what it may not.
func (l *life) cut() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	advice := ""
	if errors.Is(l.err, io.EOF) {
		advice = "does the policy of the client certificate allow it?"
	}
	return failure{ErrLost, "", l.err, advice}
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
