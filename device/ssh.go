package device

import (
	"crypto"
	"time"
)

// SSHCertificate is what an OpenSSH certificate says (OpenSSH,
// PROTOCOL.certkeys). Nothing of it is verified.
type SSHCertificate struct {
	Kind        string // "user" or "host"
	Serial      uint64
	KeyID       string
	Principals  []string // users, or host names; none: as the reader of the certificate takes it
	ValidAfter  time.Time
	ValidBefore time.Time // zero: for ever

	// The key of the CA: one of the types of [Key.Public] with its
	// SubjectPublicKeyInfo, what a security key was made for, and the bytes as they
	// stand in the certificate.
	CA            crypto.PublicKey
	CASPKI        []byte
	CAApplication string
	CABlob        []byte

	// The signature over Signed, and what stands behind it (flags and counter of a
	// security key).
	Signed          []byte
	SignatureFormat string // "rsa-sha2-512"
	Signature       []byte
	SignatureRest   []byte
}
