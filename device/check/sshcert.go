package check

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
	"github.com/keyvet/keyvet/device/signature"
)

// sshValidity is what check expiry finds of an OpenSSH certificate (OpenSSH,
// PROTOCOL.certkeys: valid from ValidAfter up to, and not at, ValidBefore).
func sshValidity(c *device.SSHCertificate, env *Env) []device.Finding {
	const layout = time.RFC3339
	warning := cmp.Or(env.ExpiryWarning, 720*time.Hour)
	from, to := c.ValidAfter.Format(layout), c.ValidBefore.Format(layout)
	switch {
	case env.Now.Before(c.ValidAfter):
		return give(notYetValid, "the OpenSSH certificate is valid from %s on, and the clock says %s", from, env.Now.UTC().Format(layout))
	case c.ValidBefore.IsZero():
		return passed("%s, valid for ever", describeSSH(c))
	case !env.Now.Before(c.ValidBefore):
		return give(expired, "the OpenSSH certificate expired on %s", to)
	case env.Now.Add(min(warning, c.ValidBefore.Sub(c.ValidAfter)/10)).After(c.ValidBefore):
		return give(expiring, "the OpenSSH certificate expires on %s", to)
	}
	return passed("%s, valid until %s", describeSSH(c), to)
}

// describeSSH says of whom a certificate is.
func describeSSH(c *device.SSHCertificate) string {
	names := "no named principal, which OpenSSH before 10.3 takes for any"
	if len(c.Principals) > 0 {
		names = strings.Join(c.Principals, ", ")
	}
	return "OpenSSH " + c.Kind + " certificate " + c.KeyID + " for " + names
}

// sshSignature is what check chain finds of an OpenSSH certificate. Whether its
// CA is to be trusted is a question of the one who reads it.
func sshSignature(c *device.SSHCertificate) []device.Finding {
	scheme := signature.Named(c.SignatureFormat)
	switch r := verifySSH(scheme, c); {
	case r.Outcome == signature.Unknown:
		return give(signatureUnknown, "the signature of the OpenSSH certificate %s cannot be checked: %s", c.KeyID, r.Why)
	case r.Outcome == signature.Bad:
		return give(signatureInvalid, "the signature of the OpenSSH certificate %s does not verify with the key of its CA", c.KeyID)
	case scheme.Weak != "":
		return give(signedSHA1, "the OpenSSH certificate %s is signed with SHA-1 (%s), which can be forged", c.KeyID, c.SignatureFormat)
	}
	return passed("%s, signed by its CA with %s", describeSSH(c), c.SignatureFormat)
}

// verifySSH checks the signature by the key of the CA, which has the form of its
// format (RFC 4253, section 6.6; RFC 5656, section 3.1.2; OpenSSH, PROTOCOL.u2f).
func verifySSH(scheme signature.Scheme, c *device.SSHCertificate) signature.Result {
	signed, blob := c.Signed, c.Signature
	format, securityKey := strings.CutPrefix(strings.TrimSuffix(c.SignatureFormat, "@openssh.com"), "sk-")
	forged := signature.Result{Outcome: signature.Bad}
	switch {
	case securityKey != (c.CAApplication != ""), securityKey != (len(c.SignatureRest) == 5):
		return forged // a key signs in the form of its own type
	case securityKey: // over the hash of its application, flags and counter, and the hash of the message
		application, message := sha256.Sum256([]byte(c.CAApplication)), sha256.Sum256(signed)
		signed = slices.Concat(application[:], c.SignatureRest, message[:])
	}
	key := device.Key{Public: c.CA, SPKI: c.CASPKI}
	switch {
	case format == "ssh-dss" && len(blob) == 40:
		blob = signature.Pair(new(big.Int).SetBytes(blob[:20]), new(big.Int).SetBytes(blob[20:]))
	case strings.HasPrefix(format, "ecdsa-sha2-nistp"):
		r, rest, okR := sshString(blob)
		s, rest, okS := sshString(rest)
		if !okR || !okS || len(rest) > 0 || !strings.HasSuffix(format, strings.TrimPrefix(key.Algorithm(), "ECDSA-P")) {
			return forged
		}
		blob = signature.Pair(new(big.Int).SetBytes(r), new(big.Int).SetBytes(s))
	default: // OpenSSH takes one of RSA without its leading zeros
		if n, _, ok := key.RSA(); ok {
			if missing := (n.BitLen()+7)/8 - len(blob); missing > 0 {
				blob = append(make([]byte, missing), blob...)
			}
		}
	}
	return scheme.Verify(key, signed, blob)
}

// sshString cuts a string off (RFC 4251, section 5).
func sshString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, false
	}
	n := 4 + int(binary.BigEndian.Uint32(b))
	return b[4:n], b[n:], true
}
