package debian

import (
	"context"
	"iter"
	"runtime"
	"sync"
)

// Seeds yields the seeds of the process ids first to last, which is at most
// [MaxPID], in that order.
func Seeds(arch Arch, variant Variant, first, last uint16) iter.Seq[Seed] {
	return func(yield func(Seed) bool) {
		for pid := int(first); pid <= int(last); pid++ {
			if !yield(Seed{arch, variant, uint16(pid)}) {
				return
			}
		}
	}
}

// Generate makes a key of every seed, on all cores, and yields the keys in
// the order of the seeds. It runs ahead of its reader by a few keys a core at
// most. After the first error, which is that of ctx once ctx ends, it yields
// nothing more.
func Generate[K any](ctx context.Context, seeds iter.Seq[Seed], key func(context.Context, Seed) (K, error)) iter.Seq2[K, error] {
	type result struct {
		key K
		err error
	}
	type task struct {
		seed Seed
		done chan result
	}
	return func(yield func(K, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()

		workers := runtime.GOMAXPROCS(0)
		tasks := make(chan task)
		ordered := make(chan task, 4*workers)
		for range workers {
			running.Go(func() {
				for t := range tasks {
					k, err := key(ctx, t.seed)
					t.done <- result{k, err}
				}
			})
		}
		running.Go(func() {
			defer close(tasks)
			defer close(ordered)
			for seed := range seeds {
				t := task{seed, make(chan result, 1)}
				for _, to := range [...]chan<- task{ordered, tasks} {
					select {
					case to <- t:
					case <-ctx.Done():
						return
					}
				}
			}
		})

		var none K
		for t := range ordered {
			select {
			case r := <-t.done:
				if r.err != nil {
					yield(none, r.err)
					return
				}
				if !yield(r.key, nil) {
					return
				}
			case <-ctx.Done():
				yield(none, ctx.Err())
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(none, err)
		}
	}
}
