package localiot_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// knock connects and says CONNECT, and returns the answer.
func knock(t *testing.T, s *localiot.Server, cert tls.Certificate) (net.Conn, packets.ControlPacket, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier, c.Keepalive = "MQTT", 4, true, "gw", 60
	if err := c.Write(conn); err != nil {
		t.Fatal(err)
	}
	p, err := packets.ReadPacket(conn)
	return conn, p, err
}

// silent reports whether the server says nothing, and does not hang up, for a while.
func silent(t *testing.T, conn net.Conn) bool {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	defer conn.SetReadDeadline(time.Now().Add(patience))
	_, err := conn.Read(make([]byte, 1))
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// pings reports whether the next packet answers a PINGREQ.
func (d *device) pings() bool {
	d.t.Helper()
	d.write(packets.NewControlPacket(packets.Pingreq))
	_, ok := d.read().(*packets.PingrespPacket)
	return ok
}

func TestConnectFaults(t *testing.T) {
	s := start(t)
	cert := enrol(t, s, "gw")
	for _, tt := range []struct {
		faults localiot.Faults
		code   byte // of the CONNACK; 0 is none
	}{{localiot.Faults{RefuseConnects: true}, 0}, {localiot.Faults{Connack5: true}, 5}, {localiot.Faults{Connack7: true}, 7}} {
		s.SetFaults(tt.faults)
		conn, p, err := knock(t, s, cert)
		if tt.code == 0 {
			if ne, ok := err.(net.Error); err == nil || ok && ne.Timeout() {
				t.Errorf("%+v: %v, %v", tt.faults, p, err)
			}
			continue
		}
		if ack, ok := p.(*packets.ConnackPacket); !ok || ack.ReturnCode != tt.code {
			t.Errorf("%+v: %v, %v", tt.faults, p, err)
		}
		if d := (&device{t, conn}); !d.gone() {
			t.Errorf("%+v: not closed", tt.faults)
		}
	}
	s.SetFaults(localiot.Faults{})
	d := with(t, s, cert, "gw")

	s.SetFaults(localiot.Faults{NoConnack: true})
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, enrol(t, s, "gw2")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier = "MQTT", 4, true, "gw2"
	if err := c.Write(conn); err != nil {
		t.Fatal(err)
	}
	if !silent(t, conn) {
		t.Error("not silent after CONNECT")
	}
	if !d.pings() {
		t.Error("the connection that stands is disturbed")
	}
	s.SetFaults(localiot.Faults{NoPingresp: true})
	d.write(packets.NewControlPacket(packets.Pingreq))
	d.write(publish("keyvet/gw/report", "", 1, false))
	if p, ok := d.read().(*packets.PubackPacket); !ok {
		t.Errorf("%v, not the PUBACK", p)
	}
	if err := s.Close(); err != nil { // with a connection that waits for its CONNACK
		t.Fatal(err)
	}
}

func TestReplyFaults(t *testing.T) {
	s := start(t)
	d := dial(t, s, "gw")
	createJob(t, s, "j", "gw")
	s.SetFaults(localiot.Faults{DropAccepted: true})
	d.write(publish("$aws/things/gw/shadow/update", `{"state":{"reported":{"a":1}}}`, 0, false))
	d.write(publish("$aws/things/gw/jobs/j/update", `{"status":"IN_PROGRESS"}`, 0, false))
	if !d.pings() {
		t.Error("something came before the PINGRESP")
	}
	if got := string(s.Shadow("gw", "")); got != `{"reported":{"a":1}}` || s.Executions("j")[0].Version != 2 {
		t.Errorf("not carried out: shadow %s, %+v", got, s.Executions("j"))
	}
	s.SetFaults(localiot.Faults{Throttle: true, Times: 3})
	if _, r := d.job("j/get", `{"clientToken":"c"}`); r["code"] != "RequestThrottled" || r["clientToken"] != "c" {
		t.Errorf("%v", r)
	}
	if r := d.request("$aws/things/gw/shadow/get", ``, 1)["rejected"]; r["code"] != 429.0 {
		t.Errorf("%v", r)
	}
	if r := d.request("$aws/things/gw/defender/metrics/json", `{"header":{"report_id":5,"version":"1.0"},"metrics":{}}`, 1)["rejected"]; r["statusDetails"].(map[string]any)["ErrorCode"] != "Throttled" {
		t.Errorf("%v", r)
	}
	if a, _ := d.job("j/get", ``); a == nil || len(s.Faults().Names()) != 0 {
		t.Errorf("after three times: %v, %v", a, s.Faults())
	}
	s.SetFaults(localiot.Faults{VersionMismatch: true, Times: 2})
	_, r := d.job("j/update", `{"status":"SUCCEEDED","expectedVersion":2}`)
	if r["code"] != "VersionMismatch" || r["executionState"].(map[string]any)["versionNumber"] != 3.0 {
		t.Errorf("%v", r)
	}
	if r := d.request("$aws/things/gw/shadow/update", `{"state":{"reported":{"a":2}},"version":1}`, 1)["rejected"]; r["code"] != 409.0 {
		t.Errorf("%v", r)
	}
	if a, r := d.job("j/update", `{"status":"SUCCEEDED","expectedVersion":3}`); a == nil {
		t.Errorf("%v", r)
	}
	s.SetFaults(localiot.Faults{Slow: 50 * time.Millisecond})
	before := time.Now()
	if d.job("get", ``); time.Since(before) < 50*time.Millisecond {
		t.Error("not slow")
	}
}

func TestCertificateFaults(t *testing.T) {
	s := start(t)
	d := claim(t, s)
	request := object(t, map[string]string{"certificateSigningRequest": csr(t, newKey(t))})
	name := map[string]string{"ThingName": "gw"}
	s.SetFaults(localiot.Faults{CreateSilent: true})
	d.write(publish(createTopic, request, 0, false))
	if !d.pings() || len(s.Certificates("")) != 1 {
		t.Errorf("answered, or carried out: %v", s.Certificates(""))
	}
	for _, f := range []localiot.Faults{{CreateRejected: true}, {Throttle: true}} {
		s.SetFaults(f)
		if r := d.request(createTopic, request, 1)["rejected"]; r["errorCode"] == "" || r["statusCode"].(float64) < 400 {
			t.Errorf("%+v: %v", f, r)
		}
	}
	s.SetFaults(localiot.Faults{DropAccepted: true})
	d.write(publish(createTopic, request, 0, false))
	if !d.pings() || len(s.Certificates("")) != 2 {
		t.Errorf("answered, or not carried out: %v", s.Certificates(""))
	}
	s.SetFaults(localiot.Faults{})
	cert, token := d.create(newKey(t))
	s.SetFaults(localiot.Faults{ProvisionRejected: true, Times: 1})
	if r := d.provision(localiot.Template, token, name)["rejected"]; r["errorCode"] != "AccessDenied" {
		t.Errorf("%v", r)
	}
	s.SetFaults(localiot.Faults{NeverActivated: true})
	d.provision(localiot.Template, token, name)
	if !refused(t, s, cert) {
		t.Error("let in though never activated")
	}
	s.SetFaults(localiot.Faults{DeactivatedAtUse: true})
	first := enrol(t, s, "gw2") // not by a device's request
	with(t, s, first, "gw2")
	cert, token = d.create(newKey(t))
	d.provision(localiot.Template, token, name)
	for range 2 {
		if !refused(t, s, cert) {
			t.Error("let in though deactivated at its first use")
		}
	}
	if got := statuses(s, "gw"); !slices.Equal(got, []localiot.CertificateStatus{localiot.PendingActivation, localiot.Inactive}) {
		t.Errorf("%v", got)
	}
}

func TestIssuerFaults(t *testing.T) {
	s := start(t)
	d := dial(t, s, "gw")
	d.write(subscribe(issuerTopic+"create/+", issuerTopic+"commit/+"))
	d.read()
	request := object(t, map[string]string{"jobId": "j", "csr": csr(t, newKey(t))})
	for _, f := range []localiot.Faults{{CreateSilent: true}, {DropAccepted: true}} {
		s.SetFaults(f)
		d.write(publish(issuerTopic+"create", request, 0, false))
		if !d.pings() {
			t.Errorf("%+v: answered", f)
		}
	}
	for _, f := range []localiot.Faults{{CreateRejected: true}, {Throttle: true}} {
		s.SetFaults(f)
		if r := d.request(issuerTopic+"create", request, 1)["rejected"]; r["code"] == "" {
			t.Errorf("%+v: %v", f, r)
		}
	}
	s.SetFaults(localiot.Faults{NeverActivated: true})
	d.request(issuerTopic+"create", request, 1)
	own := s.Certificates("gw")
	if got := own[len(own)-1].Status; got != localiot.PendingActivation {
		t.Errorf("the new certificate is %s", got)
	}
	s.SetFaults(localiot.Faults{CommitSilent: true})
	d.write(publish(issuerTopic+"commit", object(t, map[string]string{"certificateId": own[0].ID}), 0, false))
	if !d.pings() || s.Certificates("gw")[1].Status != localiot.Active {
		t.Error("answered, or carried out")
	}
}

func TestPartition(t *testing.T) {
	s := start(t)
	d := dial(t, s, "gw")
	d.write(subscribe("$aws/things/gw/jobs/notify-next"))
	d.read()
	s.SetFaults(localiot.Faults{Partition: true})
	createJob(t, s, "j", "gw") // does not wait for the device
	d.write(packets.NewControlPacket(packets.Pingreq))
	if !silent(t, d.conn) {
		t.Error("the connection that stands is not silent")
	}
	conn, err := net.Dial("tcp", s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("what is no TLS would be told off"))
	if !silent(t, conn) {
		t.Error("a new connection is not silent")
	}
}

// What was sent in a partition arrives when it is over, as TCP has it.
func TestPartitionHeals(t *testing.T) {
	s := start(t)
	conn, err := net.Dial("tcp", s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	s.SetFaults(localiot.Faults{Partition: true})
	client := tls.Client(conn, tlsConfig(s, enrol(t, s, "gw")))
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	s.SetFaults(localiot.Faults{})
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	d := &device{t, client}
	d.connect("gw")
	s.SetFaults(localiot.Faults{Partition: true})
	d.write(packets.NewControlPacket(packets.Pingreq))
	s.SetFaults(localiot.Faults{})
	if p, ok := d.read().(*packets.PingrespPacket); !ok {
		t.Errorf("%v", p)
	}
	s.SetFaults(localiot.Faults{Partition: true})
	if err := s.Deactivate(s.Certificates("gw")[0].ID); err != nil { // closes the connection, which must not hang
		t.Fatal(err)
	}
	s.SetFaults(localiot.Faults{})
	if _, err := io.Copy(io.Discard, client); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Error(err)
	}
}

func TestFaultNames(t *testing.T) {
	var all localiot.Faults
	var names []string
	for line := range strings.Lines(localiot.DescribeFaults()) {
		name, _, _ := strings.Cut(line, " ")
		name = strings.Replace(name, "DURATION", "1s", 1)
		names = append(names, name)
		var one localiot.Faults
		if err := one.Set(name); err != nil {
			t.Error(err)
		}
		if got := one.Names(); len(got) != 1 || got[0] != name {
			t.Errorf("%s is named %v", name, got)
		}
		all.Set(name)
	}
	if got := all.Names(); len(got) < 16 || !slices.Equal(got, names) {
		t.Errorf("%v, want %v", got, names)
	}
	b, _ := json.Marshal(all)
	if strings.Contains(string(b), "false") {
		t.Errorf("a fault without a name: %s", b)
	}
	for _, bad := range []string{"", "nothing", "slow", "slow=", "slow=-1s", "slow=0s", "slow=1000h"} {
		if new(localiot.Faults).Set(bad) == nil {
			t.Errorf("took %q", bad)
		}
	}
}

func TestTakeover(t *testing.T) {
	s := start(t)
	cert := enrol(t, s, "gw")
	for range 20 { // the old session's end must not take the new one along
		old := with(t, s, cert, "gw")
		d := with(t, s, cert, "gw")
		if !old.gone() {
			t.Fatal("the old connection stands")
		}
		d.write(subscribe("keyvet/gw/x"))
		d.read()
		d.write(publish("keyvet/gw/x", "", 0, false))
		if p, ok := d.read().(*packets.PublishPacket); !ok {
			t.Fatalf("%v", p)
		}
	}
}

func TestPersistentSession(t *testing.T) {
	s := start(t)
	cert := enrol(t, s, "gw")
	open := func(clean bool) (*device, bool) {
		t.Helper()
		conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
		c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier, c.Keepalive = "MQTT", 4, clean, "gw", 60
		d := &device{t, conn}
		d.write(c)
		ack, ok := d.read().(*packets.ConnackPacket)
		if !ok || ack.ReturnCode != 0 {
			t.Fatalf("%v", ack)
		}
		return d, ack.SessionPresent
	}
	d, present := open(false)
	if present {
		t.Error("a session before there was one")
	}
	sub := subscribe("$aws/things/gw/jobs/notify-next")
	sub.Qoss[0] = 1
	d.write(sub)
	d.read()
	d.write(packets.NewControlPacket(packets.Disconnect))
	if !d.gone() {
		t.Fatal("still there")
	}
	createJob(t, s, "j", "gw")
	var m *packets.PublishPacket
	for range 2 { // the first time it is not acknowledged
		if d, present = open(false); !present {
			t.Error("the session is gone")
		}
		var ok bool
		if m, ok = d.read().(*packets.PublishPacket); !ok || m.Qos != 1 || !m.Dup || !strings.Contains(string(m.Payload), `"jobId":"j"`) {
			t.Fatalf("%v", m)
		}
	}
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = m.MessageID
	d.write(ack)
	if !d.pings() {
		t.Error("more than one message waited")
	}
	d.conn.Close()
	if d, _ = open(false); !d.pings() {
		t.Error("what was acknowledged came again")
	}
	if _, present = open(true); present {
		t.Error("a clean session is not")
	}
}

func TestOnPacket(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	s, err := localiot.Start(localiot.Options{Dir: t.TempDir(), OnPacket: func(p localiot.Packet) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprint(p.In, " ", p.Type, " ", p.Topic, " ", p.Thing))
		if len(p.CertificateID) != 64 {
			t.Errorf("%+v", p)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	dial(t, s, "gw").job("get", ``)
	mu.Lock()
	defer mu.Unlock()
	want := []string{"true 1  gw", "false 2  gw", "true 3 $aws/things/gw/jobs/get gw", "false 3 $aws/things/gw/jobs/get/accepted gw"}
	if !slices.Equal(seen, want) {
		t.Errorf("%q, want %q", seen, want)
	}
}

func TestQuotas(t *testing.T) {
	s, err := localiot.Start(localiot.Options{Dir: t.TempDir(), Quotas: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	cert := enrol(t, s, "gw")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d := with(t, s, cert, "gw")
	if _, p, err := knock(t, s, cert); err == nil {
		t.Errorf("a second CONNECT within a second: %v", p)
	}
	with(t, s, cert, "another")
	for range 150 {
		d.write(publish("keyvet/gw/many", "", 0, false))
	}
	d.pings()
	if n := len(s.Messages("keyvet/gw/many")); n < 100 || n >= 150 {
		t.Errorf("%d of 150 messages in a second", n)
	}
	if _, err := s.WaitMessage(ctx, "keyvet/gw/many"); err != nil {
		t.Error(err)
	}
}

func TestUpdateShadow(t *testing.T) {
	s := start(t)
	d := dial(t, s, "gw")
	topic := "$aws/things/gw/shadow/name/keyvet/update/"
	d.write(subscribe(topic + "delta"))
	d.read()
	if err := s.UpdateShadow("gw", "keyvet", []byte(`{"state":{"desired":{"check":"1"}}}`)); err != nil {
		t.Fatal(err)
	}
	if m, ok := d.read().(*packets.PublishPacket); !ok || m.TopicName != topic+"delta" || !strings.Contains(string(m.Payload), `"state":{"check":"1"}`) {
		t.Errorf("%v", m)
	}
	if err := s.UpdateShadow("gw", "", []byte(`{"state":{"desired":{"x":1}}}`)); err != nil {
		t.Error(err)
	}
	if s.UpdateShadow("gw", "keyvet", []byte(`{`)) == nil || s.UpdateShadow("a/b", "", nil) == nil || s.UpdateShadow("gw", "a/b", nil) == nil {
		t.Error("took nonsense")
	}
}

// A policy that is given holds: the client id has to be the thing's name, and
// what it does not name ends the connection or does not arrive.
func TestGivenPolicies(t *testing.T) {
	thing := "${iot:Connection.Thing.ThingName}"
	s, err := localiot.Start(localiot.Options{Dir: t.TempDir(), DevicePolicies: [][]byte{[]byte(strings.ReplaceAll(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "iot:Connect", "Resource": "arn:aws:iot:r:a:client/THING"},
		{"Effect": "Allow", "Action": "iot:Publish", "Resource": "arn:aws:iot:r:a:topic/$aws/things/THING/jobs/*"},
		{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "arn:aws:iot:r:a:topicfilter/$aws/things/THING/jobs/*"},
		{"Effect": "Allow", "Action": "iot:Receive", "Resource": "arn:aws:iot:r:a:topic/$aws/things/THING/jobs/get/*"}]}`, "THING", thing))}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	cert := enrol(t, s, "gw")
	d := with(t, s, cert, "gw")
	if a, _ := d.job("get", ``); a == nil {
		t.Error("no answer")
	}
	d.write(publish("$aws/things/gw/jobs/start-next", `{}`, 0, false))
	if !d.pings() {
		t.Error("received what it may not")
	}
	d.write(publish("keyvet/gw/report", `{}`, 1, false))
	if !d.gone() {
		t.Error("published what it may not")
	}
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier = "MQTT", 4, true, "another"
	if err := c.Write(conn); err != nil {
		t.Fatal(err)
	}
	if p, err := packets.ReadPacket(conn); err != nil || p.(*packets.ConnackPacket).ReturnCode != 7 {
		t.Errorf("another client id: %v, %v", p, err)
	}
	if _, err := localiot.Start(localiot.Options{Dir: t.TempDir(), ClaimPolicies: [][]byte{[]byte(`{}`)}}); err == nil {
		t.Error("took a policy without statements")
	}
}
