package quiet

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A failure that repeats itself, but for numbers, is told of once and then hourly;
// another one, and what is no failure, always.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(New(slog.NewTextHandler(&out, nil))).With("by", "test")
		for i := range 24 * 60 {
			log.Warn("no connection", "error", fmt.Errorf("lookup x: read udp 10.0.0.2:%d: i/o timeout", 40000+i), "wait", time.Duration(i))
			time.Sleep(time.Minute)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 24 || strings.Contains(lines[0], "repeats") || !strings.HasSuffix(lines[1], "repeats=59") {
			t.Errorf("%d lines in a day, the first two:\n%s", len(lines), strings.Join(lines[:2], "\n"))
		}
		out.Reset()
		for range 3 {
			log.Warn("no connection", "error", errors.New("no route"))
			log.Error("no connection", "error", errors.New("no route"))
			log.Info("vetted", "verdict", "PASS")
			log.Info("gate", "undelivered", error(nil))
		}
		if got := strings.Count(out.String(), "\n"); got != 2+3+3 {
			t.Errorf("%d lines:\n%s", got, &out)
		}
		out.Reset()
		for i := range 6 {
			log.Warn("put aside", "job", fmt.Sprint("job-", i%2), "error", errors.New("no reply"))
		}
		if got := strings.Count(out.String(), "\n"); got != 2 {
			t.Errorf("%d lines of two jobs:\n%s", got, &out)
		}
	})
}

func TestKnownIsBounded(t *testing.T) {
	h := New(slog.DiscardHandler)
	for i := range 10 * maxKnown {
		h.known.tell(fmt.Sprint(i), time.Now())
		if n := len(h.known.failures); n > maxKnown {
			t.Fatalf("%d failures are remembered", n)
		}
	}
}
