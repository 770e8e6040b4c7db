package agent

import "time"

// Clock is the machine's wall clock, which somebody may set.
type Clock struct {
	// Now is what it shows; it goes on while the machine sleeps. nil: time.Now.
	Now func() time.Time
	// Elapsed is the time since some moment. It goes on while the machine sleeps, and
	// nobody sets it. nil: that of time.Now, which may stand still meanwhile.
	Elapsed func() time.Duration
	// Set receives when the clock may have been set. nil: that is looked at now and
	// then.
	Set <-chan struct{}
}

// now is the wall clock's time. Unlike a timer's, it goes on in suspend.
func (c *Clock) now() time.Time {
	if c.Now == nil {
		return time.Now().Round(0)
	}
	return c.Now().Round(0)
}

var processStart = time.Now()

// read is what both clocks show.
func (c *Clock) read() reading {
	if c.Elapsed == nil {
		return reading{c.now(), time.Since(processStart)}
	}
	return reading{c.now(), c.Elapsed()}
}

// reading is what the clock shows, and what one shows that nobody sets.
type reading struct {
	wall    time.Time
	elapsed time.Duration
}

// step is how far the clock was set from a reading to a later one.
func (r reading) step(later reading) time.Duration {
	return (later.wall.Sub(r.wall) - (later.elapsed - r.elapsed)).Abs()
}

// A verdict depends on the clock: validity, what is accepted until a date. One
// that does not open the gate waits for a clock that is set, by however little.
const (
	leastStep    = time.Second
	leastStepOf  = time.Minute // of a verdict that opens
	clockVets    = 3           // at once, one after the other; then
	clockSpacing = 10 * time.Minute
)

// watch is how the clock stood at the last self-check.
type watch struct {
	at    reading
	opens bool // the verdict
	vets  int  // self-checks in a row that a step led to
}

// stepped reports whether the clock was set since, so that the device is to be
// vetted again.
func (w watch) stepped(now reading) bool {
	least := leastStep
	if w.opens {
		least = leastStepOf
	}
	return w.at.step(now) >= least && (w.vets < clockVets || now.elapsed-w.at.elapsed >= clockSpacing)
}
