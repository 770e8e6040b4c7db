package mqtt

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// pace is how slow the network is, as far as it has been seen: what a step may
// take is the configured timeout on a fast link, and more on a slow one. It
// outlives a session.
type pace struct {
	base time.Duration // Config.Timeout

	mu   sync.Mutex
	rtt  time.Duration // of late; 0: not measured
	rate float64       // bytes a second, rather too few; 0: not measured
	late int           // steps in a row that ran out of time
}

const (
	// handshakeBytes is about what a TLS handshake with client certificates takes.
	handshakeBytes = 6 << 10
	// replyBytes is about what a reply may have, a job's document in it.
	replyBytes = 8 << 10
	// bulk is what a packet has of which the time says how fast the network is,
	// and not how far.
	bulk = 2 << 10

	roundTrips = 4   // that a reply may take
	slowest    = 250 // bytes a second, 2 kbit/s: a slower network carries no TLS
	maxLate    = 2
)

// limit is how long a step may take that sends or gets so many bytes.
func (p *pace) limit(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.grown(max(p.base, roundTrips*p.rtt)) + p.carry(n)
}

// silence is how long a packet of n bytes that is not answered has not had its
// time yet.
func (p *pace) silence(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.grown(max(p.base/3, roundTrips*p.rtt)) + p.carry(n)
}

// grown is d, and up to twice that after steps that ran out of time.
func (p *pace) grown(d time.Duration) time.Duration { return d + d*time.Duration(p.late)/2 }

// carry is how long n bytes take, as far as anything is known.
func (p *pace) carry(n int) time.Duration {
	if p.rate == 0 {
		return 0
	}
	return time.Duration(float64(n) / p.rate * float64(time.Second))
}

// trip takes a round trip of next to no bytes, to the server.
func (p *pace) trip(d time.Duration) {
	p.connected(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = 0
}

// connected takes the round trip of a TCP connection, which says nothing of steps
// that ran out of time: a hop that is near may have made it, such as the modem of a
// satellite.
func (p *pace) connected(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rtt = max(d, (7*p.rtt+d)/8)
}

// shaken takes a TLS handshake, of which the TPM may have had the most time: the
// rate is rather too low.
func (p *pace) shaken(bytes int, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rate := per(bytes, d) / 2; p.rate == 0 || p.rate < rate {
		p.rate = rate
	}
}

// carried takes a packet of n bytes that was answered after d.
func (p *pace) carried(n int, d time.Duration) {
	if n < bulk {
		p.trip(d)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = 0
	p.rate = per(n, max(d-p.rtt/2, d/8)) / 2
}

func per(bytes int, d time.Duration) float64 {
	return max(slowest, float64(bytes)/max(d, time.Millisecond).Seconds())
}

// timedOut takes the error of a step with n bytes, if it is that time ran out.
func (p *pace) timedOut(err error, n int) {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n >= bulk {
		p.rate = max(p.rate/2, slowest)
		return
	}
	p.late = min(p.late+1, maxLate)
}

// Carries returns how many bytes the network carries in that time, as it was seen
// last, rather too few; 0: nothing is known.
func (d *Dialer) Carries(in time.Duration) int {
	d.pace.mu.Lock()
	defer d.pace.mu.Unlock()
	return int(min(d.pace.rate*in.Seconds(), 1<<30))
}

// counted counts the bytes of a connection, both ways.
type counted struct {
	net.Conn
	n atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

func (c *counted) bytes() int { return int(c.n.Load()) }
