package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Of work that failed and is never asked for again, little is kept; what failed
// last still waits.
func TestUnfinishedIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := make(unfinished)
		for i := range 10 * maxUnfinished {
			u.failed(fmt.Sprint(i))
			time.Sleep(redialPause)
		}
		u.failed("last")
		next, ok := u.next()
		if len(u) != maxUnfinished || !ok || !u.waits("last") || u.waits("639") || next != u["last"].next {
			t.Errorf("%d are kept; next %v, %v", len(u), next, ok)
		}
		time.Sleep(redialPause)
		if _, ok := u.next(); ok || u.waits("last") {
			t.Error("it waits for more than a minute")
		}
	})
}
