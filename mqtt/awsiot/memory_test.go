package awsiot

// What is remembered between messages.

import (
	"testing"
	"time"
)

func TestDesires(t *testing.T) {
	var d desires
	for _, tt := range []struct {
		token   string
		version int64
		want    bool
	}{
		{"", 1, false}, {"a", 1, true}, {"a", 1, false}, {"a", 2, false}, {"", 3, false}, {"b", 4, true}, {"a", 2, false}, {"c", 4, true}, {"d", 0, true}, {"e", 1, true},
	} {
		if got := d.news(desiredCheck{tt.token, tt.version}); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}

func TestPace(t *testing.T) {
	var p Pace
	now := time.Unix(1700000000, 0)
	first, ok := p.next(now)
	if !ok || first != now.Unix() {
		t.Errorf("first: %d, %t", first, ok)
	}
	if _, ok := p.next(now.Add(metricsEvery - 1)); ok {
		t.Error("two within five minutes")
	}
	// A process that outlives a correction of the clock still counts up.
	p.last = now.Add(-time.Hour)
	if id, ok := p.next(now.Add(-30 * time.Minute)); !ok || id != first+1 {
		t.Errorf("second: %d, %t", id, ok)
	}
}
