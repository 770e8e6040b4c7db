package check

import (
	"cmp"
	"crypto"
	dss "crypto/dsa"
	"crypto/ecdsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
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
	names := "no principal"
	if len(c.Principals) > 0 {
		names = strings.Join(c.Principals, ", ")
	}
	return "OpenSSH " + c.Kind + " certificate " + c.KeyID + " for " + names
}

// sshSignature is what check chain finds of an OpenSSH certificate. Whether its
// CA is to be trusted is a question of the one who reads it.
func sshSignature(c *device.SSHCertificate) []device.Finding {
	switch v, why := verifySSH(c); {
	case v == unknown:
		return give(signatureUnknown, "the signature of the OpenSSH certificate %s cannot be checked: %s", c.KeyID, why)
	case v == forged:
		return give(signatureInvalid, "the signature of the OpenSSH certificate %s does not verify with the key of its CA", c.KeyID)
	case c.SignatureFormat == "ssh-rsa" || c.SignatureFormat == "ssh-dss":
		return give(signedSHA1, "the OpenSSH certificate %s is signed with SHA-1 (%s), which can be forged", c.KeyID, c.SignatureFormat)
	}
	return passed("%s, signed by its CA with %s", describeSSH(c), c.SignatureFormat)
}

// sshSchemes are the formats of signatures (RFC 4253, section 6.6; RFC 5656;
// RFC 8332; RFC 8709; OpenSSH, PROTOCOL.u2f).
var sshSchemes = map[string]struct {
	scheme
	securityKey bool
}{
	"ssh-rsa":                            {scheme: scheme{by: "RSA", hash: crypto.SHA1}},
	"rsa-sha2-256":                       {scheme: scheme{by: "RSA", hash: crypto.SHA256}},
	"rsa-sha2-512":                       {scheme: scheme{by: "RSA", hash: crypto.SHA512}},
	"ecdsa-sha2-nistp256":                {scheme: scheme{by: "ECDSA", hash: crypto.SHA256}},
	"ecdsa-sha2-nistp384":                {scheme: scheme{by: "ECDSA", hash: crypto.SHA384}},
	"ecdsa-sha2-nistp521":                {scheme: scheme{by: "ECDSA", hash: crypto.SHA512}},
	"ssh-ed25519":                        {scheme: scheme{by: "Ed25519"}},
	"sk-ecdsa-sha2-nistp256@openssh.com": {scheme{by: "ECDSA", hash: crypto.SHA256}, true},
	"sk-ssh-ed25519@openssh.com":         {scheme{by: "Ed25519"}, true},
}

// verifySSH checks the signature by the key of the CA.
func verifySSH(c *device.SSHCertificate) (v verdict, why string) {
	if other, ok := c.CA.(*device.OtherKey); ok && strings.HasPrefix(other.Algorithm, "DSA") && c.SignatureFormat == "ssh-dss" {
		return verifySSHDSA(c)
	}
	s, known := sshSchemes[c.SignatureFormat]
	signed, signature := c.Signed, c.Signature
	switch {
	case !known:
		return unknown, "keyvet has no test for " + c.SignatureFormat
	case s.securityKey != (c.CAApplication != ""), s.securityKey != (len(c.SignatureRest) == 5):
		return forged, "" // a key signs in the form of its own type
	case s.securityKey: // over the hash of its application, flags and counter, and the hash of the message
		application, message := sha256.Sum256([]byte(c.CAApplication)), sha256.Sum256(signed)
		signed = slices.Concat(application[:], c.SignatureRest, message[:])
	}
	switch s.by {
	case "RSA": // OpenSSH takes one without its leading zeros
		if n, _, ok := (device.Key{Public: c.CA}).RSA(); ok {
			if missing := (n.BitLen()+7)/8 - len(signature); missing > 0 {
				signature = append(make([]byte, missing), signature...)
			}
		}
	case "ECDSA": // r and s, RFC 5656, section 3.1.2
		r, rest, okR := sshString(signature)
		value, rest, okS := sshString(rest)
		key, isEC := c.CA.(*ecdsa.PublicKey)
		if !okR || !okS || len(rest) > 0 || !isEC || !strings.HasSuffix(strings.TrimSuffix(c.SignatureFormat, "@openssh.com"), fmt.Sprint("p", key.Curve.Params().BitSize)) {
			return forged, ""
		}
		var err error
		if signature, err = asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(value)}); err != nil {
			return forged, ""
		}
	}
	return s.verify(c.CA, signed, signature)
}

// verifySSHDSA verifies by a key of the type ssh-dss (RFC 4253, section 6.6).
func verifySSHDSA(c *device.SSHCertificate) (v verdict, why string) {
	var key dss.PublicKey // what old CAs sign with
	_, rest, ok := sshString(c.CABlob)
	for _, n := range []**big.Int{&key.P, &key.Q, &key.G, &key.Y} {
		var b []byte
		if b, rest, ok = sshString(rest); !ok {
			return unknown, "the DSA key of the CA is damaged"
		}
		*n = new(big.Int).SetBytes(b)
	}
	if len(c.Signature) != 40 || key.P.BitLen() > 4096 || key.Q.BitLen() != 160 || len(c.SignatureRest) > 0 {
		return forged, ""
	}
	digest := sha1.Sum(c.Signed)
	if dss.Verify(&key, digest[:], new(big.Int).SetBytes(c.Signature[:20]), new(big.Int).SetBytes(c.Signature[20:])) {
		return verified, ""
	}
	return forged, ""
}

// sshString cuts a string off (RFC 4251, section 5).
func sshString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, false
	}
	n := 4 + int(binary.BigEndian.Uint32(b))
	return b[4:n], b[n:], true
}
