package main

import (
	"strings"
	"testing"
	"time"
)

// TestProgress counts the lines of a task of a minute and a bit, with a key each
// second.
func TestProgress(t *testing.T) {
	for terminal, want := range map[bool]string{
		false: "p521: 10 of 65 keys, 1/s, 55s left\n",
		true:  clearLine + "p521: 2 of 65 keys, 1/s, 1m3s left",
	} {
		var out strings.Builder
		now := time.Unix(0, 0)
		p := &progress{w: &out, terminal: terminal, now: func() time.Time { return now }, total: 65}
		p.begin()
		for range 65 {
			now = now.Add(time.Second)
			p.step("p521")
		}
		p.end()
		if !strings.HasPrefix(out.String(), want) {
			t.Errorf("terminal %v: begins %q", terminal, out.String()[:80])
		}
		if n := strings.Count(out.String(), "\n"); !terminal && n != 6 || terminal && n != 0 {
			t.Errorf("terminal %v: %d lines:\n%s", terminal, n, out.String())
		}
	}
}
