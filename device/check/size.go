package check

import (
	"context"
	"strings"

	"github.com/keyvet/keyvet/device"
)

// What the check can give for not passing.
var (
	modulusInvalid = device.Reason{
		Code: "KEYVET_RSA_MODULUS_INVALID", Status: device.Fail, Severity: device.Critical,
		Means: "The RSA modulus is not a positive number.",
		Do:    "Replace the key; the file is damaged or made to attack.",
	}
	rsaTooShort = device.Reason{
		Code: "KEYVET_RSA_TOO_SHORT", Status: device.Fail, Severity: device.High,
		Means: "The RSA key has less than 2048 bits.",
		Do:    "Replace it by ECDSA P-256 or RSA of 2048 bits or more.",
	}
	rsaTooLong = device.Reason{
		Code: "KEYVET_RSA_TOO_LONG", Status: device.Warn, Severity: device.Low,
		Means: "The RSA key is longer than TLS implementations accept.",
		Do:    "Use RSA of 2048 to 4096 bits, or ECDSA P-256.",
	}
	ed25519Key = device.Reason{
		Code: "KEYVET_ED25519_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept Ed25519 keys.",
		Do:    "Use ECDSA P-256.",
	}
	p224 = device.Reason{
		Code: "KEYVET_P224_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept keys on the curve P-224.",
		Do:    "Use ECDSA P-256.",
	}
	secp256k1 = device.Reason{
		Code: "KEYVET_SECP256K1_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept keys on the curve secp256k1.",
		Do:    "Use ECDSA P-256.",
	}
	algorithmRefused = device.Reason{
		Code: "KEYVET_ALGORITHM_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept keys of this algorithm.",
		Do:    "Use ECDSA P-256.",
	}
	algorithmUnknown = device.Reason{
		Code: "KEYVET_ALGORITHM_UNKNOWN", Status: device.Warn, Severity: device.Low,
		Means: "keyvet has no tests for keys of this algorithm.",
		Do:    "Nothing, if the key is meant to be of it; else use ECDSA P-256.",
	}
	dsa = device.Reason{
		Code: "KEYVET_DSA_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "DSA keys are not accepted by TLS 1.3, OpenSSH and AWS IoT.",
		Do:    "Replace it by ECDSA P-256.",
	}
	keyUnreadable = device.Reason{
		Code: "KEYVET_KEY_UNREADABLE", Status: device.Undecided,
		Means: "A key is there but could not be read, so nothing is known of it.",
		Do:    "Look at the file; an encrypted private key must be given together with its public key or certificate.",
	}
)

var size = Check{
	ID:      "size",
	Cite:    "https://docs.aws.amazon.com/iot/latest/apireference/API_CreateCertificateFromCsr.html",
	Asks:    "Is the key long enough, and of an algorithm that AWS IoT accepts?",
	Applies: func(device.Key) bool { return true },
	Reasons: []device.Reason{modulusInvalid, rsaTooShort, rsaTooLong, ed25519Key, p224, secp256k1, algorithmRefused, algorithmUnknown, dsa, keyUnreadable},
	Run:     runSize,
}

// awsCurves are those AWS IoT takes; for RSA it documents a least size (2,048
// bits) and no greatest.
var awsCurves = map[string]bool{"ECDSA-P256": true, "ECDSA-P384": true, "ECDSA-P521": true}

// refused has the reasons of named algorithms that AWS IoT does not take.
var refused = map[string]device.Reason{"Ed25519": ed25519Key, "ECDSA-P224": p224, "ECDSA-secp256k1": secp256k1}

// shownToAWS reports whether AWS IoT has to take a key of that role: as the
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
			return give(modulusInvalid, "the modulus is not positive")
		case n.BitLen() < 2048:
			return give(rsaTooShort, "%s is too short: AWS IoT takes 2048 bits and more", algorithm)
		case n.BitLen() > 8192 && shownToAWS(k.Role): // crypto/tls: checkKeySize
			return give(rsaTooLong, "%s is longer than TLS stacks, Go's among them, take (8192 bits)", algorithm)
		}
		return passed("%s is long enough", algorithm)
	}
	reason, known := refused[algorithm]
	_, other := k.Public.(*device.OtherKey)
	switch {
	case awsCurves[algorithm]:
		return passed("AWS IoT takes %s", algorithm)
	case strings.HasPrefix(algorithm, "DSA"):
		// Whoever it is shown to: OpenSSL, OpenSSH and TLS 1.3 have all given DSA up.
		return give(dsa, "%s is not accepted any more: use ECDSA P-256", algorithm)
	case !known && !other:
		return give(keyUnreadable, "no key that could be judged was found")
	case !known:
		reason = algorithmRefused
		if !shownToAWS(k.Role) {
			return give(algorithmUnknown, "keyvet has no tests for a key of the algorithm %s", algorithm)
		}
	}
	if !shownToAWS(k.Role) {
		return passed("%s is not shown to AWS IoT", algorithm)
	}
	return give(reason, "AWS IoT does not take %s: use ECDSA P-256, P-384 or P-521, or RSA of 2048 bits or more", algorithm)
}
