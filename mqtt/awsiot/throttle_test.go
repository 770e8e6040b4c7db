package awsiot

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// The waits are under 1, 2, 4 and 8 s; then patience ends, and it ends with
// the deadline, before it, too.
func TestPatience(t *testing.T) {
	slow := &Rejected{Code: "RequestThrottled"}
	synctest.Test(t, func(t *testing.T) {
		longest := make([]time.Duration, maxTries)
		for range 200 {
			n, last := 0, time.Now()
			_, err := patiently(t.Context(), func() ([]byte, error) {
				longest[n] = max(longest[n], time.Since(last))
				n, last = n+1, time.Now()
				return nil, slow
			})
			if n != maxTries || !errors.Is(err, ErrThrottled) || !errors.Is(err, slow) {
				t.Fatalf("%v after %d tries", err, n)
			}
		}
		for n := 1; n < maxTries; n++ {
			limit := time.Second << (n - 1)
			if longest[n] > limit || longest[n] < limit*9/10 {
				t.Errorf("try %d: waits of up to %v", n, longest[n])
			}
		}
	})
}

func TestPatienceEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		_, err := patiently(ctx, func() ([]byte, error) {
			n++
			cancel()
			return nil, &Rejected{Code: "429"}
		})
		if !errors.Is(err, context.Canceled) || n != 1 {
			t.Errorf("%v after %d tries", err, n)
		}
	})
}
