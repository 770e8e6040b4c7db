package awsiot_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/mqtt"
	"github.com/keyvet/keyvet/mqtt/awsiot"
)

func certificatePEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func quoted(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// issued is a reply with a certificate, and what is wrong with it.
type issued struct {
	name, id, cert, chain string
	want                  string // PEM
	err                   string
}

func issuedReplies(t *testing.T) []issued {
	id := strings.Repeat("0a", 32)
	leaf, ca := certificatePEM(t), certificatePEM(t)
	key := strings.ReplaceAll(leaf, "CERTIFICATE", "PRIVATE KEY")
	return []issued{
		{"leaf", id, leaf, "", leaf, ""},
		{"chain", id, leaf, ca, leaf + ca, ""},
		{"CRLF and blank lines", id, "\r\n" + strings.ReplaceAll(leaf, "\n", "\r\n") + "\r\n\r\n", ca, leaf + ca, ""},
		{"no id", "", leaf, "", "", "no certificate id"},
		{"an id that is a path", "../../etc/x", leaf, "", "", "no certificate id"},
		{"a long id", strings.Repeat("a", 129), leaf, "", "", "no certificate id"},
		{"no certificate", id, "", "", "", "there is no certificate"},
		{"no PEM", id, "hello", "", "", "other than PEM"},
		{"text after it", id, leaf + "hello", "", "", "other than PEM"},
		{"a key", id, leaf, key, "", "not a certificate"},
		{"too long a chain", id, leaf, strings.Repeat(ca, 10), "", "more than 10"},
	}
}

func TestCreateCertificate(t *testing.T) {
	var reply answer
	s, c := dialScript(t, func(request) answer { return reply })
	csr := []byte("-----BEGIN CERTIFICATE REQUEST-----\n")
	for _, tt := range issuedReplies(t) {
		// Fleet provisioning has the chain, if any, in the same member.
		reply = accept(`{"certificateId":%s,"certificatePem":%s,"certificateOwnershipToken":"tok"}`, quoted(t, tt.id), quoted(t, tt.cert+tt.chain))
		got, err := c.CreateCertificate(t.Context(), csr)
		checkIssued(t, tt, got, err, "tok")
	}
	r := s.requests()[0]
	if r.topic != "$aws/certificates/create-from-csr/json" || string(r.raw) != `{"certificateSigningRequest":"-----BEGIN CERTIFICATE REQUEST-----\n"}` {
		t.Errorf("%s %s", r.topic, r.raw)
	}
	reply = accept(`{"certificateId":"a","certificatePem":%s}`, quoted(t, certificatePEM(t)))
	if _, err := c.CreateCertificate(t.Context(), csr); err == nil || !strings.Contains(err.Error(), "OwnershipToken is not there") {
		t.Error(err)
	}
	reply = reject(`{"statusCode":400,"errorCode":"InvalidCSR","errorMessage":"bad"}`)
	var rejected *awsiot.Rejected
	if _, err := c.CreateCertificate(t.Context(), csr); !errors.As(err, &rejected) || rejected.Code != "InvalidCSR" || errors.Is(err, awsiot.ErrThrottled) {
		t.Error(err)
	}
}

func checkIssued(t *testing.T, tt issued, got awsiot.Certificate, err error, token string) {
	t.Helper()
	if tt.err != "" {
		if err == nil || !strings.Contains(err.Error(), tt.err) || got.PEM != nil {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
		return
	}
	if err != nil || got.ID != tt.id || got.OwnershipToken != token || !bytes.Equal(got.PEM, []byte(tt.want)) {
		t.Errorf("%s: %+v, %v", tt.name, got, err)
	}
}

func TestRequestCertificate(t *testing.T) {
	var reply answer
	s, c := dialScript(t, func(request) answer { return reply })
	for _, tt := range issuedReplies(t) {
		reply = accept(`{"certificateId":%s,"certificatePem":%s,"chainPem":%s}`, quoted(t, tt.id), quoted(t, tt.cert), quoted(t, tt.chain))
		got, err := c.RequestCertificate(t.Context(), "job-1", []byte("CSR"))
		checkIssued(t, tt, got, err, "")
	}
	reply = reject(`{"code":"Forbidden","message":"not yours"}`)
	if _, err := c.RequestCertificate(t.Context(), "", []byte("CSR")); err == nil || !strings.Contains(err.Error(), "Forbidden: not yours") {
		t.Error(err)
	}
	reply = accept(`{}`)
	if err := c.CommitCertificate(t.Context(), "job-1", "id-1"); err != nil {
		t.Error(err)
	}
	reply = reject(`{"code":"Forbidden"}`)
	if err := c.CommitCertificate(t.Context(), "job-1", "id-1"); err == nil {
		t.Error("a rejected commit succeeded")
	}
	all := s.requests()
	first, last := all[0], all[len(all)-1]
	if first.topic != "keyvet/"+thing+"/certificate/create" || string(first.raw) != `{"csr":"CSR","jobId":"job-1"}` {
		t.Errorf("%s %s", first.topic, first.raw)
	}
	if last.topic != "keyvet/"+thing+"/certificate/commit" || string(last.raw) != `{"certificateId":"id-1","jobId":"job-1"}` {
		t.Errorf("%s %s", last.topic, last.raw)
	}
}

// On the session of a claim there is no thing yet.
func TestRegisterThing(t *testing.T) {
	var reply answer
	s := newScript(t, func(request) answer { return reply })
	session, err := mqtt.Dial(t.Context(), s.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	p := awsiot.NewProvisioner(session)
	for _, tt := range []struct {
		reply answer
		want  string
		err   string
	}{
		{accept(`{"thingName":"gw-1","deviceConfiguration":{}}`), "gw-1 map[]", ""},
		{accept(`{"thingName":"gw-1"}`), "gw-1 map[]", ""},
		{accept(`{"thingName":"gw-1","deviceConfiguration":{"a":"b","n":1,"o":{"x":[]}}}`), `gw-1 map[a:b n:1 o:{"x":[]}]`, ""},
		{accept(`{"deviceConfiguration":{}}`), "", "thing name"},
		{accept(`{"thingName":"a/b"}`), "", "thing name"},
		{accept(`{"thingName":["a"]}`), "", "malformed JSON"},
		{accept(`{"thingName":"a","deviceConfiguration":[]}`), "", "malformed JSON"},
		{reject(`{"statusCode":403,"errorCode":"AccessDenied","errorMessage":"hook"}`), "", "AccessDenied: hook"},
	} {
		reply = tt.reply
		name, configuration, err := p.RegisterThing(t.Context(), "keyvet-fleet", "tok", map[string]string{"SerialNumber": "7"})
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || name != "" {
				t.Errorf("%+v: %q, %v", tt.reply, name, err)
			}
		} else if got := fmt.Sprintf("%s %v", name, configuration); err != nil || got != tt.want {
			t.Errorf("%+v: %s, %v", tt.reply, got, err)
		}
	}
	r := s.requests()[0]
	if r.topic != "$aws/provisioning-templates/keyvet-fleet/provision/json" || string(r.raw) != `{"certificateOwnershipToken":"tok","parameters":{"SerialNumber":"7"}}` {
		t.Errorf("%s %s", r.topic, r.raw)
	}
	for _, template := range []string{"", "a/b", "+", strings.Repeat("x", 37)} {
		if _, _, err := p.RegisterThing(t.Context(), template, "tok", nil); err == nil || !strings.Contains(err.Error(), "no name of a provisioning template") {
			t.Errorf("%q: %v", template, err)
		}
	}
	// A number beside the word tells of throttling; another attempt follows.
	throttle := true
	s.mu.Lock()
	s.answer = func(request) answer {
		defer func() { throttle = false }()
		if throttle {
			return reject(`{"statusCode":429,"errorCode":"Whatever","errorMessage":"slow"}`)
		}
		return accept(`{"thingName":"gw-1"}`)
	}
	s.mu.Unlock()
	if name, _, err := p.RegisterThing(t.Context(), "keyvet-fleet", "tok", nil); name != "gw-1" || err != nil || throttle {
		t.Errorf("%q, %v", name, err)
	}
}
