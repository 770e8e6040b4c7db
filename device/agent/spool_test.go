package agent_test

import (
	"testing"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// A device that fails, is offline and restarts for ever keeps two reports of it,
// the first and the last.
func TestFailingRestarts(t *testing.T) {
	dir := t.TempDir()
	d := newDesk(t, dir, gate.Acknowledged)
	d.cloud, d.status = nil, device.Fail
	for range 20 {
		d.Once(t.Context())
	}
	entries, err := d.Spool.List()
	if err != nil || len(entries) != 2 || entries[0].ID != d.ids[0] || entries[1].ID != d.ids[19] {
		t.Errorf("the spool holds %v, %v", entries, err)
	}
}
