package rotate

import (
	"context"
	"time"
)

// Clock is the time by which a rotation goes; the zero value is the device's.
type Clock struct {
	Now   func() time.Time                     // nil is time.Now
	Pause func(context.Context, time.Duration) // between attempts; nil is a timer
}

func (c Clock) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c Clock) pause(ctx context.Context, d time.Duration) {
	if c.Pause != nil {
		c.Pause(ctx, d)
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
