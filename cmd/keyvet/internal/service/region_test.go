package service

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/mqtt/mqtttest"
)

// region is as much of AWS IoT as a device without jobs needs, in a bubble of
// synctest, where no socket can be: it counts what comes.
type region struct {
	link    mqtttest.Link
	unreach error         // nothing gets there
	connack int           // the code; -1: silence
	life    time.Duration // of a session, which somebody else ends then; 0: without end
	denied  []string      // parts of topics that the policy does not allow: the session is cut
	refused []string      // parts of topics of requests that are rejected
	kept    bool          // the session is said to be there, and its filters are lost
	foreign bool          // the certificate is another CA's

	ca, other authority

	mu       sync.Mutex
	job      string    // a check that is pending; nobody is told of it
	done     time.Time // when it succeeded
	connects int
	bytes    int
	reports  map[string]int // by payload
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return authority{cert, key}
}

func (a authority) issue(name string, k *ecdsa.PrivateKey) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	return x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// network is how the device gets to the region.
func (r *region) network(t *testing.T) func(ctx context.Context, network, address string) (net.Conn, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	issuer := r.ca
	if r.foreign {
		issuer = r.other
	}
	der, err := issuer.issue("region.example", key)
	must(t, err)
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientAuth: tls.RequireAnyClientCert}
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if r.unreach != nil {
			return nil, r.unreach
		}
		near, far, err := r.link.Dial(ctx)
		if err != nil {
			return nil, err
		}
		go r.serve(tls.Server(&counter{far, r}, config))
		return near, nil
	}
}

// counter counts what the device sends, TLS and all.
type counter struct {
	net.Conn
	region *region
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.region.mu.Lock()
	c.region.bytes += n
	c.region.mu.Unlock()
	return n, err
}

func (r *region) serve(conn net.Conn) {
	defer conn.Close()
	var writing sync.Mutex
	write := func(p packets.ControlPacket) {
		writing.Lock()
		defer writing.Unlock()
		_ = p.Write(conn)
	}
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return
		}
		switch p := p.(type) {
		case *packets.ConnectPacket:
			r.mu.Lock()
			r.connects++
			r.mu.Unlock()
			if r.connack < 0 {
				continue
			}
			ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
			ack.ReturnCode, ack.SessionPresent = byte(r.connack), r.kept && r.connects > 1
			write(ack)
			if r.connack > 0 {
				return
			}
			if r.life > 0 {
				defer time.AfterFunc(r.life, func() { conn.Close() }).Stop()
			}
		case *packets.SubscribePacket:
			if named(r.denied, p.Topics[0]) {
				return
			}
			ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
			ack.MessageID, ack.ReturnCodes = p.MessageID, []byte{1}
			write(ack)
		case *packets.PublishPacket:
			if named(r.denied, p.TopicName) {
				return
			}
			if p.Qos == 1 {
				ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				ack.MessageID = p.MessageID
				write(ack)
			}
			if answer := r.answer(p.TopicName, p.Payload); answer != nil {
				write(answer)
			}
		case *packets.PingreqPacket:
			write(packets.NewControlPacket(packets.Pingresp))
		case *packets.DisconnectPacket:
			return
		}
	}
}

func named(parts []string, topic string) bool {
	for _, part := range parts {
		if strings.Contains(topic, part) {
			return true
		}
	}
	return false
}

func (r *region) answer(topic string, payload []byte) packets.ControlPacket {
	if topic == "keyvet/gw/report" {
		r.mu.Lock()
		r.reports[string(payload)]++
		r.mu.Unlock()
	}
	if !strings.HasPrefix(topic, "$aws/") {
		return nil
	}
	var asked struct {
		ClientToken string `json:"clientToken"`
	}
	_ = json.Unmarshal(payload, &asked)
	// Not the bubble's time: the floor of the clock is the whole process's.
	reply := map[string]any{"timestamp": device.ClockFloor().Unix(), "queuedJobs": []any{}, "inProgressJobs": []any{}}
	if asked.ClientToken != "" {
		reply["clientToken"] = asked.ClientToken
	}
	verdict := "/accepted"
	r.mu.Lock()
	job := r.job
	r.mu.Unlock()
	switch of := "/jobs/" + job; {
	case job == "":
	case strings.HasSuffix(topic, "/jobs/get"):
		reply["queuedJobs"] = []any{map[string]any{"jobId": job}}
	case strings.HasSuffix(topic, of+"/get"):
		reply["execution"] = map[string]any{
			"jobId": job, "status": "QUEUED", "versionNumber": 1, "executionNumber": 1, "jobDocument": map[string]any{"operation": "keyvet.check", "version": "1.0"},
		}
	case strings.HasSuffix(topic, of+"/update") && strings.Contains(string(payload), "SUCCEEDED"):
		r.mu.Lock()
		r.job, r.done = "", time.Now()
		r.mu.Unlock()
	}
	switch {
	case named(r.refused, topic):
		verdict, reply["code"], reply["message"], reply["statusCode"], reply["errorCode"] = "/rejected", 413, "too large", 400, "AccessDenied"
	case strings.HasSuffix(topic, "shadow/name/keyvet/get"):
		verdict, reply["code"] = "/rejected", 404
	}
	b, err := json.Marshal(reply)
	if err != nil {
		panic(err)
	}
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = topic+verdict, b
	return p
}

// logged counts the lines of a log, and keeps the first.
type logged struct {
	mu    sync.Mutex
	lines int
	first bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines++; l.lines <= 200 {
		l.first.Write(b)
	}
	return len(b), nil
}
