package check

import (
	"context"
	"strings"
	"unicode"

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
		Do:    "Replace it by an ECDSA key on P-256, or by a longer RSA key; `keyvet rotate` replaces the device's.",
	}
	rsaTooLong = device.Reason{
		Code: "KEYVET_RSA_TOO_LONG", Status: device.Warn, Severity: device.Low,
		Means: "The RSA key is longer than TLS implementations accept.",
		Do:    "Use RSA of 2048 to 4096 bits, or ECDSA P-256.",
	}
	ed25519Key = device.Reason{
		Code: "KEYVET_ED25519_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept Ed25519 keys. WARN for certificates and requests that AWS IoT may never see.",
		Do:    "Use ECDSA P-256 for the device (`keyvet rotate`), the claim and their CAs.",
	}
	p224 = device.Reason{
		Code: "KEYVET_P224_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept keys on the curve P-224. WARN for certificates and requests that AWS IoT may never see.",
		Do:    "Use ECDSA P-256 for the device (`keyvet rotate`), the claim and their CAs.",
	}
	secp256k1 = device.Reason{
		Code: "KEYVET_SECP256K1_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept keys on the curve secp256k1. WARN for certificates and requests that AWS IoT may never see.",
		Do:    "Use ECDSA P-256 for the device (`keyvet rotate`), the claim and their CAs.",
	}
	algorithmRefused = device.Reason{
		Code: "KEYVET_ALGORITHM_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "AWS IoT does not accept keys of this algorithm. WARN for certificates and requests that AWS IoT may never see.",
		Do:    "Use ECDSA P-256 for the device (`keyvet rotate`), the claim and their CAs.",
	}
	algorithmUnknown = device.Reason{
		Code: "KEYVET_ALGORITHM_UNKNOWN", Status: device.Warn, Severity: device.Low,
		Means: "keyvet has no tests for keys of this algorithm. UNDECIDED for a key in the TPM whose algorithm keyvet cannot even name.",
		Do:    "Nothing, if the key is meant to be of it; else use ECDSA P-256.",
	}
	dsa = device.Reason{
		Code: "KEYVET_DSA_NOT_ACCEPTED", Status: device.Fail, Severity: device.High,
		Means: "DSA keys are not accepted by TLS 1.3, OpenSSH and AWS IoT. WARN for keys that AWS IoT never sees.",
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
	Asks:    "Is the key long enough, and, if AWS IoT sees it, of an algorithm that AWS IoT accepts?",
	Applies: func(device.Key) bool { return true },
	Reasons: []device.Reason{modulusInvalid, rsaTooShort, rsaTooLong, ed25519Key, p224, secp256k1, algorithmRefused, algorithmUnknown, dsa, keyUnreadable},
	Run:     runSize,
}

// awsCurves are those AWS IoT takes; for RSA it documents a least size (2,048
// bits) and no greatest.
var awsCurves = map[string]bool{"ECDSA-P256": true, "ECDSA-P384": true, "ECDSA-P521": true}

// refused has the reasons of named algorithms that AWS IoT does not take.
var refused = map[string]device.Reason{"Ed25519": ed25519Key, "ECDSA-P224": p224, "ECDSA-secp256k1": secp256k1}

// forAWS is what it means for a key that AWS IoT does not take its algorithm: it
// takes the device's key and the claim's, with the CAs above them. Whether it
// will see another certificate, or one that is being requested, is not known. It
// sees no keys of SSH, anchors, bare keys in files, and keys that stay in a TPM.
func forAWS(k device.Key) device.Status {
	switch k.Role {
	case device.RoleDevice, device.RoleClaim, device.RoleCA:
		return device.Fail
	case device.RoleFile, device.RoleIDevID:
		if len(k.Chain) > 0 || k.Request != nil || k.CertificateError != "" {
			return device.Warn
		}
	}
	return device.Pass
}

// inTPM reports whether a key of that role lies in a TPM.
func inTPM(role device.Role) bool {
	switch role {
	case device.RoleEK, device.RoleAK, device.RoleSRK, device.RolePersistent, device.RoleIDevID:
		return true
	}
	return false
}

func runSize(_ context.Context, k device.Key, _ *Env) []device.Finding {
	algorithm, shown := k.Algorithm(), forAWS(k)
	if n, _, ok := k.RSA(); ok {
		switch {
		case n.Sign() <= 0:
			return give(modulusInvalid, "the modulus is not positive")
		case n.BitLen() < 2048 && shown == device.Fail:
			return give(rsaTooShort, "%s is too short: AWS IoT takes RSA keys of 2048 bits or more", algorithm)
		case n.BitLen() < 2048:
			f := give(rsaTooShort, "%s is too short: NIST SP 800-131A and TLS ask for 2048 bits or more", algorithm)
			f[0].Citation = "https://doi.org/10.6028/NIST.SP.800-131Ar2"
			return f
		case n.BitLen() > 8192 && shown != device.Pass: // crypto/tls: checkKeySize
			return give(rsaTooLong, "%s is longer than TLS stacks, Go's among them, take (8192 bits)", algorithm)
		}
		return passed("%s is long enough", algorithm)
	}
	_, other := k.Public.(*device.OtherKey)
	_, named := refused[algorithm]
	switch {
	case awsCurves[algorithm]:
		return passed("AWS IoT takes %s", algorithm)
	case !named && !other:
		return give(keyUnreadable, "no key that could be judged was found")
	case strings.HasPrefix(algorithm, "DSA"):
		return runDSA(algorithm, shown)
	case other && inTPM(k.Role) && !algorithmName(algorithm):
		return giveAs(device.Undecided, "", algorithmUnknown, "a key of the unknown algorithm %s cannot be judged", algorithm)
	case shown != device.Pass:
		return notTaken(algorithm, shown)
	case !named && !hasPoint(k):
		return give(algorithmUnknown, "keyvet has no tests for a key of the algorithm %s", algorithm)
	}
	return passed("%s is no key that AWS IoT has to take", algorithm)
}

// notTaken is about an algorithm that AWS IoT does not take.
func notTaken(algorithm string, status device.Status) []device.Finding {
	reason, named := refused[algorithm]
	if !named {
		reason = algorithmRefused
	}
	const takes = "ECDSA P-256, P-384 and P-521, and RSA of 2048 bits or more"
	if status == device.Fail {
		return give(reason, "AWS IoT does not take %s, but %s", algorithm, takes)
	}
	return giveAs(status, device.Low, reason, "AWS IoT would not take %s from a device, but %s", algorithm, takes)
}

// runDSA warns of DSA wherever it is: OpenSSL, OpenSSH and TLS 1.3 have given it up.
func runDSA(algorithm string, shown device.Status) []device.Finding {
	if shown == device.Fail {
		return give(dsa, "AWS IoT and TLS 1.3 do not take %s", algorithm)
	}
	return giveAs(device.Warn, device.Medium, dsa, "TLS 1.3 and OpenSSH have given %s up", algorithm)
}

// algorithmName reports whether an algorithm has a name: else it is an OID, or
// nothing at all, and what kind of key it is nobody can say.
func algorithmName(algorithm string) bool {
	return algorithm != "unknown" && strings.ContainsFunc(algorithm, unicode.IsLetter)
}
