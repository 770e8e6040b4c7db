package localiot_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/keyvet/keyvet/mqtt/awsiot/localiot"
)

const createTopic = "$aws/certificates/create-from-csr/json"

func csr(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "gw"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func object(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// with connects by a certificate.
func with(t *testing.T, s *localiot.Server, cert tls.Certificate, id string) *device {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	d := &device{t, conn}
	d.connect(id)
	return d
}

// refused reports whether a certificate is not let in.
func refused(t *testing.T, s *localiot.Server, cert tls.Certificate) bool {
	t.Helper()
	conn, err := tls.Dial("tcp", s.Endpoint(), tlsConfig(s, cert))
	if err != nil {
		return true // TLS 1.2 tells in the handshake
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	c := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	c.ProtocolName, c.ProtocolVersion, c.CleanSession, c.ClientIdentifier = "MQTT", 4, true, "refused"
	c.Write(conn) // may fail: it is cut
	_, err = packets.ReadPacket(conn)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Error("neither let in nor cut off")
	}
	return err != nil
}

func claim(t *testing.T, s *localiot.Server) *device {
	t.Helper()
	key := newKey(t)
	chain, err := s.IssueClaim(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	d := with(t, s, certificate(t, chain, key), "claim-1")
	d.write(subscribe(createTopic+"/accepted", createTopic+"/rejected", "$aws/provisioning-templates/+/provision/json/+"))
	d.read()
	return d
}

// create makes a certificate on key and returns it with its ownership token.
func (d *device) create(key crypto.Signer) (tls.Certificate, string) {
	d.t.Helper()
	r := d.request(createTopic, object(d.t, map[string]string{"certificateSigningRequest": csr(d.t, key)}), 1)["accepted"]
	if r == nil {
		d.t.Fatal("not created")
	}
	cert := certificate(d.t, []byte(r["certificatePem"].(string)), key)
	if r["certificateId"] != localiot.CertificateID(cert.Certificate[0]) {
		d.t.Errorf("certificateId %v", r["certificateId"])
	}
	return cert, r["certificateOwnershipToken"].(string)
}

func (d *device) provision(template, token string, parameters map[string]string) map[string]map[string]any {
	d.t.Helper()
	return d.request("$aws/provisioning-templates/"+template+"/provision/json",
		object(d.t, map[string]any{"certificateOwnershipToken": token, "parameters": parameters}), 1)
}

func statuses(s *localiot.Server, thing string) (list []localiot.CertificateStatus) {
	for _, c := range s.Certificates(thing) {
		list = append(list, c.Status)
	}
	return list
}

func TestFleetProvisioning(t *testing.T) {
	s := start(t)
	d := claim(t, s)
	key := newKey(t)
	cert, token := d.create(key)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) || leaf.Subject.CommonName != "gw" {
		t.Errorf("certificate of %v on another key", leaf.Subject)
	}
	if !refused(t, s, cert) {
		t.Error("let in before it is provisioned")
	}
	reject := func(code, template, token string, parameters map[string]string) {
		t.Helper()
		if r := d.provision(template, token, parameters)["rejected"]; r["errorCode"] != code || r["statusCode"] == 0 || r["errorMessage"] == "" {
			t.Errorf("%v, want %s", r, code)
		}
	}
	name := map[string]string{"ThingName": "gw"}
	reject("ResourceNotFound", "none", token, name)
	reject("InvalidCertificateOwnershipToken", localiot.Template, "", name)
	reject("InvalidCertificateOwnershipToken", localiot.Template, token+"x", name)
	reject("InvalidParameters", localiot.Template, token, nil)
	reject("InvalidParameters", localiot.Template, token, map[string]string{"ThingName": "a/b"})
	reject("InvalidParameters", localiot.Template, token, map[string]string{"ThingName": "gw", "Other": "x"})
	if len(s.Things()) != 0 {
		t.Errorf("a rejected request made %v", s.Things())
	}
	if a := d.provision(localiot.Template, token, name)["accepted"]; a["thingName"] != "gw" || a["deviceConfiguration"] == nil {
		t.Fatalf("%v", a)
	}
	reject("InvalidCertificateOwnershipToken", localiot.Template, token, name) // used

	// By its own certificate the device replaces it; the thing stays one.
	own := with(t, s, cert, "gw")
	own.write(subscribe(createTopic + "/+"))
	own.read()
	own.write(subscribe("$aws/provisioning-templates/keyvet/provision/json/+"))
	own.read()
	second, token := own.create(newKey(t))
	own.provision(localiot.Template, token, name)
	with(t, s, second, "gw2")
	if got := statuses(s, "gw"); len(s.Things()) != 1 || !slices.Equal(got, []localiot.CertificateStatus{localiot.Active, localiot.Active}) {
		t.Errorf("things %v, certificates %v", s.Things(), got)
	}
}

// Nobody sees another's reply: an ownership token is in it.
func TestProvisioningReplies(t *testing.T) {
	s := start(t)
	curious, d := dial(t, s, "gw"), claim(t, s)
	curious.write(subscribe(createTopic + "/+"))
	curious.read()
	d.create(newKey(t))
	curious.write(packets.NewControlPacket(packets.Pingreq))
	if p, ok := curious.read().(*packets.PingrespPacket); !ok {
		t.Errorf("got %v", p)
	}
	// A client that has not subscribed gets none either, unlike with Jobs.
	other := dial(t, s, "gw3")
	other.write(publish(createTopic, object(t, map[string]string{"certificateSigningRequest": csr(t, newKey(t))}), 0, false))
	other.write(packets.NewControlPacket(packets.Pingreq))
	if p, ok := other.read().(*packets.PingrespPacket); !ok {
		t.Errorf("got %v", p)
	}
}

func TestCSRs(t *testing.T) {
	d := claim(t, start(t))
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	good := csr(t, newKey(t))
	block, _ := pem.Decode([]byte(good))
	block.Bytes[len(block.Bytes)-1] ^= 1
	for what, text := range map[string]string{
		"RSA-1024": csr(t, weak), "Ed25519": csr(t, edwards), "P-224": csr(t, p224),
		"bad signature": string(pem.EncodeToMemory(block)), "none": "", "two": good + good, "long": good + strings.Repeat("\n", 4096),
	} {
		r := d.request(createTopic, object(t, map[string]string{"certificateSigningRequest": text}), 1)["rejected"]
		if r["errorCode"] != "InvalidCertificateSigningRequest" || r["statusCode"] != 400.0 {
			t.Errorf("%s: %v", what, r)
		}
	}
	for _, payload := range []string{``, `{`, `[]`, `{"certificateSigningRequest":1}`} {
		if r := d.request(createTopic, payload, 1)["rejected"]; r["errorCode"] != "InvalidPayload" {
			t.Errorf("%q: %v", payload, r)
		}
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	d.create(p384)
}

func TestClaimPolicy(t *testing.T) {
	s := start(t)
	for _, p := range []packets.ControlPacket{
		publish("$aws/things/gw/jobs/get", "", 1, false), publish("keyvet/gw/report", "", 1, false), publish("$aws/things//shadow/get", "", 1, false),
		publish("keyvet//report", "", 1, false), subscribe("#"), subscribe("$aws/things/+/jobs/notify"),
	} {
		d := claim(t, s)
		d.write(p)
		if !d.gone() {
			t.Errorf("a claim may do %v", p)
		}
	}
}

func TestTemplates(t *testing.T) {
	s := start(t)
	if err := s.AddTemplate("fleet", []byte(`{
		"Parameters": {"SerialNumber": {"Type": "String"}, "Site": {"Type": "String", "Default": "lab"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
		"Resources": {
			"thing": {"Type": "AWS::IoT::Thing", "Properties": {"AttributePayload": {}, "ThingName": {"Fn::Join": ["-", ["gw", {"Ref": "Site"}, {"Fn::Sub": "n${SerialNumber}"}]]}}},
			"certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}},
			"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "x"}}},
		"DeviceConfiguration": {"site": {"Ref": "Site"}, "fallback": "https://example.com"}}`)); err != nil {
		t.Fatal(err)
	}
	d := claim(t, s)
	_, token := d.create(newKey(t))
	a := d.provision("fleet", token, map[string]string{"SerialNumber": "7"})["accepted"]
	if a["thingName"] != "gw-lab-n7" || fmt.Sprint(a["deviceConfiguration"]) != "map[fallback:https://example.com site:lab]" {
		t.Errorf("%v", a)
	}
	for _, body := range []string{
		``, `{}`, `{"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{}}}}`, `{"Resources":{"t":{"Type":"AWS::S3::Bucket"}}}`,
		`{"Parameters":{"n":{"Type":"Number"}},"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"}}}}`,
		`{"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"}},"c":{"Type":"AWS::IoT::Certificate","Properties":{"Status":"WRONG"}}}}`,
		`{"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"x"}},"u":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":"y"}}}}`,
	} {
		if err := s.AddTemplate("bad", []byte(body)); err == nil {
			t.Errorf("took %s", body)
		}
	}
	for i, name := range []string{
		`{"Ref":"Undeclared"}`, `{"Ref":1}`, `{"Fn::Join":["-"]}`, `{"Fn::Join":[1,[]]}`, `{"Fn::Sub":"${Undeclared}"}`, `{"Fn::Sub":1}`, `{"Fn::If":[]}`, `{}`, `1`,
		strings.Repeat(`{"Fn::Join":["",[`, 10) + `"x"` + strings.Repeat(`]]}`, 10),
	} {
		if err := s.AddTemplate("odd", fmt.Appendf(nil, `{"Resources":{"t":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":%s}}}}`, name)); err != nil {
			t.Fatal(err)
		}
		_, token := d.create(newKey(t))
		if r := d.provision("odd", token, nil)["rejected"]; r["errorCode"] != "InvalidParameters" {
			t.Errorf("%d: %v", i, r)
		}
	}
}

func TestCertificateProvider(t *testing.T) {
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: nil, Subject: pkix.Name{CommonName: "own CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	fail := false
	s, err := localiot.Start(localiot.Options{Dir: t.TempDir(), Provider: func(csr *x509.CertificateRequest) ([][]byte, error) {
		if fail {
			return nil, errors.New("the CA is out of order")
		}
		leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{Subject: csr.Subject, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, ca, csr.PublicKey, key)
		return [][]byte{leaf, ca.Raw}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d := claim(t, s)
	cert, token := d.create(newKey(t))
	leaf, _ := x509.ParseCertificate(cert.Certificate[0])
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		t.Error(err)
	}
	d.provision(localiot.Template, token, map[string]string{"ThingName": "gw"})
	with(t, s, cert, "gw") // a registered certificate counts, not its CA
	fail = true
	if r := d.request(createTopic, object(t, map[string]string{"certificateSigningRequest": csr(t, newKey(t))}), 1)["rejected"]; r["statusCode"] != 500.0 {
		t.Errorf("%v", r)
	}
}

const issuerTopic = "keyvet/gw/certificate/"

func TestIssuerByTopics(t *testing.T) {
	s := start(t)
	d := dial(t, s, "gw")
	first := s.Certificates("gw")[0].ID
	d.write(subscribe(issuerTopic+"create/+", issuerTopic+"commit/+"))
	d.read()
	replies := func(d *device, operation, payload string) map[string]map[string]any {
		t.Helper()
		return d.request(issuerTopic+operation, payload, 1)
	}
	for _, payload := range []string{``, `{}`, `{"csr":"x"}`, `{"csr":1}`} {
		if r := replies(d, "create", payload)["rejected"]; r["code"] == "" || r["message"] == "" {
			t.Errorf("%q: %v", payload, r)
		}
	}
	key := newKey(t)
	a := replies(d, "create", object(t, map[string]string{"jobId": "j", "csr": csr(t, key), "clientToken": "t"}))["accepted"]
	if a["clientToken"] != "t" || !strings.Contains(a["chainPem"].(string), "CERTIFICATE") {
		t.Fatalf("%v", a)
	}
	id := a["certificateId"].(string)
	if r := replies(d, "commit", object(t, map[string]string{"jobId": "j", "certificateId": id}))["rejected"]; r["code"] != "Forbidden" {
		t.Errorf("committed by the old certificate: %v", r)
	}
	fresh := with(t, s, certificate(t, []byte(a["certificatePem"].(string)), key), "gw-new")
	fresh.write(subscribe(issuerTopic + "commit/+"))
	fresh.read()
	if r := replies(fresh, "commit", object(t, map[string]string{"certificateId": first}))["rejected"]; r["code"] != "Forbidden" {
		t.Errorf("committed another: %v", r)
	}
	if a := replies(fresh, "commit", object(t, map[string]string{"jobId": "j", "certificateId": id}))["accepted"]; a["certificateId"] != id {
		t.Errorf("%v", a)
	}
	// The rejection may still come, since the old connection had subscribed, too.
	if _, err := io.Copy(io.Discard, d.conn); err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the old certificate's connection stands")
	}
	if got := statuses(s, "gw"); !slices.Equal(got, []localiot.CertificateStatus{localiot.Inactive, localiot.Active}) {
		t.Errorf("%v", got)
	}
}

func TestJITR(t *testing.T) {
	s, err := localiot.Start(localiot.Options{Dir: t.TempDir(), JITR: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	unregistered := func(thing string) tls.Certificate {
		key := newKey(t)
		chain, err := s.IssueUnregistered(thing, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		return certificate(t, chain, key)
	}
	cert := unregistered("gw")
	alone := cert
	alone.Certificate = cert.Certificate[:1]
	if !refused(t, s, alone) || len(s.Things()) != 0 {
		t.Error("without its CA certificate it is let in, or known")
	}
	if !refused(t, s, cert) {
		t.Error("let in at its first connection")
	}
	with(t, s, cert, "gw")
	if !slices.Equal(s.Things(), []string{"gw"}) || !slices.Equal(statuses(s, "gw"), []localiot.CertificateStatus{localiot.Active}) {
		t.Errorf("%v %v", s.Things(), s.Certificates("gw"))
	}
	s.SetFaults(localiot.Faults{NeverActivated: true})
	pending := unregistered("gw2")
	for range 2 {
		if !refused(t, s, pending) {
			t.Error("a certificate that is pending is let in")
		}
	}
	if err := s.Activate(localiot.CertificateID(pending.Certificate[0])); err != nil {
		t.Fatal(err)
	}
	with(t, s, pending, "gw2")
	nameless := unregistered("not/a/name")
	for range 2 {
		if !refused(t, s, nameless) {
			t.Error("no thing can be called that")
		}
	}
	if err := s.Activate("00"); err == nil {
		t.Error("activated an unknown certificate")
	}
	off := start(t)
	key := newKey(t)
	chain, err := off.IssueUnregistered("gw", key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !refused(t, off, certificate(t, chain, key)) {
			t.Error("registered without JITR")
		}
	}
}

func TestRegisterCertificate(t *testing.T) {
	s, other := start(t), start(t)
	cert := enrol(t, other, "gw")
	if err := s.RegisterCertificate("gw", cert.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	with(t, s, cert, "gw")
	if s.RegisterCertificate("gw", []byte("x")) == nil || s.RegisterCertificate("a/b", cert.Certificate[0]) == nil {
		t.Error("registered nonsense")
	}
	short, err := localiot.Start(localiot.Options{Dir: t.TempDir(), Life: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { short.Close() })
	if !refused(t, short, enrol(t, short, "gw")) {
		t.Error("an expired certificate is let in")
	}
}
