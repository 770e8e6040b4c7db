package agent_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// A device that fails, is offline and restarts for ever keeps two reports of it,
// the first and the last.
func TestFailingRestarts(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(t, dir, gate.Acknowledged)
	online := d.cloud
	d.cloud, d.status = nil, device.Fail
	for range 20 {
		d.Once(t.Context())
	}
	entries, err := d.Spool.List()
	if err != nil || len(entries) != 2 || entries[0].ID != d.ids[0] || entries[1].ID != d.ids[19] {
		t.Errorf("the spool holds %v, %v", entries, err)
	}
	// Whoever gets the last hears of those between.
	var folded []int
	d.cloud = online
	d.cloud.refuse = func(r *device.Report) error { folded = append(folded, r.Folded); return nil }
	d.Once(t.Context())
	if len(folded) != 2 || folded[0] != 19 || folded[1] != 0 {
		t.Errorf("the reports that arrive stand for %v", folded)
	}
}

// A device that is well again opens its gate first, and tells its past then; the
// shadow stays with the newest.
func TestGateOpensBeforeThePast(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		online := d.cloud
		d.cloud, d.status = nil, device.Fail
		d.Once(t.Context())
		d.Once(t.Context())
		d.cloud, d.status = online, device.Pass
		began, opened := time.Now(), time.Duration(-1)
		d.cloud.refuse = func(r *device.Report) error {
			if r.ID == d.ids[0] && d.trusted() {
				opened = time.Since(began)
			}
			return nil
		}
		d.Once(t.Context())
		if opened != 0 || d.spooled(t) != 0 {
			t.Errorf("open before the first of the past: after %v; %d reports left", opened, d.spooled(t))
		}
		want := d.ids[2] + " PASS, gate open, " + d.ids[0] + " FAIL earlier, " + d.ids[1] + " FAIL earlier"
		if got := strings.Join(online.got, ", "); got != want {
			t.Errorf("the cloud got %s\nwant %s", got, want)
		}
	})
}

// Where the newest is not taken, the past waits.
func TestThePastWaitsForTheNewest(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(t, dir, gate.Acknowledged)
	online := d.cloud
	d.cloud, d.status = nil, device.Fail
	d.Once(t.Context())
	d.cloud = online
	d.cloud.refuse = func(r *device.Report) error {
		if r.ID != d.ids[0] {
			return errors.New("throttled")
		}
		return nil
	}
	d.Once(t.Context())
	if len(online.got) != 1 || online.got[0] != "gate shut" || d.spooled(t) != 2 {
		t.Errorf("the cloud got %v; %d reports wait", online.got, d.spooled(t))
	}
}
