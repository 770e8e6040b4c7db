package rotate

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"time"
)

// Due is when a certificate is to be replaced by the device's own schedule:
// before it ends by the time given, and earlier by up to a quarter of that, the
// same for one device each time and spread over a fleet, but never in the first
// half of its validity, lest a short one be replaced over and over.
func Due(leaf *x509.Certificate, before time.Duration, deviceName string) time.Time {
	sum := sha256.Sum256([]byte(deviceName))
	share := time.Duration(binary.BigEndian.Uint16(sum[:]))
	due := leaf.NotAfter.Add(-before - before/4/(1<<16)*share)
	if half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2); due.Before(half) {
		return half
	}
	return due
}
