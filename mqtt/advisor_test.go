package mqtt_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

var update = flag.Bool("update", false, "write docs/device-advisor.md")

const (
	endpoint = "xxxx-ats.iot.eu-west-1.amazonaws.com:8883"
	thing    = "gateway-0042"
	trigger  = "keyvet/" + thing + "/trigger"
)

// Control packets (MQTT 3.1.1, section 2.2.1).
const (
	connect, connack               = 1, 2
	publish, puback                = 3, 4
	subscribe, suback              = 8, 9
	pingreq, pingresp, hangup      = 12, 13, 14
	qos1                      byte = 1 << 1 // flags of a PUBLISH
	dup                       byte = 1 << 3
)

// adviseTime is the EXECUTION_TIMEOUT that AWS recommends at most.
const adviseTime = 5 * time.Minute

// adviseFor is what Device Advisor is told to wait for a case, where its own five
// minutes are too short (EXECUTION_TIMEOUT).
const adviseFor = time.Hour

const (
	pass    = "PASS"
	without = "not run"
)

// cases are Device Advisor's, under its names and ids (AWS IoT Developer Guide,
// "Device Advisor test cases").
var cases = []struct {
	name, id string
	result   string
	note     string
	run      func(*advisor)
}{
	{"TLS Connect", "TLS_Connect", pass, "TLS 1.2 and 1.3, server name sent, client certificate shown", tlsConnect},
	{"TLS Receive Maximum Size Fragments", "TLS_Receive_Maximum_Size_Fragments", pass, "128 KB in records of 16 KB", tlsFragments},
	{"TLS Device Support for AWS IoT recommended Cipher Suites", "TLS_Support_AWS_IoT_Cipher_Suites", pass, "offers only the recommended ones", tlsSuites},
	{"TLS large Size Server Certificate", "TLS_Large_Size_Server_Cert", pass, "a chain of 40 KB", tlsLarge},
	{"Not Signed By Recognized CA", "TLS_Unsecure_Server_Cert", pass, "refused by an alert, at each try", refuses(unknownCA)},
	{"Incorrect Subject Common Name (CN) / Subject Alternative Name (SAN)", "TLS_Incorrect_Subject_Name_Server_Cert", pass, "refused by an alert", refuses(wrongName)},
	{"Expired server certificate", "TLS_Expired_Server_Cert", pass, "refused by an alert", refuses(expired)},

	{"Device send CONNECT to AWS IoT Core (Happy case)", "MQTT_Connect", pass, "MQTT 3.1.1", mqttConnect},
	{"Device can return PUBACK to an arbitrary topic for QoS1", "MQTT_Client_Puback_Qos1", pass, "100 KB", mqttPuback},
	{"Device connect retries with jitter backoff - No CONNACK response", "MQTT_Connect_Jitter_Backoff_Retries", pass,
		"with `mqtt.reconnect_max = \"16s\"` within the recommended EXECUTION_TIMEOUT of 300 s; without it set 3600: the second half of its twelve connections comes from the window of 512 s, for a session of no time does not restart the count", mqttJitter},
	{"Device connect retries with exponential backoff - No CONNACK response", "MQTT_Connect_Exponential_Backoff_Retries", pass, "the windows double, the waits in them are random", mqttExponential},
	{"Device re-connect with at least one second delay - After server disconnect", "MQTT_ReconnectionAfterSuccessfulConnection", pass, "", mqttOneSecond},
	{"Device re-connect with jitter backoff - After server disconnect", "MQTT_Reconnect_Backoff_Retries_On_Server_Disconnect", pass, "five reconnections; more than five take `mqtt.reconnect_max = \"16s\"`, or EXECUTION_TIMEOUT 3600", mqttServerDisconnect},
	{"Device re-connect with jitter backoff - Unstable connection", "MQTT_Reconnect_Backoff_Retries_On_Unstable_Connection", pass, "the same", mqttUnstable},
	{"QoS0 (Happy Case)", "MQTT_Publish", without, "keyvet publishes only with QoS 1: a report that may be lost without a word is of no use", nil},
	{"QoS1 publish retry - No PUBACK", "MQTT_Publish_Retry_No_Puback", pass, "after a third of the step's timeout, with DUP and the same packet id", mqttPublishRetry},
	{"Publish retained messages", "MQTT_Publish_Retained_Messages", without, "keyvet retains nothing; AWS IoT refuses it on reserved topics", nil},
	{"Can Subscribe (Happy Case)", "MQTT_Subscribe", pass, "", mqttSubscribe},
	{"Subscribe Retry - No SUBACK", "MQTT_Subscribe_Retry_No_Suback", pass, "with the same packet id", mqttSubscribeRetry},
	{"Mqtt No Ack PingResp", "MQTT_No_Ack_PingResp", pass, "within mqtt.keepalive", mqttNoPingresp},
	{"Persistent Session (Happy Case)", "MQTT_Persistent_Session_Happy_Case", pass, "as `keyvet run` connects; `run -once` has a clean session", mqttPersistent},
	{"Persistent Session - Session Expiry", "MQTT_Expired_Persistent_Session", pass, "the same", mqttExpiredSession},

	{"Device publishes state after it connects (Happy case)", "Shadow_Publish_Reported_State", pass, "SHADOW_NAME keyvet", shadowReported},
	{"Device updates reported state to desired state (Happy case)", "Shadow_Update_Reported_State", pass, "SHADOW_NAME keyvet, DESIRED_STATE a `check`", shadowUpdated},
	{"Device can complete a job execution", "Job_Execution", pass, "a job of keyvet.check", jobExecution},
	{"Device certificate attached policies don't contain wildcards", "Security_Device_Policies", without, "looks at the account's policies and at no device", nil},
	{"MQTT long duration test case", "MQTT_Long_Duration", pass, "a day with cuts, an hour without a server, and servers that say nothing", mqttLong},
}

// TestDeviceAdvisor puts the session through the cases, each against a server
// that reads and writes MQTT byte by byte, in a bubble where time costs none.
func TestDeviceAdvisor(t *testing.T) {
	serverKey() // outside of any bubble
	var table strings.Builder
	table.WriteString("| case of AWS IoT Device Advisor | id | result | |\n|---|---|---|---|\n")
	ran := 0
	for _, c := range cases {
		fmt.Fprintf(&table, "| %s | `%s` | %s | %s |\n", c.name, c.id, c.result, c.note)
		if (c.run == nil) != (c.result == without) || c.result == without && c.note == "" {
			t.Errorf("%s: neither run nor a reason why not", c.id)
		}
		if c.run == nil {
			continue
		}
		ran++
		t.Run(c.id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAdvisor(t)
				defer a.close()
				began := time.Now()
				c.run(a)
				took := time.Since(began)
				t.Logf("%-58s %v", c.id, took.Round(100*time.Millisecond))
				if longer := []string{"MQTT_Connect_Jitter_Backoff_Retries", "MQTT_Long_Duration"}; took > adviseTime && !slices.Contains(longer, c.id) {
					t.Errorf("took %v", took)
				}
			})
		})
	}
	if ran < 20 {
		t.Errorf("only %d cases run", ran)
	}
	const path = "../docs/device-advisor.md"
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), "| case of")
	_, after, _ := strings.Cut(rest, "\n\n")
	if want := before + table.String() + "\n" + after; ok && want != string(doc) {
		if !*update {
			t.Fatalf("%s does not tell this: go test ./mqtt -run DeviceAdvisor -update", path)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Device Advisor has RSA server certificates.
var serverKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// advisor is the far end of everything that a device does.
type advisor struct {
	t       *testing.T
	ctx     context.Context
	stop    context.CancelFunc
	devices sync.WaitGroup
	calls   chan net.Conn
	opened  []net.Conn

	ca     *x509.Certificate
	caKey  crypto.Signer
	server *tls.Config
	gone   error // why the device under test gave up
}

func newAdvisor(t *testing.T) *advisor {
	a := &advisor{t: t, calls: make(chan net.Conn, 1)}
	a.ctx, a.stop = context.WithCancel(t.Context())
	a.ca, a.caKey = newCA(t)
	a.server = &tls.Config{
		Certificates: []tls.Certificate{a.issue(nil)}, ClientAuth: tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, // AWS IoT gives none
	}
	return a
}

// close ends the device under test and waits for it.
func (a *advisor) close() {
	a.stop()
	for _, c := range a.opened {
		c.Close()
	}
	a.devices.Wait()
}

func newCA(t *testing.T) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "advisor"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// issue makes a certificate of the endpoint's, changed as a case wants it.
func (a *advisor) issue(change func(*x509.Certificate)) tls.Certificate {
	a.t.Helper()
	host, _, _ := strings.Cut(endpoint, ":")
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0),
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, serverKey().Public(), a.caKey)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: serverKey()}
}

// device starts the device under test: it dials, uses the session, and dials
// again once that has ended, with the timeout that the agent has.
func (a *advisor) device(change func(*mqtt.Config), use func(*mqtt.Session) error) {
	a.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.ca)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: thing}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.ca, key.Public(), a.caKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cfg := mqtt.Config{
		Endpoints: []string{endpoint}, ClientID: thing, Roots: roots, Timeout: 10 * time.Second,
		Certificate: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}
	if change != nil {
		change(&cfg)
	}
	pin := sha256.Sum256(a.ca.RawSubjectPublicKeyInfo) // which is not one of Amazon's
	d, err := awsiot.NewDialer(cfg, []string{base64.StdEncoding.EncodeToString(pin[:])})
	if err != nil {
		a.t.Fatal(err)
	}
	d.SetNetwork(func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case a.calls <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	a.devices.Go(func() {
		for {
			s, err := d.Dial(a.ctx, nil)
			if err != nil {
				a.gone = err
				return
			}
			if use != nil {
				if err := use(s); err != nil {
					s.Close() // as the agent does, to dial again
				}
			}
			select {
			case <-s.Done():
			case <-a.ctx.Done():
				s.Close()
			}
		}
	})
}

// line is one connection of the device's.
type line struct {
	a *advisor
	*tls.Conn
	broken error // of the handshake
	at     time.Time
}

// handshake takes the next connection, whatever comes of it.
func (a *advisor) handshake() *line {
	a.t.Helper()
	select {
	case c := <-a.calls:
		a.opened = append(a.opened, c)
		c.SetDeadline(time.Now().AddDate(0, 1, 0))
		l := &line{a: a, Conn: tls.Server(c, a.server)}
		l.broken = l.Handshake()
		l.at = time.Now()
		return l
	case <-time.After(adviseFor):
		a.t.Fatal("the device does not connect")
		return nil
	}
}

// accept takes the next connection and its CONNECT.
func (a *advisor) accept() (*line, connection) {
	a.t.Helper()
	l := a.handshake()
	if l.broken != nil {
		a.t.Fatal(l.broken)
	}
	c := parseConnect(a.t, l.expect(connect).body)
	l.at = time.Now()
	return l, c
}

// up takes the next connection and accepts it.
func (a *advisor) up() *line {
	a.t.Helper()
	l, _ := a.accept()
	l.send(connack, 0, 0, 0)
	return l
}

func (l *line) hangUp() { l.NetConn().Close() }

// packet is a control packet as it is on the wire.
type packet struct {
	kind, flags byte
	body        []byte
}

func (l *line) read() (packet, error) {
	var header [2]byte
	if _, err := io.ReadFull(l, header[:1]); err != nil {
		return packet{}, err
	}
	length := 0
	for shift := 0; ; shift += 7 {
		if _, err := io.ReadFull(l, header[1:]); err != nil {
			return packet{}, err
		}
		length |= int(header[1]&0x7f) << shift
		if header[1] < 0x80 {
			break
		}
	}
	p := packet{header[0] >> 4, header[0] & 0xf, make([]byte, length)}
	_, err := io.ReadFull(l, p.body)
	return p, err
}

func (l *line) expect(kind byte) packet {
	l.a.t.Helper()
	p, err := l.read()
	if err != nil || p.kind != kind {
		l.a.t.Fatalf("packet %d, %v; want %d", p.kind, err, kind)
	}
	return p
}

// silence fails if the device sends anything within d.
func (l *line) silence(d time.Duration) {
	l.a.t.Helper()
	l.SetReadDeadline(time.Now().Add(d))
	if p, err := l.read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		l.a.t.Fatalf("packet %d, %v; want none", p.kind, err)
	}
}

func (l *line) send(kind, flags byte, body ...byte) {
	l.a.t.Helper()
	b := []byte{kind<<4 | flags}
	for n := len(body); ; n >>= 7 {
		if n < 0x80 {
			b = append(b, byte(n))
			break
		}
		b = append(b, byte(n)|0x80)
	}
	if _, err := l.Write(append(b, body...)); err != nil {
		l.a.t.Fatal(err)
	}
}

// publish sends a message of QoS 1.
func (l *line) publish(topic string, id uint16, payload []byte) {
	l.a.t.Helper()
	body := append(text(topic), byte(id>>8), byte(id))
	l.send(publish, qos1, append(body, payload...)...)
}

// tell sends a message of QoS 0.
func (l *line) tell(topic string, payload []byte) {
	l.a.t.Helper()
	l.send(publish, 0, append(text(topic), payload...)...)
}

// text is a string with its length before it (MQTT 3.1.1, section 1.5.3).
func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func cut(t *testing.T, b []byte) (string, []byte) {
	t.Helper()
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		t.Fatalf("no text in %x", b)
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return string(b[2:n]), b[n:]
}

type connection struct {
	client    string
	clean     bool
	keepAlive time.Duration
}

// parseConnect takes a CONNECT apart that has neither will nor password.
func parseConnect(t *testing.T, b []byte) connection {
	t.Helper()
	name, b := cut(t, b)
	if name != "MQTT" || len(b) < 4 || b[0] != 4 || b[1]&^2 != 0 {
		t.Fatalf("CONNECT of %q, level and flags %x", name, b[:2])
	}
	c := connection{clean: b[1] == 2, keepAlive: time.Duration(binary.BigEndian.Uint16(b[2:])) * time.Second}
	c.client, b = cut(t, b[4:])
	if len(b) > 0 {
		t.Fatalf("%d bytes behind the CONNECT", len(b))
	}
	return c
}

// message is what a PUBLISH of QoS 1 says.
type message struct {
	topic   string
	id      uint16
	payload []byte
}

func (l *line) message(p packet) message {
	l.a.t.Helper()
	if p.flags&^dup != qos1 {
		l.a.t.Errorf("PUBLISH with flags %#x", p.flags)
	}
	topic, b := cut(l.a.t, p.body)
	return message{topic, binary.BigEndian.Uint16(b), b[2:]}
}

// filter is what a SUBSCRIBE asks for, of QoS 1.
func (l *line) filter(p packet) (id uint16, filter string) {
	l.a.t.Helper()
	filter, b := cut(l.a.t, p.body[2:])
	if p.flags != 2 || !bytes.Equal(b, []byte{1}) {
		l.a.t.Errorf("SUBSCRIBE with flags %#x, %x behind %q", p.flags, b, filter)
	}
	return binary.BigEndian.Uint16(p.body), filter
}

func (l *line) suback(id uint16) { l.send(suback, 0, byte(id>>8), byte(id), 1) }
func (l *line) puback(id uint16) { l.send(puback, 0, byte(id>>8), byte(id)) }

// subscribed answers the SUBSCRIBEs for those filters.
func (l *line) subscribed(filters ...string) {
	l.a.t.Helper()
	for _, want := range filters {
		id, got := l.filter(l.expect(subscribe))
		if got != want {
			l.a.t.Fatalf("SUBSCRIBE to %q, want %q", got, want)
		}
		l.suback(id)
	}
}

// acknowledged wants a PUBACK.
func (l *line) acknowledged(id uint16) {
	l.a.t.Helper()
	if p := l.expect(puback); !bytes.Equal(p.body, []byte{byte(id >> 8), byte(id)}) || p.flags != 0 {
		l.a.t.Errorf("PUBACK %x, flags %x; want id %d", p.body, p.flags, id)
	}
}

// subscribesTo is a device that keeps what it gets.
func subscribesTo(topic string, got chan<- []byte) func(*mqtt.Session) error {
	return func(s *mqtt.Session) error {
		return s.Subscribe(context.Background(), topic, func(_ string, payload []byte) { got <- payload })
	}
}

// A session that AWS IoT kept may begin with as many messages as it leaves
// unacknowledged, all before their handler is back; a broker that sends any
// number is left.
func TestManyKeptMessages(t *testing.T) {
	serverKey()
	for sent, stays := range map[int]bool{100: true, 1000: false} {
		synctest.Test(t, func(t *testing.T) {
			a := newAdvisor(t)
			defer a.close()
			got := make(chan []byte, sent)
			handles := make(chan func(*mqtt.Session) error, 2)
			a.device(persistent, func(s *mqtt.Session) error { return (<-handles)(s) })
			l := a.up()
			handles <- subscribesTo(trigger, got)
			l.subscribed(trigger)
			l.hangUp()
			l, _ = a.accept()
			l.send(connack, 0, 1, 0)
			var err error
			for id := 1; id <= sent && err == nil; id++ {
				_, err = l.Write(slices.Concat([]byte{publish<<4 | qos1, byte(len(trigger) + 4)}, text(trigger), []byte{byte(id >> 8), byte(id)}))
			}
			synctest.Wait()
			handles <- subscribesTo(trigger, got)
			if !stays {
				if err == nil {
					t.Errorf("the device takes %d messages at once", sent)
				}
				return
			}
			for range sent {
				l.expect(puback)
			}
			if len(got) != sent {
				t.Errorf("%d of %d messages were handled: %v", len(got), sent, err)
			}
		})
	}
}

// Port 443 speaks AWS IoT's protocol name.
func TestALPN(t *testing.T) {
	serverKey()
	synctest.Test(t, func(t *testing.T) {
		a := newAdvisor(t)
		defer a.close()
		a.server.NextProtos = []string{"x-amzn-mqtt-ca"}
		a.device(func(cfg *mqtt.Config) { cfg.Endpoints[0] = strings.Replace(endpoint, "8883", "443", 1) }, nil)
		if got := a.up().ConnectionState().NegotiatedProtocol; got != "x-amzn-mqtt-ca" {
			t.Errorf("ALPN %q", got)
		}
	})
}

// A clock that stands in 2000, as a bubble's does, is reported as such, and is
// waited for: something may set it.
func TestWrongClock(t *testing.T) {
	serverKey()
	synctest.Test(t, func(t *testing.T) {
		a := newAdvisor(t)
		defer a.close()
		a.server.Certificates[0] = a.issue(func(c *x509.Certificate) { c.NotBefore = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) })
		a.device(func(cfg *mqtt.Config) { cfg.Attempts = 20 }, nil)
		began := time.Now()
		for range 20 {
			if l := a.handshake(); l.broken == nil {
				t.Fatal("connected")
			}
		}
		a.devices.Wait()
		if !errors.Is(a.gone, mqtt.ErrClock) || errors.Is(a.gone, mqtt.ErrServerUntrusted) || !strings.Contains(a.gone.Error(), "it says 2000-01-01T") {
			t.Error(a.gone)
		}
		if took := time.Since(began); took > 20*17*time.Second {
			t.Errorf("20 attempts in %v: it would be noticed late that the clock is set", took)
		}
	})
}

func tlsConnect(a *advisor) {
	a.device(nil, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a.server.MinVersion, a.server.MaxVersion = version, version
		l := a.up()
		state := l.ConnectionState()
		if state.Version != version || state.ServerName+":8883" != endpoint || state.PeerCertificates[0].Subject.CommonName != thing {
			a.t.Errorf("%s, server name %q", tls.VersionName(state.Version), state.ServerName)
		}
		l.hangUp()
	}
}

func tlsFragments(a *advisor) {
	a.server.DynamicRecordSizingDisabled = true // records of 16 KB from the first byte on
	got := make(chan []byte, 1)
	a.device(nil, subscribesTo(trigger, got))
	l := a.up()
	l.subscribed(trigger)
	payload := bytes.Repeat([]byte("0123456789abcdef"), mqtt.MaxPayload/16)
	l.publish(trigger, 7, payload)
	l.acknowledged(7)
	if !bytes.Equal(<-got, payload) {
		a.t.Error("another payload arrived")
	}
}

// recommended by AWS IoT, and all that it supports of what Go can offer (AWS
// IoT Developer Guide, "Transport security in AWS IoT Core").
var (
	recommended = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_AES_128_GCM_SHA256, tls.TLS_AES_256_GCM_SHA384,
	}
	supported = append([]uint16{tls.TLS_CHACHA20_POLY1305_SHA256}, recommended...)
)

func tlsSuites(a *advisor) {
	var offered []uint16
	a.server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered = hello.CipherSuites
		return nil, nil
	}
	a.device(nil, nil)
	a.up()
	for _, suite := range recommended {
		if !slices.Contains(offered, suite) {
			a.t.Errorf("%s is not offered", tls.CipherSuiteName(suite))
		}
	}
	for _, suite := range offered {
		if !slices.Contains(supported, suite) {
			a.t.Errorf("%s is offered, which AWS IoT does not support", tls.CipherSuiteName(suite))
		}
	}
}

func tlsLarge(a *advisor) {
	a.server.Certificates[0] = a.issue(func(c *x509.Certificate) {
		for range 1000 {
			c.DNSNames = append(c.DNSNames, rand.Text()+".example.com")
		}
	})
	if n := len(a.server.Certificates[0].Certificate[0]); n < 40_000 {
		a.t.Errorf("a certificate of %d bytes", n)
	}
	a.device(nil, nil)
	a.up()
}

// refuses is a case with a server certificate that must not do: the device
// says so by an alert, in each try.
func refuses(certificate func(*advisor) tls.Certificate) func(*advisor) {
	return func(a *advisor) {
		a.server.Certificates[0] = certificate(a)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			a.server.MinVersion, a.server.MaxVersion = version, version
			a.device(func(cfg *mqtt.Config) { cfg.Attempts = 2 }, nil)
			for range 2 {
				l := a.handshake()
				if l.broken == nil || !strings.Contains(l.broken.Error(), "remote error: tls: ") {
					a.t.Errorf("%s: %v", tls.VersionName(version), l.broken)
				}
			}
			a.devices.Wait()
			if !errors.Is(a.gone, mqtt.ErrServerUntrusted) {
				a.t.Errorf("%s: %v", tls.VersionName(version), a.gone)
			}
		}
	}
}

func unknownCA(a *advisor) tls.Certificate {
	known, knownKey := a.ca, a.caKey
	a.ca, a.caKey = newCA(a.t)
	defer func() { a.ca, a.caKey = known, knownKey }()
	return a.issue(nil)
}

func wrongName(a *advisor) tls.Certificate {
	return a.issue(func(c *x509.Certificate) { c.DNSNames[0] = "xxxx-ats.iot.eu-west-2.amazonaws.com" })
}

func expired(a *advisor) tls.Certificate {
	return a.issue(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
}

func mqttConnect(a *advisor) {
	a.device(nil, nil)
	if _, c := a.accept(); c != (connection{client: thing, clean: true, keepAlive: 5 * time.Minute}) {
		a.t.Errorf("CONNECT %+v", c)
	}
}

func mqttPuback(a *advisor) {
	got := make(chan []byte, 1)
	a.device(nil, subscribesTo(trigger, got))
	l := a.up()
	l.subscribed(trigger)
	l.publish(trigger, 0xbeef, make([]byte, 100<<10))
	l.acknowledged(0xbeef)
	if n := len(<-got); n != 100<<10 {
		a.t.Errorf("%d bytes arrived", n)
	}
}

// noConnack takes n CONNECTs, answers none, and returns the pauses: from when
// the device gave up on one connection to its next CONNECT.
func (a *advisor) noConnack(n int) []time.Duration {
	a.t.Helper()
	var pauses []time.Duration
	var gaveUp time.Time
	for range n {
		l, _ := a.accept()
		if !gaveUp.IsZero() {
			pauses = append(pauses, l.at.Sub(gaveUp))
		}
		for _, err := l.read(); err == nil; _, err = l.read() { // a DISCONNECT, and then the end
		}
		gaveUp = time.Now()
		if held := gaveUp.Sub(l.at); held < 10*time.Second || held > 20*time.Second {
			a.t.Errorf("the device waits %v for a CONNACK", held)
		}
	}
	return pauses
}

// jittered fails unless the pauses are of windows that double, a second at
// least, and no plain powers of two or constants.
func (a *advisor) jittered(pauses []time.Duration) {
	a.t.Helper()
	window := time.Second
	exact := 0
	for i, pause := range pauses {
		if pause < time.Second || pause > time.Second+window {
			a.t.Errorf("pause %d is %v, in a window of %v", i+1, pause, window)
		}
		if pause == window || i > 0 && pause == pauses[i-1] {
			exact++
		}
		if window *= 2; window > 16*time.Second {
			window = 512 * time.Second
		}
	}
	if exact > 0 {
		a.t.Errorf("pauses %v: no jitter", pauses)
	}
	a.t.Logf("pauses %v", pauses)
}

func mqttJitter(a *advisor) {
	mqttJitterOf(a, 0, adviseFor, 17*time.Second)
	short := newAdvisor(a.t)
	defer short.close()
	mqttJitterOf(short, 16*time.Second, adviseTime, 0)
}

func mqttJitterOf(a *advisor, longest, most, least time.Duration) {
	began := time.Now()
	a.device(func(cfg *mqtt.Config) { cfg.Longest = longest }, nil)
	first := a.noConnack(5)
	a.jittered(first)
	a.up().hangUp()
	second := a.noConnack(5)
	a.up()
	took := time.Since(began)
	if took > most {
		a.t.Errorf("took %v", took)
	}
	a.t.Logf("windows of at most %v: %v of %v", cmp.Or(longest, 512*time.Second), took.Round(100*time.Millisecond), most)
	slices.Sort(second)
	if len(slices.Compact(second)) != len(second) || slices.Max(second) < least {
		a.t.Errorf("pauses %v", second)
	}
}

func mqttExponential(a *advisor) {
	a.device(nil, nil)
	began := time.Now()
	a.jittered(a.noConnack(6))
	if took := time.Since(began); took > adviseTime {
		a.t.Errorf("took %v", took)
	}
}

func mqttOneSecond(a *advisor) {
	a.device(nil, nil)
	a.up().hangUp()
	cutAt := time.Now()
	l, _ := a.accept()
	if pause := l.at.Sub(cutAt); pause < time.Second {
		a.t.Errorf("the device is back after %v", pause)
	}
}

func mqttServerDisconnect(a *advisor) {
	a.device(nil, nil)
	a.up().hangUp()
	began := time.Now()
	cutAt := began
	var pauses []time.Duration
	for range 5 {
		l, _ := a.accept() // no CONNACK
		pauses = append(pauses, l.at.Sub(cutAt))
		l.hangUp()
		cutAt = time.Now()
	}
	a.jittered(pauses)
	if took := time.Since(began); took > adviseTime {
		a.t.Errorf("took %v", took)
	}
}

func mqttUnstable(a *advisor) {
	a.device(nil, nil)
	a.up().hangUp()
	began := time.Now()
	cutAt := began
	var pauses []time.Duration
	for range 5 {
		l := a.up()
		pauses = append(pauses, l.at.Sub(cutAt))
		time.Sleep(5 * time.Second) // up, but not for long; of the bubble's time
		l.hangUp()
		cutAt = time.Now()
	}
	a.jittered(pauses)
	if took := time.Since(began); took > adviseTime {
		a.t.Errorf("took %v", took)
	}
}

func mqttPublishRetry(a *advisor) {
	a.device(nil, func(s *mqtt.Session) error { return s.Publish(context.Background(), trigger, []byte("once")) })
	l := a.up()
	p := l.expect(publish)
	first, sent := l.message(p), time.Now()
	q := l.expect(publish)
	again := l.message(q)
	if p.flags != qos1 || q.flags != qos1|dup || again.id != first.id || again.topic != first.topic || string(again.payload) != "once" {
		a.t.Errorf("first %v %#x, then %v %#x", first, p.flags, again, q.flags)
	}
	if waited := time.Since(sent); waited > 15*time.Second {
		a.t.Errorf("again after %v", waited)
	}
	l.puback(again.id)
	l.silence(time.Minute)
}

func mqttSubscribe(a *advisor) {
	a.device(nil, subscribesTo(trigger, make(chan []byte, 1)))
	a.up().subscribed(trigger)
}

func mqttSubscribeRetry(a *advisor) {
	a.device(nil, subscribesTo(trigger, make(chan []byte, 1)))
	l := a.up()
	first, _ := l.filter(l.expect(subscribe))
	again, filter := l.filter(l.expect(subscribe))
	if first != again || filter != trigger {
		a.t.Errorf("ids %d and %d, the second for %q", first, again, filter)
	}
	l.suback(again)
	l.silence(time.Minute)
}

func mqttNoPingresp(a *advisor) {
	a.device(nil, nil)
	l, c := a.accept()
	l.send(connack, 0, 0, 0)
	l.expect(pingreq)
	if asked := time.Since(l.at); asked > c.keepAlive {
		a.t.Errorf("PINGREQ after %v", asked)
	}
	if p, err := l.read(); err == nil && p.kind != hangup {
		a.t.Errorf("packet %d", p.kind)
	}
	if ended := time.Since(l.at); ended > c.keepAlive*3/2 {
		a.t.Errorf("the device ends the connection after %v", ended)
	}
}

func persistent(cfg *mqtt.Config) { cfg.Persistent = true }

func mqttPersistent(a *advisor) {
	got := make(chan []byte, 1)
	a.device(persistent, subscribesTo(trigger, got))
	l, c := a.accept()
	if c.clean {
		a.t.Error("CONNECT with clean session")
	}
	l.send(connack, 0, 0, 0)
	l.subscribed(trigger)
	l.hangUp()
	l, c = a.accept()
	if c.clean {
		a.t.Error("second CONNECT with clean session")
	}
	l.send(connack, 0, 1, 0) // session present
	l.publish(trigger, 21, []byte("stored"))
	l.acknowledged(21)
	if stored := string(<-got); stored != "stored" {
		a.t.Errorf("got %q", stored)
	}
	l.silence(time.Minute)
}

func mqttExpiredSession(a *advisor) {
	a.device(persistent, subscribesTo(trigger, make(chan []byte, 1)))
	l := a.up()
	l.subscribed(trigger)
	l.hangUp()
	l = a.up() // no session present
	l.subscribed(trigger)
	l.silence(time.Minute)
}

func shadowReported(a *advisor) {
	report := device.NewReport(device.Inventory{
		Keys:   []device.Key{{ID: "device", Role: device.RoleDevice}},
		ReadAt: time.Now(),
	}, []device.Finding{{Check: "size", Key: "device", Status: device.Pass}})
	published := make(chan error, 1)
	a.client(func(c *awsiot.Client) error {
		published <- c.Publish(a.ctx, report)
		return nil
	})
	l := a.up()
	reports := l.message(l.expect(publish))
	if reports.topic != "keyvet/"+thing+"/report" {
		a.t.Errorf("the first topic is %s", reports.topic)
	}
	l.puback(reports.id)
	update := "$aws/things/" + thing + "/shadow/name/keyvet/update"
	l.subscribed(update+"/accepted", update+"/rejected")
	m := l.message(l.expect(publish))
	var state struct {
		State struct {
			Reported struct{ Verdict, ReportID string }
		}
		ClientToken string
	}
	if err := json.Unmarshal(m.payload, &state); err != nil || m.topic != update || state.State.Reported.ReportID != report.ID {
		a.t.Errorf("%s %s: %v", m.topic, m.payload, err)
	}
	l.puback(m.id)
	l.publish(update+"/accepted", 1, fmt.Appendf(nil, `{"clientToken":%q}`, state.ClientToken))
	l.acknowledged(1)
	if err := <-published; err != nil {
		a.t.Error(err)
	}
}

// answer does what the services behind the broker do: it grants every filter
// and accepts the requests, which have to come on those topics in turn, with
// what replies has for the topic.
func (l *line) answer(replies map[string]string, topics ...string) (requests []map[string]any) {
	l.a.t.Helper()
	for len(requests) < len(topics) {
		p, err := l.read()
		if err != nil {
			l.a.t.Fatal(err)
		}
		switch p.kind {
		case subscribe:
			id, _ := l.filter(p)
			l.suback(id)
		case puback:
		case publish:
			m := l.message(p)
			l.puback(m.id)
			if want := topics[len(requests)]; m.topic != want {
				l.a.t.Fatalf("request to %s, want %s", m.topic, want)
			}
			var request, reply map[string]any
			if err := errors.Join(json.Unmarshal(m.payload, &request), json.Unmarshal([]byte(replies[m.topic]), &reply)); err != nil {
				l.a.t.Fatalf("%s %s: %v", m.topic, m.payload, err)
			}
			requests = append(requests, request)
			reply["clientToken"] = request["clientToken"]
			b, err := json.Marshal(reply)
			if err != nil {
				l.a.t.Fatal(err)
			}
			l.tell(m.topic+"/accepted", b)
		default:
			l.a.t.Fatalf("packet %d", p.kind)
		}
	}
	return requests
}

func (a *advisor) client(use func(*awsiot.Client) error) {
	a.t.Helper()
	a.device(nil, func(s *mqtt.Session) error {
		client, err := awsiot.New(s, thing, "keyvet/{thing}/report")
		if err == nil {
			err = use(client)
		}
		if err != nil && a.ctx.Err() == nil {
			a.t.Error(err)
		}
		return err
	})
}

func shadowUpdated(a *advisor) {
	const shadow = "$aws/things/" + thing + "/shadow/name/keyvet/"
	desired := make(chan string, 1)
	a.client(func(c *awsiot.Client) error {
		if err := c.OnDesiredCheck(a.ctx, func(token string) { desired <- token }); err != nil {
			return err
		}
		return c.AcknowledgeCheck(a.ctx, <-desired)
	})
	l := a.up()
	l.answer(map[string]string{shadow + "get": `{"state":{}}`}, shadow+"get")
	l.tell(shadow+"update/delta", []byte(`{"state":{"check":"DeviceAdvisor"},"version":2}`))
	updates := l.answer(map[string]string{shadow + "update": `{}`}, shadow+"update")
	if got := fmt.Sprint(updates[0]["state"]); got != "map[reported:map[check:DeviceAdvisor]]" {
		a.t.Errorf("reported %s", got)
	}
}

func jobExecution(a *advisor) {
	const jobs = "$aws/things/" + thing + "/jobs/"
	told := make(chan struct{}, 1)
	a.client(func(c *awsiot.Client) error {
		if err := c.OnJobs(a.ctx, func(*awsiot.Job) { told <- struct{}{} }); err != nil {
			return err
		}
		<-told
		ids, err := c.PendingJobs(a.ctx)
		if err != nil || len(ids) != 1 {
			return fmt.Errorf("%v: %w", ids, err)
		}
		job, err := c.DescribeJob(a.ctx, ids[0])
		if err == nil {
			_, err = awsiot.ParseOperation(job.Document)
		}
		for _, status := range []device.JobState{device.JobInProgress, device.JobSucceeded} {
			if err == nil {
				err = c.UpdateJob(a.ctx, job, status, map[string]string{"step": "check"})
			}
		}
		return err
	})
	l := a.up()
	l.subscribed(jobs + "notify-next")
	l.tell(jobs+"notify-next", []byte(`{"execution":{"jobId":"job-1"}}`))
	requests := l.answer(map[string]string{
		jobs + "get":          `{"queuedJobs":[{"jobId":"job-1","queuedAt":1,"versionNumber":1}]}`,
		jobs + "job-1/get":    `{"execution":{"jobId":"job-1","status":"QUEUED","versionNumber":1,"jobDocument":{"operation":"keyvet.check","version":"1.0"}}}`,
		jobs + "job-1/update": `{}`,
	}, jobs+"get", jobs+"job-1/get", jobs+"job-1/update", jobs+"job-1/update")
	for i, want := range []string{"IN_PROGRESS 1", "SUCCEEDED 2"} {
		if got := fmt.Sprint(requests[2+i]["status"], " ", requests[2+i]["expectedVersion"]); got != want {
			a.t.Errorf("update %d: %s, want %s", i+1, got, want)
		}
	}
}

// mqttLong follows the phases of the long duration test: the plain ones, then
// an hour without a server, connections that come and go, and silence in every
// place, then hours of nothing but keep-alive.
func mqttLong(a *advisor) {
	got := make(chan []byte, 100)
	a.device(nil, func(s *mqtt.Session) error {
		if err := subscribesTo(trigger, got)(s); err != nil {
			return err
		}
		return s.Publish(context.Background(), trigger, []byte("state"))
	})
	serve := func() *line {
		a.t.Helper()
		l := a.up()
		l.subscribed(trigger)
		l.puback(l.message(l.expect(publish)).id)
		return l
	}
	ping := func(l *line, times int) {
		a.t.Helper()
		for range times {
			l.expect(pingreq)
			l.send(pingresp, 0)
		}
	}
	l := serve()
	ping(l, 100)
	l.hangUp()

	for began := time.Now(); time.Since(began) < time.Hour; { // long server disconnect
		a.handshake().hangUp()
	}
	for range 3 { // intermittent connectivity
		l = serve()
		l.publish(trigger, 5, []byte("in between"))
		l.acknowledged(5)
		l.hangUp()
	}
	l = a.up() // keep-alive: nothing is answered
	l.expect(subscribe)
	for _, err := l.read(); err == nil; _, err = l.read() {
	}
	l = serve()
	ping(l, 200)
	if up := time.Since(l.at); up < 10*time.Hour {
		a.t.Errorf("200 pings in %v", up)
	}
	if len(got) != 3 {
		a.t.Errorf("%d messages arrived", len(got))
	}
}
