package device

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io/fs"
	"math/big"
	"time"
)

// Role is what a key is for on this device.
type Role string

const (
	RoleEK         Role = "EK"         // endorsement key
	RoleAK         Role = "AK"         // attestation key
	RoleSRK        Role = "SRK"        // storage root key
	RoleIDevID     Role = "IDEVID"     // initial device identity, of the TPM's maker or the device's
	RolePersistent Role = "PERSISTENT" // any other key at a persistent handle
	RoleDevice     Role = "DEVICE"     // the key the device shows to AWS IoT
	RoleClaim      Role = "CLAIM"      // the fleet's provisioning claim
	RoleCA         Role = "CA"         // a certificate authority of a chain
	RoleSSH        Role = "SSH"        // "SSH_HOST" in reports of keyvet 0.1
	RoleAnchor     Role = "ANCHOR"     // firmware or image trusts it
	RoleFile       Role = "FILE"       // found in a file that was named
)

// Key is one public key that the device relies on.
type Key struct {
	ID     string // unique within an inventory: "tpm-ek-rsa2048", "device.pem#2"
	Role   Role
	Source string // "tpm:0x81010001", "file:/etc/ssl/device.pem"
	Object int    // in its file, counted from 1, those without a key among them; 0: not in a file
	Line   int    // of a text file where the key begins, counted from 1; 0: not known

	// Public is one of *rsa.PublicKey, *ecdsa.PublicKey (whose point need not
	// be on its curve), ed25519.PublicKey, *LargeRSA or *OtherKey.
	Public crypto.PublicKey

	// SPKI is the DER SubjectPublicKeyInfo (RFC 5280, section 4.1) as it was
	// found, or as it was built where the key came in another form; nil if
	// there is none for this algorithm.
	SPKI []byte

	// Chain is the certificate the key came in and those that follow it, leaf
	// first; nil if the key came without one. It is one path of perhaps several.
	Chain []*x509.Certificate

	// Beside are all the certificates that the key's was found with, in one file
	// or in the TPM: any path from it may go over them. nil means those of Chain.
	Beside []*x509.Certificate

	// CertificateError says why a certificate this key came in could not be
	// parsed; the key itself was found all the same.
	CertificateError string

	// Request is what came of checking the signature of the certificate request
	// (RFC 2986) the key came in, which is by the key itself; nil if it came in none.
	Request *Answer

	// Encoding says what of the encoding of the key or its certificate breaks
	// DER or RFC 5280, though both could be read; "" if nothing does.
	Encoding string

	// Private is where the private half lies, if that is known.
	Private *PrivateFile

	// SSH is what an OpenSSH certificate says of the key, if it came in one.
	SSH *SSHCertificate

	// TPM is what a TPM says of the key, if the private half is in one.
	TPM *TPMObject
}

// TPMObject is what a TPM 2.0 says of a key in it besides the public half.
type TPMObject struct {
	// Name is the algorithm of a hash (2 bytes, big-endian) and the hash by it
	// of the key's public area (TPM 2.0 Library, Part 1, section 16).
	Name       []byte
	Attributes uint32 // TPMA_OBJECT (TPM 2.0 Library, Part 2, section 8.3)
}

// MadeInTPM reports whether the TPM itself made the key and never lets it out
// (fixedTPM and sensitiveDataOrigin). Without a TPM it did not.
func (o *TPMObject) MadeInTPM() bool {
	const fixedTPM, sensitiveDataOrigin = 1 << 1, 1 << 5
	return o != nil && o.Attributes&fixedTPM != 0 && o.Attributes&sensitiveDataOrigin != 0
}

// PrivateFile is a file, or a TPM, that holds a private key.
type PrivateFile struct {
	Path string      // "tpm:0x81000100" for a key in the TPM
	Mode fs.FileMode // that of a device for a key in the TPM
	SPKI []byte      // DER, of the public key that belongs to the private one; other than [Key.SPKI] if they do not match

	// SHA256 is the lower-case hex SHA-256 of the file as it is given to
	// programs that use the key; "" if there is no file.
	SHA256 string
	// Place is where the file lies; nil if that is not known.
	Place *Place
	// Proof is what came of having a TPM sign with the key; nil for a key that
	// no TPM has to be asked for.
	Proof *Proof
	// Wrapped says that the file holds the key under a key of a TPM's.
	Wrapped bool

	// Numbers is whether the numbers of the private key fit each other and the
	// public key that the file states.
	Numbers Answer
	// Partner is whether the private key is that of a certificate, request or
	// public key that stands beside it; NotApplicable if there is none.
	Partner Answer
}

// Answer is what came of a question that only the reader of a file could ask,
// since what it is about goes no further. The zero value has not been asked.
type Answer struct {
	Status Status
	Why    string // for people; never a private number
}

// Place is where a file lies: who owns it, and who can get there.
type Place struct {
	Owner int   // number of a user
	Dirs  []Dir // the directories that lead to it, the nearest first, up to the root
}

// Dir is a directory above a file.
type Dir struct {
	Path  string
	Owner int // number of a user
	Mode  fs.FileMode
}

// Proof is whether a private key that only a TPM can use was seen to sign.
type Proof struct {
	Signed bool
	Gone   bool   // this TPM does not have it, and never will
	Why    string // it has not signed
}

// InTPM reports whether the key can be used in its TPM alone.
func (p *PrivateFile) InTPM() bool { return p != nil && (p.Wrapped || p.Mode&fs.ModeDevice != 0) }

// LargeRSA is an RSA key whose exponent does not fit in 31 bits, which
// crypto/rsa cannot represent.
type LargeRSA struct{ N, E *big.Int }

// OtherKey is a key of an algorithm that is named but not understood.
type OtherKey struct {
	Algorithm string // as in the report: "DSA-1024", "ECDSA-secp256k1", an OID
}

// RSA returns modulus and exponent of an RSA key of either representation.
func (k Key) RSA() (n, e *big.Int, ok bool) {
	switch p := k.Public.(type) {
	case *rsa.PublicKey:
		return p.N, big.NewInt(int64(p.E)), p.N != nil
	case *LargeRSA:
		return p.N, p.E, p.N != nil && p.E != nil
	}
	return nil, nil, false
}

// Algorithm names algorithm and size as reports do: "RSA-2048", "ECDSA-P256", "Ed25519".
func (k Key) Algorithm() string {
	if n, _, ok := k.RSA(); ok {
		return fmt.Sprintf("RSA-%d", n.BitLen())
	}
	switch p := k.Public.(type) {
	case *ecdsa.PublicKey:
		if p.Curve == nil {
			return "ECDSA"
		}
		name := p.Curve.Params().Name // "P-256"
		if len(name) > 2 && name[:2] == "P-" {
			name = "P" + name[2:]
		}
		return "ECDSA-" + name
	case ed25519.PublicKey:
		return "Ed25519"
	case *OtherKey:
		return p.Algorithm
	}
	return "unknown"
}

// Leaf is the key's own certificate, or nil.
func (k Key) Leaf() *x509.Certificate {
	if len(k.Chain) == 0 {
		return nil
	}
	return k.Chain[0]
}

// CertificateID returns what AWS IoT calls a certificate: the lower-case hex
// SHA-256 of its DER.
func CertificateID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// SPKISHA256 is the lower-case hex SHA-256 of SPKI, or "" without one.
func (k Key) SPKISHA256() string {
	if len(k.SPKI) == 0 {
		return ""
	}
	sum := sha256.Sum256(k.SPKI)
	return hex.EncodeToString(sum[:])
}

// Gap is something that was asked for and not received: never a silent zero.
type Gap struct {
	What string `json:"what"`
	Why  string `json:"why"`
	// Minor marks a gap that leaves the verdict as it is, such as an
	// endorsement key of a curve that this TPM does not have.
	Minor bool `json:"minor,omitempty"`
}

// TPMState is how a TPM was found.
type TPMState string

const (
	TPMOK            TPMState = "ok"
	TPMDegraded      TPMState = "degraded"       // in failure mode: what it says of itself cannot be trusted
	TPMAbsent        TPMState = "absent"         // no such device, or nothing answers
	TPMDenied        TPMState = "denied"         // this user may not open it
	TPMBusy          TPMState = "busy"           // another program has it
	TPMNotStarted    TPMState = "not-started"    // no TPM2_Startup since it was reset
	TPMWrongLocality TPMState = "wrong-locality" // it does not serve the locality of this program
	TPMUpdating      TPMState = "updating"       // in firmware upgrade mode
)

// TPM is what a TPM says of itself.
type TPM struct {
	Family          string `json:"family,omitempty"`          // "2.0", "1.2"
	Manufacturer    string `json:"manufacturer,omitempty"`    // TPM_PT_MANUFACTURER, trimmed: "IFX", "STM"
	VendorString    string `json:"vendorString,omitempty"`    // TPM_PT_VENDOR_STRING_1 to 4, trimmed
	FirmwareVersion string `json:"firmwareVersion,omitempty"` // decoded by the vendor's rule: "7.85.4555.0"
	SpecRevision    string `json:"specRevision,omitempty"`    // "1.38"
	// PlatformCertificate is the lower-case hex SHA-256 of the first platform
	// certificate in the TPM's NV. It is told, not verified: it holds no key.
	PlatformCertificate string   `json:"platformCertificate,omitempty"`
	State               TPMState `json:"state"`
	// Problem says why a TPM is not TPMOK, in the words of what went wrong.
	Problem string `json:"-"`
	// NamingKey is the id of the endorsement key that the TPM is known by, whether
	// it could be read or not; "" if the TPM could not be asked. It is always the
	// same one: RSA-2048 where the TPM lists RSA, else P-256.
	NamingKey string `json:"-"`
	// Clearing is who may clear the TPM, which ends every key in it.
	Clearing TPMClearing `json:"-"`
	// Lockout is how close the TPM is to its dictionary-attack lockout; nil while
	// no failure counts.
	Lockout *TPMLockout `json:"lockout,omitempty"`
}

// TPMLockout is what a TPM 2.0 states of wrong passwords for keys that count them
// (TPM 2.0 Library, Part 1, "Dictionary Attack Protection").
type TPMLockout struct {
	Failures uint32 `json:"failures"` // that count now
	Limit    uint32 `json:"limit"`    // at which the TPM refuses all such keys
	Locked   bool   `json:"locked"`   // it does
	Recovery uint32 `json:"recovery"` // seconds until one failure is forgiven, while the TPM is powered; 0: none is
}

// String says it in a sentence.
func (l TPMLockout) String() string {
	forgives := "none is forgiven"
	if l.Recovery > 0 {
		forgives = fmt.Sprintf("one is forgiven after %v", time.Duration(l.Recovery)*time.Second)
	}
	text := fmt.Sprintf("%d of %d wrong passwords count towards the TPM's lockout; %s", l.Failures, l.Limit, forgives)
	if l.Locked {
		text = fmt.Sprintf("in lockout: keys with a password are refused; %d wrong passwords count, the limit is %d, and %s", l.Failures, l.Limit, forgives)
	}
	return text + ", and the lockout password clears them all (`tpm2_dictionarylockout -c`)"
}

// TPMClearing is who may clear a TPM 2.0 from the running system (TPM2_Clear,
// TPM 2.0 Library, Part 3, section 24.6).
type TPMClearing string

const (
	ClearingUnknown TPMClearing = ""
	ClearingOpen    TPMClearing = "open"    // whoever can send it a command: lockoutAuth is empty
	ClearingGuarded TPMClearing = "guarded" // who has the lockout password, or nobody
)

// Inventory is all that was found to be vetted.
type Inventory struct {
	TPM    *TPM // nil: this device is not meant to have one, or none was asked for
	Keys   []Key
	Gaps   []Gap
	ReadAt time.Time
}
