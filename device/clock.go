package device

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// commitTime is when the commit was made that the program is built from, in
// seconds since 1970; -ldflags -X sets it, as the Makefile and the Yocto recipe do.
var commitTime string

// earliestFloor is before any build of this program.
var earliestFloor = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// ClockFloor returns a time before which no clock is right: the program's commit,
// or a fixed one where the build gave none; or what [RaiseClockFloor] was given.
func ClockFloor() time.Time {
	built := buildFloor()
	if told := time.Unix(toldFloor.Load(), 0).UTC(); told.After(built) {
		return told
	}
	return built
}

var (
	buildFloor = sync.OnceValue(func() time.Time { return floor(commitTime) })
	toldFloor  atomic.Int64 // seconds since 1970
)

const (
	// clockMargin is how far a clock may be behind and still count as one that is
	// set, only not well.
	clockMargin = 24 * time.Hour
	// maxFloor bounds what is believed: no program runs longer after its build.
	maxFloor = 30 * 365 * 24 * time.Hour
)

// RaiseClockFloor takes a time that another's clock has shown: one who is proven
// and has no part in what this machine's clock shows. A day is left for clocks
// that are not set well. It reports whether it believes that time.
func RaiseClockFloor(shown time.Time) bool {
	if shown.After(buildFloor().Add(maxFloor)) {
		return false
	}
	for at := shown.Add(-clockMargin).Unix(); ; {
		before := toldFloor.Load()
		if at <= before || toldFloor.CompareAndSwap(before, at) {
			return true
		}
	}
}

func floor(commit string) time.Time {
	seconds, err := strconv.ParseInt(commit, 10, 64)
	if t := time.Unix(seconds, 0).UTC(); err == nil && t.After(earliestFloor) {
		return t
	}
	return earliestFloor
}

// ClockBehind reports whether now is before [ClockFloor]: a clock without a
// battery starts in 1970 or at the image's date. It says nothing of a clock
// that is ahead.
func ClockBehind(now time.Time) bool { return now.Before(ClockFloor()) }
