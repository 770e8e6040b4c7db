package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device/agent"
)

// begins begins a check and does not end it.
type begins struct{ agent.Actions }

func (begins) Check(ctx context.Context, _ string, answer agent.Answer) error {
	return answer(ctx, agent.InProgress, nil)
}

// Forty checks that the shadow desires are two: one at once, and one for the
// newest once the least interval is over, which wakes the loop.
func TestDesiredChecksAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		run := &deviceRun{cfg: config.Default(), log: slog.New(slog.DiscardHandler)}
		session := func() *cloud { return &cloud{run: run, wanted: make(chan struct{}, 1)} }
		c := session()
		checks := 0
		next := func() string {
			t.Helper()
			work := c.nextCheck()
			if work == nil {
				return ""
			}
			if err := work.Do(t.Context(), begins{}); err != nil {
				t.Fatal(err)
			}
			checks++
			return work.ID
		}
		for i := range 40 {
			c.desire(fmt.Sprint(i))
			<-c.wanted
			if token := next(); token != "" {
				c.checked(token)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if checks != 1 {
			t.Fatalf("%d checks within 4 s", checks)
		}
		began := time.Now()
		<-c.wanted
		if waited := time.Since(began); waited != 56*time.Second {
			t.Errorf("the loop wakes after %s", waited)
		}
		if token := next(); token != "39" {
			t.Errorf("it checks for %q", token)
		}
		c.desire("40") // while it is being carried out
		c.checked("39")
		c = session() // another session has no interval of its own
		c.desire("40")
		if token := next(); token != "" {
			t.Errorf("it checks for %q at once", token)
		}
		time.Sleep(time.Minute)
		if token := next(); token != "40" {
			t.Errorf("it checks for %q", token)
		}
		c.checked("40")
		if token := next(); token != "" || checks != 3 {
			t.Errorf("it checks for %q, %d checks", token, checks)
		}
		run.cfg.Shadow.MinInterval.Duration = 0
		for _, token := range []string{"41", "42"} {
			c.desire(token)
			if got := next(); got != token {
				t.Errorf("without an interval it checks for %q, not %q", got, token)
			}
			c.checked(token)
		}
	})
}
