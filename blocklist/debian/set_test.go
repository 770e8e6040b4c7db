package debian

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestSeeds(t *testing.T) {
	got := slices.Collect(Seeds(BE32, SSH, MaxPID-1, MaxPID))
	if want := []Seed{{BE32, SSH, MaxPID - 1}, {BE32, SSH, MaxPID}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := slices.Collect(Seeds(LE64, Rnd, 2, 1)); got != nil {
		t.Errorf("an empty range has %v", got)
	}
}

// twoWorkers has Generate work on two keys at once, whatever the machine.
func twoWorkers(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

func TestGenerateOrder(t *testing.T) {
	twoWorkers(t)
	oddDone := make(chan struct{})
	var got []uint16
	for s, err := range Generate(t.Context(), Seeds(LE32, Rnd, 0, 999), func(_ context.Context, s Seed) (Seed, error) {
		if s.PID%2 == 0 { // made after the one that follows it
			<-oddDone
		} else {
			oddDone <- struct{}{}
		}
		return s, nil
	}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, s.PID)
	}
	if len(got) != 1000 || !slices.IsSorted(got) {
		t.Errorf("%d keys, in order: %t", len(got), slices.IsSorted(got))
	}
}

func TestGenerateError(t *testing.T) {
	broken := errors.New("broken")
	keys, failures := 0, 0
	for _, err := range Generate(t.Context(), Seeds(LE32, Rnd, 0, MaxPID), func(_ context.Context, s Seed) (Seed, error) {
		if s.PID >= 10 {
			return s, broken
		}
		return s, nil
	}) {
		switch err {
		case nil:
			keys++
		case broken:
			failures++
		default:
			t.Fatal(err)
		}
	}
	if keys != 10 || failures != 1 {
		t.Errorf("%d keys and %d errors, want 10 and 1", keys, failures)
	}
}

func TestGenerateBound(t *testing.T) {
	twoWorkers(t)
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int32
		for _, err := range Generate(t.Context(), Seeds(LE32, Rnd, 0, MaxPID), func(_ context.Context, s Seed) (Seed, error) {
			made.Add(1)
			return s, nil
		}) {
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until nothing moves but by reading on
			if n := made.Load(); n < 2 || n > 20 {
				t.Errorf("%d keys were made for one that was read", n)
			}
			break // which must leave no goroutine behind: the bubble would not end
		}
	})
}

func TestGenerateCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	keys := 0
	for _, err := range Generate(ctx, Seeds(LE32, Rnd, 0, MaxPID), func(ctx context.Context, s Seed) (Seed, error) {
		if s.PID == 3 {
			<-ctx.Done() // a key that takes for ever
		}
		return s, ctx.Err()
	}) {
		if last = err; err == nil {
			keys++
		}
		if keys == 3 {
			cancel()
		}
	}
	if keys != 3 || !errors.Is(last, context.Canceled) {
		t.Errorf("%d keys, then %v", keys, last)
	}
}
