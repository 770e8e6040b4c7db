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
	cloud    Cloud // nil while offline
	newest   delivery
	words    words
	schedule timetable
	clock    watch           // since the last self-check
	local    *Work           // found while waiting
	late     <-chan struct{} // closed once what the last check missed is there; nil: it missed nothing
	open     unfinished
}

// Run vets the device now and then on schedule until ctx ends, stays connected
// in between and does what the cloud asks for. It returns when ctx ends, with the
// gate shut since nobody vouches for it any more; or with ErrStuck.
func (a *Agent) Run(ctx context.Context) error {
	l := &loop{Agent: a, schedule: timetable{every: a.Every}, open: make(unfinished)}
	defer l.disconnect()
	l.vetNow(ctx, a.bootTrigger())
	for {
		period := l.schedule.period(ctx, a.now(), l.newest.vetted.Report.Verdict())
		l.watch(period)
		for period.Err() == nil && !l.stuck() {
			l.serve(period)
			a.alive()
		}
		l.schedule.enough()
		if l.stuck() {
			return l.lastWord(ctx)
		}
		if ctx.Err() != nil {
			return l.end(ctx)
		}
		l.expire()
		l.lookAgain(ctx)
	}
}

// watch ends a period once what the device missed is there.
func (l *loop) watch(period context.Context) {
	late, enough := l.Device.Late(period), l.schedule.enough
	if l.late = late; late == nil {
		return
	}
	go func() {
		select {
		case <-late:
			l.Log.Info("what the last check missed is there now")
			enough()
		case <-period.Done():
		}
	}()
}

// lookAgain vets the device since it is time to, or since the clock was set. Where
// what the last check missed is there now, this one takes its place, and is of the
// same boot, job or schedule.
func (l *loop) lookAgain(ctx context.Context) {
	trigger := device.TriggerSchedule
	select {
	case <-l.late:
		trigger = l.newest.vetted.Report.Trigger
	default:
	}
	vets := 0
	if before := l.clock; before.stepped(l.read()) {
		l.Log.Info("the clock was set: the device is vetted again", "from", before.at.wall.Format(time.RFC3339), "by", before.at.step(l.read()).Round(time.Second))
		vets = before.vets + 1
	}
	l.vetNow(ctx, trigger)
	l.clock.vets = vets
}

// goodbyeTimeout bounds the word that the gate is shut, which ends with the
// process.
const goodbyeTimeout = 5 * time.Second

// end shuts the gate for good, and has the cloud know it if that is quick.
func (l *loop) end(ctx context.Context) error {
	if err := l.Gate.Shut(); err != nil {
		return errors.Join(ErrStuck, err)
	}
	if told := l.words.state == gate.Shut && !l.words.gate; !told && l.cloud != nil && !lost(l.cloud) {
		saying, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
		defer cancel()
		if err := l.cloud.ReportGate(saying, gate.Shut); err != nil {
			l.Log.Warn("the shadow does not show that the gate is shut", "error", err)
		}
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
	o := gate.Outcome{Acknowledged: true, State: gate.Stuck}
	if !l.newest.acknowledged {
		o = l.deliver(ctx, l.cloud, l.newest.vetted)
	}
	l.words.owe(l.newest.vetted, o).tell(ctx, l.Agent, l.cloud)
	return err
}

// expire shuts a gate that is past its deadline.
func (l *loop) expire() {
	expired, err := l.Gate.Expire()
	if expired {
		l.Log.Warn("the certificate, or what is accepted, has expired: the gate is shut", "error", err)
	}
}

// deadline is when, by the wall clock, the device vets itself again.
func (l *loop) deadline() time.Time {
	return l.schedule.deadline(l.Gate.NotAfter(), l.newest.vetted.Report)
}

// pulse shows that the loop is alive, and ends the period by the wall clock.
func (l *loop) pulse() { l.pulseOf(l.deadline(), l.clock, l.schedule.enough) }

func (l *loop) pulseOf(deadline time.Time, w watch, enough func()) {
	l.alive()
	if !deadline.IsZero() && l.now().After(deadline) || w.stepped(l.read()) {
		enough()
	}
}

func (l *loop) vetNow(ctx context.Context, trigger device.Trigger) {
	at := l.read()
	v, o := l.vet(ctx, trigger)
	l.take(v, o)
	l.clock.at = at
	l.alive()
}

// take goes on with another report.
func (l *loop) take(v gate.Vetted, o gate.Outcome) {
	l.newest = delivery{vetted: v, acknowledged: o.Acknowledged}
	l.clock = watch{at: l.read(), opens: v.Report.Verdict().Opens()}
	l.schedule.heed(o, l.now())
}

func (l *loop) connectionLost() {
	l.Log.Warn("connection lost", "error", l.cloud.Lost())
	l.disconnect()
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
	if l.newest.due() {
		l.deliverNow(ctx)
		if lost(l.cloud) {
			l.connectionLost()
			l.pause(ctx, rand.N(redialPause))
			return
		}
	}
	l.words.stands(l.Gate.State())
	if l.words.due() {
		stop := l.beatDuring(ctx)
		l.words.tell(ctx, l.Agent, l.cloud)
		stop()
	}
	var again <-chan time.Time
	for ctx.Err() == nil {
		work, err := l.cloud.Next(ctx, l.open.waits)
		again = nil
		if err != nil && !lost(l.cloud) { // else that is logged
			l.Log.Warn("what the cloud asks for could not be read", "error", err)
		}
		if err != nil {
			again = time.After(rand.N(redialPause))
		}
		if work == nil && l.findLocal() {
			work, l.local = l.local, nil
		}
		if work == nil {
			if l.newest.acknowledged && l.sendEarlier(ctx) {
				continue
			}
			break
		}
		if !l.carryOut(ctx, work) {
			return
		}
	}
	l.wait(ctx, again)
}

// sendEarlier sends one report of the spool, and reports whether another may
// follow.
func (l *loop) sendEarlier(ctx context.Context) bool {
	defer l.beatDuring(ctx)()
	return l.backlog.next(ctx, l.Agent, l.cloud)
}

// connectTimeout bounds one try to connect: the longest back-off (an hour) and
// a round over the endpoints.
const connectTimeout = 75 * time.Minute

// connect makes the session, once the credential is the one to be.
func (l *loop) connect(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	defer l.beatDuring(ctx)()
	changed, err := l.Device.Prepare(ctx)
	if m := l.takeMoved(); m != nil {
		l.take(m.vetted, m.outcome)
	} else if changed {
		l.vetNow(ctx, l.newest.vetted.Report.Trigger)
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

// beatDuring shows that the loop is alive while it waits for the network, but not
// beyond ctx: what ignores that hangs.
func (l *loop) beatDuring(ctx context.Context) (stop func()) {
	t := time.NewTicker(beat)
	stopped := make(chan struct{})
	deadline, clock, enough := l.deadline(), l.clock, l.schedule.enough
	go func() {
		for {
			select {
			case <-t.C:
				l.pulseOf(deadline, clock, enough)
			case <-l.Set:
				l.pulseOf(deadline, clock, enough)
			case <-stopped:
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { t.Stop(); close(stopped) }
}

// deliverNow reports whether the cloud has the report now.
func (l *loop) deliverNow(ctx context.Context) bool {
	stop := l.beatDuring(ctx)
	o := l.deliver(ctx, l.cloud, l.newest.vetted)
	l.words.owe(l.newest.vetted, o).tell(ctx, l.Agent, l.cloud)
	stop()
	l.newest.tried(o, lost(l.cloud))
	l.schedule.heed(o, l.now())
	l.alive()
	return o.Acknowledged
}

// findLocal reports whether there is something to do without the cloud's asking.
// What has failed is kept until it may be tried again: [Device.Local] gives it once.
func (l *loop) findLocal() bool {
	if l.local == nil {
		l.local = l.Device.Local()
	}
	return l.local != nil && !l.open.waits(l.local.ID)
}

// wait returns when there may be work, it is time to look again, the session is
// lost or ctx ends.
func (l *loop) wait(ctx context.Context, again <-chan time.Time) {
	t := time.NewTicker(beat)
	defer t.Stop()
	var retry <-chan time.Time
	if at, ok := l.again(); ok {
		timer := time.NewTimer(time.Until(at))
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
			l.connectionLost()
		case <-l.Set:
			l.pulse()
			continue
		case <-t.C:
			l.pulse()
			if !l.findLocal() {
				continue
			}
		}
		return
	}
}

// again is when something that failed may be tried again, if anything did.
func (l *loop) again() (at time.Time, ok bool) {
	at, ok = l.open.next()
	sooner := func(other time.Time, due bool) {
		if due && (!ok || other.Before(at)) {
			at, ok = other, true
		}
	}
	sooner(l.newest.retry, !l.newest.acknowledged)
	sooner(l.words.next())
	sooner(l.backlog.again, l.newest.acknowledged && l.backlog.failed > 0)
	return at, ok
}

// pause waits and shows that the loop is alive meanwhile.
func (l *loop) pause(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); ctx.Err() == nil && time.Now().Before(end); l.pulse() {
		t := time.NewTimer(min(time.Until(end), beat))
		select {
		case <-ctx.Done():
		case <-l.Set:
		case <-t.C:
		}
		t.Stop()
	}
}
