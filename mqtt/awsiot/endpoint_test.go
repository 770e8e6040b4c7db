package awsiot

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyvet/keyvet/mqtt"
)

// The five keys are those of the roots that Debian ships.
func TestAmazonRoots(t *testing.T) {
	files, err := filepath.Glob("/usr/share/ca-certificates/mozilla/Amazon_Root_CA_*.crt")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "/usr/share/ca-certificates/mozilla/Starfield_Services_Root_Certificate_Authority_-_G2.crt")
	if len(files) != len(amazonRoots) {
		t.Fatalf("install ca-certificates: %d roots of Amazon's", len(files))
	}
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		if pin := base64.StdEncoding.EncodeToString(sum[:]); pin != amazonRoots[i] {
			t.Errorf("%s: %s, want %s", file, amazonRoots[i], pin)
		}
	}
}

// What is pinned where nothing is said follows the endpoint, each its own.
func TestParticular(t *testing.T) {
	const host, own = "x-ats.iot.eu-west-1.amazonaws.com", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, tt := range []struct {
		endpoint string
		pins     []string
		protocol string
		want     []string
	}{
		{host + ":8883", nil, "", amazonRoots},
		{host + ":443", nil, "x-amzn-mqtt-ca", amazonRoots},
		{host + ":443", []string{}, "x-amzn-mqtt-ca", nil},
		{"X-ATS.IoT.eu-west-1.AmazonAWS.com.:8883", nil, "", amazonRoots},
		{"x.ats.iot.cn-north-1.amazonaws.com.cn:8883", nil, "", amazonRoots},
		{host + ":8883", []string{own}, "", []string{own}}, // such as a proxy's
		{host + ":8883", []string{own, AmazonRoots}, "", append([]string{own}, amazonRoots...)},
		{"broker.example:8883", nil, "", nil},
		{"broker.example:443", []string{AmazonRoots}, "x-amzn-mqtt-ca", amazonRoots},
		{"amazonaws.com.example:8883", nil, "", nil},
		{"notamazonaws.com:8883", nil, "", nil},
		{"iot.amazonaws.com.evil.example:8883", nil, "", nil},
		{"[::1]:443", nil, "x-amzn-mqtt-ca", nil},
	} {
		if got := particular(tt.endpoint, tt.pins); got.Protocol != tt.protocol || !slices.Equal(got.Pins, tt.want) {
			t.Errorf("%s, %q: %+v, want %q and %q", tt.endpoint, tt.pins, got, tt.protocol, tt.want)
		}
	}
}

// An endpoint of the old type has its own advice, since its certificate does not
// lead to Amazon's roots.
func TestLegacyEndpoint(t *testing.T) {
	for host, want := range map[string]bool{
		"abc.iot.eu-west-1.amazonaws.com":              true,
		"ABC.IOT.EU-WEST-1.AMAZONAWS.COM.":             true,
		"abc.iot.cn-north-1.amazonaws.com.cn":          true,
		"abc-ats.iot.eu-west-1.amazonaws.com":          false,
		"abc.ats.iot.cn-north-1.amazonaws.com.cn":      false,
		"abc.iot.example":                              false,
		"vpce-1.data.iot.eu-west-1.vpce.amazonaws.com": false,
	} {
		if got := particular(host+":8883", nil).Advice; (got != "") != want || want && !strings.Contains(got, "-ats.iot.") {
			t.Errorf("%s: %q", host, got)
		}
	}
}

// CONNACK 7 names what it is about.
func TestNotAuthorized(t *testing.T) {
	if got := refusals("gw-0042")[7]; !strings.Contains(got, "client id gw-0042") || !strings.Contains(got, "the thing's name") {
		t.Error(got)
	}
}

func TestDialerKeepsLimits(t *testing.T) {
	good := mqtt.Config{
		Endpoints: []string{"localhost:8883"}, ClientID: "gw",
		Certificate: tls.Certificate{Certificate: [][]byte{{0}}, PrivateKey: ed25519.NewKeyFromSeed(make([]byte, 32))},
	}
	if _, err := NewDialer(good, nil); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(*mqtt.Config){
		"a long client id":         func(c *mqtt.Config) { c.ClientID = strings.Repeat("x", 129) },
		"a short keep-alive":       func(c *mqtt.Config) { c.KeepAlive = time.Second },
		"a long keep-alive":        func(c *mqtt.Config) { c.KeepAlive = time.Hour },
		"an endpoint that is none": func(c *mqtt.Config) { c.Endpoints = []string{"localhost"} },
	} {
		bad := good
		spoil(&bad)
		if _, err := NewDialer(bad, nil); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if _, err := NewDialer(good, []string{"amazonas"}); err == nil {
		t.Error("a pin that is none is taken")
	}
}
