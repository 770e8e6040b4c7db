package awsiot

import (
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/keyvet/keyvet/mqtt"
)

// The limits of AWS IoT Core (AWS IoT Core endpoints and quotas, "Message broker
// and protocol limits"). It ends a connection that goes beyond one, without a word.
const (
	maxPayload   = 128 << 10 // bytes; what is larger is not parsed either
	maxTopic     = 256       // bytes
	maxSlashes   = 7
	maxClientID  = 128 // bytes
	MinKeepAlive = 30 * time.Second
	MaxKeepAlive = 20 * time.Minute
)

// refusals are AWS IoT's own CONNACK codes.
func refusals(clientID string) map[byte]string {
	return map[byte]string{7: fmt.Sprintf("not authorized: does the policy of the client certificate allow iot:Connect for the client id %s (mqtt.client_id, or the thing's name)?", clientID)}
}

// NewDialer returns a dialer to AWS IoT, or to what speaks its protocols. pins
// is what the operator pinned: base64 SHA-256 of SubjectPublicKeyInfo or
// [AmazonRoots]. nil is [AmazonRoots] for an endpoint in Amazon's domains and none
// for another; an empty list is none for all.
func NewDialer(cfg mqtt.Config, pins []string) (*mqtt.Dialer, error) {
	if len(cfg.ClientID) > maxClientID {
		return nil, fmt.Errorf("client id of %d bytes: AWS IoT takes 1 to %d", len(cfg.ClientID), maxClientID)
	}
	if k := cfg.KeepAlive; k != 0 && (k < MinKeepAlive || k > MaxKeepAlive) {
		return nil, fmt.Errorf("keep-alive of %v: AWS IoT takes %v to %v", k, MinKeepAlive, MaxKeepAlive)
	}
	cfg.Refusals = refusals(cfg.ClientID)
	cfg.TLS = func(endpoint string) mqtt.TLS { return particular(endpoint, pins) }
	return mqtt.NewDialer(cfg)
}

// particular is what is so of one endpoint: port 443 is MQTT's only by ALPN (AWS
// IoT Developer Guide, "Device communication protocols").
func particular(endpoint string, pins []string) mqtt.TLS {
	host, port, _ := net.SplitHostPort(endpoint) // mqtt says what is wrong with it
	var p mqtt.TLS
	if port == "443" {
		p.Protocol = "x-amzn-mqtt-ca"
	}
	if pins == nil && amazons(host) {
		pins = []string{AmazonRoots}
	}
	if legacy(host) {
		p.Advice = "this is a legacy endpoint, whose certificate Amazon's roots do not sign: take the one of \"aws iot describe-endpoint --endpoint-type iot:Data-ATS\", PREFIX-ats.iot.…"
	}
	for _, pin := range pins {
		if pin == AmazonRoots {
			p.Pins = append(p.Pins, amazonRoots...)
		} else {
			p.Pins = append(p.Pins, pin)
		}
	}
	return p
}

// amazons reports whether a host is in Amazon's domains, so that its
// certificate is from Amazon Trust Services.
func amazons(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

// legacy reports whether a host is an endpoint of type iot:Data, whose certificate
// is not from Amazon Trust Services.
func legacy(host string) bool {
	prefix, rest, _ := strings.Cut(strings.ToLower(host), ".")
	return amazons(host) && strings.HasPrefix(rest, "iot.") && !strings.HasSuffix(prefix, "-ats")
}

// AmazonRoots, among the pins, stands for the keys of all of Amazon Trust
// Services' roots, which AWS advises to trust as a set (AWS IoT Developer Guide,
// "Server authentication").
const AmazonRoots = "amazon"

var amazonRoots = []string{
	"++MBgDH5WGvL9Bcn5Be30cRcL0f5O+NyoXuWtQdX1aI=", // Amazon Root CA 1
	"f0KW/FtqTjs108NpYj42SrGvOB2PpxIVM8nWxjPqJGE=", // Amazon Root CA 2
	"NqvDJlas/GRcYbcWE8S/IceH9cq77kg0jVhZeAPXq8k=", // Amazon Root CA 3
	"9+ze1cZgR9KO1kZrVDxA4HQ6voHRCSVNz4RdTCx4U8U=", // Amazon Root CA 4
	"KwccWaCgrnaw6tsrrSO61FgLacNgG2MMLq8GE6+oP5I=", // Starfield Services Root Certificate Authority - G2
}

// CheckPin returns an error if pin cannot be one of [NewDialer]'s.
func CheckPin(pin string) error {
	if pin == AmazonRoots {
		return nil
	}
	if err := mqtt.CheckPin(pin); err != nil {
		return fmt.Errorf("%w, nor %q", err, AmazonRoots)
	}
	return nil
}
