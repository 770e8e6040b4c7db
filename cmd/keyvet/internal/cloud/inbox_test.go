package cloud

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/cmd/keyvet/internal/config"
	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
)

// begins begins a check and does not end it.
type begins struct{ agent.Actions }

func (begins) Check(ctx context.Context, _ string, answer agent.Answer) error {
	return answer(ctx, device.JobInProgress, nil)
}

// Forty checks that the shadow desires are two: one at once, and one for the
// newest once the least interval is over, which wakes the loop.
func TestDesiredChecksAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cloud{Config: *config.Default(), Log: slog.New(slog.DiscardHandler)}
		session := func() *Session { return &Session{cloud: c, alarm: newAlarm()} }
		s := session()
		checks := 0
		next := func() string {
			t.Helper()
			work := s.nextCheck(nothing)
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
			s.desire(fmt.Sprint(i))
			<-s.Wanted()
			if token := next(); token != "" {
				s.checks.done(token)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if checks != 1 {
			t.Fatalf("%d checks within 4 s", checks)
		}
		began := time.Now()
		<-s.Wanted()
		if waited := time.Since(began); waited != 56*time.Second {
			t.Errorf("the loop wakes after %s", waited)
		}
		if token := next(); token != "39" {
			t.Errorf("it checks for %q", token)
		}
		s.desire("40") // while it is being carried out
		s.checks.done("39")
		s = session() // another session has no interval of its own
		s.desire("40")
		if token := next(); token != "" {
			t.Errorf("it checks for %q at once", token)
		}
		time.Sleep(time.Minute)
		if token := next(); token != "40" {
			t.Errorf("it checks for %q", token)
		}
		s.checks.done("40")
		if token := next(); token != "" || checks != 3 {
			t.Errorf("it checks for %q, %d checks", token, checks)
		}
		c.Config.Shadow.MinInterval.Duration = 0
		for _, token := range []string{"41", "42"} {
			s.desire(token)
			if got := next(); got != token {
				t.Errorf("without an interval it checks for %q, not %q", got, token)
			}
			s.checks.done(token)
		}
	})
}

// A desired check whose report is not acknowledged is tried again by the loop's
// clock, not by the least interval; after its end that counts again.
func TestDesiredCheckIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cloud{Config: *config.Default(), Log: slog.New(slog.DiscardHandler)}
		s := &Session{cloud: c, alarm: newAlarm()}
		s.desire("a")
		for range 3 {
			if work := s.nextCheck(func(id string) bool { return id == "a" }); work != nil {
				t.Error("it does not wait")
			}
			work := s.nextCheck(nothing)
			if work == nil {
				t.Fatal("it is not tried again")
			}
			if err := work.Do(t.Context(), begins{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.nextCheck(nothing).Do(t.Context(), &done{end: device.JobFailed}); err != nil {
			t.Fatal(err)
		}
		s.desire("a")
		if work := s.nextCheck(nothing); work != nil {
			t.Error("it begins again before the interval is over")
		}
	})
}
