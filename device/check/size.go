package check

import (
	"context"
	"strings"

	"github.com/keyvet/keyvet/device"
)

var size = Check{
	ID:      "size",
	Cite:    "https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCertificateFromCsr.html",
	Applies: func(device.Key) bool { return true },
	Run:     runSize,
}

// awsCurves are those AWS IoT takes; for RSA it documents a least size (2,048
// bits) and no greatest.
var awsCurves = map[string]bool{"ECDSA-P256": true, "ECDSA-P384": true, "ECDSA-P521": true}

// refused has the reason codes of named algorithms that AWS IoT does not take.
var refused = map[string]device.ReasonCode{
	"Ed25519":         "KEYVET_ED25519_NOT_ACCEPTED",
	"ECDSA-P224":      "KEYVET_P224_NOT_ACCEPTED",
	"ECDSA-secp256k1": "KEYVET_SECP256K1_NOT_ACCEPTED",
}

// shownToAWS tells whether AWS IoT has to take a key of that role: as the
// device's, as a CA's, or as whatever a file that was named is for. Keys of a
// TPM's hierarchies and SSH host keys may be of algorithms that it never sees.
func shownToAWS(role device.Role) bool {
	switch role {
	case device.RoleEK, device.RoleAK, device.RoleSRK, device.RolePersistent, device.RoleSSH:
		return false
	}
	return true
}

func runSize(_ context.Context, k device.Key, _ *Env) []device.Finding {
	algorithm := k.Algorithm()
	if n, _, ok := k.RSA(); ok {
		switch {
		case n.Sign() <= 0:
			return failed(device.Critical, "KEYVET_RSA_MODULUS_INVALID", "the modulus is not positive")
		case n.BitLen() < 2048:
			return failed(device.High, "KEYVET_RSA_TOO_SHORT", "%s is too short: AWS IoT takes 2048 bits and more", algorithm)
		case n.BitLen() > 8192 && shownToAWS(k.Role): // crypto/tls: checkKeySize
			return warned(device.Low, "KEYVET_RSA_TOO_LONG", "%s is longer than TLS stacks, Go's among them, take (8192 bits)", algorithm)
		}
		return passed("%s is long enough", algorithm)
	}
	code, known := refused[algorithm]
	_, other := k.Public.(*device.OtherKey)
	switch {
	case awsCurves[algorithm]:
		return passed("AWS IoT takes %s", algorithm)
	case strings.HasPrefix(algorithm, "DSA"):
		// Whoever it is shown to: OpenSSL, OpenSSH and TLS 1.3 have all given DSA up.
		return failed(device.High, "KEYVET_DSA_NOT_ACCEPTED", "%s is not accepted any more: use ECDSA P-256", algorithm)
	case !known && !other:
		return undecided("KEYVET_KEY_UNREADABLE", "no key that could be judged was found")
	case !known:
		code = "KEYVET_ALGORITHM_NOT_ACCEPTED"
		if !shownToAWS(k.Role) {
			return warned(device.Low, "KEYVET_ALGORITHM_UNKNOWN", "keyvet has no tests for a key of the algorithm %s", algorithm)
		}
	}
	if !shownToAWS(k.Role) {
		return passed("%s is not shown to AWS IoT", algorithm)
	}
	return failed(device.High, code, "AWS IoT does not take %s: use ECDSA P-256, P-384 or P-521, or RSA of 2048 bits or more", algorithm)
}
