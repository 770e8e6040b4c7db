package cloud

import "time"

const (
	maxCuts       = 3              // sessions in a row that end upon the subscription
	challengesOff = 24 * time.Hour // then it is tried again
)

// listening decides whether to subscribe to challenges. A policy that does not
// allow them may cost the session, which must not keep reports back; but whoever
// can cut a connection must not end them for good.
type listening struct {
	cuts int
	off  time.Time // no subscription before
}

// subscription is what came of asking for one.
type subscription int

const (
	subscriptionFailed  subscription = iota // for a reason that says nothing of the policy
	subscriptionCut                         // the session was there, and ended upon it
	subscriptionRefused                     // by the broker's own word
	subscribed
)

// wait returns how long no subscription is to be asked for.
func (l *listening) wait(now time.Time) time.Duration {
	off := l.off.Sub(now)
	if off > challengesOff { // the clock was set back
		l.off = now
	}
	return max(0, min(off, l.off.Sub(now)))
}

// learn takes what came of a subscription.
func (l *listening) learn(now time.Time, s subscription) {
	switch s {
	case subscribed:
		l.cuts = 0
	case subscriptionCut:
		l.cuts++
	}
	if s == subscriptionRefused || l.cuts >= maxCuts {
		l.cuts, l.off = 0, now.Add(challengesOff)
	}
}
