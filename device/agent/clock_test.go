package agent_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/agent"
	"github.com/keyvet/keyvet/device/gate"
)

// A clock that is set after the self-check has the device vetted again, and the
// gate open, within seconds: whether the device hears of it or looks now and then,
// is connected by then or waits for its turn.
func TestClockIsSet(t *testing.T) {
	for what, tt := range map[string]struct {
		hears   bool
		offline bool // until the clock is set: no certificate is valid
		opens   time.Duration
	}{
		"hears of it":           {true, false, 2 * time.Second},
		"hears of it, offline":  {true, true, 2 * time.Second},
		"looks now and then":    {false, false, 31 * time.Second},
		"looks, and is offline": {false, true, 41 * time.Second},
	} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			d := newDesk(t, dir, gate.Acknowledged)
			set := make(chan struct{}, 1)
			if tt.hears {
				d.Set = set
			}
			cloud := d.cloud
			d.device.connect = func(ctx context.Context) (agent.Cloud, error) {
				for {
					d.mu.Lock()
					behind := d.step == 0
					d.mu.Unlock()
					if !behind || !tt.offline {
						return cloud, nil
					}
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(10 * time.Second):
					}
				}
			}
			d.change(func() { d.status = device.Undecided })
			stop := running(t, d)
			time.Sleep(3 * time.Minute) // well before what is undecided is looked at again
			synctest.Wait()
			if d.trusted() {
				t.Fatalf("%s: open by a clock that is wrong", what)
			}
			d.change(func() { d.step, d.status = 90*24*time.Hour-24*time.Hour, device.Pass })
			if tt.hears {
				set <- struct{}{}
			}
			began := time.Now()
			for !d.trusted() && time.Since(began) < time.Hour {
				time.Sleep(time.Second)
				synctest.Wait()
			}
			if took := time.Since(began); took > tt.opens {
				t.Errorf("%s: the gate opens %v after the clock was set", what, took)
			}
			stop()
		})
	}
}

// A clock that is set all the time does not keep the device vetting itself, nor
// does one that is only trimmed.
func TestClockIsSetAllTheTime(t *testing.T) {
	for what, tt := range map[string]struct {
		step  time.Duration // each minute
		least int
		most  int
	}{"trimmed": {100 * time.Millisecond, 1, 1}, "set": {time.Hour, 20, 200}} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			d := newDesk(t, dir, gate.Acknowledged)
			set := make(chan struct{}, 1)
			d.Set = set
			stop := running(t, d)
			for i := range 24 * 60 {
				time.Sleep(time.Minute)
				d.change(func() { // there and back
					if d.step = 0; i%2 == 0 {
						d.step = tt.step
					}
				})
				select {
				case set <- struct{}{}:
				default:
				}
			}
			synctest.Wait()
			d.mu.Lock()
			n := len(d.ids)
			d.mu.Unlock()
			if n < tt.least || n > tt.most {
				t.Errorf("%s: %d self-checks in a day, want %d to %d", what, n, tt.least, tt.most)
			}
			stop()
		})
	}
}

// words is a cloud that loses what is said besides the report.
type words struct {
	*cloud
	fails map[string]bool
	said  []string
}

func (w *words) say(what string) error {
	if w.fails[what] {
		return errors.New("not allowed")
	}
	w.said = append(w.said, what)
	return nil
}

func (w *words) ReportGate(_ context.Context, s gate.State) error { return w.say("gate " + s.String()) }
func (w *words) PublishFindings(context.Context, *device.Report) error {
	return w.say("findings")
}
func (w *words) ReportMetrics(context.Context, *device.Report) error { return w.say("metrics") }

// What could not be said in one session is said in the next, and what was said is
// not repeated; that the gate is shut at the end is said, too.
func TestWordsArrive(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		first := &words{cloud: newCloud(), fails: map[string]bool{"gate open": true, "findings": true}}
		second := &words{cloud: newCloud()}
		next := first
		d.device.connect = func(context.Context) (agent.Cloud, error) { return next, nil }
		stop := running(t, d)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !d.trusted() || len(first.said) != 1 || first.said[0] != "metrics" {
			t.Fatalf("trusted %v, said %v", d.trusted(), first.said)
		}
		next = second
		close(first.done)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if len(second.said) != 2 || second.said[0] != "gate open" || second.said[1] != "findings" || len(second.got) > 0 {
			t.Errorf("said in the next session: %v; reports %v", second.said, second.got)
		}
		stop()
		if n := len(second.said); n != 3 || second.said[2] != "gate shut" {
			t.Errorf("said at the end: %v", second.said)
		}
	})
}

// A word that is never taken is not said all day long.
func TestWordsAreNotTaken(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		tries := 0
		var current *words
		d.device.connect = func(context.Context) (agent.Cloud, error) {
			current = &words{cloud: newCloud()}
			return &refusing{current, &tries}, nil
		}
		stop := running(t, d)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if tries < 20 || tries > 40 {
			t.Errorf("the findings were sent %d times in a day", tries)
		}
		stop()
	})
}

// refusing ends the session over the findings, as AWS IoT does where the policy
// does not allow them.
type refusing struct {
	*words
	tries *int
}

func (r *refusing) PublishFindings(context.Context, *device.Report) error {
	*r.tries++
	close(r.done)
	return errors.New("connection is lost: EOF")
}

// A job is not kept back by a backlog, and a backlog not by a job that waits.
func TestJobBeforeBacklog(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		online := d.cloud
		d.cloud = nil
		for range 93 {
			d.Once(t.Context())
		}
		d.cloud = online
		answered := time.Duration(-1)
		began := time.Now()
		w := &agent.Work{ID: "job"}
		w.Do = func(context.Context, agent.Actions) error {
			answered = time.Since(began)
			online.end(w)
			return nil
		}
		online.work = append(online.work, w)
		stop := running(t, d)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if answered < 0 || answered > time.Second || d.spooled(t) > 0 || !d.trusted() {
			t.Errorf("the job was done after %v; %d reports wait, trusted %v", answered, d.spooled(t), d.trusted())
		}
		stop()
	})
}

// That the cloud could not be told at the end is logged.
func TestNoGoodbye(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, dir, gate.Acknowledged)
		var log bytes.Buffer
		d.Log = slog.New(slog.NewTextHandler(&log, nil))
		d.device.connect = func(context.Context) (agent.Cloud, error) {
			return &words{cloud: newCloud(), fails: map[string]bool{"gate shut": true}}, nil
		}
		stop := running(t, d)
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		if !strings.Contains(log.String(), "the shadow does not show that the gate is shut") {
			t.Errorf("log %s", &log)
		}
	})
}
