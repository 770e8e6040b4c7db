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
	cloud        Cloud // nil while offline
	vetted       gate.Vetted
	acknowledged bool      // vetted's report, by the cloud
	tries        int       // at delivering it
	retry        time.Time // when it is to be tried again
	local        *Work     // found while waiting
	undecided    int       // self-checks in a row
	trouble      bool      // that the gate had with its files
	lost         lostCheck

	enough context.CancelFunc // ends the period that the last self-check is good for
	due    time.Time          // its end by the wall clock; zero: none
}

// Run vets the device now and then on schedule until ctx ends, stays connected
// in between and does what the cloud asks for. It returns when ctx ends, with the
// gate shut since nobody vouches for it any more; or with ErrStuck.
func (a *Agent) Run(ctx context.Context) error {
	l := &loop{Agent: a}
	defer l.disconnect()
	l.vetNow(ctx, a.bootTrigger())
	for {
		period := l.period(ctx)
		for period.Err() == nil && !l.stuck() {
			l.serve(period)
			a.alive()
		}
		l.enough()
		if l.stuck() {
			return l.lastWord(ctx)
		}
		if ctx.Err() != nil {
			return a.end(ctx)
		}
		l.expire()
		l.vetNow(ctx, device.TriggerSchedule)
	}
}

// end shuts the gate for good.
func (a *Agent) end(ctx context.Context) error {
	if err := a.Gate.Shut(); err != nil {
		return errors.Join(ErrStuck, err)
	}
	return ctx.Err()
}

// stuck reports whether the gate must be shut and cannot be, still.
func (l *loop) stuck() bool {
	if l.Gate.State() != gate.Stuck {
		return false
	}
	if err := l.Gate.Shut(); err != nil {
		l.Log.Error("gate", "state", gate.Stuck, "trouble", err)
	}
	return l.Gate.State() == gate.Stuck
}

// lastWordTimeout bounds how long a gate stays open because somebody should
// hear of it.
const lastWordTimeout = time.Minute

// lastWord tries to have the cloud know that the gate is stuck, and why.
func (l *loop) lastWord(ctx context.Context) error {
	err := errors.Join(ErrStuck, l.Gate.Shut())
	ctx, cancel := context.WithTimeout(ctx, lastWordTimeout)
	defer cancel()
	if l.cloud == nil {
		cloud, dialErr := l.Device.Connect(ctx)
		if dialErr != nil {
			l.Log.Error("nobody could be told that the gate is stuck", "error", dialErr)
			return err
		}
		l.cloud = cloud
	}
	if l.acknowledged {
		l.tell(ctx, l.cloud, l.vetted, gate.Outcome{Acknowledged: true, State: gate.Stuck})
		return err
	}
	o := l.admit(ctx, l.cloud, l.vetted)
	l.log(o)
	l.tell(ctx, l.cloud, l.vetted, o)
	return err
}

// expire shuts a gate whose certificate has expired.
func (l *loop) expire() {
	expired, err := l.Gate.Expire()
	if expired {
		l.Log.Warn("the certificate has expired: the gate is shut", "error", err)
	}
}

// undecidedAgain is when the device vets itself again where something could not
// be checked: a TPM that comes late, a clock that is not set yet; or where the
// gate had trouble with its files. It doubles.
const undecidedAgain = 10 * time.Minute

// every is how long the last self-check is good for.
func (l *loop) every() time.Duration {
	if l.Every == 0 || l.vetted.Report.Verdict() != device.Undecided && !l.trouble {
		l.undecided = 0
		return l.Every
	}
	l.undecided++
	return min(l.Every, undecidedAgain<<min(l.undecided-1, 10))
}

// period begins what the last self-check is good for: a time that neither a
// suspend nor a clock that is set back makes longer.
func (l *loop) period(ctx context.Context) context.Context {
	every := l.every()
	if every == 0 {
		ctx, l.enough = context.WithCancel(ctx)
		l.due = time.Time{}
		return ctx
	}
	every = jittered(every)
	ctx, l.enough = context.WithTimeout(ctx, every)
	l.due = l.now().Add(every)
	return ctx
}

// deadline is when, by the wall clock, the device vets itself again: by schedule,
// or since its certificate has expired. Zero: never.
func (l *loop) deadline() time.Time {
	deadline := l.due
	earlier := func(t time.Time) {
		if !t.IsZero() && (deadline.IsZero() || t.Before(deadline)) {
			deadline = t
		}
	}
	earlier(l.Gate.NotAfter())
	for _, k := range l.vetted.Report.Keys {
		// One that had expired when it was looked at was reported as such.
		if k.Role == device.RoleDevice && k.Certificate != nil && k.Certificate.NotAfter.After(l.vetted.Report.Time) {
			earlier(k.Certificate.NotAfter)
		}
	}
	return deadline
}

// pulse shows that the loop is alive, and ends the period by the wall clock.
func (l *loop) pulse() {
	l.alive()
	if d := l.deadline(); !d.IsZero() && l.now().After(d) {
		l.enough()
	}
}

func (l *loop) vetNow(ctx context.Context, trigger device.Trigger) {
	v, o := l.vet(ctx, trigger)
	l.take(v, o)
	l.alive()
}

// take goes on with another report.
func (l *loop) take(v gate.Vetted, o gate.Outcome) {
	l.vetted, l.acknowledged, l.tries, l.retry = v, o.Acknowledged, 0, time.Time{}
	l.heed(o)
}

// heed has the device vetted again soon where the gate had trouble.
func (l *loop) heed(o gate.Outcome) {
	l.trouble = o.Trouble != nil
	if soon := l.now().Add(undecidedAgain); l.trouble && soon.Before(l.due) {
		l.due = soon
	}
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
	if !l.acknowledged && !time.Now().Before(l.retry) {
		l.deliverNow(ctx)
		if lost(l.cloud) {
			l.disconnect()
			l.pause(ctx, rand.N(redialPause))
			return
		}
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
	changed, err := l.Device.Prepare(ctx)
	if m := l.takeMoved(); m != nil {
		l.take(m.vetted, m.outcome)
	} else if changed {
		l.vetNow(ctx, l.vetted.Report.Trigger)
	}
	if err == nil {
		l.cloud, err = l.Device.Connect(ctx)
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
// connect, but not beyond ctx: what ignores that hangs.
func (l *loop) beatDuring(ctx context.Context) (stop func()) {
	t := time.NewTicker(beat)
	stopped := make(chan struct{})
	deadline, enough := l.deadline(), l.enough
	go func() {
		for {
			select {
			case <-t.C:
				l.alive()
				if !deadline.IsZero() && l.now().After(deadline) {
					enough()
				}
			case <-stopped:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { t.Stop(); close(stopped) }
}

// Between two tries to deliver one report. The first comes with the next
// session, if one was lost over it.
const (
	retryFirst = time.Minute
	retryMost  = 30 * time.Minute
)

// deliverNow reports whether the cloud has the report now. If not, it says when
// to try again; what the cloud asks for does not wait until then.
func (l *loop) deliverNow(ctx context.Context) bool {
	o := l.deliver(ctx, l.cloud, l.vetted)
	l.acknowledged = o.Acknowledged
	l.heed(o)
	l.alive()
	if o.Acknowledged {
		return true
	}
	if l.tries++; l.tries > 1 || !lost(l.cloud) {
		l.retry = time.Now().Add(jittered(min(retryMost, retryFirst<<min(l.tries-1, 10))))
	}
	return false
}

// localWork is what there is to do without the cloud's asking.
func (l *loop) localWork() *Work {
	w := l.local
	l.local = nil
	if w == nil {
		w = l.Device.Local()
	}
	return w
}

// wait returns when there may be work, it is time to look again, the session is
// lost or ctx ends.
func (l *loop) wait(ctx context.Context, again <-chan time.Time) {
	t := time.NewTicker(beat)
	defer t.Stop()
	var retry <-chan time.Time
	if !l.acknowledged {
		timer := time.NewTimer(time.Until(l.retry))
		defer timer.Stop()
		retry = timer.C
	}
	for {
		select {
		case <-ctx.Done():
		case <-l.cloud.Wanted():
		case <-again:
		case <-retry:
		case <-l.cloud.Done():
			l.Log.Warn("connection lost")
			l.disconnect()
		case <-t.C:
			l.pulse()
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
		l.pulse()
	}
}
