package device

import (
	"testing"
	"time"
)

func TestClockFloor(t *testing.T) {
	for commit, want := range map[string]string{
		"":                     "2025-01-01T00:00:00Z",
		"1790000000":           "2026-09-21T14:13:20Z",
		"1000":                 "2025-01-01T00:00:00Z", // before there was a keyvet
		"2026-09-21":           "2025-01-01T00:00:00Z",
		"99999999999999999999": "2025-01-01T00:00:00Z",
	} {
		if got := floor(commit).Format(time.RFC3339); got != want {
			t.Errorf("a commit at %q: %s, want %s", commit, got, want)
		}
	}
	for now, behind := range map[time.Time]bool{
		time.Unix(0, 0): true, ClockFloor().Add(-time.Second): true, ClockFloor(): false, time.Now(): false,
	} {
		if ClockBehind(now) != behind {
			t.Errorf("ClockBehind(%v) = %v", now, !behind)
		}
	}
}
