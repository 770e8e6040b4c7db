package agent

import (
	"math/rand/v2"
	"time"
)

// unfinished is work that failed and may be asked for again, by its id. While it
// waits, the loop does what else is asked for.
type unfinished map[string]*attempts

// attempts are those at one piece of work.
type attempts struct {
	next    time.Time // when it may be tried again
	reports int       // how often the report of a check was sent
	lost    int       // sessions that were lost over that, in a row
}

// maxUnfinished bounds the work that is remembered; the oldest is forgotten.
const maxUnfinished = 64

// of returns the attempts at the work of that id.
func (u unfinished) of(id string) *attempts {
	if u[id] == nil {
		if len(u) >= maxUnfinished {
			delete(u, u.oldest())
		}
		u[id] = new(attempts)
	}
	return u[id]
}

func (u unfinished) oldest() (id string) {
	for other, a := range u {
		if id == "" || a.next.Before(u[id].next) {
			id = other
		}
	}
	return id
}

// failed lets the work wait, since it may well be asked for again at once.
func (u unfinished) failed(id string) { u.of(id).next = time.Now().Add(rand.N(redialPause)) }

// waits reports whether it is too early to try the work of that id again.
func (u unfinished) waits(id string) bool { return u[id] != nil && time.Now().Before(u[id].next) }

// next is when the first of what waits may be tried again, if anything waits.
func (u unfinished) next() (next time.Time, ok bool) {
	for id, a := range u {
		if u.waits(id) && (!ok || a.next.Before(next)) {
			next, ok = a.next, true
		}
	}
	return next, ok
}
