package localiot

import (
	"errors"
	"fmt"
	"strings"
	"time"

	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// The limits of AWS IoT Core (AWS IoT Core endpoints and quotas, "Message
// broker and protocol limits"). Whoever breaks one is disconnected.
const (
	maxPayload       = 128 << 10
	maxTopic         = 256
	maxSlashes       = 7
	maxFilters       = 8  // in one SUBSCRIBE
	maxSubscriptions = 50 // of one connection
)

// cloud is what stands behind the broker: policy, limits, and the answers on
// reserved topics.
type cloud struct {
	mochi.HookBase
	server *Server
}

func (c *cloud) ID() string { return "cloud" }

func (c *cloud) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck || b == mochi.OnPacketRead || b == mochi.OnPublish || b == mochi.OnPublished
}

// OnConnectAuthenticate lets everybody in: the listener has seen to it.
func (c *cloud) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }

// OnACLCheck is the policy: a device has its own thing's topics alone.
func (c *cloud) OnACLCheck(cl *mochi.Client, topic string, _ bool) bool {
	p, ok := cl.Net.Conn.(*peer)
	return ok && (strings.HasPrefix(topic, "$aws/things/"+p.thing+"/") || strings.HasPrefix(topic, "keyvet/"+p.thing+"/"))
}

// OnPacketRead ends the connection, without a word as AWS IoT does, on an
// operation that is not allowed.
func (c *cloud) OnPacketRead(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	if err := c.allowed(cl, pk); err != nil {
		c.server.log.Warn("disconnected", "client", cl.ID, "reason", err)
		return pk, packets.ErrRejectPacket // the one error that the broker takes as a reason to close
	}
	return pk, nil
}

func (c *cloud) allowed(cl *mochi.Client, pk packets.Packet) error {
	switch pk.FixedHeader.Type {
	case packets.Connect:
		if c.server.currentFaults().RefuseConnects {
			return errors.New("fault: connects are refused")
		}
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
		return c.allowedTopic(cl, pk.TopicName)
	case packets.Subscribe:
		if n := len(pk.Filters); n > maxFilters || n+cl.State.Subscriptions.Len() > maxSubscriptions {
			return errors.New("too many subscriptions")
		}
		for _, sub := range pk.Filters {
			if err := c.allowedTopic(cl, sub.Filter); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cloud) allowedTopic(cl *mochi.Client, topic string) error {
	switch {
	case len(topic) > maxTopic || strings.Count(topic, "/") > maxSlashes:
		return fmt.Errorf("topic %.80q… is too long or too deep", topic)
	case !c.OnACLCheck(cl, topic, false):
		return fmt.Errorf("the policy does not allow topic %q", topic)
	}
	return nil
}

// OnPublish records the message; one on a reserved topic goes to no subscriber.
func (c *cloud) OnPublish(cl *mochi.Client, pk packets.Packet) (packets.Packet, error) {
	p, ok := cl.Net.Conn.(*peer)
	if !ok {
		return pk, nil
	}
	c.server.recordMessage(Message{
		Time: time.Now(), Thing: p.thing, ClientID: cl.ID, Topic: pk.TopicName, Payload: pk.Payload, QoS: pk.FixedHeader.Qos,
	})
	if strings.HasPrefix(pk.TopicName, "$") {
		return pk, packets.CodeSuccessIgnore
	}
	return pk, nil
}

// OnPublished answers a request on a reserved topic.
func (c *cloud) OnPublished(cl *mochi.Client, pk packets.Packet) {
	p, ok := cl.Net.Conn.(*peer)
	if !ok {
		return
	}
	operation, ok := strings.CutPrefix(pk.TopicName, "$aws/things/"+p.thing+"/")
	if !ok {
		return
	}
	send := func(suffix string, payload any) {
		if suffix == "accepted" && c.server.currentFaults().DropAccepted {
			return
		}
		c.send(cl, pk.TopicName, suffix, payload)
	}
	switch {
	case strings.HasPrefix(operation, "jobs/"):
		answerJobs(strings.TrimPrefix(operation, "jobs/"), pk.Payload, send)
	case operation == "shadow" || strings.HasPrefix(operation, "shadow/"):
		c.server.answerShadow(p.thing, strings.TrimPrefix(operation, "shadow/"), pk.Payload, send)
	}
}

// send delivers a message of the cloud's to all who have subscribed to it, and
// a reply to the client that asked even if it has not. It bypasses the broker's
// own delivery, which keeps packet ids of both directions in one table and so
// refuses a SUBSCRIBE whose id is that of a message not yet acknowledged.
func (c *cloud) send(requester *mochi.Client, topic, suffix string, payload any) {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish},
		TopicName:   topic + "/" + suffix, Payload: encode(payload),
	}
	to := make(map[*mochi.Client]byte)
	if suffix == "accepted" || suffix == "rejected" {
		to[requester] = 1
	}
	for id, sub := range c.server.broker.Topics.Subscribers(pk.TopicName).Subscriptions {
		if cl, ok := c.server.broker.Clients.Get(id); ok {
			to[cl] = min(1, sub.Qos)
		}
	}
	for cl, qos := range to {
		pk.FixedHeader.Qos, pk.PacketID = qos, 0
		if qos > 0 {
			id, err := cl.NextPacketID()
			if err != nil {
				c.server.log.Warn("reply not sent", "client", cl.ID, "error", err)
				continue
			}
			pk.PacketID = uint16(id)
		}
		if err := cl.WritePacket(pk); err != nil {
			c.server.log.Warn("reply not sent", "client", cl.ID, "error", err)
		}
	}
}

func mochiSubscription(filter string) packets.Subscription {
	return packets.Subscription{Filter: filter}
}
