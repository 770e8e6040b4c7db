package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Between the addresses of one name (RFC 8305, section 8).
const (
	attemptDelay = 250 * time.Millisecond
	maxAddresses = 16
)

// network is the machine's.
type network struct {
	dial   dialFunc
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	early  *ahead // of the next Dial; nil if there is none
}

func system() network {
	return network{dial: new(net.Dialer).DialContext, lookup: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
}

// through is how an endpoint is dialled.
func (d *Dialer) through(cfg *Config) dialFunc {
	if cfg.Network != nil {
		return cfg.Network
	}
	return throughProxy(d.reach, cfg.Proxy)
}

// reach makes a TCP connection to the first address of a "host:port" that has one
// to give: of several, some may be dead (RFC 8305).
func (d *Dialer) reach(ctx context.Context, _, endpoint string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return d.timed(ctx, endpoint)
	}
	found, err := d.network.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has no address", host)
	}
	var addresses []string
	for _, a := range alternate(found) {
		addresses = append(addresses, net.JoinHostPort(a.Unmap().String(), port))
	}
	return race(ctx, addresses, d.timed)
}

// timed measures the round trip that a connection takes.
func (d *Dialer) timed(ctx context.Context, address string) (net.Conn, error) {
	began := time.Now()
	c, err := d.network.dial(ctx, "tcp", address)
	if err == nil {
		d.pace.connected(time.Since(began))
	}
	return c, err
}

// alternate puts the two families in turn, the first one's address first, and
// keeps the list short.
func alternate(all []netip.Addr) []netip.Addr {
	var first, other []netip.Addr
	for _, a := range all {
		if a.Unmap().Is4() == all[0].Unmap().Is4() {
			first = append(first, a)
		} else {
			other = append(other, a)
		}
	}
	var turns []netip.Addr
	for i := range max(len(first), len(other)) {
		if i < len(first) {
			turns = append(turns, first[i])
		}
		if i < len(other) {
			turns = append(turns, other[i])
		}
	}
	return turns[:min(len(turns), maxAddresses)]
}

// race dials the addresses, the next as soon as one fails or a moment has gone
// by, and gives the first connection. The others are ended.
func race(ctx context.Context, addresses []string, dial func(context.Context, string) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	start := func(address string) {
		go func() {
			c, err := dial(ctx, address)
			select {
			case results <- result{c, err}:
			case <-ctx.Done():
				if c != nil {
					c.Close()
				}
			}
		}()
	}
	var first error
	for running, next := 0, 0; ; {
		var turn <-chan time.Time
		if next < len(addresses) {
			if running == 0 {
				start(addresses[next])
				running, next = 1, next+1
				continue
			}
			turn = time.After(attemptDelay)
		} else if running == 0 {
			return nil, first
		}
		select {
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			running--
			if first == nil || errors.Is(first, context.DeadlineExceeded) {
				first = r.err
			}
			if next < len(addresses) {
				start(addresses[next])
				running, next = running+1, next+1
			}
		case <-turn:
			start(addresses[next])
			running, next = running+1, next+1
		case <-ctx.Done():
			if first == nil {
				first = context.Cause(ctx)
			}
			return nil, first
		}
	}
}
