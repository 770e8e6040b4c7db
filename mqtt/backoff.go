package mqtt

import (
	"errors"
	"math/rand/v2"
	"net"
	"syscall"
	"time"
)

// backoff is how a device stays away from a service that does not have it. It
// waits a second and a random time of 0 to a window (full jitter), which
// doubles from 1 s to 16 s, for what passes quickly, and then is 512 s at once.
//
// The windows come of 100,000 devices that lose one region together, whose
// account may send it 500 CONNECTs a second, and that are to stay under that
// from the second minute on. A window of W has them send at most 2N/W a second
// when it comes upon them in the middle, and N/W from its start: of 128 s, a
// cap that is often advised, that is 1,560, which the service throttles, so
// that they come again; of 512 s it is 390 and 195. Doubling up to it would find
// them at N/(t·ln 2) after t, over the quota for five minutes: hence the leap.
// TestHerd simulates it, docs/herd.md shows it.
type backoff struct{ failures int }

const (
	quickTries = 5 // windows of 1, 2, 4, 8, 16 s
	longWindow = 512 * time.Second

	// ConnectSpacing is what AWS IoT wants between two CONNECTs of one client id
	// (AWS IoT Core endpoints and quotas, "Connect requests per second per client ID").
	ConnectSpacing = time.Second

	// stableAfter is how long a session has to last so that its end begins a
	// count and does not go on with one.
	stableAfter = time.Minute
)

// failed counts a round. A failure that never left the device's own network,
// such as at boot, cost the service nothing, and does not lead beyond the quick
// tries.
func (b *backoff) failed(near bool) {
	if !near || b.failures < quickTries {
		b.failures++
	}
}

// lost counts the end of a session.
func (b *backoff) lost(lasted time.Duration) {
	if lasted >= stableAfter {
		b.failures = 0
	}
	b.failures++
}

func (b *backoff) wait() time.Duration {
	if b.failures == 0 {
		return 0
	}
	return ConnectSpacing + rand.N(window(b.failures))
}

// window is the jitter's after so many failures, one at least.
func window(failures int) time.Duration {
	if failures > quickTries {
		return longWindow
	}
	return time.Second << (failures - 1)
}

// isNear reports whether a connection failed without the service having anything
// of it: no network, no name, or a clock by which no certificate is valid. Where
// that is the region's fault after all, its return costs one burst, which the
// service refuses and TestHerd has.
func isNear(err error) bool {
	var name *net.DNSError
	return errors.As(err, &name) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ENETDOWN) ||
		errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, ErrClock)
}
