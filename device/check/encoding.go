package check

import "github.com/keyvet/keyvet/device"

var oddEncoding = device.Reason{
	Code: "KEYVET_CERTIFICATE_ENCODING", Status: device.Warn, Severity: device.Low,
	Means: "A key or certificate could be read, but its encoding breaks DER or RFC 5280: some programs refuse it.",
	Do:    "Have the certificate issued again, or the key written again, by a program that keeps to the standards.",
}

// encoding is what the checks of certificates find of how a key and its
// certificate are encoded.
func encoding(k device.Key) []device.Finding {
	if k.Encoding == "" {
		return nil
	}
	return give(oddEncoding, "read, but its encoding breaks the standards, so that some programs refuse it: %s", k.Encoding)
}
