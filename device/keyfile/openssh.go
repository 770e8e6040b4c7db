package keyfile

import (
	"errors"
	"fmt"
	"math/big"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/keyvet/keyvet/device/curve"
)

// opensshMagic begins OpenSSH's own private keys (OpenSSH, PROTOCOL.key).
const opensshMagic = "openssh-key-v1\x00"

// readString reads a string (RFC 4251, section 5).
func readString(s *cryptobyte.String, out *cryptobyte.String) bool {
	var n uint32
	if !s.ReadUint32(&n) || uint64(n) > uint64(len(*s)) {
		return false
	}
	return s.ReadBytes((*[]byte)(out), int(n))
}

// sshKinds are the types of public keys of OpenSSH (RFC 4253, section 6.6;
// RFC 5656; RFC 8709; OpenSSH, PROTOCOL.u2f), without "@openssh.com" and
// without what a certificate adds.
var sshKinds = map[string]func(blob *cryptobyte.String) (object, error){
	"ssh-rsa":                         sshRSA,
	"ssh-ed25519":                     sshEd25519,
	"ssh-dss":                         sshDSA,
	"ecdsa-sha2-nistp256":             sshEC,
	"ecdsa-sha2-nistp384":             sshEC,
	"ecdsa-sha2-nistp521":             sshEC,
	"sk-ssh-ed25519":                  securityKey(sshEd25519),
	"sk-ecdsa-sha2-nistp256":          securityKey(sshEC),
	"webauthn-sk-ecdsa-sha2-nistp256": securityKey(sshEC),
	"webauthn-sk-ssh-ed25519":         securityKey(sshEd25519),
}

const certificateSuffix = "-cert-v01"

var errSSH = errors.New("truncated or damaged OpenSSH key")

// parseSSH reads a public key blob, or that of a certificate (OpenSSH,
// PROTOCOL.certkeys). want is the type named beside it, "" if there is none.
func parseSSH(blob cryptobyte.String, want string) (object, error) {
	signed := blob
	var name cryptobyte.String
	if !readString(&blob, &name) {
		return object{}, errSSH
	}
	if want != "" && string(name) != want {
		return object{}, fmt.Errorf("damaged OpenSSH key: called %s, holds %q", want, oneLine(string(name)))
	}
	kind, isCertificate := strings.CutSuffix(strings.TrimSuffix(string(name), "@openssh.com"), certificateSuffix)
	var nonce cryptobyte.String
	if isCertificate && !readString(&blob, &nonce) {
		return object{}, errSSH
	}
	read, known := sshKinds[kind]
	switch {
	case !isSSHType(string(name)):
		return object{}, errSSH
	case !known && isCertificate:
		return object{}, fmt.Errorf("an OpenSSH certificate of the unknown type %s", name)
	case !known:
		return otherKey("%s", name), nil
	}
	o, err := read(&blob)
	if err != nil {
		return object{}, err
	}
	if isCertificate {
		o.ssh, err = parseSSHCertificate(signed, blob)
		return o, err
	}
	if !blob.Empty() {
		return object{}, fmt.Errorf("damaged OpenSSH key: %d bytes after its end", len(blob))
	}
	return o, nil
}

// securityKey reads a key of FIDO: behind the key stands what it was made for,
// mostly "ssh:".
func securityKey(read func(*cryptobyte.String) (object, error)) func(*cryptobyte.String) (object, error) {
	return func(blob *cryptobyte.String) (object, error) {
		o, err := read(blob)
		var application cryptobyte.String
		if err == nil && !readString(blob, &application) {
			err = errSSH
		}
		o.application = string(application)
		return o, err
	}
}

func sshEd25519(blob *cryptobyte.String) (object, error) {
	var key cryptobyte.String
	if !readString(blob, &key) {
		return object{}, errSSH
	}
	a, err := bareAlgorithm(oidEd25519)
	if err != nil {
		return object{}, err
	}
	return buildSPKI(a, key)
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
func sshDSA(blob *cryptobyte.String) (object, error) {
	k, err := sshDSANumbers(blob)
	if err != nil {
		return object{}, err
	}
	return k.object()
}

func sshDSANumbers(blob *cryptobyte.String) (k dsaNumbers, err error) {
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

func sshEC(blob *cryptobyte.String) (object, error) {
	var name, point cryptobyte.String
	if !readString(blob, &name) || !readString(blob, &point) {
		return object{}, errors.New("truncated or damaged OpenSSH ECDSA key")
	}
	c, known := curve.Named("P-" + strings.TrimPrefix(string(name), "nistp"))
	if !known {
		return object{}, fmt.Errorf("damaged OpenSSH ECDSA key: of the unknown curve %q", oneLine(string(name)))
	}
	a, err := ecAlgorithm(c.OID)
	if err != nil {
		return object{}, err
	}
	return buildSPKI(a, point)
}
