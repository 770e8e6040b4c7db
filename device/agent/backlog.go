package agent

import (
	"context"
	"slices"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/durable"
)

// backlog is the reports that wait in the spool. They are sent one at a time,
// oldest first, where there is nothing else to do: neither the gate nor what the
// cloud asks for waits for them. The zero value has tried none.
type backlog struct {
	tried  map[string]int // by report: how often it could not be delivered
	failed int            // in a row
	again  time.Time      // not before
}

const (
	drainPause = time.Second // between two reports out of the spool
	drainTries = 3           // reports of the spool that may fail before the others wait, too
	drainFirst = 10 * time.Minute
	drainMost  = time.Hour
)

// next tries one report that waits, and reports whether there may be another to
// be tried now. One that is refused keeps no other back.
func (b *backlog) next(ctx context.Context, a *Agent, cloud Cloud) bool {
	if lost(cloud) || ctx.Err() != nil || time.Now().Before(b.again) {
		return false
	}
	entries, err := a.Spool.List()
	if err != nil {
		a.Log.Error("spool cannot be read", "error", err)
		b.again = time.Now().Add(drainFirst)
		return false
	}
	if len(entries) == 0 {
		b.failed = 0
		return false
	}
	slices.SortStableFunc(entries, func(x, y durable.Entry) int { return b.tried[x.ID] - b.tried[y.ID] })
	e := entries[0]
	err = a.drainOne(ctx, cloud, e)
	a.alive()
	if err == nil {
		a.Log.Info("earlier report delivered", "report", e.ID, "folded", e.Folded)
		delete(b.tried, e.ID)
		b.failed = 0
		pause(ctx, drainPause)
		return true
	}
	a.Log.Warn("an earlier report still waits", "report", e.ID, "error", err)
	if b.tried == nil {
		b.tried = make(map[string]int)
	}
	b.tried[e.ID]++
	b.failed++
	if b.failed%drainTries == 0 || b.failed >= len(entries) {
		b.again = time.Now().Add(jittered(min(drainMost, drainFirst<<min(b.failed/drainTries, 10))))
		return false
	}
	pause(ctx, drainPause)
	return true
}

func (a *Agent) drainOne(ctx context.Context, cloud Cloud, e durable.Entry) error {
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	b, err := a.Spool.Read(e)
	if err != nil {
		return err
	}
	old := new(device.Report)
	if err := old.UnmarshalJSON(b); err != nil {
		a.Log.Error("a report in the spool is damaged and is dropped", "report", e.ID, "error", err)
		return a.Spool.Remove(e)
	}
	old.Folded = e.Folded
	if err := cloud.PublishEarlier(ctx, old); err != nil {
		return err
	}
	return a.Spool.Remove(e)
}
