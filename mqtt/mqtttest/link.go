package mqtttest

import (
	"context"
	"net"
	"time"
)

// Link is a slow network: what is written to one end comes out of the other half a
// round trip later, and no faster than so many bits a second. 0 is no limit.
type Link struct {
	RTT      time.Duration
	Up, Down int
	Near     bool // TCP connections are made by a hop before it, such as the modem of a satellite
}

// Dial takes the round trip of a TCP connection, and returns both ends.
func (l Link) Dial(ctx context.Context) (device, server net.Conn, err error) {
	handshake := l.RTT
	if l.Near {
		handshake = 0
	}
	select {
	case <-time.After(handshake):
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	device, deviceSide := net.Pipe()
	server, serverSide := net.Pipe()
	time.AfterFunc(l.RTT-handshake, func() { // until the hop has made its own connection
		go l.carry(deviceSide, serverSide, l.Up)
		l.carry(serverSide, deviceSide, l.Down)
	})
	return device, server, nil
}

// segment is what a network carries at a time.
const segment = 1460

// carry takes from one side whatever is written, as the buffers of hosts and
// modems do, and gives it to the other when it is there.
func (l Link) carry(from, to net.Conn, rate int) {
	type bytes struct {
		b   []byte
		due time.Time
	}
	way := make(chan bytes, 1<<16)
	go func() {
		defer close(way)
		var sent time.Time // when the last byte of the segment before had left
		for {
			b := make([]byte, segment)
			n, err := from.Read(b)
			if now := time.Now(); sent.Before(now) {
				sent = now
			}
			if rate > 0 {
				sent = sent.Add(time.Duration(n) * 8 * time.Second / time.Duration(rate))
			}
			way <- bytes{b[:n], sent.Add(l.RTT / 2)}
			if err != nil {
				return
			}
		}
	}()
	for s := range way {
		time.Sleep(time.Until(s.due))
		if _, err := to.Write(s.b); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	for range way { // until the reader has seen the end
	}
}
