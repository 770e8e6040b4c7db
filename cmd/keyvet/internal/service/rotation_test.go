package service

import (
	"errors"
	"testing"
	"time"
)

func TestTrouble(t *testing.T) {
	now, failure := time.Now(), errors.New("rejected")
	for refused, wants := range map[bool]map[int]time.Duration{
		false: {0: 0, 1: 0, 2: time.Minute, 3: 2 * time.Minute, 7: 32 * time.Minute, 8: time.Hour, 13: time.Hour},
		true:  {0: 5 * time.Minute, 1: 15 * time.Minute, 2: 45 * time.Minute, 3: time.Hour, 13: time.Hour},
	} {
		var tr trouble
		for i := range 14 {
			tr.failed(now, failure, refused)
			want, known := wants[i]
			if got := max(0, tr.again.Sub(now)); known && (got < want || got > want+want/4) {
				t.Errorf("refused %v: after failure %d it pauses for %s, want %s and a quarter at most", refused, i+1, got, want)
			}
		}
	}
}
