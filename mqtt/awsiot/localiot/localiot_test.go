package localiot_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

const patience = 2 * time.Minute // until a test that waits for an event gives up: a safety net

func start(t *testing.T) *localiot.Server {
	t.Helper()
	s, err := localiot.Start(localiot.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func enrol(t *testing.T, s *localiot.Server, thing string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	chain, err := s.IssueCertificate(thing, key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return certificate(t, chain, key)
}

func certificate(t *testing.T, chain []byte, key crypto.Signer) tls.Certificate {
	t.Helper()
	cert := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	return cert
}

func tlsConfig(s *localiot.Server, cert tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	return &tls.Config{
		RootCAs: roots, ServerName: "localhost", NextProtos: []string{"x-amzn-mqtt-ca"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	}
}

// device is a client that speaks raw packets.
type device struct {
	t    *testing.T
	conn net.Conn
}

func dial(t *testing.T, s *localiot.Server, thing string) *device {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, enrol(t, s, thing)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	d := &device{t, conn}
	d.connect(thing)
	return d
}

func (d *device) connect(id string) {
	d.t.Helper()
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier, c.Keepalive = "MQTT", 4, true, id, 60
	d.write(c)
	if ack, ok := d.read().(*packets.ConnackPacket); !ok || ack.ReturnCode != 0 {
		d.t.Fatalf("no CONNACK 0: %v", ack)
	}
}

func (d *device) write(p packets.ControlPacket) {
	d.t.Helper()
	if err := p.Write(d.conn); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) read() packets.ControlPacket {
	d.t.Helper()
	p, err := packets.ReadPacket(d.conn)
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

func publish(topic, payload string, qos byte, retain bool) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.Retain, p.MessageID = topic, []byte(payload), qos, retain, 7
	return p
}

func subscribe(filters ...string) *packets.SubscribePacket {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.Topics, p.Qoss, p.MessageID = filters, make([]byte, len(filters)), 8
	return p
}

// request publishes with QoS 0 and returns the next n messages by topic, as JSON.
func (d *device) request(topic, payload string, n int) map[string]map[string]any {
	d.t.Helper()
	d.write(publish(topic, payload, 0, false))
	replies := make(map[string]map[string]any)
	for range n {
		m, ok := d.read().(*packets.PublishPacket)
		if !ok {
			d.t.Fatalf("not a PUBLISH after %s", topic)
		}
		var doc map[string]any
		if err := json.Unmarshal(m.Payload, &doc); err != nil {
			d.t.Fatal(err)
		}
		replies[strings.TrimPrefix(m.TopicName, topic+"/")] = doc
	}
	return replies
}

// gone reports whether the server ends the connection without a further word.
func (d *device) gone() bool {
	p, err := packets.ReadPacket(d.conn)
	if err == nil {
		d.t.Errorf("the server said %v", p)
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return false
	}
	return err != nil
}

func TestJobsWithNothingPending(t *testing.T) {
	d := dial(t, start(t), "gw")
	for operation, want := range map[string]string{"$next/get": "timestamp", "start-next": "timestamp", "get": "queuedJobs"} {
		r := d.request("$aws/things/gw/jobs/"+operation, `{"clientToken":"c1"}`, 1)["accepted"]
		if r["clientToken"] != "c1" || r[want] == nil || r["execution"] != nil {
			t.Errorf("%s: %v", operation, r)
		}
	}
	for payload, code := range map[string]string{`{"clientToken":"c2"}`: "ResourceNotFound", `{`: "InvalidJson"} {
		if r := d.request("$aws/things/gw/jobs/j-1/get", payload, 1)["rejected"]; r["code"] != code {
			t.Errorf("%s: %v", payload, r)
		}
	}
}

func TestShadow(t *testing.T) {
	s := start(t)
	d := dial(t, s, "gw")
	for _, name := range []string{"", "keyvet"} {
		base := "$aws/things/gw/shadow/"
		if name != "" {
			base += "name/" + name + "/"
		}
		rejected := func(operation, payload string, code float64) {
			t.Helper()
			if r := d.request(base+operation, payload, 1)["rejected"]; r["code"] != code {
				t.Errorf("%s %s: %v, want %v", operation, payload, r, code)
			}
		}
		rejected("get", ``, 404)
		rejected("delete", ``, 404)
		if got := s.Shadow("gw", name); got != nil {
			t.Errorf("a shadow before there is one: %s", got)
		}
		d.write(subscribe(base + "update/delta"))
		d.read()
		d.write(subscribe(base + "update/documents"))
		d.read()

		r := d.request(base+"update", `{"state":{"reported":{"a":1,"b":{"c":2,"d":3}},"desired":{"a":2}},"clientToken":"t"}`, 3)
		if a := r["accepted"]; a["version"] != 1.0 || a["clientToken"] != "t" {
			t.Errorf("accepted: %v", a)
		}
		if delta := r["delta"]["state"].(map[string]any); delta["a"] != 2.0 || len(delta) != 1 {
			t.Errorf("delta: %v", delta)
		}
		if r["documents"]["current"].(map[string]any)["version"] != 1.0 {
			t.Errorf("documents: %v", r["documents"])
		}
		d.request(base+"update", `{"state":{"reported":{"a":2,"b":{"c":null}}},"version":1}`, 2)
		if got, want := string(s.Shadow("gw", name)), `{"desired":{"a":2},"reported":{"a":2,"b":{"d":3}}}`; got != want {
			t.Errorf("shadow is %s, want %s", got, want)
		}
		if got := d.request(base+"get", ``, 1)["accepted"]; got["version"] != 2.0 || got["state"].(map[string]any)["delta"] != nil {
			t.Errorf("get: %v", got)
		}

		rejected("update", `{"state":{"reported":{}},"version":1}`, 409)
		rejected("update", `{"state":`, 400)
		rejected("update", `{"state":{}} {}`, 400)
		rejected("update", `[]`, 400)
		rejected("update", `{}`, 400)
		rejected("update", `{"state":{"other":{}}}`, 400)
		rejected("update", `{"state":{"reported":1}}`, 400)
		rejected("update", `{"state":{"reported":{"x":"`+strings.Repeat("x", 8<<10)+`"}}}`, 413)
		rejected("delete", `{"version":7}`, 409)
		if a := d.request(base+"delete", `{}`, 1)["accepted"]; a["version"] != 2.0 {
			t.Errorf("delete: %v", a)
		}
		rejected("get", ``, 404)
		if a := d.request(base+"update", `{"state":{"reported":{"z":1}}}`, 2)["accepted"]; a["version"] != 3.0 {
			t.Errorf("the version starts again after a deletion: %v", a)
		}
	}
}

// A client that breaks policy or limits is cut off without a word; one within them is not.
func TestLimits(t *testing.T) {
	s := start(t)
	long := "keyvet/gw/" + strings.Repeat("x", 256)
	for what, tt := range map[string]struct {
		p  packets.ControlPacket
		ok bool
	}{
		"own report":               {publish("keyvet/gw/report", "{}", 1, false), true},
		"retained":                 {publish("keyvet/gw/report", "{}", 1, true), true},
		"128 KB":                   {publish("keyvet/gw/report", strings.Repeat("x", 128<<10), 1, false), true},
		"own topics":               {subscribe("$aws/things/gw/#", "keyvet/gw/+/x"), true},
		"7 slashes":                {publish("keyvet/gw/3/4/5/6/7/8", "", 1, false), true},
		"another's report":         {publish("keyvet/gw2/report", "{}", 1, false), false},
		"another's shadow":         {publish("$aws/things/gw2/shadow/update", "{}", 1, false), false},
		"another's shadow, QoS 0":  {publish("$aws/things/gw2/shadow/update", "{}", 0, false), false},
		"everybody's topics":       {subscribe("#"), false},
		"everybody's things":       {subscribe("$aws/things/+/jobs/notify"), false},
		"one of two is another's":  {subscribe("keyvet/gw/x", "keyvet/gw2/x"), false},
		"QoS 2":                    {publish("keyvet/gw/report", "{}", 2, false), false},
		"retained, reserved topic": {publish("$aws/things/gw/shadow/update", "{}", 1, true), false},
		"over 128 KB":              {publish("keyvet/gw/report", strings.Repeat("x", 128<<10+1), 1, false), false},
		"over 1 MB":                {publish("keyvet/gw/report", strings.Repeat("x", 1<<20), 1, false), false},
		"long topic":               {publish(long, "", 1, false), false},
		"8 slashes":                {publish("keyvet/gw/3/4/5/6/7/8/9", "", 1, false), false},
		"9 filters":                {subscribe("keyvet/gw/1", "keyvet/gw/2", "keyvet/gw/3", "keyvet/gw/4", "keyvet/gw/5", "keyvet/gw/6", "keyvet/gw/7", "keyvet/gw/8", "keyvet/gw/9"), false},
	} {
		t.Run(what, func(t *testing.T) {
			d := dial(t, s, "gw")
			tt.p.Write(d.conn) // may fail half-way where it is refused by its length
			if !tt.ok {
				if !d.gone() {
					t.Error("still connected")
				}
				return
			}
			switch ack := d.read().(type) {
			case *packets.PubackPacket:
			case *packets.SubackPacket:
				for _, code := range ack.ReturnCodes {
					if code > 1 {
						t.Errorf("SUBACK %v", ack.ReturnCodes)
					}
				}
			default:
				t.Errorf("answered by %v", ack)
			}
		})
	}
}

func TestWhoMayConnect(t *testing.T) {
	s, other := start(t), start(t)
	refused := func(what string, cert tls.Certificate) {
		t.Helper()
		conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
		if err != nil {
			return // TLS 1.2 tells in the handshake
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if p, err := packets.ReadPacket(conn); err == nil {
			t.Errorf("%s: the server said %v", what, p)
		} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%s: not cut off", what)
		}
	}
	refused("a foreign CA", enrol(t, other, "gw"))
	refused("no certificate", tls.Certificate{})

	good := enrol(t, s, "gw")
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, good))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	d := &device{t, conn}
	d.connect("gw")
	id := localiot.CertificateID(good.Certificate[0])
	seen := s.Connections()
	last := seen[len(seen)-1]
	if last.ServerName != "localhost" || last.ALPN != "x-amzn-mqtt-ca" || last.CertificateID != id || last.Thing != "gw" || last.Refused != "" || last.TLSVersion != tls.VersionTLS13 {
		t.Errorf("recorded %+v", last)
	}

	if err := s.Deactivate(id); err != nil {
		t.Fatal(err)
	}
	if !d.gone() {
		t.Error("a connection outlives its certificate")
	}
	refused("an inactive certificate", good)
	if err := s.Deactivate("00"); err == nil {
		t.Error("deactivated an unknown certificate")
	}
	for _, name := range []string{"", "a/b", "a b", strings.Repeat("x", 129)} {
		if _, err := s.IssueCertificate(name, newKey(t).Public()); err == nil {
			t.Errorf("issued for thing %q", name)
		}
	}
}

func TestTLS12(t *testing.T) {
	s := start(t)
	config := tlsConfig(s, enrol(t, s, "gw"))
	config.MaxVersion = tls.VersionTLS12
	conn, err := tls.Dial("tcp", s.Endpoint(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&device{t, conn}).connect("gw")
	config.MaxVersion, config.MinVersion = tls.VersionTLS11, tls.VersionTLS11
	if _, err := tls.Dial("tcp", s.Endpoint(), config); err == nil {
		t.Error("TLS 1.1 was taken")
	}
}

func TestMessages(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d := dial(t, s, "gw")
	got := make(chan localiot.Message, 1)
	go func() {
		m, err := s.WaitMessage(ctx, "keyvet/+/report")
		if err != nil {
			t.Error(err)
		}
		got <- m
	}()
	d.write(publish("keyvet/gw/other", "x", 1, false))
	d.read()
	d.write(publish("keyvet/gw/report", "1", 1, false))
	d.read()
	d.write(publish("keyvet/gw/report", "2", 1, false))
	d.read()
	if m := <-got; string(m.Payload) != "1" || m.Thing != "gw" || m.ClientID != "gw" || m.QoS != 1 {
		t.Errorf("first message %+v", m)
	}
	if m, err := s.WaitMessage(ctx, "keyvet/gw/report"); err != nil || string(m.Payload) != "2" {
		t.Errorf("second message %+v, %v", m, err)
	}
	if n := len(s.Messages("keyvet/#")); n != 3 {
		t.Errorf("%d messages", n)
	}
	if n := len(s.Messages("#")); n != 3 {
		t.Errorf("%d messages", n)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.WaitMessage(over, "#/"); err == nil {
		t.Error("waited for nothing")
	}
}

// The CA, the things and the shadows outlive the process.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s, err := localiot.Start(localiot.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	cert := enrol(t, s, "gw")
	d := dial(t, s, "gw")
	d.request("$aws/things/gw/shadow/name/keyvet/update", `{"state":{"reported":{"n":12345678901234567890}}}`, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = localiot.Start(localiot.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := string(s.Shadow("gw", "keyvet")); got != `{"reported":{"n":12345678901234567890}}` {
		t.Errorf("shadow %s", got)
	}
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&device{t, conn}).connect("gw")

	for _, file := range []string{"registry.json", "ca.pem", "ca-key.pem"} {
		broken := t.TempDir()
		if err := os.CopyFS(broken, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(broken, file), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := localiot.Start(localiot.Options{Dir: broken}); err == nil {
			s.Close()
			t.Errorf("started on a damaged %s", file)
		}
	}
}

// Another's client: paho as it comes, with subscriptions that match the replies.
func TestPaho(t *testing.T) {
	s := start(t)
	client := paho.NewClient(paho.NewClientOptions().AddBroker("ssl://" + s.Endpoint()).SetClientID("gw").
		SetProtocolVersion(4).SetTLSConfig(tlsConfig(s, enrol(t, s, "gw"))))
	if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	defer client.Disconnect(0)
	replies := make(chan string, 2)
	token := client.Subscribe("$aws/things/gw/jobs/+/get/+", 1, func(_ paho.Client, m paho.Message) { replies <- m.Topic() })
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	client.Publish("$aws/things/gw/jobs/$next/get", 1, false, "{}")
	select {
	case topic := <-replies:
		if topic != "$aws/things/gw/jobs/$next/get/accepted" {
			t.Error(topic)
		}
	case <-time.After(patience):
		t.Error("no reply")
	}
}

// Another's client: mosquitto_pub.
func TestMosquittoPub(t *testing.T) {
	s := start(t)
	cert := enrol(t, s, "gw")
	dir := t.TempDir()
	keyDER, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for name, content := range map[string][]byte{"cert.pem": leaf, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := net.SplitHostPort(s.Endpoint())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mosquitto_pub", "-h", host, "-p", port, "-V", "mqttv311", "-q", "1", "-i", "gw",
		"--cafile", s.CAFile(), "--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"),
		"-t", "keyvet/gw/report", "-m", "hello").CombinedOutput()
	if err != nil {
		t.Fatalf("mosquitto_pub (Debian package mosquitto-clients): %v: %s", err, out)
	}
	if m, err := s.WaitMessage(ctx, "keyvet/gw/report"); err != nil || string(m.Payload) != "hello" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestSubscriptionsOfAConnection(t *testing.T) {
	d := dial(t, start(t), "gw")
	filter := func(i int) string { return fmt.Sprint("keyvet/gw/", i) }
	for i := range 50 {
		for range 2 { // again does not count
			d.write(subscribe(filter(i)))
			if ack, ok := d.read().(*packets.SubackPacket); !ok || ack.ReturnCodes[0] > 1 {
				t.Fatalf("subscription %d: %v", i, ack)
			}
		}
	}
	d.write(subscribe(filter(50)))
	if !d.gone() {
		t.Error("51 subscriptions")
	}
}

func TestLongClientID(t *testing.T) {
	s := start(t)
	cert := enrol(t, s, "gw")
	with(t, s, cert, strings.Repeat("x", 128))
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier = "MQTT", 4, true, strings.Repeat("x", 129)
	if err := c.Write(conn); err != nil {
		t.Fatal(err)
	}
	if !(&device{t, conn}).gone() {
		t.Error("129 bytes")
	}
}

func TestWaitShadow(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	waited := make(chan error, 1)
	go func() {
		waited <- s.WaitShadow(ctx, "gw", "keyvet", func(state []byte) bool { return strings.Contains(string(state), `"a":2`) })
	}()
	for _, update := range []string{`{"state":{"reported":{"a":1}}}`, `{"state":{"reported":{"a":2}}}`} {
		if err := s.UpdateShadow("gw", "keyvet", []byte(update)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if s.WaitShadow(over, "gw", "", func(state []byte) bool { return state != nil }) == nil {
		t.Error("waited for nothing")
	}
}
