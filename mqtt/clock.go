package mqtt

import (
	"runtime/debug"
	"sync"
	"time"
)

// ClockBehind tells whether now is before this program was made, which is no
// time at which it runs: a clock without a battery starts in 1970 or at the
// image's date. It proves nothing of a clock that is ahead.
func ClockBehind(now time.Time) bool { return now.Before(clockFloor()) }

// clockFloor is the time of the commit that the program was built from, where
// the build says it, and no earlier than a time before any build.
var clockFloor = sync.OnceValue(func() time.Time {
	floor := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(floor) {
				floor = t
			}
		}
	}
	return floor
})
