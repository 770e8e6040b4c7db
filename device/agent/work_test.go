package agent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
)

// running is a desk whose agent runs, in a bubble.
func running(t *testing.T, d *desk) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Run(ctx) }()
	synctest.Wait()
	return func() error { cancel(); return <-ended }
}

func TestJobs(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		var beats atomic.Int64
		d.Alive = func() { beats.Add(1) }
		stop := running(t, d)
		if len(d.cloud.got) != 2 {
			t.Fatalf("at boot the cloud got %v", d.cloud.got)
		}
		d.cloud.got = nil

		d.cloud.check("check-1")
		synctest.Wait()
		want := "check-1 IN_PROGRESS check, " + d.ids[1] + " PASS, gate open, check-1 SUCCEEDED reported"
		if got := strings.Join(d.cloud.got, ", "); got != want || d.triggers[1] != device.TriggerJob {
			t.Errorf("%v: the cloud got %s\nwant %s", d.triggers, got, want)
		}

		d.cloud.got = nil
		d.change(func() { d.status = device.Fail })
		d.cloud.check("check-2")
		synctest.Wait()
		want = "check-2 IN_PROGRESS check, " + d.ids[2] + " FAIL, gate shut, check-2 SUCCEEDED reported"
		if got := strings.Join(d.cloud.got, ", "); got != want || d.trusted() {
			t.Errorf("trusted %v, the cloud got %s\nwant %s", d.trusted(), got, want)
		}

		before := beats.Load()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := beats.Load() - before; n != 10 {
			t.Errorf("%d beats in five idle minutes, want 10", n)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// After a rotation that failed and left the gate shut, the gate comes before any
// pause.
func TestRolledBack(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		rotated := 0
		d.device.rotate = func(context.Context, agent.Rotation) error {
			rotated++
			d.cloud.work = nil
			return errors.Join(errors.New("rolled back"), d.Gate.Shut())
		}
		stop := running(t, d)
		d.cloud.rotate("rotate-1")
		synctest.Wait()
		if rotated != 1 || !d.trusted() {
			t.Errorf("%d rotations, trusted %v", rotated, d.trusted())
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// A check whose report is not acknowledged at once is in progress until it is.
func TestJobNotAcknowledged(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		stop := running(t, d)
		d.cloud.got = nil
		var throttled atomic.Bool
		throttled.Store(true)
		d.cloud.refuse = func(*device.Report) error {
			if throttled.Load() {
				return errors.New("throttled")
			}
			return nil
		}
		d.cloud.check("check")
		synctest.Wait()
		if got := strings.Join(d.cloud.got, ", "); got != "check IN_PROGRESS check, gate open" || d.spooled(t) != 1 {
			t.Errorf("%d in the spool, the cloud got %s", d.spooled(t), got)
		}
		throttled.Store(false)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if got := strings.Join(d.cloud.got, ", "); !strings.HasSuffix(got, "gate open, check SUCCEEDED reported") {
			t.Errorf("the cloud got %s", got)
		}
		if n := d.spooled(t); n != 0 {
			t.Errorf("%d in the spool", n)
		}
		stop()
	})
}

// doings is what was done, in its order.
type doings struct {
	mu  sync.Mutex
	ids []string
}

// work makes a piece of work that c asks for until it succeeds.
func (d *doings) work(c *cloud, id string, ends bool, do func() error) *agent.Work {
	w := &agent.Work{ID: id, EndsSession: ends}
	w.Do = func(context.Context, agent.Actions) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.ids = append(d.ids, id)
		err := do()
		if err == nil {
			c.end(w)
		}
		return err
	}
	return w
}

func (d *doings) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.ids, ", ")
}

// After a job, or a rotation, that failed the device hears what else is asked of
// it; what failed is tried again within a minute.
func TestListensAfterFailure(t *testing.T) {
	for _, ends := range []bool{false, true} {
		t.Run(fmt.Sprintf("ends the session: %v", ends), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, dir, gate.Acknowledged)
				stop := running(t, d)
				var did doings
				var mended atomic.Bool
				bad := did.work(d.cloud, "bad", ends, func() error {
					if !mended.Load() {
						return errors.New("the TPM is busy")
					}
					return nil
				})
				good := func() error { return nil }
				d.cloud.ask(bad, did.work(d.cloud, "behind it", false, good))
				synctest.Wait()
				if got := did.String(); got != "bad, behind it" {
					t.Errorf("at once the device did %s", got)
				}
				d.cloud.ask(did.work(d.cloud, "later", false, good))
				synctest.Wait()
				if got := did.String(); got != "bad, behind it, later" {
					t.Errorf("then the device did %s", got)
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if n := strings.Count(did.String(), "bad") - 1; n < 10 || n > 60 {
					t.Errorf("tried again %d times in ten minutes", n)
				}
				mended.Store(true)
				time.Sleep(time.Minute)
				synctest.Wait()
				tries := did.String()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				if got := did.String(); got != tries {
					t.Error("it is tried again after it was done")
				}
				stop()
			})
		})
	}
}

// A session that is lost after a job failed is seen at once.
func TestLostAfterFailure(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		stop := running(t, d)
		var did doings
		old := d.cloud
		old.ask(did.work(old, "bad", false, func() error { return errors.New("the TPM is busy") }))
		synctest.Wait()
		next := newCloud()
		next.ask(did.work(next, "in the next session", false, func() error { return nil }))
		d.change(func() { d.cloud = next })
		close(old.done)
		synctest.Wait()
		if got := did.String(); got != "bad, in the next session" {
			t.Errorf("the device did %s", got)
		}
		stop()
	})
}

// What is done without the cloud's asking, and is given once, is kept until it
// may be tried again.
func TestLocalWorkWaits(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		var asked, done atomic.Int64
		d.device.local = func() *agent.Work {
			if asked.Add(1) > 2 {
				return nil
			}
			return &agent.Work{ID: "by hand", Do: func(context.Context, agent.Actions) error {
				if done.Add(1) == 1 {
					return errors.New("no connection")
				}
				return nil
			}}
		}
		stop := running(t, d)
		if asked.Load() != 2 || done.Load() != 1 {
			t.Errorf("asked %d times, done %d times", asked.Load(), done.Load())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := done.Load(); n != 2 {
			t.Errorf("done %d times", n)
		}
		stop()
	})
}

// What is to be done without the cloud's asking is seen within a beat.
func TestLocalWork(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		local := make(chan *agent.Work, 1)
		d.device.local = func() *agent.Work {
			select {
			case w := <-local:
				return w
			default:
				return nil
			}
		}
		stop := running(t, d)
		local <- &agent.Work{ID: "by hand", Do: func(ctx context.Context, do agent.Actions) error {
			return do.Check(ctx, "by hand", func(context.Context, device.JobState, map[string]string) error { return nil })
		}}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if len(d.triggers) != 2 || len(local) != 0 {
			t.Errorf("vetted %v, %d left", d.triggers, len(local))
		}
		stop()
	})
}

// What the cloud asks for is found though it could not be read at first, and
// nobody tells of it again.
func TestNextIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		d.cloud.deaf = 3
		d.cloud.check("check")
		stop := running(t, d)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if got := strings.Join(d.cloud.got, ", "); !strings.HasSuffix(got, "check SUCCEEDED reported") {
			t.Errorf("the cloud got %s", got)
		}
		stop()
	})
}

// A rotation leaves the session closed; the device goes on with the next one.
func TestRotate(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		d.device.rotate = func(ctx context.Context, r agent.Rotation) error {
			if r != (agent.Rotation{Trigger: device.TriggerJob, Job: device.Job{ID: "rotate"}}) {
				t.Errorf("it is to rotate by %+v", r)
			}
			err := d.cloud.answer(d.cloud.work[0])(ctx, device.JobSucceeded, map[string]string{"step": "prove"})
			d.change(func() { d.cloud = newCloud() })
			return err
		}
		old := d.cloud
		stop := running(t, d)
		old.rotate("rotate")
		synctest.Wait()
		if got := strings.Join(old.got, ", "); !strings.HasSuffix(got, "rotate SUCCEEDED prove") {
			t.Errorf("the old session got %s", got)
		}
		d.cloud.ask(&agent.Work{Operation: "challenge", ID: "c", Do: func(context.Context, agent.Actions) error {
			d.cloud.got = append(d.cloud.got, "challenged")
			d.cloud.work = nil
			return errors.New("the TPM is busy")
		}})
		synctest.Wait()
		if got := strings.Join(d.cloud.got, ", "); got != "challenged" {
			t.Errorf("the new session got %s", got)
		}
		stop()
	})
}

func TestPrepare(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want int // reports acknowledged by the cloud
	}{
		{"made", nil, 1},
		{"not made", errors.New("refused"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, t.TempDir(), gate.Acknowledged)
			d.device.prepare = func(context.Context) (bool, error) { return tt.err == nil, tt.err }
			r, o := d.Once(t.Context())
			if d.trusted() != (tt.err == nil) || o.Acknowledged != (tt.err == nil) || !errors.Is(o.Undelivered, tt.err) {
				t.Errorf("trusted %v, %+v", d.trusted(), o)
			}
			if tt.err == nil && (len(d.triggers) != 2 || r.ID != d.ids[1] || d.triggers[1] != device.TriggerFirstBoot) {
				t.Errorf("vetted %v", d.triggers)
			}
		})
	}
}
