package mqtt

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
)

// AmazonRoots, among Config.Pins, stands for the keys of all of Amazon Trust
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

// CheckPin tells whether pin can be one of Config.Pins.
func CheckPin(pin string) error {
	if pin == AmazonRoots {
		return nil
	}
	if b, err := base64.StdEncoding.DecodeString(pin); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("pin %q is neither %q nor the base64 of a SHA-256", pin, AmazonRoots)
	}
	return nil
}

// checkPins looks for a pinned key in the chains, leaf first, and tells whether
// it is the leaf's alone. A certificate that is its own root is no mere leaf.
func checkPins(pins []string, chains [][]*x509.Certificate) (leafOnly bool, err error) {
	if len(pins) == 0 {
		return false, nil
	}
	if slices.Contains(pins, AmazonRoots) {
		pins = append(slices.Clone(pins), amazonRoots...)
	}
	for _, chain := range chains {
		for i, cert := range chain {
			sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
			if !slices.Contains(pins, base64.StdEncoding.EncodeToString(sum[:])) {
				continue
			}
			if i > 0 || len(chain) == 1 {
				return false, nil
			}
			leafOnly = true
		}
	}
	if !leafOnly {
		return false, fmt.Errorf("%w: no key of its chain is pinned: check mqtt.pins", ErrServerUntrusted)
	}
	return true, nil
}
