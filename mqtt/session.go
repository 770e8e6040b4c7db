package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/device"
)

// Session is one connection to a broker. Its methods may be called from
// several goroutines.
type Session struct {
	conn net.Conn
	pace *pace // the dialer's
	log  *slog.Logger
	life

	writing sync.Mutex    // one packet at a time
	pong    chan struct{} // holds one token once a PINGRESP came
	handled chan struct{} // holds a token for each message that is being handled
	skipped string        // topic of the last message that was too large; the reader's own

	sent  sent
	inbox *inbox
}

// maxInbound bounds the messages that are handled at once. A broker may begin a
// session that it kept with all that it leaves unacknowledged, AWS IoT 100; one
// that sends more than this is not one to stay with.
const maxInbound = 128

// connect makes one attempt at one endpoint.
func (d *Dialer) connect(ctx context.Context, cfg *Config, endpoint string, probe func(context.Context, *Session) error) (*Session, error) {
	c, err := d.open(ctx, cfg, endpoint)
	if err != nil {
		return nil, err
	}
	return d.establish(ctx, cfg, endpoint, c, probe)
}

// establish makes a session of an open connection, which it closes if it fails.
func (d *Dialer) establish(ctx context.Context, cfg *Config, endpoint string, c net.Conn, probe func(context.Context, *Session) error) (*Session, error) {
	s := &Session{
		conn: c, pace: &d.pace, log: cfg.Log, life: life{done: make(chan struct{})},
		pong: make(chan struct{}, 1), handled: make(chan struct{}, maxInbound), inbox: newInbox(),
	}
	err := s.start(ctx, cfg, func(present bool) { s.inbox.kept = d.keptAt(endpoint, present) })
	if err == nil && probe != nil {
		err = s.probe(ctx, probe)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	s.began = time.Now()
	s.log.Info("connected", "endpoint", endpoint)
	return s, nil
}

// start sends the CONNECT and waits for the CONNACK, whose word on the session
// resume gets before the first message is read.
func (s *Session) start(ctx context.Context, cfg *Config, resume func(present bool)) error {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion = "MQTT", 4 // 3.1.1
	connect.CleanSession = !cfg.Persistent
	connect.ClientIdentifier = cfg.ClientID
	connect.Keepalive = uint16(cfg.KeepAlive / time.Second) // it fits: Config.complete

	began := time.Now()
	err := s.write(connect, 0)
	// Read even if the CONNECT could not be written: the server's reason, a TLS
	// alert, may lie there.
	most := s.pace.limit(0)
	answer, readErr := s.readWithin(most)
	if err == nil || isAlert(readErr) {
		err = readErr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.pace.timedOut(err, 0)
		return connectError(err, most)
	}
	s.pace.trip(time.Since(began))
	connack, ok := answer.(*packets.ConnackPacket)
	switch {
	case !ok:
		return failure{ErrUnreachable, "the answer to CONNECT is no CONNACK", nil, "is it an MQTT broker?"}
	case connack.ReturnCode == packets.ErrRefusedServerUnavailable:
		return failure{ErrUnreachable, "CONNACK 3, server unavailable", nil, ""}
	case connack.ReturnCode != packets.Accepted:
		return fmt.Errorf("%w: CONNACK %d, %s", ErrRefused, connack.ReturnCode, cfg.refusal(connack.ReturnCode))
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return failure{ErrUnreachable, "", err, ""}
	}
	resume(connack.SessionPresent)
	go s.read()
	go s.keepAlive(cfg.KeepAlive * 3 / 4)
	return nil
}

func (s *Session) readWithin(d time.Duration) (packets.ControlPacket, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		return nil, err
	}
	return readPacket(s.conn)
}

// connectError is why there was no CONNACK.
func connectError(err error, most time.Duration) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failure{ErrUnreachable, fmt.Sprintf("no CONNACK within %v", most.Round(time.Second)), nil, "check network and endpoint"}
	case isAlert(err):
		return refusedByAlert(err)
	}
	return failure{ErrRefused, "closed before the CONNACK", err, "check that the client certificate is registered, active and has a policy"}
}

// refusal is the meaning of a return code (MQTT 3.1.1, section 3.2.2.3).
func (cfg *Config) refusal(code byte) string {
	switch code {
	case 1:
		return "protocol version not accepted"
	case 2:
		return "client id rejected: check mqtt.client_id"
	case 4, 5:
		return fmt.Sprintf("not authorized: does the policy of the client certificate allow the client id %s?", cfg.ClientID)
	}
	if meaning := cfg.Refusals[code]; meaning != "" {
		return meaning
	}
	return "unknown return code"
}

// probeSteps bounds a probe: two subscriptions, a publication, its reply.
const probeSteps = 4

func (s *Session) probe(ctx context.Context, probe func(context.Context, *Session) error) error {
	// Its steps have their own limits.
	probing, cancel := context.WithTimeout(ctx, probeSteps*s.pace.limit(replyBytes))
	defer cancel()
	err := probe(probing, s)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, ErrLost):
		return failure{ErrRefused, "closed on the first request", err, "check the policy of the client certificate"}
	}
	return failure{ErrUnreachable, "connected, but the first request failed", err, ""}
}

// read takes every packet until the connection ends.
func (s *Session) read() {
	for {
		p, err := readPacket(s.conn)
		if err == nil {
			err = s.receive(p)
		}
		if err != nil {
			s.end(err)
			return
		}
	}
}

func (s *Session) receive(p packets.ControlPacket) error {
	switch p := p.(type) {
	case *packets.PubackPacket, *packets.SubackPacket:
		s.sent.answer(p)
	case *packets.PublishPacket:
		return s.handle(p, func() { s.deliver(p.TopicName, p.Payload) })
	case *oversized:
		if topic := device.OneLine(p.TopicName, 256); topic != s.skipped { // once, if it comes again
			s.skipped = topic
			s.log.Warn("message is too large and is left alone", "topic", topic, "bytes", p.bytes)
		}
		return s.handle(p.PublishPacket, func() {})
	case *packets.PingrespPacket:
		select {
		case s.pong <- struct{}{}:
		default:
		}
	case *packets.ConnackPacket:
		return errors.New("second CONNACK")
	default:
		return fmt.Errorf("unexpected packet: %s", p)
	}
	return nil
}

// handle runs the handlers of a message beside whatever else comes, and then
// acknowledges it.
func (s *Session) handle(p *packets.PublishPacket, handlers func()) error {
	select {
	case s.handled <- struct{}{}:
	default:
		return fmt.Errorf("more than %d messages at once", maxInbound)
	}
	go func() {
		defer func() { <-s.handled }()
		handlers()
		if p.Qos == 1 {
			ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
			ack.MessageID = p.MessageID
			_ = s.write(ack, 0) // an error has ended the session
		}
	}()
	return nil
}

// keepAlive asks for a sign of life every so often (MQTT 3.1.1, section 3.12).
func (s *Session) keepAlive(every time.Duration) {
	for {
		if !s.wait(every, nil) {
			return
		}
		select {
		case <-s.pong: // of nobody's asking
		default:
		}
		if s.write(packets.NewControlPacket(packets.Pingreq), 0) != nil {
			return
		}
		// The PINGREQ is behind what is on its way.
		if most := s.pace.limit(s.sent.waiting()); s.wait(most, s.pong) {
			s.end(fmt.Errorf("no PINGRESP within %v", most.Round(time.Second)))
			return
		}
	}
}

// wait reports whether d passed before the connection ended or something came.
func (s *Session) wait(d time.Duration, came <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-came:
		return false
	case <-s.done:
		return false
	}
}

// write sends one packet of about so many bytes; an error ends the session.
func (s *Session) write(p packets.ControlPacket, size int) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	err := s.conn.SetWriteDeadline(time.Now().Add(s.pace.limit(max(size, s.sent.waiting()))))
	if err == nil {
		err = p.Write(s.conn)
	}
	if err != nil {
		s.end(err)
	}
	return err
}

// end closes the connection and ends every wait on it.
func (s *Session) end(err error) {
	if s.life.end(err, s.sent.upon()) {
		s.conn.Close()
	}
}

// Done is closed when the connection has ended, by whatever side.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is why the connection has ended; nil: it has not.
func (s *Session) Err() error {
	select {
	case <-s.done:
		return s.lost()
	default:
		return nil
	}
}

// Close ends the session. What is on its way may be lost.
func (s *Session) Close() error {
	if !s.leave() {
		return nil
	}
	polite := time.AfterFunc(250*time.Millisecond, func() { s.end(net.ErrClosed) })
	defer polite.Stop()
	_ = s.write(packets.NewControlPacket(packets.Disconnect), 0)
	s.end(net.ErrClosed)
	return nil
}
