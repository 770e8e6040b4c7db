package device

import (
	"strconv"
	"sync"
	"time"
)

// commitTime is when the commit was made that the program is built from, in
// seconds since 1970; -ldflags -X sets it, as the Makefile and the Yocto recipe do.
var commitTime string

// earliestFloor is before any build of this program.
var earliestFloor = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// ClockFloor returns a time at which no copy of this program has run yet: that
// of its commit, or a fixed one where the build gave none.
var ClockFloor = sync.OnceValue(func() time.Time { return floor(commitTime) })

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
