package mqtt

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func newCertificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// server is the far end of a connection inside a synctest bubble, where a
// deadline of minutes passes at once. It answers as a broker, but for the types
// of packets that it has an own answer to: nil is silence, "close" the end.
type server map[byte]func(packets.ControlPacket) []byte

func (srv server) serve(conn net.Conn) {
	defer conn.Close()
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return
		}
		var answer []byte
		var kind byte
		switch p := p.(type) {
		case *packets.ConnectPacket:
			kind, answer = packets.Connect, []byte{0x20, 2, 0, 0}
		case *packets.PublishPacket:
			kind, answer = packets.Publish, []byte{0x40, 2, byte(p.MessageID >> 8), byte(p.MessageID)}
		case *packets.SubscribePacket:
			kind, answer = packets.Subscribe, []byte{0x90, 3, byte(p.MessageID >> 8), byte(p.MessageID), 1}
		case *packets.PubackPacket:
			kind = packets.Puback
		case *packets.PingreqPacket:
			kind, answer = packets.Pingreq, []byte{0xd0, 0}
		case *packets.DisconnectPacket:
			return
		}
		if own, ok := srv[kind]; ok {
			if answer = own(p); string(answer) == "close" {
				return
			}
		}
		if len(answer) == 0 {
			continue
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func says(b ...byte) func(packets.ControlPacket) []byte {
	return func(packets.ControlPacket) []byte { return b }
}

func closes(packets.ControlPacket) []byte { return []byte("close") }

// message is a PUBLISH of QoS 0.
func message(topic, payload string) []byte {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = topic, []byte(payload)
	var b bytes.Buffer
	p.Write(&b)
	return b.Bytes()
}

// connectTo makes a session with srv.
func connectTo(t *testing.T, srv server, probe func(context.Context, *Session) error) (*Session, error) {
	t.Helper()
	near, far := net.Pipe()
	go srv.serve(far)
	cfg := complete(t, Config{Refusals: map[byte]string{7: "a meaning of its own"}})
	s, err := newDialer(t, cfg).establish(t.Context(), &cfg, "a:8883", near, probe)
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

// up makes a session that must come up.
func up(t *testing.T, srv server) *Session {
	t.Helper()
	s, err := connectTo(t, srv, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a client may take for a connection, hang on, or retry in MQTT 3.1.
func TestConnect(t *testing.T) {
	asks := func(ctx context.Context, s *Session) error {
		_, err := ask(ctx, s, "ask")
		return err
	}
	for what, tt := range map[string]struct {
		srv   server
		probe func(context.Context, *Session) error
		want  error
		says  string
	}{
		"up":                     {server{}, nil, nil, ""},
		"up, with a probe":       {server{packets.Publish: says(append([]byte{0x40, 2, 0, 2}, message("ask/reply", "{}")...)...)}, asks, nil, ""},
		"CONNACK 1":              {server{packets.Connect: says(0x20, 2, 0, 1)}, nil, ErrRefused, "protocol version"},
		"CONNACK 2":              {server{packets.Connect: says(0x20, 2, 0, 2)}, nil, ErrRefused, "client id"},
		"CONNACK 3":              {server{packets.Connect: says(0x20, 2, 0, 3)}, nil, ErrUnreachable, "unavailable"},
		"CONNACK 4":              {server{packets.Connect: says(0x20, 2, 0, 4)}, nil, ErrRefused, "client id gw"},
		"CONNACK 5":              {server{packets.Connect: says(0x20, 2, 0, 5)}, nil, ErrRefused, "client id gw"},
		"CONNACK 7":              {server{packets.Connect: says(0x20, 2, 0, 7)}, nil, ErrRefused, "a meaning of its own"},
		"CONNACK 255":            {server{packets.Connect: says(0x20, 2, 0, 255)}, nil, ErrRefused, "CONNACK 255"},
		"no CONNACK":             {server{packets.Connect: says()}, nil, ErrUnreachable, "no CONNACK within 30s"},
		"half a CONNACK":         {server{packets.Connect: says(0x20, 2, 0)}, nil, ErrUnreachable, "no CONNACK within 30s"},
		"long CONNACK":           {server{packets.Connect: says(0x20, 3, 0, 0, 0)}, nil, ErrRefused, "wrong length"},
		"PINGRESP for a CONNACK": {server{packets.Connect: says(0xd0, 0)}, nil, ErrUnreachable, ""},
		"EOF after CONNECT":      {server{packets.Connect: closes}, nil, ErrRefused, "registered"},
		"CONNACK, then EOF":      {server{packets.Subscribe: closes}, asks, ErrRefused, "policy"},
		"CONNACK, no SUBACK":     {server{packets.Subscribe: says()}, asks, ErrUnreachable, "within 30s"},
		"no PUBACK":              {server{packets.Publish: says()}, asks, ErrUnreachable, ""},
		"PUBACK, no reply":       {server{}, asks, ErrUnreachable, ""},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := connectTo(t, tt.srv, tt.probe)
				if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want %v with %q", err, tt.want, tt.says)
				}
			})
		})
	}
}

// One CONNECT, of MQTT 3.1.1, whatever the answer: a second within a second
// would be thrown out by AWS IoT.
func TestOneConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connects := 0
		_, err := connectTo(t, server{packets.Connect: func(p packets.ControlPacket) []byte {
			connects++
			c := p.(*packets.ConnectPacket)
			if c.ProtocolVersion != 4 || c.Keepalive != 300 || c.ClientIdentifier != "gw" || !c.CleanSession {
				t.Errorf("CONNECT %v", c)
			}
			return []byte{0x20, 2, 0, 5}
		}}, nil)
		if connects != 1 || err == nil {
			t.Errorf("%d CONNECTs, %v", connects, err)
		}
	})
}

// A reset may show first to a writer.
func TestCutBeforeConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		far.Close()
		cfg := complete(t, Config{})
		_, err := newDialer(t, cfg).establish(t.Context(), &cfg, "a:8883", near, nil)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "closed before the CONNACK") {
			t.Error(err)
		}
	})
}

func TestConnectEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go server{packets.Connect: says()}.serve(far)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cfg := complete(t, Config{})
		_, err := newDialer(t, cfg).establish(ctx, &cfg, "a:8883", near, nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestPublish(t *testing.T) {
	for what, tt := range map[string]struct {
		srv     server
		topic   string
		payload string
		says    string // "" for success
	}{
		"acknowledged":    {server{}, "a/b", "x", ""},
		"empty":           {server{}, "a/b", "", ""},
		"largest":         {server{}, strings.Repeat("t", maxString), strings.Repeat("x", MaxPayload), ""},
		"never a PUBACK":  {server{packets.Publish: says()}, "a/b", "x", "no PUBACK within 30s"},
		"another's":       {server{packets.Publish: says(0x40, 2, 0x77, 0x77)}, "a/b", "x", "no PUBACK within 30s"},
		"closed":          {server{packets.Publish: closes}, "a/b", "x", "connection is lost"},
		"too large":       {server{}, "a/b", strings.Repeat("x", MaxPayload+1), "over"},
		"topic too long":  {server{}, strings.Repeat("t", maxString+1), "x", "over"},
		"no topic":        {server{}, "", "x", "empty"},
		"wildcard":        {server{}, "a/+", "x", "wildcard"},
		"not text":        {server{}, "a\xff", "x", "not text"},
		"NUL":             {server{}, "a\x00", "x", "not text"},
		"flood for reply": {server{packets.Publish: says(0x30, 0xff, 0xff, 0xff, 0x7f)}, "a/b", "x", "no PUBACK within 30s"},
		"flood for ack":   {server{packets.Publish: says(0x40, 0xff, 0xff, 0xff, 0x7f)}, "a/b", "x", "too large"},
		"endless length":  {server{packets.Publish: says(0x30, 0xff, 0xff, 0xff, 0xff, 0x7f)}, "a/b", "x", "malformed"},
		"no such packet":  {server{packets.Publish: says(0x00, 0)}, "a/b", "x", "lost"},
		"second CONNACK":  {server{packets.Publish: says(0x20, 2, 0, 0)}, "a/b", "x", "second CONNACK"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := up(t, tt.srv).Publish(t.Context(), tt.topic, []byte(tt.payload))
				if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want %q", err, tt.says)
				}
			})
		})
	}
}

func TestSubscribe(t *testing.T) {
	for what, tt := range map[string]struct {
		answer func(packets.ControlPacket) []byte
		says   string
	}{
		"granted":           {says(0x90, 3, 0, 1, 1), ""},
		"granted QoS 0":     {says(0x90, 3, 0, 1, 0), ""},
		"refused":           {says(0x90, 3, 0, 1, 0x80), "refused"},
		"never a SUBACK":    {says(), "no SUBACK within 30s"},
		"two return codes":  {says(0x90, 4, 0, 1, 1, 1), "wrong length"},
		"no return code":    {says(0x90, 2, 0, 1), "wrong length"},
		"PUBACK for SUBACK": {says(0x40, 2, 0, 1), "refused"},
		"closed":            {closes, "lost"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := up(t, server{packets.Subscribe: tt.answer})
				err := s.Subscribe(t.Context(), "a/#", func(string, []byte) {})
				if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want %q", err, tt.says)
				}
			})
		})
	}
}

// What is not acknowledged is sent again under its id, a publication with DUP
// (MQTT 3.1.1, section 3.3.1.1), on the same connection.
func TestSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		began := time.Now()
		answer := func(p packets.ControlPacket, third []byte) []byte {
			dup := p.(*packets.PublishPacket)
			sent = append(sent, fmt.Sprintf("%v id %d dup %v", time.Since(began), dup.MessageID, dup.Dup))
			if len(sent) < 3 {
				return nil
			}
			return third
		}
		s := up(t, server{packets.Publish: func(p packets.ControlPacket) []byte { return answer(p, []byte{0x40, 2, 0, 1}) }})
		if err := s.Publish(t.Context(), "a", nil); err != nil {
			t.Error(err)
		}
		if got := strings.Join(sent, ", "); got != "0s id 1 dup false, 10s id 1 dup true, 20s id 1 dup true" {
			t.Errorf("sent %s", got)
		}
		var ids []uint16
		s = up(t, server{packets.Subscribe: func(p packets.ControlPacket) []byte {
			ids = append(ids, p.(*packets.SubscribePacket).MessageID)
			if len(ids) < 2 {
				return nil
			}
			return []byte{0x90, 3, 0, 1, 1}
		}})
		if err := s.Subscribe(t.Context(), "a", func(string, []byte) {}); err != nil || !slices.Equal(ids, []uint16{1, 1}) {
			t.Errorf("%v, %v", ids, err)
		}
	})
}

// Handlers get what matches, may publish, and a second one costs no SUBSCRIBE.
func TestHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subscribes := 0
		s := up(t, server{
			packets.Subscribe: func(p packets.ControlPacket) []byte {
				subscribes++
				id := p.(*packets.SubscribePacket).MessageID
				return []byte{0x90, 3, byte(id >> 8), byte(id), 1}
			},
			packets.Publish: func(p packets.ControlPacket) []byte {
				id := p.(*packets.PublishPacket).MessageID
				return append([]byte{0x40, 2, byte(id >> 8), byte(id)}, message("a/b", "news")...)
			},
		})
		got := make(chan string, 10)
		for range 2 {
			if err := s.Subscribe(t.Context(), "a/+", func(topic string, payload []byte) {
				got <- topic + " " + string(payload)
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Subscribe(t.Context(), "c", func(topic string, _ []byte) { t.Errorf("c got %s", topic) }); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), "x", nil); err != nil {
			t.Fatal(err)
		}
		if a, b := <-got, <-got; a != "a/b news" || b != "a/b news" || subscribes != 2 {
			t.Errorf("%q, %q, %d SUBSCRIBEs", a, b, subscribes)
		}
	})
}

// ask is a question whose reply is on topic/reply.
func ask(ctx context.Context, s *Session, topic string) ([]byte, error) {
	m, err := s.Ask(ctx, topic, nil, []string{topic + "/reply"}, func(Message) bool { return true })
	return m.Payload, err
}

func TestAsk(t *testing.T) {
	for what, tt := range map[string]struct {
		replies []byte
		want    string // topic and payload, or in the error
	}{
		"a reply":             {message("r/yes", "1"), "r/yes 1"},
		"on the other topic":  {message("r/no", "1"), "r/no 1"},
		"not the reply":       {message("r/yes", "0"), "no reply within 30s"},
		"the second one":      {append(message("r/yes", "0"), message("r/yes", "12")...), "r/yes 12"},
		"another's":           {message("q/yes", "1"), "no reply within 30s"},
		"nothing":             {nil, "no reply within 30s"},
		"large":               {message("r/yes", strings.Repeat("1", MaxPayload)), "r/yes " + strings.Repeat("1", MaxPayload)},
		"too large":           {message("r/yes", strings.Repeat("1", 2*MaxPayload)), "no reply within 30s"},
		"too large before it": {append(message("r/yes", strings.Repeat("1", 2*MaxPayload)), message("r/yes", "1")...), "r/yes 1"},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := up(t, server{packets.Publish: func(p packets.ControlPacket) []byte {
					id := p.(*packets.PublishPacket).MessageID
					return append([]byte{0x40, 2, byte(id >> 8), byte(id)}, tt.replies...)
				}})
				reply, err := s.Ask(t.Context(), "r", nil, []string{"r/yes", "r/no"}, func(m Message) bool { return m.Payload[0] == '1' })
				if err == nil && reply.Topic+" "+string(reply.Payload) != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %.100q, %v, want %.100q", reply, err, tt.want)
				}
				if len(s.inbox.asked) != 0 {
					t.Errorf("still waiting: %v", s.inbox.asked)
				}
			})
		})
	}
}

// The replies to a question come under a filter that was there before, and no
// further one is asked for.
func TestAskUnderFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subscribes := 0
		s := up(t, server{
			packets.Subscribe: func(p packets.ControlPacket) []byte {
				subscribes++
				id := p.(*packets.SubscribePacket).MessageID
				return []byte{0x90, 3, byte(id >> 8), byte(id), 1}
			},
			packets.Publish: func(p packets.ControlPacket) []byte {
				publish := p.(*packets.PublishPacket)
				return append([]byte{0x40, 2, byte(publish.MessageID >> 8), byte(publish.MessageID)}, message(publish.TopicName+"/reply", "{}")...)
			},
		})
		for _, filter := range []string{"r/+/get/reply", "r/+/get/reply"} {
			if err := s.Subscribe(t.Context(), filter, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, topic := range []string{"r/1/get", "r/2/get", "r/2/set"} {
			if _, err := ask(t.Context(), s, topic); err != nil {
				t.Error(err)
			}
		}
		if subscribes != 2 { // r/2/set has its own
			t.Errorf("%d SUBSCRIBEs", subscribes)
		}
	})
}

// A loss ends every wait, and Done tells.
func TestLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := up(t, server{packets.Publish: closes})
		began := time.Now()
		if _, err := ask(t.Context(), s, "r"); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		<-s.Done()
		if err := s.Publish(t.Context(), "a", nil); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		if err := s.Subscribe(t.Context(), "a", nil); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("told after %v", waited)
		}
	})
}

// An answer that came right before the end of the connection counts.
func TestAnswerBeforeLoss(t *testing.T) {
	for range 64 { // select takes either
		s := &Session{life: life{done: make(chan struct{}), err: net.ErrClosed}}
		close(s.done)
		reply := make(chan packets.ControlPacket, 1)
		if p, err := s.reply(t.Context(), reply, time.Minute); p != nil || !errors.Is(err, ErrLost) {
			t.Fatalf("%v, %v", p, err)
		}
		reply <- new(packets.SubackPacket)
		if p, err := s.reply(t.Context(), reply, time.Minute); p == nil || err != nil {
			t.Fatalf("%v, %v", p, err)
		}
	}
}

// A server that answers no PINGREQ is gone.
func TestNoPingresp(t *testing.T) {
	for what, alive := range map[string]bool{"PINGRESP": true, "no PINGRESP": false} {
		synctest.Test(t, func(t *testing.T) {
			srv := server{}
			if !alive {
				srv[packets.Pingreq] = says()
			}
			s := up(t, srv)
			select {
			case <-s.Done():
				if alive {
					t.Errorf("%s: the session was lost", what)
				}
			case <-time.After(time.Hour):
				if !alive {
					t.Errorf("%s: the session is still up", what)
				}
			}
		})
	}
}

// A server that reads nothing blocks no one for good.
func TestWritesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		stop := make(chan struct{})
		go func() {
			defer far.Close()
			if _, err := packets.ReadPacket(far); err != nil {
				t.Error(err)
			}
			far.Write([]byte{0x20, 2, 0, 0})
			<-stop
		}()
		cfg := complete(t, Config{})
		s, err := newDialer(t, cfg).establish(t.Context(), &cfg, "a:8883", near, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Subscribe(t.Context(), "a", nil); err == nil {
			t.Error("subscribed")
		}
		if err := s.Publish(t.Context(), "a", nil); err == nil {
			t.Error("published")
		}
		s.Close()
		<-s.Done()
		close(stop)
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := up(t, server{packets.Publish: says()})
		published := make(chan error)
		go func() { published <- s.Publish(t.Context(), "a", nil) }()
		synctest.Wait()
		s.Close()
		s.Close()
		<-s.Done()
		if err := <-published; !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	})
}

func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := up(t, server{packets.Publish: says()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Publish(ctx, "a", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if _, err := ask(ctx, s, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/b", "a/c", false},
		{"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/b/c", false}, {"+/b", "a/b", true}, {"+", "a/b", false},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"#", "a/b", true}, {"a/#", "b", false}, {"a/b/#", "a", false},
		{"#", "$aws/x", false}, {"+/x", "$aws/x", false}, {"$aws/#", "$aws/x", true}, {"/+", "/a", true}, {"+/+", "/a", true}, {"+", "/a", false},
	} {
		if got := matches(tt.filter, tt.topic); got != tt.want {
			t.Errorf("matches(%q, %q) = %v", tt.filter, tt.topic, got)
		}
	}
}

func FuzzReadPacket(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0})
	f.Add([]byte{0x90, 3, 0, 1, 0x80})
	f.Add(message("a/reply", "{}"))
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f})
	f.Add(message("a/reply", strings.Repeat("x", 2*MaxPayload))[:64]) // small: a large seed stalls fuzzing
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		header, length, err := readHeader(r)
		if err != nil {
			return
		}
		frame, err := readFrame(r, header, length)
		if err != nil {
			if p, err := readPacket(bytes.NewReader(b)); err == nil { // passed over, whole
				if large, ok := p.(*oversized); !ok || large.bytes != length || len(header)+length > len(b) {
					t.Fatalf("%v of %d bytes", p, len(b))
				}
			}
			return
		}
		if len(frame) > maxPacket+5 || !bytes.Equal(frame, b[:len(frame)]) || len(frame)+r.Len() != len(b) {
			t.Fatalf("%d bytes of %d", len(frame), len(b))
		}
		if p, err := readPacket(bytes.NewReader(frame)); (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
	})
}

// Whatever a server says, everything that waits for it ends in time.
func FuzzServer(f *testing.F) {
	f.Add([]byte{0x90, 3, 0, 1, 1, 0x40, 2, 0, 2}, byte(0))
	f.Add(append([]byte{0x90, 3, 0, 1, 1, 0x40, 2, 0, 2}, message("r/reply", "{}")...), byte(1))
	f.Add([]byte{0x32, 5, 0, 1, 'a', 0, 9, 0xd0, 0}, byte(1))
	cert := newCertificate(f)
	f.Fuzz(func(t *testing.T, said []byte, present byte) {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			go func() {
				far.Write([]byte{0x20, 2, present, 0})
				far.Write(said)
			}()
			d := newDialer(t, Config{Endpoints: []string{"a:8883"}, ClientID: "gw", Certificate: cert, Persistent: true})
			d.keptAt("a:8883", false).add("a")
			began := time.Now()
			s, err := d.establish(t.Context(), &d.cfg, "a:8883", near, nil)
			if err != nil {
				far.Close()
				return
			}
			if _, err := ask(t.Context(), s, "r"); err != nil && time.Since(began) > 3*d.cfg.Timeout {
				t.Errorf("a request takes %v: %v", time.Since(began), err)
			}
			s.Close()
			<-s.Done()
			far.Close()
		})
	})
}
