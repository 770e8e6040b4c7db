package keyfile

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device"
)

// opensshMagic begins OpenSSH's own private keys (OpenSSH, PROTOCOL.key).
const opensshMagic = "openssh-key-v1\x00"

// parseAuthorizedKey reads one line as of authorized_keys (sshd(8)), an
// OpenSSH public key file, or known_hosts: up to two fields (options; marker
// and host names), then type, base64 and comment. isKey is false for any other
// line.
func parseAuthorizedKey(line string) (o object, isKey bool, err error) {
	for range 3 {
		var first string
		first, line = cutField(line)
		if isSSHType(first) {
			encoded, _ := cutField(line)
			o, err = parseSSHLine(first, encoded)
			return o, true, err
		}
	}
	return object{}, false, nil
}

// isSSHType reports whether s may be the name of a key type, and nothing that
// must not be shown.
func isSSHType(s string) bool {
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.@") != "" {
		return false
	}
	for _, prefix := range []string{"ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"} {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// cutField cuts the first field off a line; white space in double quotes does
// not end it.
func cutField(line string) (field, rest string) {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return line[:i], strings.TrimLeft(line[i:], " \t")
		}
	}
	return line, ""
}

func parseSSHLine(name, encoded string) (object, error) {
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(blob) == 0 {
		return object{}, fmt.Errorf("truncated or damaged OpenSSH key: %s without proper base64", name)
	}
	return parseSSH(blob, name)
}

// readString reads a string (RFC 4251, section 5).
func readString(s *cryptobyte.String, out *cryptobyte.String) bool {
	var n uint32
	if !s.ReadUint32(&n) || uint64(n) > uint64(len(*s)) {
		return false
	}
	return s.ReadBytes((*[]byte)(out), int(n))
}

// parseSSH reads a public key blob (RFC 4253, section 6.6; RFC 5656; RFC 8709;
// OpenSSH, PROTOCOL.u2f and PROTOCOL.certkeys). want is the type named beside
// it, "" if there is none.
func parseSSH(blob cryptobyte.String, want string) (object, error) {
	damaged := errors.New("truncated or damaged OpenSSH key")
	var name cryptobyte.String
	if !readString(&blob, &name) {
		return object{}, damaged
	}
	if want != "" && string(name) != want {
		return object{}, fmt.Errorf("damaged OpenSSH key: called %s, holds %q", want, oneLine(string(name)))
	}
	kind, isCertificate := strings.CutSuffix(string(name), "-cert-v01@openssh.com")
	if isCertificate {
		var nonce cryptobyte.String
		if !readString(&blob, &nonce) {
			return object{}, damaged
		}
	}
	kind = strings.TrimSuffix(kind, "@openssh.com")
	securityKey := strings.HasPrefix(kind, "sk-")
	kind = strings.TrimPrefix(kind, "sk-")

	var o object
	var err error
	switch {
	case kind == "ssh-rsa":
		o, err = sshRSA(&blob)
	case kind == "ssh-ed25519":
		var key cryptobyte.String
		if !readString(&blob, &key) {
			return object{}, damaged
		}
		a, algErr := ed25519Algorithm()
		if algErr != nil {
			return object{}, algErr
		}
		o, err = buildSPKI(a, key)
	case strings.HasPrefix(kind, "ecdsa-sha2-"):
		o, err = sshEC(&blob, strings.TrimPrefix(kind, "ecdsa-sha2-"))
	case kind == "ssh-dss":
		k, dsaErr := sshDSA(&blob)
		if dsaErr != nil {
			return object{}, dsaErr
		}
		return k.object()
	default:
		if !isSSHType(string(name)) {
			return object{}, damaged
		}
		return object{public: &device.OtherKey{Algorithm: string(name)}}, nil
	}
	if err != nil {
		return object{}, err
	}
	if !blob.Empty() && !isCertificate && !securityKey {
		return object{}, fmt.Errorf("damaged OpenSSH key: %d bytes after its end", len(blob))
	}
	return o, nil
}

func sshRSA(blob *cryptobyte.String) (object, error) {
	var e, n cryptobyte.String
	if !readString(blob, &e) || !readString(blob, &n) {
		return object{}, errors.New("truncated or damaged OpenSSH RSA key")
	}
	exponent, err := signedInteger(e)
	if err != nil {
		return object{}, err
	}
	modulus, err := signedInteger(n)
	if err != nil {
		return object{}, err
	}
	return rsaObject(modulus, exponent)
}

// rsaObject is the object of a bare modulus and exponent.
func rsaObject(n, e *big.Int) (object, error) {
	a, err := rsaAlgorithm()
	if err != nil {
		return object{}, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(n)
		b.AddASN1BigInt(e)
	})
	key, err := b.Bytes()
	if err != nil {
		return object{}, err
	}
	return buildSPKI(a, key)
}

// sshDSA reads p, q, g and y.
func sshDSA(blob *cryptobyte.String) (k dsaNumbers, err error) {
	for _, n := range []**big.Int{&k.p, &k.q, &k.g, &k.y} {
		var b cryptobyte.String
		ok := readString(blob, &b)
		if ok {
			*n, ok = unsigned(b)
		}
		if !ok {
			return k, errors.New("truncated or damaged OpenSSH DSA key")
		}
	}
	return k, nil
}

func sshEC(blob *cryptobyte.String, want string) (object, error) {
	var name, point cryptobyte.String
	if !readString(blob, &name) || !readString(blob, &point) || string(name) != want {
		return object{}, errors.New("truncated or damaged OpenSSH ECDSA key")
	}
	c, known := curveNamed("P-" + strings.TrimPrefix(string(name), "nistp"))
	if !known {
		return object{public: &device.OtherKey{Algorithm: "ECDSA-" + oneLine(string(name))}}, nil
	}
	a, err := ecAlgorithm(c.oid)
	if err != nil {
		return object{}, err
	}
	return buildSPKI(a, point)
}
