package mqtt

import (
	"errors"
	"math/rand/v2"
	"time"
)

// backoff is how a device stays away from a service that does not have it. It
// waits a second and a random time of 0 to a window (full jitter), which
// doubles from 1 s to 16 s, for what passes quickly, and then is 512 s at once.
//
// The windows come of 100,000 devices that lose one region together, whose
// account may send it 500 CONNECTs a second, and that are to stay under that
// from the second minute on. A window of W has them send at most 2N/W a second
// when it comes upon them in the middle, and N/W from its start: of 128 s, a
// cap that is often advised, that is 1,560, which the service throttles, so
// that they come again; of 512 s it is 390 and 195. Doubling up to it would find
// them at N/(t·ln 2) after t, over the quota for five minutes: hence the leap.
// TestHerd simulates it, docs/herd.md shows it.
//
// What costs the service nothing stays below a minute, and what the service
// itself answers, time and again, grows to an hour, as does a silence of hours.
type backoff struct {
	longest time.Duration // the widest window; 0: longWindow

	failures int // rounds and sessions that ended, near ones as far as the quick tries
	near     int // rounds in a row that were not [far]
	last     failing
	answers  int // what the service answered itself, since the last stable session
	changes  allowance
	since    time.Time // the first failure
	due      time.Time // when to try again; one who gives up waiting before does not wait again
}

// failing is how a round over the endpoints failed.
type failing int

const (
	far       failing = iota // the service may have had work of it
	answered                 // the service was there, and would not have us
	untrusted                // it ended in the handshake, by our own decision
	near                     // it never came to TLS
)

const (
	quickTries = 5 // windows of 1, 2, 4, 8, 16 s
	longWindow = 512 * time.Second

	// A near failure keeps to quick windows for a few minutes, of a clock or a link
	// that comes late. Then the window is one that lets a region whose name comes
	// back have its burst within the first minute.
	nearTries  = 20
	nearWindow = 56 * time.Second
	// Each try at a server that is not trusted sends a ClientHello of 1.5 KB.
	untrustedTries = 30

	// An answer that came so often will not change soon, nor will silence that has
	// lasted for so long.
	answerTries = 10
	silentAfter = 90 * time.Minute
	hourWindow  = time.Hour

	// ConnectSpacing is what AWS IoT wants between two CONNECTs of one client id
	// (AWS IoT Core endpoints and quotas, "Connect requests per second per client ID").
	ConnectSpacing = time.Second

	// stableAfter is how long a session has to last so that its end begins a
	// count and does not go on with one.
	stableAfter = time.Minute
)

// failed counts a round. One that cost the service nothing does not lead beyond
// the quick tries.
func (b *backoff) failed(how failing) {
	b.begin()
	defer b.pause()
	b.last = how
	switch how {
	case near, untrusted:
		b.near++
		b.failures = max(b.failures, min(b.failures+1, quickTries))
		return
	case answered:
		b.answers++
	}
	b.near = 0
	b.failures++
}

// lost counts the end of a session.
func (b *backoff) lost(lasted time.Duration) {
	if lasted >= stableAfter {
		b.failures, b.answers = 0, 0
	} else {
		b.answers++
	}
	b.begin()
	b.near, b.last = 0, far
	b.failures++
	b.pause()
}

func (b *backoff) pause() { b.due = time.Now().Add(b.wait()) }

func (b *backoff) begin() {
	if b.failures == 0 {
		b.since = time.Now()
	}
}

// changed begins a count, since the machine has another address or another time,
// and reports whether it does: not as often as somebody likes. What the service
// answered stays so.
func (b *backoff) changed() bool {
	if !b.changes.take() {
		return false
	}
	b.failures, b.near = 0, 0
	return true
}

func (b *backoff) wait() time.Duration {
	if b.failures == 0 {
		return 0
	}
	least, most := b.window()
	return ConnectSpacing + least + rand.N(most-least)
}

// window is the jitter's, after one failure at least.
func (b *backoff) window() (least, most time.Duration) {
	longest := b.longest
	if longest == 0 {
		longest = longWindow
	}
	switch over := b.answers - answerTries; {
	case over > 0 && longest >= longWindow: // else the operator wants it back sooner
		most = max(longest, min(longest<<min(over, 3), hourWindow))
		return most / 2, most
	case b.failures > quickTries && b.near == 0 && longest >= longWindow && time.Since(b.since) > silentAfter:
		most = max(longest, hourWindow)
		return most / 4 * 3, most
	case b.failures > quickTries:
		return 0, longest
	case b.near > untrustedTries && b.last == untrusted:
		return longest / 2, longest
	case b.near > nearTries:
		most = min(nearWindow, longest)
		return most / 2, most
	case b.near > 0:
		return 0, min(quick(b.near), longest)
	}
	return 0, min(quick(b.failures), longest)
}

// quick is the window of a quick try.
func quick(n int) time.Duration { return time.Second << (min(n, quickTries) - 1) }

// allowance is for what somebody else may have happen as often as he likes: four
// times at once, and again for each quarter of an hour.
type allowance struct {
	used int
	last time.Time
}

const (
	allowed     = 4
	allowedEach = 15 * time.Minute
)

// take reports whether it may happen now.
func (a *allowance) take() bool {
	if back := int(time.Since(a.last) / allowedEach); back > 0 && a.used > 0 {
		a.used, a.last = max(a.used-back, 0), a.last.Add(time.Duration(back)*allowedEach)
	}
	if a.used == 0 {
		a.last = time.Now()
	}
	if a.used >= allowed {
		return false
	}
	a.used++
	return true
}

// howOf sorts the error of one endpoint. No network, no name, nobody there: of
// these the service has nothing. Where that is the region's fault after all, its
// return costs one burst, which the service refuses and TestHerd has.
func howOf(err error) failing {
	var unreached notReached
	var stranger unknownUser
	switch {
	case errors.Is(err, ErrClock), errors.Is(err, ErrServerUntrusted):
		return untrusted
	case errors.Is(err, ErrRefused), errors.As(err, &stranger):
		return answered
	case errors.As(err, &unreached):
		return near
	}
	return far
}
