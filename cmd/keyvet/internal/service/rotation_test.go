package service

import (
	"errors"
	"testing"
	"time"
)

func TestTrouble(t *testing.T) {
	now, failure := time.Now(), errors.New("rejected")
	var pauses []time.Duration
	var tr trouble
	for range 14 {
		tr.failed(now, failure)
		pauses = append(pauses, max(0, tr.again.Sub(now)))
	}
	for i, want := range map[int]time.Duration{0: 0, 1: 0, 2: time.Minute, 3: 2 * time.Minute, 10: 256 * time.Minute, 11: 6 * time.Hour, 13: 6 * time.Hour} {
		if pauses[i] != want {
			t.Errorf("after failure %d it pauses for %s, want %s", i+1, pauses[i], want)
		}
	}
}
