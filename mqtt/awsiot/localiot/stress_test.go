package localiot_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

// Devices that come and go, take each other over and do everything at once,
// while faults strike and jobs are made, leave an endpoint that serves, and
// that ends when told to.
func TestStress(t *testing.T) {
	s := start(t)
	const devices, enough = 3, 100 // messages that came through
	certs := make([]tls.Certificate, devices)
	for i := range certs {
		certs[i] = enrol(t, s, fmt.Sprint("gw", i))
	}
	var stress sync.WaitGroup
	for i := range 2 * devices { // two of each client id
		stress.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for over := time.Now().Add(patience); len(s.Messages("$aws/#")) < enough && time.Now().Before(over); {
				visit(s, certs[i%devices], fmt.Sprint("gw", i%devices), r)
			}
		})
	}
	done := make(chan struct{})
	var trouble sync.WaitGroup
	trouble.Go(func() {
		r := rand.New(rand.NewPCG(2, 0))
		kinds := []localiot.Faults{{}, {Partition: true}, {RefuseConnects: true}, {Connack7: true}, {DropAccepted: true}, {Throttle: true, Times: 3}, {}, {Slow: time.Millisecond}, {VersionMismatch: true}}
		for n := 0; ; n++ {
			select {
			case <-done:
				s.SetFaults(localiot.Faults{})
				return
			case <-time.After(time.Duration(r.IntN(40)) * time.Millisecond):
			}
			s.SetFaults(kinds[r.IntN(len(kinds))])
			id, thing := fmt.Sprint("j", n), fmt.Sprint("gw", n%devices)
			if err := s.CreateJob(localiot.Job{ID: id, Things: []string{thing}, Document: json.RawMessage(`{}`), Timeout: 5 * time.Millisecond}); err != nil {
				t.Error(err)
			}
			if n%3 == 0 {
				s.CancelJob(id, true)
			}
			if n > 20 {
				s.DeleteJob(fmt.Sprint("j", n-20))
			}
		}
	})
	stress.Wait()
	close(done)
	trouble.Wait()
	if n := len(s.Messages("$aws/#")); n < enough {
		t.Errorf("only %d messages came through", n)
	}
	for i, cert := range certs {
		d := with(t, s, cert, fmt.Sprint("gw", i))
		if r := d.request(fmt.Sprintf("$aws/things/gw%d/shadow/update", i), `{"state":{"reported":{"end":1}}}`, 1); r["accepted"] == nil {
			t.Errorf("gw%d: %v", i, r)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// visit is one short connection, which may fail in any way.
func visit(s *localiot.Server, cert tls.Certificate, thing string, r *rand.Rand) {
	dialer := &net.Dialer{Timeout: 100 * time.Millisecond}
	tcp, err := dialer.Dial("tcp", s.Endpoint())
	if err != nil {
		return
	}
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(time.Duration(300+r.IntN(1200)) * time.Millisecond))
	conn := tls.Client(tcp, tlsConfig(s, cert))
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier, c.Keepalive = "MQTT", 4, r.IntN(2) == 0, thing, 60
	said := []packets.ControlPacket{c, subscribe("$aws/things/" + thing + "/jobs/+")}
	for range r.IntN(10) {
		operations := [][2]string{
			{"jobs/start-next", `{}`}, {"jobs/$next/get", `{}`}, {"jobs/get", `{}`}, {"jobs/j1/update", `{"status":"SUCCEEDED","expectedVersion":2}`},
			{"shadow/update", `{"state":{"reported":{"a":1}},"version":1}`}, {"shadow/get", ``}, {"shadow/name/keyvet/update", `{"state":{"desired":{"a":2}}}`},
		}
		o := operations[r.IntN(len(operations))]
		said = append(said, publish("$aws/things/"+thing+"/"+o[0], o[1], byte(r.IntN(2)), false))
	}
	for _, p := range said {
		if p.Write(conn) != nil {
			return
		}
	}
	for range r.IntN(len(said) + 1) { // and then it is gone
		if _, err := packets.ReadPacket(conn); err != nil {
			return
		}
	}
}
