package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/gate"
)

// loop is where a running agent stands.
type loop struct {
	*Agent
	cloud     Cloud // nil while offline
	report    *device.Report
	delivered bool  // report, or the cloud has its refusal
	local     *Work // found while waiting
	undecided int   // self-checks in a row
}

// Run vets the device now and then on schedule until ctx ends, stays connected
// in between and does what the cloud asks for. It only returns when ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	l := &loop{Agent: a}
	defer l.disconnect()
	l.vetNow(ctx, a.bootTrigger())
	for {
		until, cancel := ctx, context.CancelFunc(func() {})
		if every := l.every(); every > 0 {
			until, cancel = context.WithTimeout(ctx, jittered(every))
		}
		for until.Err() == nil {
			l.serve(until)
			a.alive()
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.vetNow(ctx, device.TriggerSchedule)
	}
}

// undecidedAgain is when the device vets itself again where something could not
// be looked at: a TPM that comes late, a clock that is not set yet. It doubles.
const undecidedAgain = 10 * time.Minute

// every is how long the last self-check is good for.
func (l *loop) every() time.Duration {
	if l.Every == 0 || l.report.Verdict() != device.Undecided {
		l.undecided = 0
		return l.Every
	}
	l.undecided++
	return min(l.Every, undecidedAgain<<min(l.undecided-1, 10))
}

func (l *loop) vetNow(ctx context.Context, trigger device.Trigger) {
	l.report, l.delivered = l.vet(ctx, trigger), false
	l.alive()
}

func (l *loop) disconnect() {
	if l.cloud != nil {
		l.cloud.Close()
		l.cloud = nil
	}
}

// beat is how often an idle loop shows that it is alive.
const beat = 30 * time.Second

// serve goes one step: it connects, delivers the report, does what is asked
// for, or waits for something of that.
func (l *loop) serve(ctx context.Context) {
	if l.cloud == nil {
		if !l.connect(ctx) {
			return
		}
	}
	if !l.delivered && !l.deliverNow(ctx) {
		l.disconnect()
		l.pause(ctx, rand.N(redialPause))
		return
	}
	var again <-chan time.Time
	for ctx.Err() == nil {
		work, err := l.cloud.Next(ctx)
		again = nil
		if err != nil {
			l.Log.Warn("what the cloud asks for could not be read", "error", err)
			again = time.After(rand.N(redialPause))
		}
		if work == nil {
			work = l.localWork()
		}
		if work == nil {
			break
		}
		if !l.carryOut(ctx, work) {
			return
		}
	}
	l.wait(ctx, again)
}

// connectTimeout bounds one try to connect: the longest back-off (513 s) and
// a round over the endpoints.
const connectTimeout = 15 * time.Minute

// connect makes the session, once the credential is the one to be.
func (l *loop) connect(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	defer l.beatDuring(ctx)()
	changed, err := l.prepare(ctx)
	if m := l.takeMoved(); m != nil {
		l.report, l.delivered = m.report, true
	} else if changed {
		l.vetNow(ctx, l.report.Trigger)
	}
	if err == nil {
		l.cloud, err = l.Connect(ctx)
	}
	if err == nil {
		return true
	}
	l.cloud = nil
	if ctx.Err() == nil {
		l.Log.Warn("no connection, the report waits", "error", err)
		if errors.Is(err, ErrNotReady) {
			l.pause(ctx, rand.N(redialPause))
		}
	}
	return false
}

// beatDuring shows that the loop is alive while it waits for its turn to
// connect, but not beyond ctx: who heeds that no more is stuck.
func (l *loop) beatDuring(ctx context.Context) (stop func()) {
	t := time.NewTicker(beat)
	stopped := make(chan struct{})
	go func() {
		for {
			select {
			case <-t.C:
				l.alive()
			case <-stopped:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { t.Stop(); close(stopped) }
}

// deliverNow tells whether the cloud has the report now.
func (l *loop) deliverNow(ctx context.Context) bool {
	err := l.deliver(ctx, l.cloud, l.report)
	l.delivered = !errors.Is(err, gate.ErrNotAcknowledged)
	l.alive()
	return l.delivered
}

// localWork is what there is to do without the cloud's asking.
func (l *loop) localWork() *Work {
	w := l.local
	l.local = nil
	if w == nil && l.Local != nil {
		w = l.Local()
	}
	return w
}

// wait returns when there may be work, it is time to look again, the session is
// lost or ctx ends.
func (l *loop) wait(ctx context.Context, again <-chan time.Time) {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-l.cloud.Wanted():
		case <-again:
		case <-l.cloud.Done():
			l.Log.Warn("connection lost")
			l.disconnect()
		case <-t.C:
			l.alive()
			if l.local = l.localWork(); l.local == nil {
				continue
			}
		}
		return
	}
}

// pause waits and shows that the loop is alive meanwhile.
func (l *loop) pause(ctx context.Context, d time.Duration) {
	for ; d > 0 && ctx.Err() == nil; d -= beat {
		pause(ctx, min(d, beat))
		l.alive()
	}
}
