package agent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// A TPM that comes late opens the gate once it is there, not when the device
// would have looked again by itself; and one that never comes is not reported
// on each minute.
func TestLate(t *testing.T) {
	for _, comes := range []time.Duration{5 * time.Second, 3 * time.Minute, 0} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := newDesk(t, dir, gate.Acknowledged)
			d.Every = 24 * time.Hour
			d.status = device.Undecided
			there := make(chan struct{})
			d.device.late = func(context.Context) <-chan struct{} {
				var late chan struct{}
				d.change(func() {
					if d.status == device.Undecided {
						late = there
					}
				})
				return late
			}
			start := time.Now()
			if comes > 0 {
				time.AfterFunc(comes, func() {
					d.change(func() { d.status = device.Pass })
					close(there)
				})
			}
			ended := make(chan error, 1)
			go func() { ended <- d.Run(ctx) }()
			synctest.Wait()
			if d.trusted() {
				t.Error("the gate is open without the TPM")
			}
			time.Sleep(8 * time.Minute)
			synctest.Wait()
			if d.trusted() != (comes > 0) || len(d.triggers) != map[bool]int{true: 2, false: 1}[comes > 0] {
				t.Errorf("a TPM after %v: trusted %v, %d reports in %v", comes, d.trusted(), len(d.triggers), time.Since(start))
			}
			if last := d.triggers[len(d.triggers)-1]; last != device.TriggerFirstBoot {
				t.Errorf("a TPM after %v: the last report is one of %q", comes, last)
			}
			cancel()
			<-ended
		})
	}
}
