package agent

import (
	"time"

	"github.com/keyvet/keyvet/device/gate"
)

// delivery is the newest report on its way to the cloud.
type delivery struct {
	vetted       gate.Vetted
	acknowledged bool      // by the cloud
	tries        int       // at delivering it
	retry        time.Time // when it is to be tried again
}

// Between two tries to deliver one report. The first comes with the next
// session, if one was lost over it.
const (
	retryFirst = time.Minute
	retryMost  = time.Hour
)

// due reports whether it is time for a try.
func (d *delivery) due() bool { return !d.acknowledged && !time.Now().Before(d.retry) }

// tried counts a try. What the cloud asks for does not wait until the next.
func (d *delivery) tried(o gate.Outcome, lost bool) {
	d.acknowledged = o.Acknowledged
	if d.acknowledged {
		return
	}
	if d.tries++; d.tries > 1 || !lost {
		d.retry = time.Now().Add(jittered(min(retryMost, retryFirst<<min(d.tries-1, 10))))
	}
}
