package localiot

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The limits of AWS IoT Core (AWS IoT Core endpoints and quotas, "Message
// broker and protocol limits"). A client that breaks one is disconnected.
const (
	maxPayload       = 128 << 10
	maxTopic         = 256
	maxSlashes       = 7
	maxFilters       = 8  // in one SUBSCRIBE
	maxSubscriptions = 50 // of one connection
	maxClientID      = 128
	maxPerSecond     = 100 // messages published on one connection
)

// firstPacketID is the lowest of the ids of messages of the cloud's.
const firstPacketID = 1 << 15

// cloud is what stands behind the broker: policy, limits, and the answers on
// reserved topics.
type cloud struct {
	mochi.HookBase
	server *Server

	packetID  atomic.Uint32
	mu        sync.Mutex
	connected map[string]time.Time // when each client id last sent a CONNECT
}

func (c *cloud) ID() string { return "cloud" }

func (c *cloud) Provides(b byte) bool {
	switch b {
	case mochi.OnConnect, mochi.OnConnectAuthenticate, mochi.OnACLCheck, mochi.OnPacketRead, mochi.OnPacketEncode, mochi.OnSubscribed, mochi.OnPublish, mochi.OnPublished:
		return true
	}
	return false
}

// OnConnectAuthenticate lets everybody in: the listener has seen to it.
func (c *cloud) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }

// OnConnect keeps AWS IoT's rules of CONNECT. Its error closes the connection
// without a CONNACK.
func (c *cloud) OnConnect(cl *mochi.Client, _ packets.Packet) error {
	p, ok := cl.Net.Conn.(*peer)
	if !ok {
		return errors.New("not a device")
	}
	switch {
	case c.server.strikes(func(f Faults) bool { return f.RefuseConnects }):
		return errors.New("fault: connects are refused")
	case c.server.strikes(func(f Faults) bool { return f.Connack5 }):
		return c.refuse(cl, 5, "fault")
	case c.server.strikes(func(f Faults) bool { return f.Connack7 }):
		return c.refuse(cl, 7, "fault")
	case c.server.strikes(func(f Faults) bool { return f.NoConnack }):
		_ = p.SetDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, p)
		return errors.New("fault: no CONNACK")
	case len(cl.ID) > maxClientID:
		return errors.New("client id is too long")
	case c.server.quotas && c.tooSoon(cl.ID):
		return errors.New("a second CONNECT of this client id within a second")
	case !c.may(cl, connect, cl.ID):
		return c.refuse(cl, 7, "the policy does not allow client id "+cl.ID)
	}
	// The broker would say DISCONNECT to the old connection, which MQTT 3.1.1
	// does not know.
	if old, ok := c.server.broker.Clients.Get(cl.ID); ok {
		old.Stop(packets.ErrSessionTakenOver)
		if oldPeer, ok := old.Net.Conn.(*peer); ok {
			<-oldPeer.ended
		}
	}
	return nil
}

// refuse says no by a CONNACK; AWS IoT answers 7 if the client is not authorized.
func (c *cloud) refuse(cl *mochi.Client, code byte, why string) error {
	err := cl.WritePacket(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ReasonCode: code})
	return errors.Join(fmt.Errorf("CONNACK %d: %s", code, why), err)
}

// tooSoon notes a CONNECT and reports whether it came within a second of the last.
func (c *cloud) tooSoon(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for other, at := range c.connected {
		if now.Sub(at) >= time.Second {
			delete(c.connected, other)
		}
	}
	_, soon := c.connected[id]
	c.connected[id] = now
	return soon
}

// OnACLCheck is asked with a filter that is being subscribed to, which allowed
// has looked at already, and with the topic of a message that is to be delivered.
func (c *cloud) OnACLCheck(cl *mochi.Client, topic string, write bool) bool {
	if write {
		return c.may(cl, publishTo, topic)
	}
	return c.may(cl, receive, topic) || c.may(cl, subscribe, topic)
}

// may reports whether the policy of the client's certificate allows it.
func (c *cloud) may(cl *mochi.Client, action, on string) bool {
	p, ok := cl.Net.Conn.(*peer)
	if !ok {
		return false
	}
	policy := c.server.devicePolicy
	if p.claim {
		policy = c.server.claimPolicy
	}
	return policy.allows(action, on, cl.ID, p.thing)
}

// OnPacketRead ends the connection, without a word as AWS IoT does, on an
// operation that is not allowed.
func (c *cloud) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	c.observe(cl, pk, true)
	if err := c.allowed(cl, pk); err != nil {
		c.server.log.Warn("disconnected", "client", cl.ID, "reason", err)
		return pk, packets.ErrRejectPacket // the one error that the broker takes as a reason to close
	}
	if pk.FixedHeader.Type == packets.Pingreq && c.server.strikes(func(f Faults) bool { return f.NoPingresp }) {
		pk.FixedHeader.Type = packets.Puback // of nothing, which the broker passes over
	}
	return pk, nil
}

// OnPacketEncode comes before a packet is sent.
func (c *cloud) OnPacketEncode(cl *mochi.Client, pk packets.Packet) packets.Packet {
	c.observe(cl, pk, false)
	return pk
}

func (c *cloud) observe(cl *mochi.Client, pk packets.Packet, in bool) {
	if p, ok := cl.Net.Conn.(*peer); ok && c.server.onPacket != nil {
		c.server.onPacket(Packet{In: in, Type: pk.FixedHeader.Type, Topic: pk.TopicName, Payload: pk.Payload, Thing: p.thing, CertificateID: p.certificateID})
	}
}

func (c *cloud) allowed(cl *mochi.Client, pk packets.Packet) error {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if cl.ID != "" {
			return errors.New("a second CONNECT")
		}
	case packets.Publish:
		switch {
		case pk.FixedHeader.Qos > 1:
			return errors.New("QoS 2 is not supported")
		case pk.FixedHeader.Retain && strings.HasPrefix(pk.TopicName, "$"):
			return errors.New("RETAIN on a reserved topic")
		case len(pk.Payload) > maxPayload:
			return fmt.Errorf("payload of %d bytes", len(pk.Payload))
		}
		return c.allowedTopic(cl, publishTo, pk.TopicName)
	case packets.Subscribe:
		added := len(pk.Filters)
		for _, sub := range pk.Filters {
			if _, again := cl.State.Subscriptions.Get(sub.Filter); again {
				added--
			}
		}
		if len(pk.Filters) > maxFilters || added+cl.State.Subscriptions.Len() > maxSubscriptions {
			return errors.New("too many subscriptions")
		}
		for _, sub := range pk.Filters {
			if sub.Qos > 1 {
				return errors.New("QoS 2 is not supported")
			}
			if err := c.allowedTopic(cl, subscribe, sub.Filter); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cloud) allowedTopic(cl *mochi.Client, action, topic string) error {
	switch {
	case len(topic) > maxTopic || strings.Count(topic, "/") > maxSlashes:
		return fmt.Errorf("topic %.80q… is too long or too deep", topic)
	case !c.may(cl, action, topic):
		return fmt.Errorf("the policy does not allow %s%s", action, topic)
	}
	return nil
}

// OnSubscribed lets those look again that wait for a subscriber.
func (c *cloud) OnSubscribed(*mochi.Client, packets.Packet, []byte) {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.wake()
}

// OnPublish records the message; one on a reserved topic goes to no
// subscriber, and one too many in a second is gone.
func (c *cloud) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	p, ok := cl.Net.Conn.(*peer)
	if !ok {
		return pk, nil
	}
	if c.server.quotas && p.tooMany() {
		return pk, packets.ErrRejectPacket // discarded, and no PUBACK
	}
	c.server.recordMessage(p.message(cl, pk))
	if strings.HasPrefix(pk.TopicName, "$") {
		return pk, packets.CodeSuccessIgnore
	}
	return pk, nil
}

// message is a PUBLISH as it is recorded.
func (p *peer) message(cl *mochi.Client, pk packets.Packet) Message {
	return Message{
		Time: time.Now(), Thing: p.thing, ClientID: cl.ID, Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos,
		CertificateID: p.certificateID,
	}
}

func (p *peer) tooMany() bool {
	if now := time.Now(); now.Sub(p.second) >= time.Second {
		p.second, p.published = now, 0
	}
	p.published++
	return p.published > maxPerSecond
}

// OnPublished answers a request.
func (c *cloud) OnPublished(cl *mochi.Client, pk packets.Packet) {
	p, ok := cl.Net.Conn.(*peer)
	if !ok {
		return
	}
	send := func(suffix string, payload any) {
		if suffix == "accepted" && c.server.strikes(func(f Faults) bool { return f.DropAccepted }) {
			return
		}
		c.send(cl, pk.TopicName+"/"+suffix, payload)
	}
	topic := pk.TopicName
	if operation, ok := strings.CutPrefix(topic, "$aws/things/"+p.thing+"/"); ok {
		switch {
		case strings.HasPrefix(operation, "jobs/"):
			c.server.answerJobs(p.thing, strings.TrimPrefix(operation, "jobs/"), pk.Payload, send)
		case operation == "shadow" || strings.HasPrefix(operation, "shadow/"):
			c.server.answerShadow(p.thing, strings.TrimPrefix(operation, "shadow/"), pk.Payload, send)
		case operation == "defender/metrics/json":
			c.server.answerDefender(p.thing, pk.Payload, send)
		}
		return
	}
	switch operation, _ := strings.CutPrefix(topic, "keyvet/"+p.thing+"/certificate/"); operation {
	case "create", "commit":
		if c.server.issuer == nil {
			c.server.answerIssuer(p.thing, p.certificateID, operation, pk.Payload, send)
			break
		}
		m := p.message(cl, pk)
		c.server.serving.Go(func() { c.server.issuer(m) }) // as a rule's function is called
	default:
		c.server.answerProvisioning(p.message(cl, pk), send)
	}
}

// send delivers a message of the cloud's. As AWS IoT does it, one on a thing's
// reserved topics goes to all who have subscribed to it, and a reply to the
// client that asked even if it has not; one of fleet provisioning goes to
// nobody but the client that asked, if it has subscribed; and any other one to
// its subscribers. A persistent session gets it when it is back, or again if
// it has not acknowledged it.
//
// It bypasses the broker's own delivery, which keeps packet ids of both
// directions in one table and so refuses a SUBSCRIBE whose id is that of a
// message not yet acknowledged: its own ids are high ones, where clients, which
// count from 1, do not come.
func (c *cloud) send(requester *mochi.Client, topic string, payload any) {
	body := encode(payload)
	if c.server.rewrite != nil {
		body = c.server.rewrite(topic, body)
	}
	c.sendBytes(requester, topic, body)
}

func (c *cloud) sendBytes(requester *mochi.Client, topic string, body []byte) {
	ofThing := strings.HasPrefix(topic, "$aws/things/")
	to := make(map[*mochi.Client]byte)
	if ofThing && requester != nil && (strings.HasSuffix(topic, "/accepted") || strings.HasSuffix(topic, "/rejected")) {
		to[requester] = 1
	}
	for id, sub := range c.server.broker.Topics.Subscribers(topic).Subscriptions {
		if cl, ok := c.server.broker.Clients.Get(id); ok && (cl == requester || ofThing || !strings.HasPrefix(topic, "$")) {
			to[cl] = min(1, sub.Qos)
		}
	}
	for cl, qos := range to {
		if !c.may(cl, receive, topic) {
			continue
		}
		pk := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
			TopicName:   topic, Payload: body, Created: time.Now().Unix(),
		}
		if err := c.queue(cl, pk); err != nil {
			c.server.log.Warn("message not sent", "client", cl.ID, "topic", topic, "error", err)
		}
	}
}

func (c *cloud) queue(cl *mochi.Client, pk packets.Packet) error {
	if pk.FixedHeader.Qos > 0 {
		if cl.State.Inflight.Len() >= maxQueued {
			return errors.New("too much waits for it")
		}
		for taken := true; taken; {
			pk.PacketID = firstPacketID | uint16(c.packetID.Add(1))
			_, taken = cl.State.Inflight.Get(pk.PacketID)
		}
		if !cl.Properties.Clean {
			cl.State.Inflight.Set(pk) // until it is acknowledged
		}
		if cl.Closed() {
			return nil
		}
	}
	p, ok := cl.Net.Conn.(*peer)
	if !ok {
		return errors.New("not a device")
	}
	select {
	case p.out <- outgoing{cl, pk}:
		return nil
	default:
		return errors.New("too much waits for it")
	}
}

func mochiSubscription(filter string) packets.Subscription {
	return packets.Subscription{Filter: filter}
}
