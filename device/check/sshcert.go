package check

import (
	"bytes"
	"crypto"
	dss "crypto/dsa"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"math/big"
	"strings"
	"time"

	"github.com/keyvet/keyvet/device"
)

// sshValidity is what check expiry finds of an OpenSSH certificate (OpenSSH,
// PROTOCOL.certkeys: valid from ValidAfter up to, and not at, ValidBefore).
func sshValidity(c *device.SSHCertificate, env *Env, warning time.Duration) []device.Finding {
	const layout = time.RFC3339
	from, to := c.ValidAfter.Format(layout), c.ValidBefore.Format(layout)
	switch {
	case env.Now.Before(c.ValidAfter):
		return giveAs(device.Undecided, "", notYetValid, "the OpenSSH certificate is valid from %s on; the clock says %s", from, env.Now.UTC().Format(layout))
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
	switch good, err := verifySSH(c); {
	case err != nil:
		return give(signatureUnknown, "the signature of the OpenSSH certificate cannot be checked: %v", err)
	case !good:
		return give(signatureInvalid, "the signature of the OpenSSH certificate %s does not verify with the key of its CA", c.KeyID)
	case c.SignatureFormat == "ssh-rsa" || c.SignatureFormat == "ssh-dss":
		return give(signedSHA1, "the OpenSSH certificate %s is signed with SHA-1 (%s), which can be forged", c.KeyID, c.SignatureFormat)
	}
	return passed("%s, signed by its CA with %s", describeSSH(c), c.SignatureFormat)
}

// verifySSH reports whether the signature is by the CA's key. An error means
// that it could not be told.
func verifySSH(c *device.SSHCertificate) (good bool, err error) {
	format, isSK := strings.CutPrefix(c.SignatureFormat, "sk-")
	signed := c.Signed
	switch {
	case strings.HasPrefix(format, "webauthn-"):
		return false, errors.New("keyvet has no test for " + c.SignatureFormat)
	case isSK:
		var ok bool
		if signed, ok = securityKeySigned(c); !ok {
			return false, nil
		}
		format = strings.TrimSuffix(format, "@openssh.com")
	case len(c.SignatureRest) > 0:
		return false, nil
	}
	if isSK != (c.CAApplication != "") { // a key's signature is of its own type
		return false, nil
	}
	switch ca := c.CA.(type) {
	case *rsa.PublicKey:
		return verifySSHRSA(ca, format, signed, c.Signature)
	case ed25519.PublicKey:
		return format == "ssh-ed25519" && ed25519.Verify(ca, signed, c.Signature), nil
	case *ecdsa.PublicKey:
		return verifySSHEC(ca, format, signed, c.Signature), nil
	case *device.OtherKey:
		if strings.HasPrefix(ca.Algorithm, "DSA") && format == "ssh-dss" {
			return verifySSHDSA(c.CABlob, signed, c.Signature)
		}
	}
	return false, errors.New("keyvet has no test for " + c.SignatureFormat)
}

// securityKeySigned is what a security key signs: the hash of its application,
// flags and counter, and the hash of the message (OpenSSH, PROTOCOL.u2f, SSH U2F
// signatures).
func securityKeySigned(c *device.SSHCertificate) (signed []byte, ok bool) {
	if len(c.SignatureRest) != 5 {
		return nil, false
	}
	application, message := sha256.Sum256([]byte(c.CAApplication)), sha256.Sum256(c.Signed)
	return bytes.Join([][]byte{application[:], c.SignatureRest, message[:]}, nil), true
}

// digestInfo begins what PKCS#1 v1.5 signs (RFC 8017, section 9.2, note 1).
var digestInfo = map[string]struct {
	prefix string
	hash   func([]byte) []byte
}{
	"ssh-rsa":      {"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14", func(b []byte) []byte { h := sha1.Sum(b); return h[:] }},
	"rsa-sha2-256": {"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20", func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }},
	"rsa-sha2-512": {"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40", func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }},
}

// verifySSHRSA does by hand what crypto/rsa refuses to do with short keys: a
// short key fails for its size, not for its signature.
func verifySSHRSA(key *rsa.PublicKey, format string, signed, signature []byte) (bool, error) {
	info, known := digestInfo[format]
	if !known {
		return false, nil
	}
	size := (key.N.BitLen() + 7) / 8
	s := new(big.Int).SetBytes(signature)
	if key.E < 1 || len(signature) > size || s.Cmp(key.N) >= 0 { // OpenSSH leaves out leading zeros
		return false, nil
	}
	ending := append([]byte(info.prefix), info.hash(signed)...)
	padding := size - len(ending) - 3
	if padding < 8 {
		return false, nil
	}
	want := bytes.Join([][]byte{{0, 1}, bytes.Repeat([]byte{0xff}, padding), {0}, ending}, nil)
	s.Exp(s, big.NewInt(int64(key.E)), key.N)
	return bytes.Equal(s.FillBytes(make([]byte, size)), want), nil
}

// verifySSHEC reads r and s (RFC 5656, section 3.1.2); the hash goes by the curve
// (section 6.2.1).
func verifySSHEC(key *ecdsa.PublicKey, format string, signed, signature []byte) bool {
	var digest []byte
	bits := key.Curve.Params().BitSize
	switch bits {
	case 256:
		digest = hashOf(crypto.SHA256, signed)
	case 384:
		digest = hashOf(crypto.SHA384, signed)
	case 521:
		digest = hashOf(crypto.SHA512, signed)
	}
	r, rest, okR := sshString(signature)
	s, rest, okS := sshString(rest)
	if format != "ecdsa-sha2-nistp"+big.NewInt(int64(bits)).String() || !okR || !okS || len(rest) > 0 {
		return false
	}
	//lint:ignore SA1019 OpenSSH's form has r and s apart
	return ecdsa.Verify(key, digest, new(big.Int).SetBytes(r), new(big.Int).SetBytes(s))
}

func hashOf(h crypto.Hash, b []byte) []byte {
	w := h.New()
	w.Write(b)
	return w.Sum(nil)
}

// verifySSHDSA verifies by a key of the type ssh-dss (RFC 4253, section 6.6).
func verifySSHDSA(blob, signed, signature []byte) (bool, error) {
	var key dss.PublicKey          // what old CAs sign with
	_, rest, ok := sshString(blob) // the type
	for _, n := range []**big.Int{&key.P, &key.Q, &key.G, &key.Y} {
		var b []byte
		if b, rest, ok = sshString(rest); !ok {
			return false, errors.New("the DSA key of the CA is damaged")
		}
		*n = new(big.Int).SetBytes(b)
	}
	if len(signature) != 40 || key.P.BitLen() > 4096 || key.Q.BitLen() != 160 {
		return false, nil
	}
	digest := sha1.Sum(signed)
	return dss.Verify(&key, digest[:], new(big.Int).SetBytes(signature[:20]), new(big.Int).SetBytes(signature[20:])), nil
}

// sshString cuts a string off (RFC 4251, section 5).
func sshString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, nil, false
	}
	n := 4 + int(binary.BigEndian.Uint32(b))
	return b[4:n], b[n:], true
}
