package mqtt

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
)

// CheckPin returns an error if pin cannot be one of [TLS.Pins].
func CheckPin(pin string) error {
	if b, err := base64.StdEncoding.DecodeString(pin); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("pin %q is not the base64 of a SHA-256", pin)
	}
	return nil
}

// checkPins looks for a pinned key in the chains, leaf first, and reports whether
// it is the leaf's alone. A certificate that is its own root is no mere leaf.
func checkPins(pins []string, chains [][]*x509.Certificate) (leafOnly bool, err error) {
	if len(pins) == 0 {
		return false, nil
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
